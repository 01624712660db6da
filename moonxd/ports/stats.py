"""Where statistics are kept. The rules are those of the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ..domain.blocktime import Block
from ..domain.bridge import Route, Sight
from ..domain.looks import Look, Want
from ..domain.stats import BridgeStats, ChainStats, Figures, Overview, Point, Round


class Collector(Protocol):
    """One kind of statistics. When it runs, how long it may, and what becomes of a round is the runner's affair."""

    @property
    def name(self) -> str:
        """As in configuration and metrics, for example "chain_performance"."""
        ...

    async def collect(self, now_ms: int) -> Round:
        """Look once. Raises only when nothing could be looked at; one bad upstream is a row with an error."""
        ...


class BridgeProbe(Protocol):
    """Asks one bridge provider for quotes."""

    @property
    def provider(self) -> str:
        """As in the archive, for example "LI.FI"."""
        ...

    @property
    def routes(self) -> tuple[Route, ...]:
        """What it is to be asked for."""
        ...

    async def quote(self, route: Route) -> Sight:
        """Ask once, with retries where they help. Never raises for trouble with the provider: the outcome says it.

        A surrounding deadline is heeded: what it leaves no time for is not begun, and an answer that does not come
        before it is a timeout.
        """
        ...


class MarketFigures(Protocol):
    """What the market says about chains: money locked and traded. It moves by the hour and is cached for long."""

    async def figures(self, chain_ids: Sequence[int]) -> Mapping[int, Figures]:
        """What is known now, fetched anew when it is old. Never raises for an outage: then the last known is given.

        A chain that was never learned about is absent. These figures never say anything about a chain's health.
        """
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
