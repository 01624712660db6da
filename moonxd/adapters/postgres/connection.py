"""psycopg's async connection on Trio.

psycopg's protocol code is generators, so only the waiting has to be ours. But asyncio cancels a task once while Trio
keeps a scope cancelled, so psycopg's own clean-up (ROLLBACK, leaving a pipeline) would be cancelled as well: what is
under way when a cancellation arrives is stopped on the server and read to its end, shielded and bounded, and a
connection that cannot be brought to rest is closed. This leans on private names: `assert_supported` is the gate.
"""

from __future__ import annotations

import math
import select
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, TypeVar

import psycopg
import trio
from psycopg import AsyncConnection, AsyncTransaction, capabilities, generators, pq
from psycopg import errors as e
from psycopg._conninfo_attempts import conninfo_attempts
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.waiting import Ready

from ...domain.errors import ConfigError
from .errors import unreachable

T = TypeVar("T")
#: The release whose private names we use.
PSYCOPG = "3.3.9"
_PRIVATE = (
    "_connect_gen",
    "_cancel_gen",
    "_should_cancel",
    "_try_cancel",
    "cancel_safe",
    "wait",
    "close",
    "transaction",
)
#: Seconds a cancelled caller waits, shielded, until its connection is at rest. Then the connection is closed.
GRACE_S = 5.0
#: Seconds between cancel requests meanwhile: the generator may go on from BEGIN to the real query.
RECANCEL_S = 0.25

_READ, _WRITE = int(Ready.R), int(Ready.W)
_ACTIVE, _IDLE = pq.TransactionStatus.ACTIVE, pq.TransactionStatus.IDLE


def assert_supported() -> None:
    """Raises ConfigError unless psycopg is the very release whose inside we know, with a libpq that cancels safely."""
    gone = [name for name in _PRIVATE if not hasattr(AsyncConnection, name)]
    gone += [name for name in ("fetch_many", "copy_from", "copy_end") if not hasattr(generators, name)]
    gone += [name for name in ("_WaitTimeout",) if not hasattr(e, name)]
    if psycopg.__version__ != PSYCOPG or gone:
        lacking = f" (lacking {', '.join(gone)})" if gone else ""
        raise ConfigError(
            f"psycopg {PSYCOPG} is needed, {psycopg.__version__} is installed{lacking}: "
            f"pip install 'psycopg[binary]=={PSYCOPG}'"
        )
    if not capabilities.has_cancel_safe():
        raise ConfigError(
            f"libpq {pq.version_pretty(pq.version())} cannot cancel without blocking, 17 or newer is needed: "
            f"pip install 'psycopg[binary]=={PSYCOPG}'"
        )


class _Lock:
    """A lock whose uncontended entry is no checkpoint, so that clean-up inside a cancelled scope gets in."""

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def __aenter__(self) -> None:
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    async def __aexit__(self, *exc: object) -> None:
        self._lock.release()


def readiness(fd: int, wanted: int) -> int:
    """Which of `wanted` (bits of psycopg's Ready) holds right now."""
    poll = select.poll()
    poll.register(fd, (select.POLLIN if wanted & _READ else 0) | (select.POLLOUT if wanted & _WRITE else 0))
    ready = 0
    for _, event in poll.poll(0):
        if event & ~select.POLLOUT:
            ready |= wanted & _READ
        if event & (select.POLLOUT | select.POLLHUP | select.POLLERR):
            ready |= wanted & _WRITE
    return ready


async def _wait_fd(fd: int, wanted: int) -> int:
    try:
        if wanted == _READ:
            await trio.lowlevel.wait_readable(fd)
            return _READ
        # A socket is writable nearly always: no checkpoint here, the wait for the answer follows.
        if ready := readiness(fd, wanted):
            return ready
        if wanted == _WRITE:
            await trio.lowlevel.wait_writable(fd)
            return _WRITE
        await _wait_either(fd)
        return readiness(fd, wanted)
    except (trio.ClosedResourceError, OSError, ValueError) as error:
        raise e.OperationalError("the connection was closed") from error


async def _wait_either(fd: int) -> None:
    async with trio.open_nursery() as nursery:

        async def readable() -> None:
            await trio.lowlevel.wait_readable(fd)
            nursery.cancel_scope.cancel()

        nursery.start_soon(readable)
        await trio.lowlevel.wait_writable(fd)
        nursery.cancel_scope.cancel()


async def _drive_connecting(generator: Generator[Any, Any, T]) -> T:
    """Run a generator whose socket may change on the way (connecting, cancelling)."""
    try:
        fd, wanted = next(generator)
        while True:
            fd, wanted = generator.send(await _wait_fd(fd, wanted))
    except StopIteration as end:
        value: T = end.value
        return value


class TrioTransaction(AsyncTransaction):
    """A transaction whose end cannot be cancelled half-way, only bounded."""

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + GRACE_S):
            return await super().__aexit__(exc_type, exc_val, exc_tb)
        raise e.OperationalError("the outcome of COMMIT or ROLLBACK is unknown: no answer in time")


class TrioConnection(AsyncConnection[Any]):
    """An AsyncConnection that waits on Trio and stays sound when its callers are cancelled.

    Named (server-side) cursors are not supported. An autocommit statement that is cancelled may have taken effect:
    whoever must know uses `transaction()` or shields.
    """

    def __init__(self, pgconn: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(pgconn, *args, **kwargs)
        self.lock = _Lock()  # type: ignore[assignment]

    async def wait(self, gen: Generator[Any, Any, T], interval: float = 0.0, timeout: float | None = None) -> T:
        """Run `gen` to its end. One that ends without blocking is no checkpoint (psycopg's pipelines rely on it)."""
        # Already cancelled before the first byte: new work is not begun, clean-up is carried through.
        is_late = trio.current_effective_deadline() == -math.inf
        if is_late and self.pgconn.transaction_status == _IDLE and not self._pipeline:
            gen.close()
            await trio.lowlevel.checkpoint_if_cancelled()
        try:
            wanted = next(gen)
        except StopIteration as end:
            value: T = end.value
            return value
        if is_late:
            await self._bring_to_rest(gen, wanted, patience=RECANCEL_S)
            await trio.lowlevel.checkpoint_if_cancelled()
        return await self._drive(gen, wanted, math.inf if timeout is None else timeout)

    async def _drive(self, gen: Generator[Any, Any, T], wanted: int, timeout: float) -> T:
        fd = self.pgconn.socket
        try:
            with trio.move_on_after(timeout):
                while True:
                    wanted = gen.send(await _wait_fd(fd, wanted))
            raise e._WaitTimeout("wait timeout expired")
        except StopIteration as end:
            value: T = end.value
            return value
        except (trio.Cancelled, KeyboardInterrupt):
            if self.pgconn.transaction_status == _ACTIVE:
                await self._bring_to_rest(gen, wanted)
            raise

    async def _bring_to_rest(self, gen: Generator[Any, Any, Any], wanted: int, patience: float = 0.0) -> None:
        """Ask the server to stop (first after `patience` seconds) and read `gen` to its end; else close."""
        is_at_rest = False
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + GRACE_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._ask_to_stop, patience)
                    await self._run_out(gen, wanted)
                    is_at_rest = True
                    # Leaving the nursery waits for a cancel request under way: it would hit the next statement.
                    nursery.cancel_scope.cancel()
        except* e.Error:
            is_at_rest = False
        if not is_at_rest:
            await self.close()

    async def _ask_to_stop(self, patience: float) -> None:
        await trio.sleep(patience)
        while self.pgconn.transaction_status == _ACTIVE:
            await self.cancel_safe()
            await trio.sleep(RECANCEL_S)

    async def _run_out(self, gen: Generator[Any, Any, Any], wanted: int) -> None:
        fd = self.pgconn.socket
        try:
            while True:
                wanted = gen.send(await _wait_fd(fd, wanted))
        except (StopIteration, e.Error):
            pass
        if self._pipeline:
            return
        # A stream or a COPY has more to come; ROLLBACK can only be sent when that is gone.
        while self.pgconn.transaction_status == _ACTIVE:
            try:
                await self._discard_results()
            except e.QueryCanceled:
                continue

    async def _discard_results(self) -> None:
        results = await self._run(generators.fetch_many(self.pgconn))
        status = results[-1].status if results else None
        if status == pq.ExecStatus.COPY_OUT:
            while isinstance(await self._run(generators.copy_from(self.pgconn)), memoryview):
                pass
        elif status == pq.ExecStatus.COPY_IN:
            await self._run(generators.copy_end(self.pgconn, b"cancelled"))

    async def _run(self, gen: Generator[Any, Any, T]) -> T:
        try:
            wanted = next(gen)
            while True:
                wanted = gen.send(await _wait_fd(self.pgconn.socket, wanted))
        except StopIteration as end:
            value: T = end.value
            return value

    async def cancel_safe(self, *, timeout: float = GRACE_S) -> None:
        """Cancel the statement under way. Never abandoned half-way: a late request would hit the next statement."""
        if not self._should_cancel():
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + timeout):
            await _drive_connecting(self._cancel_gen())
            return
        raise e.CancellationTimeout("the server did not answer the cancel request in time")

    async def close(self) -> None:
        """Close at once; whoever waits on the connection is told."""
        if self.closed:
            return
        if self.pgconn.socket >= 0:
            trio.lowlevel.notify_closing(self.pgconn.socket)
        self._closed = True
        self.pgconn.finish()

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[AsyncTransaction]:
        block = TrioTransaction(self, savepoint_name, force_rollback)
        if self._pipeline:
            async with self.pipeline(), block, self.pipeline():
                yield block
        else:
            async with block:
                yield block

    @property
    def is_clean(self) -> bool:
        """At rest outside any transaction, and silent: an idle server has nothing good to say."""
        if self.closed or self.pgconn.socket < 0 or readiness(self.pgconn.socket, _READ):
            return False
        pgconn = self.pgconn
        is_idle = pgconn.transaction_status == _IDLE and pgconn.pipeline_status == pq.PipelineStatus.OFF
        return is_idle and self._num_transactions == 0

    @property
    def is_in_transaction(self) -> bool:
        """An open transaction that no block of ours will end."""
        is_open = self.pgconn.transaction_status in (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)
        return is_open and self._num_transactions == 0 and not self._pipeline


def parsed(dsn: str) -> dict[str, Any]:
    """The parameters of `dsn`. Raises a ConfigError that does not repeat it: it may hold a password."""
    try:
        parameters = dict(conninfo_to_dict(dsn))
    except psycopg.Error:
        # Without the cause: libpq's message repeats the address.
        raise ConfigError(
            "the PostgreSQL address cannot be read: write postgresql://user:password@host:port/database"
        ) from None
    # A part of the password would be taken for the host, and would be in every message about it.
    if not str(parameters.get("port") or "0").replace(",", "").isdigit() or "@" in str(parameters.get("host") or ""):
        raise ConfigError(
            "the PostgreSQL address cannot be read: write postgresql://user:password@host:port/database, "
            "with special characters of the password percent-encoded (@ is %40)"
        )
    return parameters


#: Notice a dead peer in a minute where TCP's own default is two hours.
_DEFAULTS: dict[str, str | int] = {
    "application_name": "moonxd",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
#: Sent with every new connection, one round trip. Waits for locks and forgotten transactions are bounded on the
#: server too: a daemon that lost its network cannot.
#: Nothing of ours runs for long enough to be worth compiling: that alone took 9 ms of each look for due wallets.
_SESSION = (
    b"SET TIME ZONE 'UTC'; SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '60s'; SET jit = off"
)


async def connect(dsn: str, *, timeout_s: float) -> TrioConnection:
    """An autocommit connection. Every address that the host name stands for is tried, `timeout_s` seconds each.

    Raises Transient when none answers, ConfigError when the server refuses user, password or database.
    """
    given = parsed(dsn)
    parameters: dict[Any, Any] = {**_DEFAULTS, **given}
    last: psycopg.Error = e.OperationalError("no address to connect to")
    try:
        # The resolver blocks; psycopg's own async twin needs asyncio.
        attempts = await trio.to_thread.run_sync(conninfo_attempts, parameters, abandon_on_cancel=True)
    except psycopg.Error as error:
        raise unreachable(error) from error
    for attempt in attempts:
        try:
            with trio.fail_after(timeout_s):
                return await _connect_one(make_conninfo("", **attempt))
        except psycopg.Error as error:
            last = error
        except trio.TooSlowError:
            last = e.ConnectionTimeout(f"no answer within {timeout_s:g} s")
    raise unreachable(last) from last


async def _connect_one(conninfo: str) -> TrioConnection:
    generator = TrioConnection._connect_gen(conninfo)
    try:
        connection: TrioConnection = await _drive_connecting(generator)
    finally:
        generator.close()
    try:
        connection._autocommit = True
        connection.prepare_threshold = 1
        await connection.execute(_SESSION)
    except BaseException:
        await connection.close()
        raise
    return connection
