"""What the publisher and the listener run on: the process's asyncio island, and clients on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from ..adapters.island.shared import SharedIsland
from ..config import Config
from ..ports import Feed, Sink
from .events import open_feed, open_sink

__all__ = ["SharedIsland", "feeds", "sinks"]

OpenSink = Callable[[], AbstractAsyncContextManager[Sink]]
OpenFeed = Callable[[], AbstractAsyncContextManager[Feed]]


def sinks(config: Config, island: SharedIsland) -> Callable[[Callable[[OpenSink], Awaitable[None]]], Awaitable[None]]:
    """Runs work with a maker of producers, as long as `island` lives."""

    async def run(work: Callable[[OpenSink], Awaitable[None]]) -> None:
        await island.alongside(lambda current: work(partial(open_sink, config, current)))

    return run


def feeds(config: Config, island: SharedIsland) -> Callable[[Callable[[OpenFeed], Awaitable[None]]], Awaitable[None]]:
    """The same for what is read of users' activities."""

    async def run(work: Callable[[OpenFeed], Awaitable[None]]) -> None:
        await island.alongside(lambda current: work(partial(open_feed, config, current)))

    return run
