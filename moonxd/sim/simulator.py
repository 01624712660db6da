"""Open a simulator inside this process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from .http import Connection
from .router import Router
from .settings import SimSettings
from .websocket import upgrade
from .world import World

_BACKLOG = 512


class Simulator:
    """A running simulator. `world` may be looked at and changed by whoever shares the process."""

    def __init__(self, world: World, port: int) -> None:
        self.world = world
        self.port = port

    @property
    def url(self) -> str:
        host = self.world.settings.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def env(self) -> dict[str, str]:
        """The variables that point a daemon here, in the names of its configuration."""
        base, wire = self.url, "ws" + self.url[4:]
        variables = {"ENABLED_CHAINS": ",".join(self.world.chains)}
        for slug in self.world.chains:
            variables[f"{slug.upper()}_RPC_URL"] = f"{base}/rpc/{slug}"
            variables[f"{slug.upper()}_WS_URL"] = f"{wire}/ws/{slug}"
        variables |= {
            "ALCHEMY_BASE_URL": f"{base}/alchemy",
            "ALCHEMY_PRICES_URL": f"{base}/prices/v1",
            "DEFILLAMA_COINS_URL": f"{base}/llama/coins",
            "DEFILLAMA_API_URL": f"{base}/llama/api",
            "COINGECKO_BASE_URL": f"{base}/coingecko/api/v3",
            "DEXSCREENER_BASE_URL": f"{base}/dexscreener",
            "BINANCE_BASE_URL": f"{base}/binance",
            "LIFI_API_URL": f"{base}/lifi/v1",
            "RELAY_API_URL": f"{base}/relay",
            "MOONXD_STATS__ONEINCH__BASE_URL": f"{base}/oneinch",
            "MOONXD_STATS__ACROSS__BASE_URL": f"{base}/across/api",
        }
        if self.world.settings.alchemy_key is not None:
            variables["ALCHEMY_API_KEY"] = self.world.settings.alchemy_key
        return variables


@asynccontextmanager
async def open_simulator(settings: SimSettings, *, now: Callable[[], float] = time.time) -> AsyncIterator[Simulator]:
    """Serve a simulated world until the block ends; connections end with it. Raises OSError when the port is taken.

    `now` is the wall clock (unix seconds) that heads and prices follow. An error of the block leaves it as itself, not
    inside a group.
    """
    world = World(settings, now)
    router = Router(world)
    turn_to_websocket = partial(upgrade, router)

    async def converse(stream: trio.SocketStream) -> None:
        await Connection(stream, router.handle, turn_to_websocket).serve()

    listeners = await trio.open_tcp_listeners(settings.port, host=settings.host, backlog=_BACKLOG)
    port: int = listeners[0].socket.getsockname()[1]
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, converse, listeners))
        try:
            yield Simulator(world, port)
        except Exception as error:
            failure = error
        finally:
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
