"""A small pool of connections: first come first served with a deadline, nothing unclean is ever lent again."""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg
import trio

from ...domain.errors import Transient
from .connection import GRACE_S, TrioConnection, connect

_log = logging.getLogger("moonxd.postgres")
#: Seconds before the server is tried again after the first failure; doubled up to the second number.
_BACKOFF_S = (0.05, 1.0)


class Pool:
    """Up to `max_size` connections to `dsn`; `min_size` of them stay open when idle.

    `wait_s` bounds a caller's whole wait: for its turn and for a server that is away.
    """

    def __init__(
        self,
        dsn: str,
        *,
        min_size: int = 5,
        max_size: int = 20,
        idle_s: float = 30.0,
        connect_timeout_s: float = 10.0,
        wait_s: float = 10.0,
    ) -> None:
        self._dsn = dsn
        self._min_size = min_size
        self._max_size = max_size
        self._idle_s = idle_s
        self._connect_timeout_s = connect_timeout_s
        self._wait_s = wait_s
        self._turns = trio.Semaphore(max_size)
        # Newest last: the connections that idle longest are the ones to close.
        self._idle: deque[tuple[TrioConnection, float]] = deque()
        self._open: set[TrioConnection] = set()
        self._failures = 0
        self._retry_at = 0.0
        self._is_closed = False

    @property
    def size(self) -> int:
        """Connections that are open, lent or idle."""
        return len(self._open)

    @property
    def waiting(self) -> int:
        """Callers that wait for their turn."""
        return self._turns.statistics().tasks_waiting

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[TrioConnection]:
        """A clean connection. Raises Transient when none could be had within the wait, ConfigError when refused."""
        if self._is_closed:
            raise Transient("the PostgreSQL pool is closed")
        deadline = trio.current_time() + self._wait_s
        with trio.CancelScope(deadline=deadline) as waiting:
            await self._turns.acquire()
        if waiting.cancelled_caught:
            raise Transient(
                f"all {self._max_size} PostgreSQL connections were busy for {self._wait_s:g} s: "
                "raise the pool's size or look for slow statements"
            )
        try:
            lent = await self._take(deadline)
            try:
                yield lent
            finally:
                await self._give_back(lent)
        finally:
            self._turns.release()

    async def _take(self, deadline: float) -> TrioConnection:
        while self._idle:
            candidate, _ = self._idle.pop()
            if candidate.is_clean:
                return candidate
            await self._discard(candidate)
        return await self._connect(deadline)

    async def _connect(self, deadline: float) -> TrioConnection:
        """Open a connection, trying again until `deadline`. All callers share one backoff: no herd on a server that
        is just starting."""
        while True:
            pause = self._retry_at - trio.current_time()
            if pause > 0:
                await trio.sleep(min(pause, max(0.0, deadline - trio.current_time())))
            try:
                left = max(0.1, deadline - trio.current_time())
                opened = await connect(self._dsn, timeout_s=min(self._connect_timeout_s, left))
            except Transient as error:
                self._back_off(error)
                if self._retry_at >= deadline:
                    raise
                continue
            if self._failures:
                _log.info("PostgreSQL answers again", extra={"failures": self._failures})
            self._failures = 0
            self._open.add(opened)
            return opened

    def _back_off(self, error: Transient) -> None:
        first, longest = _BACKOFF_S
        now = trio.current_time()
        if now < self._retry_at:
            return
        if not self._failures:
            _log.warning("PostgreSQL is away, trying again", extra={"reason": str(error)})
        delay = min(longest, first * 2 ** min(self._failures, 10))
        self._failures += 1
        self._retry_at = now + delay * random.uniform(0.5, 1.0)

    async def _give_back(self, lent: TrioConnection) -> None:
        if not lent.closed and lent.is_in_transaction:
            with suppress(psycopg.Error), trio.CancelScope(shield=True, deadline=trio.current_time() + GRACE_S):
                await lent.rollback()
        if not self._is_closed and lent.is_clean:
            self._idle.append((lent, trio.current_time()))
        else:
            await self._discard(lent)

    async def _discard(self, connection: TrioConnection) -> None:
        self._open.discard(connection)
        await connection.close()

    async def reap(self) -> None:
        """Close what idles longer than `idle_s`, down to the minimum. Runs for ever."""
        while True:
            await trio.sleep(self._idle_s / 4)
            oldest = trio.current_time() - self._idle_s
            while self._idle and self._idle[0][1] <= oldest and len(self._open) > self._min_size:
                connection, _ = self._idle.popleft()
                await self._discard(connection)

    async def close(self) -> None:
        """Close everything, lent connections too: whoever still waits on one is told."""
        self._is_closed = True
        self._idle.clear()
        for connection in tuple(self._open):
            await self._discard(connection)


@asynccontextmanager
async def open_pool(
    dsn: str,
    *,
    min_size: int = 5,
    max_size: int = 20,
    idle_s: float = 30.0,
    connect_timeout_s: float = 10.0,
    wait_s: float = 10.0,
) -> AsyncIterator[Pool]:
    """A pool and the task that tends it. The body's own error comes out as it is, not in a group."""
    pool = Pool(
        dsn, min_size=min_size, max_size=max_size, idle_s=idle_s, connect_timeout_s=connect_timeout_s, wait_s=wait_s
    )
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.reap)
        try:
            yield pool
        except BaseException as error:
            failure = error
        finally:
            await pool.close()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
