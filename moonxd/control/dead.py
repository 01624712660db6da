"""Jobs that failed for good: those in the queue's own set, and the ledger's copies of those that it has forgotten."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import trio

from ..api.messages import DeadFilter
from ..domain.job import JobState, JobView
from ..domain.ledger import DeadLetter, LetterFilter, Page
from ..domain.payload import user_in
from .deps import Deps
from .errors import invalid

#: Jobs that one call moves at most; the answer says when there are more.
LIMIT = 10_000
DEADLINE_S = 110.0
BATCH = 500


def check_names_some(ask: DeadFilter, done: str) -> None:
    """Raises Refused unless the request says which jobs it means."""
    filters = (ask.reason, ask.name, ask.user, ask.older_than, ask.newer_than)
    if not (ask.ids or ask.all or any(given is not None and given != "" for given in filters)):
        raise invalid(
            f"the request does not say which jobs: nothing was {done}",
            'give "ids", a filter ("reason", "name", "user", "olderThan", "newerThan"), or "all": true',
        )
    if len(ask.ids) > LIMIT:
        raise invalid(f"{len(ask.ids)} ids are too many for one call, at most {LIMIT}")


def wanted_by(ask: DeadFilter, now: float) -> LetterFilter:
    """`now` is unix seconds."""
    return LetterFilter(
        ids=tuple(dict.fromkeys(ask.ids)) or None,
        reason=ask.reason,
        name=ask.name,
        user=ask.user,
        before=None if ask.older_than is None else int((now - ask.older_than) * 1000),
        since=None if ask.newer_than is None else int((now - ask.newer_than) * 1000),
    )


class DeadJobs:
    """What matches one filter. The queue's own set comes first: what is still there keeps its id and its log."""

    def __init__(self, deps: Deps, wanted: LetterFilter, state: JobState = JobState.FAILED) -> None:
        self._deps = deps
        self._wanted = wanted
        self._state = state

    async def in_set(self, limit: int = LIMIT) -> tuple[list[JobView], bool]:
        """Jobs of the set, at most `limit`, and whether there are more."""
        if self._wanted.ids is not None:
            views = await self._views(self._wanted.ids)
            return [view for view in views.values() if self._fits(view)][:limit], False
        found: list[JobView] = []
        start = 0
        while True:
            page = await self._deps.queue_admin.list(self._state, start=start, limit=BATCH)
            found += [view for view in page if self._fits(view)]
            if len(found) > limit:
                return found[:limit], True
            if len(page) < BATCH:
                return found, False
            start += BATCH

    async def forgotten(self, skip: set[str]) -> AsyncGenerator[list[DeadLetter]]:
        """Copies whose job the queue does not hold, page by page; `skip` are ids that are dealt with already."""
        office = self._deps.letters
        if office is None or self._state is not JobState.FAILED:
            return
        after: Page | None = None
        while True:
            page = await office.letters(self._deps.queue_name, limit=BATCH, wanted=self._wanted, after=after)
            fresh = [letter for letter in page if letter.job_id not in skip]
            held = await self._views([letter.job_id for letter in fresh])
            yield [letter for letter in fresh if letter.job_id not in held]
            if len(page) < BATCH:
                return
            after = Page(page[-1].failed_at, page[-1].job_id)

    async def _views(self, ids: Sequence[str]) -> dict[str, JobView]:
        """Those of `ids` that the queue holds, in order; asked at once, which costs few round trips."""
        found: dict[str, JobView] = {}

        async def look(job_id: str) -> None:
            view = await self._deps.queue_admin.get(job_id)
            if view is not None:
                found[job_id] = view

        for start in range(0, len(ids), BATCH):
            async with trio.open_nursery() as nursery:
                for job_id in ids[start : start + BATCH]:
                    nursery.start_soon(look, job_id)
        return {job_id: found[job_id] for job_id in ids if job_id in found}

    def _fits(self, view: JobView) -> bool:
        return view.state == self._state and self._wanted.matches(
            reason=view.failed_reason, name=view.job.name, user=user_in(view.job.data), failed_at=view.finished_on
        )
