"""The control plane as a supervised part: its sockets, and an end that still gives the clients their last answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio

from .server import ControlPlane, serve_control
from .socket import tcp_listeners, unix_listener

#: Seconds that the clients get to read their last answer.
GRACE_S = 1.0


async def run_control(
    plane: ControlPlane, socket: Path, mode: int, listen: object | None, ready: Callable[[], None]
) -> None:
    """Serve on the unix socket, and on `listen` (host:port) if given, until cancelled."""
    with unix_listener(socket, mode=mode) as listener:
        listeners = [listener]
        if listen is not None:
            listeners += await tcp_listeners(str(listen))
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_control, plane, listeners, stop, grace=GRACE_S))
            ready()
            try:
                await trio.sleep_forever()
            finally:
                nursery.cancel_scope.shield = True
                nursery.cancel_scope.deadline = trio.current_time() + GRACE_S + 1
                stop.set()
