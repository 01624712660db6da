"""Commands that wait inside Redis (BZPOPMIN, XREAD BLOCK): each on a connection that serves nothing else meanwhile."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any

import hiredis
import trio

from .errors import RedisRefused, RedisReplyError, RedisUnavailable
from .establish import establish, root_cause
from .link import Backoff, Link
from .settings import RedisSettings
from .wire import NOT_NOW, Argument, Wire

#: Connections kept for the next blocking call.
_MAX_IDLE = 16
#: The server ends a blocked call so when it stops being the master.
_MOVED_AWAY = NOT_NOW | {"UNBLOCKED"}


class BlockingPool:
    """Lends a connection per blocking call; follows `link` in judging whether Redis is there at all."""

    def __init__(self, settings: RedisSettings, tls: ssl.SSLContext | None, link: Link) -> None:
        self._settings = settings
        self._tls = tls
        self._link = link
        self._idle: list[tuple[int, Wire]] = []
        self._backoff = Backoff()

    async def call(self, args: Sequence[Argument], timeout: float) -> Any:
        """See Redis.block."""
        wire = await self._take()
        generation = self._link.generation
        try:
            with trio.fail_after(timeout + self._settings.command_timeout_s):
                [reply] = await wire.ask(args)
        except trio.TooSlowError:
            await wire.close()
            raise self._lost(f"no answer within {timeout + self._settings.command_timeout_s:g} s") from None
        except (OSError, trio.BrokenResourceError, hiredis.ProtocolError) as error:
            await wire.close()
            raise self._lost(root_cause(error)) from error
        except BaseException:
            await wire.close()  # the answer could still come and would be taken for the next one's
            raise
        if isinstance(reply, RedisReplyError):
            await wire.close()
            raise self._lost(reply) if reply.code in _MOVED_AWAY else reply
        await self._give_back(generation, wire)
        return reply

    def _lost(self, why: object) -> RedisUnavailable:
        return RedisUnavailable(f"lost Redis at {self._settings.where} while waiting in it: {why}", maybe_executed=True)

    async def _take(self) -> Wire:
        await self._wait_for_link()
        while self._idle:
            generation, wire = self._idle.pop()
            if generation == self._link.generation:
                return wire
            await wire.close()  # from before the link's last reconnection: most likely dead as well
        try:
            wire = await establish(self._settings, self._tls)
        except (RedisUnavailable, RedisRefused):
            await trio.sleep(self._backoff.next())  # callers simply call again: this is what keeps them from spinning
            raise
        self._backoff.reset()
        return wire

    async def _wait_for_link(self) -> None:
        timeout = self._settings.command_timeout_s
        with trio.move_on_after(timeout):
            await self._link.wait_connected()
            return
        raise RedisUnavailable(f"no Redis for {timeout:g} s: {self._link.last_error}", maybe_executed=False)

    async def _give_back(self, generation: int, wire: Wire) -> None:
        if len(self._idle) < _MAX_IDLE:
            self._idle.append((generation, wire))
        else:
            await wire.close()

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop()[1].close()
