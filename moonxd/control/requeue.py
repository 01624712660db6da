"""Failed jobs back to work: by id, by filter or all, from the queue's set and from the ledger's copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ..api.messages import RequeueRequest, RequeueResult
from ..domain.job import JobOptions, JobState, NewJob
from ..domain.ledger import DeadLetter
from .dead import BATCH, DeadJobs, check_names_some, wanted_by
from .deps import Deps
from .errors import answer
from .request import read_body


async def requeue(deps: Deps, request: Request) -> Response:
    ask = await read_body(request, RequeueRequest)
    check_names_some(ask, "requeued")
    return answer(await Requeue(deps, ask).run())


class Requeue:
    """One call, in batches: a crash in between leaves each job either where it was or at work."""

    def __init__(self, deps: Deps, ask: RequeueRequest) -> None:
        self._deps = deps
        self._ask = ask
        self._dead = DeadJobs(deps, wanted_by(ask, deps.now()), JobState(ask.state))
        self._matched = 0
        self._moved: list[str] = []
        self._restored: list[str] = []

    async def run(self) -> RequeueResult:
        views, more = await self._dead.in_set(self._ask.limit)
        in_set = [view.job.id for view in views]
        self._matched = len(in_set)
        if not self._ask.dry_run:
            for batch in batches(in_set):
                self._moved += await self._deps.queue_admin.requeue(batch)
                await self._exhume(batch)
        if not more:
            more = await self._copies(set(in_set))
        skipped = len(set(self._ask.ids)) - self._matched if self._ask.ids else 0
        if not self._ask.dry_run:
            skipped += self._matched - len(self._moved) - len(self._restored)
        return RequeueResult(
            matched=self._matched,
            requeued=len(self._moved),
            restored=len(self._restored),
            skipped=skipped,
            ids=(*self._moved, *self._restored),
            more=more,
        )

    async def _copies(self, done: set[str]) -> bool:
        """The ledger's copies of what the queue has forgotten; whether some are left over."""
        async with aclosing(self._dead.forgotten(done)) as pages:
            async for page in pages:
                room = self._ask.limit - self._matched
                chosen = page[:room]
                self._matched += len(chosen)
                if chosen and not self._ask.dry_run:
                    await self._restore(chosen)
                if len(page) > room:
                    return True
        return False

    async def _restore(self, letters: Sequence[DeadLetter]) -> None:
        """Added first and the copies forgotten after: a crash in between repeats a sync, it never loses one."""
        self._restored += await self._deps.queue_admin.add([again(letter) for letter in letters])
        await self._exhume([letter.job_id for letter in letters])

    async def _exhume(self, job_ids: list[str]) -> None:
        if self._deps.letters is not None:
            await self._deps.letters.exhume(self._deps.queue_name, job_ids)


def again(letter: DeadLetter) -> NewJob:
    """The dead job as a new one with the payload and options it came with.

    A number was the queue's choice and may by now be another job's (the counter restarts on a new Redis): such a job
    gets a new one. One that keeps its id keeps its time too, and so remains the same operation. The delay of its
    first life is over.
    """
    priority = letter.options.get("priority")
    is_numbered = letter.job_id.lstrip("-").isdecimal()
    return NewJob(
        name=letter.name,
        data=_as_written(letter.data),
        options=JobOptions(priority=priority if isinstance(priority, int) else 0, raw=letter.options),
        id=None if is_numbered else letter.job_id,
        timestamp=None if is_numbered else letter.timestamp,
    )


def _as_written(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return data.decode("utf-8", "replace")


def batches(ids: list[str]) -> Iterator[list[str]]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))
