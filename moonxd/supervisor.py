"""Supervision: every long-running part is a child with a restart limit, jittered backoff and a drain order.

A child is an async function that runs until cancelled. Returning or raising means it stopped working: it is started
again after a backoff, and past its restart intensity it has failed for good. A critical child that failed makes the
daemon drain and exit (its own supervisor, systemd, starts afresh); any other one is shown as failed while the rest
goes on. Children are started one after the other, each once the one before it works (or did not at the first try, if
it is not critical), and stopped in reverse.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import trio

from .api.schema import Child as ChildView
from .domain.errors import ConfigError, MoonxdError, Permanent, describe, single
from .log import log_once_per

log = logging.getLogger("moonxd.supervisor")

#: A child's body: told to `ready()` once it works, then runs until cancelled.
Body = Callable[[Callable[[], None]], Awaitable[None]]


class Restarts(msgspec.Struct, frozen=True, kw_only=True):
    """At most `most` restarts within `window_s`; the wait before each doubles from `first_s` to `longest_s`."""

    most: int = 10
    window_s: float = 60.0
    first_s: float = 0.1
    longest_s: float = 15.0

    def delay(self, recent: int, rand: float) -> float:
        """Seconds before restart number `recent` within the window, `rand` in [0, 1) spreading the upper half."""
        full = min(self.longest_s, self.first_s * 2.0 ** min(recent, 30))
        return full * (0.5 + 0.5 * rand)


#: For parts that depend on what comes and goes, as brokers do: never given up.
FOR_EVER = Restarts(most=1_000_000)


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """One supervised part."""

    name: str
    body: Body
    critical: bool = True
    restarts: Restarts = Restarts()
    #: Seconds it may take to become ready before its start counts as failed.
    start_s: float = 30.0
    #: Why it achieves nothing although it runs; None while all is well. Shown as "failing".
    trouble: Callable[[], str | None] = lambda: None


class ChildFailed(MoonxdError):
    """A critical child used up its restarts, the last time for its `__cause__`: the daemon cannot do its work."""


class _Status:
    """The mutable side of one child."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.state = "starting"
        self.since = time.time()
        self.restarts = 0
        self.recent: deque[float] = deque()
        self.last_error: str | None = None
        self.cause: Exception | None = None
        self.scope = trio.CancelScope()
        self.ready = trio.Event()
        self.stopped = trio.Event()

    def enter(self, state: str, error: str | None = None) -> None:
        self.state, self.since = state, time.time()
        if error is not None:
            self.last_error = error

    def view(self) -> ChildView:
        trouble = self.child.trouble() if self.state == "running" else None
        return ChildView(
            name=self.child.name,
            state="failing" if trouble else self.state,
            critical=self.child.critical,
            restarts=self.restarts,
            since=self.since,
            last_error=trouble or self.last_error,
        )


class Supervisor:
    """Runs children inside `open_supervisor`; `children()` is the status board."""

    def __init__(self, nursery: trio.Nursery, stop: trio.Event, on_restart: Callable[[str], None]) -> None:
        self._nursery = nursery
        self._stop = stop
        self._on_restart = on_restart
        self._board: dict[str, _Status] = {}
        #: Set together with `stop` when a critical child has failed for good.
        self.failure: ChildFailed | None = None

    def children(self) -> tuple[ChildView, ...]:
        return tuple(status.view() for status in self._board.values())

    async def start(self, child: Child) -> None:
        """Start `child` and return once it works, once it did not though nothing depends on it, or once we stop."""
        if self._stop.is_set():
            return
        status = self._board[child.name] = _Status(child)
        self._nursery.start_soon(self._keep, status)
        await _first(status.ready, self._stop)

    async def stop_child(self, name: str) -> None:
        """Stop one child for good and wait until it is gone. Stopping a child that never started does nothing."""
        status = self._board.get(name)
        if status is not None:
            status.scope.cancel()
            await status.stopped.wait()

    async def stop_all(self) -> None:
        """Stop what still runs, the last started first."""
        for name in reversed(tuple(self._board)):
            await self.stop_child(name)

    async def _keep(self, status: _Status) -> None:
        child = status.child
        try:
            with status.scope:
                while await self._once(status):
                    status.enter("starting")
        finally:
            status.stopped.set()
            if status.state != "failed":
                status.enter("stopped")
        if status.state == "failed" and child.critical and self.failure is None:
            # Not raised here: the others are to drain in order, as on any other stop.
            self.failure = ChildFailed(f"{child.name} failed for good: {status.last_error}")
            self.failure.__cause__ = status.cause
            self._stop.set()

    async def _once(self, status: _Status) -> bool:
        """One life of a child; True when it is to be started again."""
        child = status.child
        error = status.cause = await self._live(status)
        if error is None and self._stop.is_set():
            return False
        if not child.critical:
            # The children behind it do not wait for what may never come.
            status.ready.set()
        text = describe(error) if error is not None else "it ended by itself"
        if isinstance(error, (ConfigError, Permanent)):
            # No restart mends a wrong value.
            log.error("%s cannot run: %s", child.name, text, extra={"child": child.name})
            return self._give_up(status, text)
        now = trio.current_time()
        recent = status.recent
        while recent and recent[0] < now - child.restarts.window_s:
            recent.popleft()
        if len(recent) >= child.restarts.most:
            log.error("%s failed for good: %s", child.name, text, extra={"child": child.name}, exc_info=error)
            return self._give_up(status, text)
        delay = child.restarts.delay(len(recent), random.random())
        recent.append(now)
        status.restarts += 1
        status.enter("backing-off", text)
        self._on_restart(child.name)
        # A foreign error is a bug or a surprise: its traceback is worth the lines.
        surprise = error if not isinstance(error, MoonxdError) else None
        said = ("%s stopped (%s), starting it again in %.1f s", child.name, text, delay)
        extra = {"child": child.name, "restarts": status.restarts}
        if surprise is None:
            # An outage of hours is a line a minute.
            log_once_per(60.0, log, logging.WARNING, *said, key=(child.name, text), extra=extra)
        else:
            log.warning(*said, extra=extra, exc_info=surprise)
        await trio.sleep(delay)
        return True

    def _give_up(self, status: _Status, text: str) -> bool:
        status.enter("failed", text)
        return False

    async def _live(self, status: _Status) -> Exception | None:
        """Run the body once; the error it ended with, None when it just returned."""

        def ready() -> None:
            starting.deadline = math.inf
            status.enter("running")
            status.ready.set()

        with trio.CancelScope(deadline=trio.current_time() + status.child.start_s) as starting:
            try:
                await status.child.body(ready)
            except Exception as error:
                return single(error)
        if starting.cancelled_caught:
            return TimeoutError(f"not ready within {status.child.start_s:g} s")
        return None


@asynccontextmanager
async def open_supervisor(
    stop: trio.Event, *, on_restart: Callable[[str], None] = lambda name: None
) -> AsyncIterator[Supervisor]:
    """A supervisor whose children live at most as long as the block.

    `stop` is set by whoever wants the daemon to end, the supervisor included: then its `failure` says why.
    """
    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(nursery, stop, on_restart)
        yield supervisor
        await supervisor.stop_all()


async def _first(*events: trio.Event) -> None:
    """Return when any of `events` is set."""
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)


async def unless(stop: trio.Event, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work`, or give up as soon as `stop` is set. `work` must not open what outlives it."""
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:

        async def give_up() -> None:
            await stop.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(give_up)
        try:
            await work()
        except Exception as error:
            # Raised again outside, where the nursery does not wrap it.
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
