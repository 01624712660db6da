"""What the publisher runs on: the process's asyncio island, and producers on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from ..adapters.island.shared import SharedIsland
from ..config import Config
from ..ports import Sink
from .events import open_sink

__all__ = ["SharedIsland", "sinks"]

OpenSink = Callable[[], AbstractAsyncContextManager[Sink]]


def sinks(config: Config, island: SharedIsland) -> Callable[[Callable[[OpenSink], Awaitable[None]]], Awaitable[None]]:
    """Runs work with a maker of producers, as long as `island` lives."""

    async def run(work: Callable[[OpenSink], Awaitable[None]]) -> None:
        await island.alongside(lambda current: work(partial(open_sink, config, current)))

    return run
