"""A connection for commands that always comes back.

Callers queue packed commands; one writer joins everything queued in a scheduler pass into one send; one reader wakes
the callers in the order of their commands. A cancelled caller leaves a waiter without a task behind: its command is
not sent any more, or its reply is dropped, and nobody else's reply shifts.

Deadlines cost the callers nothing: one watchdog counts ticks. Ticks pass only while the event loop runs, so a
suspended machine or a blocked loop is never mistaken for a silent Redis.
"""

from __future__ import annotations

import random
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
import trio
from outcome import Error, Value
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled

from moonxd.domain.errors import MoonxdError

from .errors import RedisRefused, RedisReplyError, RedisUnavailable
from .establish import establish, root_cause
from .settings import RedisSettings
from .wire import CHUNK, NOT_NOW, Wire

#: Bytes that may wait for the connection before further commands are refused.
MAX_UNSENT_BYTES = 64 * 1024 * 1024
#: The command timeout is measured in this many ticks: a call fails between 1.0 and 1.1 times the timeout.
_TICKS = 10
#: A reply may take this many timeouts while Redis is sending others before it (a long pipeline).
_MAX_TIMEOUTS_IN_FLIGHT = 10
_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 3.0
#: A connection that lived this long has proved itself: the next loss starts the backoff anew.
_PROVEN_AFTER_S = 1.0


class Backoff:
    """Exponential delays with jitter, in seconds."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def next(self) -> float:
        delay = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return delay * random.uniform(0.5, 1.0)


class _Lost(Exception):
    """The connection is of no use any more."""


class _Waiter:
    """A caller and its command. `task` is None once the caller was cancelled; `want` > 0 gathers that many replies."""

    __slots__ = ("born", "data", "got", "task", "want")

    def __init__(self, data: bytes, born: int, want: int) -> None:
        self.task: Task | None = current_task()
        self.data = data
        self.born = born
        self.want = want
        self.got: list[Any] = []

    def abandon(self, _raise_cancel: Any) -> Abort:
        self.task = None
        return Abort.SUCCEEDED

    def fail(self, error: MoonxdError) -> None:
        if self.task is not None:
            reschedule(self.task, Error(error))


class Link:
    """See the module. `changed` is called after every change of `connected` or `last_error`."""

    def __init__(
        self, settings: RedisSettings, tls: ssl.SSLContext | None, changed: Callable[[Link], None] | None = None
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._changed = changed
        self.connected = False
        #: How often a connection was made; 0 before the first.
        self.generation = 0
        self.last_error: MoonxdError | None = None
        self._news = trio.Event()
        self._closed = False
        self._unsent: deque[_Waiter] = deque()
        self._unsent_bytes = 0
        self._inflight: deque[_Waiter] = deque()
        self._not_now: list[_Waiter] = []
        self._leaving: str | None = None
        #: The tail of what could not be sent at once.
        self._rest = b""
        self._wire: Wire | None = None
        self._writer: Task | None = None
        self._serving: trio.CancelScope | None = None
        self._tick = 0
        self._heard = 0

    # ---- callers

    @property
    def load(self) -> int:
        """Calls on their way; a link without a connection counts as very busy."""
        waiting = len(self._inflight) + len(self._unsent)
        return waiting if self.connected else waiting + 1_000_000

    async def call(self, data: bytes, want: int = 0, *, at_once: bool = False) -> Any:
        """Send packed commands and return the reply, or the list of `want` replies when `want` > 0.

        With `at_once` they are sent before anybody else runs, if nothing is being sent just then: Redis begins while
        we go on. It costs a system call of its own.

        Raises RedisReplyError (only for want == 0; else error replies stay in the list) and RedisUnavailable.
        """
        waiter = _Waiter(data, self._tick, want)
        self._submit(waiter, len(data), at_once)
        return await wait_task_rescheduled(waiter.abandon)

    def _submit(self, waiter: _Waiter, size: int, at_once: bool) -> None:
        if self._closed:
            raise RedisUnavailable(f"the connection to Redis at {self._settings.where} is closed", maybe_executed=False)
        if self._unsent and self._unsent_bytes + size > MAX_UNSENT_BYTES:
            raise RedisUnavailable(
                f"more than {MAX_UNSENT_BYTES >> 20} MiB are waiting to be sent to Redis at {self._settings.where}",
                maybe_executed=False,
            )
        self._unsent.append(waiter)
        self._unsent_bytes += size
        if self._writer is not None and not (at_once and self._sent_now()):
            writer, self._writer = self._writer, None
            reschedule(writer)

    def _sent_now(self) -> bool:
        """Send what waits, past the idle writer. False when the writer has to go on."""
        if self._wire is None or self._leaving is not None:
            return False
        data = self._take()
        self._rest = data[self._wire.send_now(data) :]
        return not self._rest

    async def wait_connected(self) -> None:
        """Return once connected; raises RedisRefused when Redis turned us away. The caller bounds the wait."""
        while not self.connected:
            if isinstance(self.last_error, RedisRefused):
                raise RedisRefused(str(self.last_error))
            await self._news.wait()

    # ---- life

    async def run(self) -> None:
        """Connect, serve, and connect again, until cancelled; then everybody who still waits gets an error."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                await self._keep_connected()
        finally:
            self._closed = True
            self.connected = False
            self._fail_all("was closed")

    async def _keep_connected(self) -> None:
        backoff = Backoff()
        while True:
            try:
                wire = await establish(self._settings, self._tls)
            except (RedisRefused, RedisUnavailable) as error:
                self._note(False, error)
                await trio.sleep(backoff.next())
                continue
            began = trio.current_time()
            try:
                reason = await self._serve(wire)
            finally:
                await wire.close()
            self._drop(reason)
            if trio.current_time() - began >= _PROVEN_AFTER_S:
                backoff.reset()
            await trio.sleep(backoff.next())

    def _note(self, connected: bool, error: MoonxdError | None) -> None:
        self.connected = connected
        self.last_error = error
        news, self._news = self._news, trio.Event()
        news.set()
        if self._changed is not None:
            self._changed(self)

    async def _serve(self, wire: Wire) -> str:
        """Write and read until the connection is lost; returns why."""
        self._leaving = None
        self._heard = self._tick
        self._rest = b""
        self._wire = wire
        self.generation += 1
        self._note(True, None)
        reason = "it was silent for too long"
        try:
            async with trio.open_nursery() as nursery:
                self._serving = nursery.cancel_scope
                nursery.start_soon(self._write, wire)
                nursery.start_soon(self._read, wire)
        except* (_Lost, OSError, trio.BrokenResourceError, hiredis.ProtocolError) as group:
            reason = str(root_cause(group)) or "the connection broke"
        finally:
            self._serving = self._wire = None
        return reason

    def _drop(self, reason: str) -> None:
        """The connection is gone: what was in flight may have run; the unsent and the refused wait for the next one."""
        lost, self._inflight = self._inflight, deque()
        where = self._settings.where
        for waiter in lost:
            waiter.fail(RedisUnavailable(f"lost Redis at {where} while it worked: {reason}", maybe_executed=True))
        self._unsent.extendleft(reversed(self._not_now))
        self._unsent_bytes += sum(len(waiter.data) for waiter in self._not_now)
        self._not_now.clear()
        self._note(False, RedisUnavailable(f"lost Redis at {where}: {reason}", maybe_executed=False))

    def _fail_all(self, why: str) -> None:
        message = f"the connection to Redis at {self._settings.where} {why}"
        for waiter in self._inflight:
            waiter.fail(RedisUnavailable(message, maybe_executed=True))
        for waiter in (*self._not_now, *self._unsent):
            waiter.fail(RedisUnavailable(message, maybe_executed=False))
        self._inflight.clear()
        self._not_now.clear()
        self._unsent.clear()

    # ---- the two directions

    async def _write(self, wire: Wire) -> None:
        while True:
            # A command that was sent in part is sent to its end whatever has become known meanwhile.
            if not self._rest and (self._leaving is not None or not self._unsent):
                await self._wait_for_work()
                continue
            rest, self._rest = self._rest, b""
            data = rest if self._leaving is not None else rest + self._take()
            if data:
                await wire.stream.send_all(data)

    def _take(self) -> bytes:
        """What waits to be sent and is still wanted; its callers are in flight from now on."""
        batch = [waiter for waiter in self._unsent if waiter.task is not None]
        self._unsent.clear()
        self._unsent_bytes = 0
        if not self._inflight:
            self._heard = self._tick
        self._inflight.extend(batch)
        return b"".join([waiter.data for waiter in batch])

    async def _wait_for_work(self) -> None:
        self._writer = current_task()

        def abort(_raise_cancel: Any) -> Abort:
            self._writer = None
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    async def _read(self, wire: Wire) -> None:
        receive, feed, gets = wire.stream.receive_some, wire.reader.feed, wire.reader.gets
        inflight = self._inflight
        while True:
            data = await receive(CHUNK)
            if not data:
                raise _Lost("Redis closed the connection")
            self._heard = self._tick
            feed(data)  # type: ignore[arg-type]  # a bytearray would do as well
            while (reply := gets()) is not ...:
                if not inflight:
                    raise _Lost(f"Redis sent what nobody asked for: {reply!r:.100}")
                waiter = inflight.popleft()
                if waiter.want or type(reply) is RedisReplyError:
                    self._deliver(waiter, reply)
                elif waiter.task is not None:
                    reschedule(waiter.task, Value(reply))
            if self._leaving is not None and not inflight:
                raise _Lost(self._leaving)

    def _deliver(self, waiter: _Waiter, reply: Any) -> None:
        """The less frequent replies: errors, and one of several that a caller asked for in one go."""
        refused = isinstance(reply, RedisReplyError) and reply.code in NOT_NOW
        if refused:
            self._leaving = str(reply)
        if waiter.want:
            waiter.got.append(reply)
            if len(waiter.got) < waiter.want:
                self._inflight.appendleft(waiter)
            elif waiter.task is not None:
                reschedule(waiter.task, Value(waiter.got))
        elif refused:
            self._not_now.append(waiter)
        else:
            waiter.fail(reply)

    # ---- the watchdog

    async def _watch(self) -> None:
        while True:
            await trio.sleep(self._settings.command_timeout_s / _TICKS)
            self._tick += 1
            self._expire_unsent()
            if self._serving is not None and self._is_silent():
                self._serving.cancel()

    def _expire_unsent(self) -> None:
        unsent, timeout = self._unsent, self._settings.command_timeout_s
        while unsent and (unsent[0].task is None or self._tick - unsent[0].born > _TICKS):
            waiter = unsent.popleft()
            self._unsent_bytes -= len(waiter.data)
            why = self.last_error or f"Redis at {self._settings.where} reads nothing"
            waiter.fail(RedisUnavailable(f"no Redis for {timeout:g} s: {why}", maybe_executed=False))

    def _is_silent(self) -> bool:
        if not self._inflight:
            return False
        oldest = self._tick - self._inflight[0].born
        return self._tick - self._heard > _TICKS or oldest > _TICKS * _MAX_TIMEOUTS_IN_FLIGHT
