"""Serves the core service's request lists: takes each request, has it answered, finishes it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import trio

from ..domain.core_service import Source, Taken, Verdict, read_letter
from ..domain.errors import MoonxdError, Transient, describe
from ..ports import Requests

log = logging.getLogger("moonxd.core_service")

#: Seconds of one wait for a request.
WAIT_S = 5.0
#: Seconds that one request may take; then it is taken again.
ANSWER_S = 30.0
#: Seconds for what we hold to be put back when the daemon stops.
LEAVE_S = 2.0
#: Beats within a lease.
BEATS = 3
#: Failures in a row of one list after which the whole part is started again, for everybody to see.
MOST_FAILURES = 5
_FIRST_PAUSE_S = 0.5


class CoreService:
    """`answer` decides and acts; a MoonxdError means: again later. `told` counts (kind, outcome)."""

    def __init__(
        self,
        requests: Requests,
        sources: Sequence[Source],
        answer: Callable[[Taken], Awaitable[Verdict]],
        *,
        concurrency: int,
        lease_s: float,
        told: Callable[[str, str], None],
    ) -> None:
        self._requests = requests
        self._sources = sources
        self._answer = answer
        self._concurrency = concurrency
        self._beat_s = lease_s / BEATS
        self._told = told

    async def run(self, ready: Callable[[], None]) -> None:
        """Until cancelled. Raises when a list cannot be served for a while."""
        ready()
        try:
            # Before anything is taken: what an unknown owner holds nobody would put back.
            await self._join()
            await self._listen_to_all()
        finally:
            await self._leave()

    async def _listen_to_all(self) -> None:
        failure: Transient | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat)
                for source in self._sources:
                    nursery.start_soon(self._listen, source, nursery)
        except* MoonxdError as group:
            # Redis is away for all lists at once: one sentence is enough.
            failure = Transient(describe(group))
        if failure is not None:
            raise failure

    async def _join(self) -> None:
        failures = 0
        while True:
            try:
                self._note_put_back(await self._requests.beat())
                return
            except MoonxdError as error:
                failures += 1
                if failures >= MOST_FAILURES:
                    raise
                log.warning("the core service's lists are not served yet: %s", error)
            await trio.sleep(_pause(failures))

    async def _beat(self) -> None:
        while True:
            await trio.sleep(self._beat_s)
            try:
                self._note_put_back(await self._requests.beat())
            except MoonxdError as error:
                # Others may take over what we hold; a request answered twice is harmless.
                log.warning("the core service's lists were not told that we live: %s", error)

    async def _listen(self, source: Source, nursery: trio.Nursery) -> None:
        slots = trio.Semaphore(self._concurrency)
        failures = 0
        while True:
            # Only what can be worked on at once is taken: the rest is for other daemons.
            await slots.acquire()
            try:
                taken = await self._requests.take(source, WAIT_S)
            except MoonxdError as error:
                slots.release()
                failures += 1
                if failures >= MOST_FAILURES:
                    raise
                # Not a warning for each list: who lost Redis has said so, and what stays is raised above.
                log.info("%s cannot be read: %s", source.key, error, extra={"list": source.key})
                await trio.sleep(_pause(failures))
                continue
            failures = 0
            if taken is None:
                slots.release()
            else:
                nursery.start_soon(self._serve, taken, slots)

    async def _serve(self, taken: Taken, slots: trio.Semaphore) -> None:
        try:
            with trio.fail_after(ANSWER_S):
                verdict = await self._answer(taken)
                is_ours = await self._requests.finish(taken, verdict)
            self._told(verdict.kind, verdict.outcome if is_ours else "taken-over")
        except (MoonxdError, trio.TooSlowError) as error:
            self._requests.let_go(taken)
            self._told(read_letter(taken.body).kind, "again")
            why = str(error) or f"no answer within {ANSWER_S:g} s"
            log.warning("a request of %s is taken again later: %s", taken.source.key, why)
        finally:
            slots.release()

    async def _leave(self) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_S):
            try:
                await self._requests.leave()
            except MoonxdError as error:
                log.warning("requests of the core service wait for our lease to end: %s", error)

    def _note_put_back(self, count: int) -> None:
        if count:
            log.warning("%d requests of a daemon that died were put back", count, extra={"put_back": count})


def _pause(failures: int) -> float:
    return _FIRST_PAUSE_S * 2.0 ** min(failures - 1, 4)
