"""A TCP proxy inside the test: passes bytes on, rewrites them, or keeps both sides waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio


class Proxy:
    """To `host`:`port`. `rewrite` changes what the server says."""

    def __init__(self, host: str, port: int, rewrite: Callable[[bytes], bytes] = lambda data: data) -> None:
        self._target = host, port
        self._rewrite = rewrite
        self._swallows = False
        self.port = 0

    def swallow(self) -> None:
        """From now on nothing gets through, and nobody is told."""
        self._swallows = True

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Proxy]:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, self._pass, 0)
            self.port = listeners[0].socket.getsockname()[1]
            yield self
            nursery.cancel_scope.cancel()

    async def _pass(self, client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream(*self._target)
        async with server, trio.open_nursery() as nursery:
            nursery.start_soon(self._copy, client, server, lambda data: data)
            await self._copy(server, client, self._rewrite)
            nursery.cancel_scope.cancel()

    async def _copy(
        self, source: trio.SocketStream, target: trio.SocketStream, change: Callable[[bytes], bytes]
    ) -> None:
        try:
            async for data in source:
                if not self._swallows:
                    await target.send_all(change(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        if self._swallows:
            await trio.sleep_forever()
