"""A private asyncio loop in a thread of its own; Trio tasks await its coroutines.

To the Trio side a call is like any other await: cancelling it cancels the coroutine and waits until that has unwound,
its result or its error comes back, and nothing of it is left behind. What may go wrong with a thread and a second loop
is bounded: a coroutine that does not unwind, a loop that hangs, a thread that dies.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, ParamSpec, TypeVar

import outcome
import trio

from ...domain.errors import Transient, describe

log = logging.getLogger("moonxd.island")
P = ParamSpec("P")
T = TypeVar("T")

#: How long a cancelled call waits for its coroutine to unwind, and leaving for all of them.
UNWIND_S = 5.0


class _Crossing(Generic[T]):
    """One call under way. `task` belongs to the loop's thread, everything else to Trio's."""

    def __init__(self, token: trio.lowlevel.TrioToken, start: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._token = token
        self._start = start
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[T] | None = None
        self.settled = trio.Event()
        self._outcome: outcome.Outcome[T] | None = None

    # ---- on the loop

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), context=self._context)
        self._task.add_done_callback(self._finished)

    async def _run(self) -> T:
        return await self._start()

    def _finished(self, task: asyncio.Task[T]) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.settle, outcome.capture(task.result))

    def cancel(self) -> None:
        # `begin` came first: the loop keeps the order in which it was called.
        if self._task is not None:
            self._task.cancel()

    # ---- on Trio

    def settle(self, result: outcome.Outcome[T]) -> None:
        if self._outcome is None:
            self._outcome = result
            self.settled.set()

    @property
    def is_settled(self) -> bool:
        return self.settled.is_set()

    @property
    def was_cancelled(self) -> bool:
        return isinstance(self._outcome, outcome.Error) and isinstance(self._outcome.error, asyncio.CancelledError)

    def result(self, what: str) -> T:
        """What the coroutine returned or raised; what is no Exception would end all of Trio, so it becomes one."""
        assert self._outcome is not None
        error = self._outcome.error if isinstance(self._outcome, outcome.Error) else None
        if error is not None and not isinstance(error, Exception):
            raise Transient(f"{what} was given up on the asyncio side ({type(error).__name__}); try again") from error
        return self._outcome.unwrap()


class Island:
    """The loop and its thread. Use it from the Trio task tree that opened it; made by `open_island`."""

    def __init__(self, unwind_s: float) -> None:
        self._unwind_s = unwind_s
        self._token = trio.lowlevel.current_trio_token()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_log_stray)
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._live, name="moonxd-island", daemon=True)
        self._pending: set[_Crossing[Any]] = set()
        self._dead = trio.Event()
        self._ended = trio.Event()
        self._why = ""

    async def call(self, fn: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn` on the loop, in a copy of the caller's context.

        Cancelled, it cancels the coroutine and waits for its end, UNWIND_S at the most; when the coroutine ended by
        itself meanwhile, its result counts and the cancellation stays with the scope. Raises what `fn` raises, and
        Transient when the loop is gone or the coroutine was cancelled by somebody else.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._dead.is_set():
            raise Transient(self._why)
        what = getattr(fn, "__qualname__", repr(fn))
        crossing = _Crossing(self._token, lambda: fn(*args, **kwargs))
        self._pending.add(crossing)
        try:
            self._soon(crossing.begin)
            return await self._finish(crossing, what)
        finally:
            self._pending.discard(crossing)

    async def wait_dead(self) -> None:
        """Run until the thread has died by itself, then raise Transient saying why: the body of a supervised child."""
        await self._dead.wait()
        raise Transient(self._why)

    async def _finish(self, crossing: _Crossing[T], what: str) -> T:
        try:
            await crossing.settled.wait()
        except trio.Cancelled:
            self._soon(crossing.cancel)
            with trio.move_on_after(self._unwind_s, shield=True):
                await crossing.settled.wait()
            if not crossing.is_settled:
                log.warning("%s was cancelled %g s ago and still runs: left to itself", what, self._unwind_s)
            if crossing.was_cancelled or not crossing.is_settled:
                raise
        return crossing.result(what)

    def _soon(self, callback: Callable[[], None]) -> None:
        # A closed loop takes nothing; then `_bury` is on its way and settles every crossing.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    # ---- life and death of the thread

    def start(self) -> None:
        self._thread.start()

    async def leave(self) -> None:
        """End the thread; one that does not end in time is left behind, with a line in the log."""
        self._soon(self._stop.set)
        # The loop gives its tasks unwind_s; a loop that hangs cannot even do that.
        with trio.move_on_after(self._unwind_s + 1.0, shield=True):
            await self._ended.wait()
            self._thread.join()  # it has said its last word
            return
        log.error("the asyncio loop hangs: its thread is left behind")
        self._bury("the asyncio loop was closed while it hung")

    def _live(self) -> None:
        """The thread."""
        why = "the asyncio loop was closed"
        try:
            self._loop.run_until_complete(self._stop.wait())
        except BaseException as error:
            why = f"the asyncio loop's thread died ({describe(error)})"
            log.error("%s", why, exc_info=error)
            self._tell(self._bury, why)  # at once: what follows takes time
        try:
            self._loop.run_until_complete(self._unwind())
        except BaseException as error:
            log.error("the asyncio loop did not end in order (%s)", describe(error), exc_info=error)
        finally:
            self._loop.close()
            self._tell(self._bury, why)
            self._tell(self._ended.set)

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(callback, *args)

    async def _unwind(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            _, refusing = await asyncio.wait(tasks, timeout=self._unwind_s)
            for task in refusing:
                log.error("%s did not end in %g s: it ends with its loop", task.get_name(), self._unwind_s)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._loop.shutdown_asyncgens(), 0.5)

    def _bury(self, why: str) -> None:
        if self._dead.is_set():
            return
        self._why = why
        self._dead.set()
        for crossing in self._pending:
            crossing.settle(outcome.Error(Transient(why)))


def _log_stray(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody awaited: the default would print it on standard error."""
    error = context.get("exception")
    text = f"{context.get('message', 'asyncio')}{f' ({describe(error)})' if error else ''}"
    log.warning("%s", text, exc_info=error)


@asynccontextmanager
async def open_island(*, unwind_s: float = UNWIND_S) -> AsyncIterator[Island]:
    """A loop as long as the block; leaving cancels what still runs on it and takes `unwind_s` + 1 s at the most."""
    island = Island(unwind_s)
    island.start()
    try:
        yield island
    finally:
        await island.leave()
