"""Failed jobs back to work: by id, by filter or all, from the queue's set and from the ledger's copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from ..api.messages import RequeueRequest, RequeueResult
from ..domain.job import JobOptions, JobState, JobView, NewJob
from ..domain.ledger import DeadLetter
from .deps import Deps
from .errors import answer, invalid
from .request import read_body
from .views import payload

#: Jobs that one call moves at most; the answer says when there are more.
LIMIT = 10_000
DEADLINE_S = 110.0
_PAGE = 500
_BATCH = 500


async def requeue(deps: Deps, request: Request) -> Response:
    ask = await read_body(request, RequeueRequest)
    if not (ask.ids or ask.all or ask.reason or ask.name or ask.user):
        raise invalid(
            "the request does not say which jobs: nothing was requeued",
            'give "ids", a filter ("reason", "name", "user"), or "all": true',
        )
    if len(ask.ids) > LIMIT:
        raise invalid(f"{len(ask.ids)} ids are too many for one call, at most {LIMIT}")
    return answer(await Requeue(deps, ask).run())


class Requeue:
    """One call. The queue's own set comes first: what is still there keeps its id and its log."""

    def __init__(self, deps: Deps, ask: RequeueRequest) -> None:
        self._deps = deps
        self._ask = ask

    async def run(self) -> RequeueResult:
        in_set, more = await self._in_set()
        letters = await self._letters(set(in_set), LIMIT - len(in_set)) if not more else ()
        matched = len(in_set) + len(letters)
        moved: list[str] = []
        restored: list[str] = []
        if not self._ask.dry_run:
            for batch in _batches(in_set):
                moved += await self._deps.queue_admin.requeue(batch)
                await self._exhume(batch)
            restored = [await self._restore(letter) for letter in letters]
        skipped = len(set(self._ask.ids)) - matched if self._ask.ids else 0
        if not self._ask.dry_run:
            skipped += matched - len(moved) - len(restored)
        return RequeueResult(
            matched=matched,
            requeued=len(moved),
            restored=len(restored),
            skipped=skipped,
            ids=(*moved, *restored),
            more=more,
        )

    async def _in_set(self) -> tuple[list[str], bool]:
        """Ids in the asked state that match, at most LIMIT, and whether there are more."""
        if self._ask.ids:
            views = [await self._deps.queue_admin.get(job_id) for job_id in dict.fromkeys(self._ask.ids)]
            return [view.job.id for view in views if view is not None and self._wants(view)], False
        found: list[str] = []
        start = 0
        while True:
            page = await self._deps.queue_admin.list(JobState(self._ask.state), start=start, limit=_PAGE)
            found += [view.job.id for view in page if self._wants(view)]
            if len(found) >= LIMIT:
                return found[:LIMIT], True
            if len(page) < _PAGE:
                return found, False
            start += _PAGE

    async def _letters(self, in_set: set[str], room: int) -> tuple[DeadLetter, ...]:
        """Copies that match and whose job the queue has forgotten."""
        if self._deps.letters is None or self._ask.state != "failed" or room <= 0:
            return ()
        if self._ask.ids:
            asked = [job_id for job_id in dict.fromkeys(self._ask.ids) if job_id not in in_set]
            copies = [await self._deps.letters.letter(self._deps.queue_name, job_id) for job_id in asked]
        else:
            copies = list(await self._deps.letters.letters(self._deps.queue_name, limit=LIMIT))
        chosen = [copy for copy in copies if copy is not None and copy.job_id not in in_set and self._matches(copy)]
        return tuple([copy for copy in chosen[:room] if await self._deps.queue_admin.get(copy.job_id) is None])

    async def _restore(self, letter: DeadLetter) -> str:
        """Added first and the copy forgotten after: a crash in between repeats a sync, it never loses one."""
        (job_id,) = await self._deps.queue_admin.add([again(letter)])
        await self._exhume([letter.job_id])
        return job_id

    async def _exhume(self, job_ids: list[str]) -> None:
        if self._deps.letters is not None:
            await self._deps.letters.exhume(self._deps.queue_name, job_ids)
        await trio.lowlevel.checkpoint()

    def _wants(self, view: JobView) -> bool:
        if view.state != self._ask.state:
            return False
        return self._fits(view.job.name, view.failed_reason, view.job.data, None)

    def _matches(self, letter: DeadLetter) -> bool:
        return self._fits(letter.name, letter.reason, letter.data, letter.user_id)

    def _fits(self, name: str, reason: str | None, data: bytes, user: str | None) -> bool:
        ask = self._ask
        if ask.name is not None and ask.name != name:
            return False
        if ask.reason is not None and ask.reason.lower() not in (reason or "").lower():
            return False
        return ask.user is None or ask.user == (user or _user_in(data))


def again(letter: DeadLetter) -> NewJob:
    """The dead job as a new one with the payload and options it came with.

    A number was the queue's choice and may by now be another job's (the counter restarts on a new Redis): such a job
    gets a new one. The delay of its first life is over.
    """
    priority = letter.options.get("priority")
    return NewJob(
        name=letter.name,
        data=_as_written(letter.data),
        options=JobOptions(priority=priority if isinstance(priority, int) else 0, raw=letter.options),
        id=None if letter.job_id.lstrip("-").isdecimal() else letter.job_id,
    )


def _as_written(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return data.decode("utf-8", "replace")


def _user_in(data: bytes) -> str | None:
    decoded = payload(data)
    user = decoded.get("userId") if isinstance(decoded, dict) else None
    return str(user) if user is not None else None


def _batches(ids: list[str]) -> Iterator[list[str]]:
    starts: Iterable[int] = range(0, len(ids), _BATCH)
    return (ids[start : start + _BATCH] for start in starts)
