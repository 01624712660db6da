"""Where statistics are kept. The rules are those of the package."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ..domain.blocktime import Block
from ..domain.looks import Look, Want
from ..domain.stats import BridgeStats, ChainStats, Overview, Point, Round


class Collector(Protocol):
    """One kind of statistics. When it runs, how long it may, and what becomes of a round is the runner's affair."""

    @property
    def name(self) -> str:
        """As in configuration and metrics, for example "chain_performance"."""
        ...

    async def collect(self, now_ms: int) -> Round:
        """Look once. Raises only when nothing could be looked at; one bad upstream is a row with an error."""
        ...


class ChainProbe(Protocol):
    """One endpoint of one chain, to be looked at once a round, at the same time as all others."""

    @property
    def host(self) -> str:
        """All that may be shown of it."""
        ...

    async def look(self, want: Want) -> Look | None:
        """Look once, within a deadline of its own.

        None: it was not looked at, since it is not its turn or since it failed too often. Never raises: failures are
        outcomes.
        """
        ...


class HeadStream(Protocol):
    """A subscription that stands."""

    async def head(self) -> Block:
        """The next head. Raises Transient when there will be none: the connection is lost, or talks nonsense."""
        ...


class Heads(Protocol):
    """New heads of one chain, from an endpoint that announces them."""

    @property
    def host(self) -> str:
        """All that may be shown of it."""
        ...

    def subscribe(self) -> AbstractAsyncContextManager[HeadStream]:
        """Connect and subscribe, within a deadline of its own. Raises Transient or Permanent."""
        ...


class StatsArchive(Protocol):
    """Latest values and history of chains and bridges. Old history expires by itself (30 days; overviews 24 h)."""

    async def put_chains(self, rows: Sequence[ChainStats]) -> None:
        """Replace the latest value of each chain and add to its history. Repeating one changes nothing."""
        ...

    async def put_bridges(self, rows: Sequence[BridgeStats]) -> None: ...

    async def put_overview(self, overview: Overview) -> None: ...

    async def chains(self) -> tuple[ChainStats, ...]:
        """The latest of each chain, by chain id."""
        ...

    async def bridges(self) -> tuple[BridgeStats, ...]:
        """The latest of each provider and route."""
        ...

    async def overview(self) -> Overview | None: ...

    async def chain_history(self, chain_id: int, *, since_ms: int, until_ms: int, step_s: float) -> tuple[Point, ...]:
        """since <= time < until in steps, oldest first; steps without samples are absent."""
        ...

    async def bridge_history(
        self, provider: str, route: str, *, since_ms: int, until_ms: int, step_s: float
    ) -> tuple[Point, ...]: ...
