"""The Redis client of every room: pipelined by itself, cancellable, always reconnecting."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import trio

from .blocking import BlockingPool
from .errors import RedisRefused, RedisReplyError, RedisUnavailable
from .link import Link
from .script import Script
from .settings import RedisSettings, parse_redis_url
from .wire import Argument, pack

__all__ = [
    "Redis",
    "RedisRefused",
    "RedisReplyError",
    "RedisSettings",
    "RedisUnavailable",
    "Script",
    "open_redis",
    "pack",
    "parse_redis_url",
]

State = Literal["connected", "reconnecting"]
OnChange = Callable[[State, str | None], None]

_log = logging.getLogger("moonxd.redis")
#: A script cache that is flushed more often than this during one call is somebody else's fault.
_SCRIPT_LOADS = 5


class Redis:
    """Use open_redis() to make one.

    Every method raises RedisUnavailable (see its `maybe_executed`) within about command_timeout_s when Redis is away
    or silent, and may be cancelled at any time: a command not yet sent is dropped then, a sent one may still run.
    Replies are RESP2: bytes, int, None, or lists of these.
    """

    def __init__(self, settings: RedisSettings, tls: ssl.SSLContext | None, on_change: OnChange | None) -> None:
        self.settings = settings
        self._on_change = on_change
        self._links = [Link(settings, tls, self._note) for _ in range(settings.connections)]
        self._blocking = BlockingPool(settings, tls, self._links[0])
        self._told: tuple[State, str | None] | None = None

    # ---- commands

    async def call(self, *args: Argument) -> Any:
        """One command. Raises RedisReplyError."""
        return await self._route().call(pack(args))

    async def call_packed(self, packed: bytes) -> Any:
        """Exactly one command that is packed already (see pack). Raises RedisReplyError."""
        return await self._route().call(packed)

    async def many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Several commands in one write, in order, on one connection; not a transaction.

        Error replies are returned in their places as RedisReplyError values.
        """
        if not commands:
            await trio.lowlevel.checkpoint()
            return []
        replies: list[Any] = await self._route().call(b"".join([pack(c) for c in commands]), len(commands))
        return replies

    async def script(
        self, script: Script, keys: Sequence[Argument], args: Sequence[Argument], *, at_once: bool = False
    ) -> Any:
        """Run a script by its hash; a server that does not know it (restarted, flushed, failed over) is taught first.

        With `at_once` it is sent without waiting for what others may want to send in the same scheduler pass.

        Raises RedisReplyError.
        """
        packed = pack(("EVALSHA", script.sha, len(keys), *keys, *args))
        for _ in range(_SCRIPT_LOADS):
            try:
                return await self._route().call(packed, at_once=at_once)
            except RedisReplyError as error:
                if error.code != "NOSCRIPT":
                    raise
            await self._teach(script)
        raise RedisReplyError(f"NOSCRIPT {script.name}: the server forgot it {_SCRIPT_LOADS} times in a row")

    async def _teach(self, script: Script) -> None:
        try:
            await self._route().call(pack(("SCRIPT", "LOAD", script.text)))
        except RedisUnavailable as error:
            # The script itself has not been called, whatever became of loading it.
            raise RedisUnavailable(str(error), maybe_executed=False) from error

    async def block(self, *args: Argument, timeout: float) -> Any:
        """One command that waits inside Redis, on a connection of its own.

        `args` are the whole command, its own timeout included; `timeout` is how many seconds Redis may hold it, so
        that silence is noticed command_timeout_s later: `await redis.block("BZPOPMIN", key, 5, timeout=5)`. A command
        without a timeout of its own (0) must still be given a bound here.

        When Redis is away this raises no faster than a backoff allows: callers may simply call it again.

        A cancelled call closes its connection. If Redis had popped something in that instant it is lost: harmless for
        the queue's marker, which only says "look again"; do not pop real items with this.
        """
        return await self._blocking.call(args, timeout)

    def _route(self) -> Link:
        links = self._links
        return links[0] if len(links) == 1 else min(links, key=_load)

    # ---- its state

    @property
    def state(self) -> State:
        return "connected" if all(link.connected for link in self._links) else "reconnecting"

    @property
    def last_error(self) -> str | None:
        """Why it is reconnecting; None while connected."""
        return next((str(link.last_error) for link in self._links if link.last_error is not None), None)

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Return once every connection is up.

        Raises RedisRefused at once when Redis turned us away, RedisUnavailable after `timeout` (connect_timeout_s)
        seconds. Either way the client goes on trying.
        """
        bound = self.settings.connect_timeout_s if timeout is None else timeout
        with trio.move_on_after(bound):
            for link in self._links:
                await link.wait_connected()
            return
        raise RedisUnavailable(self.last_error or f"no Redis at {self.settings.where}", maybe_executed=False)

    def _note(self, _link: Link) -> None:
        now = (self.state, self.last_error)
        if now in (self._told, ("reconnecting", None)):  # nothing new, or still on the way to the first connection
            return
        self._told = now
        where = {"redis": self.settings.where}
        if now[0] == "connected":
            _log.info("Redis is connected", extra=where)
        else:
            _log.warning("Redis is away: %s", now[1] or "connecting", extra=where)
        if self._on_change is not None:
            self._on_change(*now)


def _load(link: Link) -> int:
    return link.load


@asynccontextmanager
async def open_redis(settings: RedisSettings, *, on_change: OnChange | None = None) -> AsyncIterator[Redis]:
    """A client that connects in the background; `wait_connected` or server.check_server tells whether it worked.

    `on_change(state, last_error)` is called on the event loop after every change; it must not raise. The client works
    to the end of the block, also in shielded clean-up after a cancellation. An exception of the body comes out as it
    is, not in a group. Raises ConfigError when the TLS files cannot be read.
    """
    tls = await trio.to_thread.run_sync(settings.tls_context) if settings.tls else None
    redis = Redis(settings, tls, on_change)
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            # Not the nursery's own cancellation: whoever hands jobs back while being cancelled still needs us.
            life = [(link, trio.CancelScope(shield=True)) for link in redis._links]
            for link, scope in life:
                nursery.start_soon(_live, link, scope)
            try:
                yield redis
            except BaseException as error:
                failure = error
                raise
            finally:
                await redis._blocking.close()
                for _, scope in life:
                    scope.cancel()
    except BaseExceptionGroup as group:
        if failure is not None and group.exceptions == (failure,):
            raise failure from failure.__cause__
        raise


async def _live(link: Link, scope: trio.CancelScope) -> None:
    with scope:
        await link.run()
