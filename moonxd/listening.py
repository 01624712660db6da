"""What other programs say of users, as the daemon hears it. Used by parts.py only."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from .agents.activities import Activities
from .domain.activity import Sign
from .domain.errors import ConfigError, Transient, describe
from .domain.events.envelope import SOURCE
from .ports import Feed
from .supervisor import FOR_EVER, Child
from .telemetry import Telemetry

OpenFeed = Callable[[], AbstractAsyncContextManager[Feed]]
#: Runs work that needs a feed, and ends it when none can be had any more.
WithFeed = Callable[[Callable[[OpenFeed], Awaitable[None]]], Awaitable[None]]


class Listening:
    """Nothing runs without Kafka (`with_feed` None). `record` writes signs of users, one lasts `active_s`."""

    def __init__(
        self,
        with_feed: WithFeed | None,
        record: Callable[[Sequence[Sign]], Awaitable[None]],
        *,
        active_s: float,
        telemetry: Telemetry,
    ) -> None:
        self._with_feed = with_feed
        self._activities = Activities(
            record,
            source=SOURCE,
            active_s=active_s,
            now=time.time,
            count=telemetry.activities_heard,
        )

    def children(self) -> tuple[Child, ...]:
        with_feed = self._with_feed
        if with_feed is None:
            return ()

        async def run(ready: Callable[[], None]) -> None:
            # Ready at once: a broker that is away must not hold up the daemon's start.
            ready()
            try:
                await with_feed(lambda open_feed: self._activities.run(lambda: None, open_feed))
            except* ConfigError as refused:
                # A login may be mended at the broker, without a word to us: as the relay does, we go on asking.
                raise Transient(describe(refused)) from None

        return (Child(name="activities", body=run, critical=False, restarts=FOR_EVER),)
