"""What the live view needs from a client of the daemon, and how it comes by one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

import msgspec

from moonxd.api.schema import Delta, Snapshot
from moonxd.api.stats import BridgesReply, ChainsReply, CollectorView


class FeedError(Exception):
    """The daemon cannot be reached, or refused. `hint` says what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class NoStatistics(FeedError):
    """This daemon keeps none."""


class Statistics(msgspec.Struct, frozen=True):
    """Chains and bridges with their histories, and how the daemon's collectors stand."""

    chains: ChainsReply
    bridges: BridgesReply
    collectors: tuple[CollectorView, ...]


class Failed(NamedTuple):
    """Failed jobs that can be put back; `more` when there are more than were counted."""

    number: int
    more: bool = False


class Requeued(NamedTuple):
    """`skipped` jobs were gone, or taken by somebody, before we got to them."""

    moved: int
    skipped: int


class Feed(Protocol):
    """One connection. Every method raises FeedError, and only that."""

    def stream(self) -> AsyncGenerator[Snapshot | Delta]:
        """One snapshot, then its deltas, until the daemon goes away. To be closed by who leaves it early."""
        ...

    async def statistics(self, *, since: float, step: float) -> Statistics:
        """With the history from `since` (unix seconds) in steps of `step` seconds. Raises NoStatistics too."""
        ...

    async def pause(self) -> None:
        """Pause the queue for every worker."""
        ...

    async def resume(self, *, worker: bool = False) -> None:
        """Resume the queue, or only this `worker`'s claiming."""
        ...

    async def requeueable(self) -> Failed:
        """How many failed jobs `requeue_failed` would put back."""
        ...

    async def requeue_failed(self) -> Requeued:
        """Put every failed job back to waiting."""
        ...


#: Opens a feed; entered once per attempt to connect.
Connect = Callable[[], AbstractAsyncContextManager[Feed]]
