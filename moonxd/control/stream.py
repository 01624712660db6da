"""A response of server-sent events that ends cleanly under hypercorn on Trio."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import trio
from starlette.responses import Response

from .connections import Connection

#: A viewer whose connection took nothing for this long is cut: its buffers are full and nobody reads.
STALLED_S = 30.0
_LAST_SEND_S = 1.0


class EventStream(Response):
    """Starlette's own streaming response cancels its last send when hypercorn reports the disconnect which that send
    causes; the connection then stays until the server's grace ends."""

    media_type = "text/event-stream"
    body = b""

    def __init__(self, frames: AsyncGenerator[bytes], *, stalled: float) -> None:
        self._frames = frames
        self._stalled = stalled
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})
        self.raw_headers = [header for header in self.raw_headers if header[0] != b"content-length"]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send_frames(scope["state"]["connection"], send)
            with trio.move_on_after(_LAST_SEND_S, shield=True):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            nursery.cancel_scope.cancel()

    async def _send_frames(self, connection: Connection, send: Any) -> None:
        async with aclosing(self._frames) as frames:
            async for body in frames:
                # The send itself is shielded by hypercorn: closing the socket is the only way to end it.
                async with trio.open_nursery() as sending:
                    sending.start_soon(_cut_late, connection, self._stalled)
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    sending.cancel_scope.cancel()


async def _until_gone(receive: Any, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
    scope.cancel()


async def _cut_late(connection: Connection, seconds: float) -> None:
    await trio.sleep(seconds)
    connection.cut()
