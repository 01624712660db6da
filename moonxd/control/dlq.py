"""Dead letters: what failed for good, whether the queue still holds it or only the ledger does."""

from __future__ import annotations

from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from ..api.messages import DeadPage, JobDetail, PurgeRequest, PurgeResult
from ..domain.job import JobState
from ..domain.ledger import DeadLetter, LetterFilter, Page
from .dead import BATCH, DeadJobs, check_names_some, wanted_by
from .deps import Deps
from .errors import answer, invalid, not_found
from .request import integer, read_body, seconds
from .requeue import batches
from .views import job_detail, letter_detail

_LONGEST_AGE_S = 315_360_000.0


class DeadLetterOffice:
    """The handlers of /dlq."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def page(self, request: Request) -> Response:
        limit = integer(request, "limit", 50, low=1, high=1000)
        wanted, after = self._wanted(request), _page(request.query_params.get("after"))
        in_set = [job_detail(view) for view in (await DeadJobs(self._deps, wanted).in_set())[0]]
        copies = await self._letters(wanted, after, limit)
        total = await self._total(wanted, in_set)
        # A job of the set is shown as the queue has it; its copy says the same.
        shown = {detail.job_id: detail for detail in (*map(letter_detail, copies), *in_set)}
        ordered = sorted(shown.values(), key=_place)
        jobs = [detail for detail in ordered if after is None or _place(detail) > (-after.failed_at, after.job_id)]
        last = jobs[limit - 1] if len(jobs) >= limit else None
        token = f"{last.timestamps.finished or 0}:{last.job_id}" if last is not None else None
        return answer(DeadPage(total=total, jobs=tuple(jobs[:limit]), next=token))

    async def show(self, request: Request) -> Response:
        job_id = request.path_params["job_id"]
        view = await self._deps.queue_admin.get(job_id)
        if view is not None and view.state is JobState.FAILED:
            return answer(job_detail(view))
        letter = await self._deps.letters.letter(self._deps.queue_name, job_id) if self._deps.letters else None
        if letter is not None:
            return answer(letter_detail(letter))
        state = f"job {job_id[:255]!r} is {view.state.value}, it did not fail" if view is not None else None
        raise not_found(state or f"there is no dead letter {job_id[:255]!r}", "dlq list shows those there are")

    async def purge(self, request: Request) -> Response:
        ask = await read_body(request, PurgeRequest)
        check_names_some(ask, "purged")
        dead = DeadJobs(self._deps, wanted_by(ask, self._deps.now()))
        views, more = await dead.in_set(ask.limit)
        ids = [view.job.id for view in views]
        if not more:
            async with aclosing(dead.forgotten(set(ids))) as pages:
                async for letters in pages:
                    ids += [letter.job_id for letter in letters]
                    if len(ids) > ask.limit:
                        break
        more, ids = more or len(ids) > ask.limit, ids[: ask.limit]
        removed = forgotten = 0
        if not ask.dry_run:
            for batch in batches(ids):
                removed += len(await self._deps.queue_admin.remove(batch))
                if self._deps.letters is not None:
                    forgotten += await self._deps.letters.exhume(self._deps.queue_name, batch)
        return answer(PurgeResult(matched=len(ids), removed=removed, forgotten=forgotten, more=more))

    async def _letters(self, wanted: LetterFilter, after: Page | None, limit: int) -> tuple[DeadLetter, ...]:
        if self._deps.letters is None:
            return ()
        return await self._deps.letters.letters(self._deps.queue_name, limit=limit, wanted=wanted, after=after)

    async def _total(self, wanted: LetterFilter, in_set: list[JobDetail]) -> int:
        """Copies, and what other workers let fail without one."""
        if self._deps.letters is None:
            return len(in_set)
        copies = await self._deps.letters.count_letters(self._deps.queue_name, wanted)
        for start in range(0, len(in_set), BATCH):
            ids = tuple(detail.job_id for detail in in_set[start : start + BATCH])
            known = await self._deps.letters.count_letters(self._deps.queue_name, LetterFilter(ids=ids))
            copies += len(ids) - known
        return copies

    def _wanted(self, request: Request) -> LetterFilter:
        params, now = request.query_params, self._deps.now()

        def before(name: str) -> int | None:
            if name not in params:
                return None
            return int((now - seconds(request, name, 0.0, high=_LONGEST_AGE_S)) * 1000)

        return LetterFilter(
            reason=params.get("reason"),
            name=params.get("name"),
            user=params.get("user"),
            before=before("olderThan"),
            since=before("newerThan"),
        )


def _place(detail: JobDetail) -> tuple[int, str]:
    """Newest first, then by id: the ledger's own order."""
    return -(detail.timestamps.finished or 0), detail.job_id


def _page(text: str | None) -> Page | None:
    if text is None:
        return None
    at, _, job_id = text.partition(":")
    if not at.isdecimal() or not job_id:
        raise invalid(f"after={text[:80]!r} is not a place in the list", "pass what `next` said, or nothing")
    return Page(int(at), job_id)
