"""Chains and bridges as Prometheus reads them: what the last rounds of this daemon found, at the time of the scrape.

A daemon that does not collect, or not any more, shows none of it: a stale gauge would look like a good one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from .domain.stats import BridgeStats, ChainStats, Health, Round

#: Label values.
Key = tuple[str, ...]


class Readings(Collector):
    """`is_ours`: whether this daemon collects. `now` gives unix seconds."""

    def __init__(self, registry: CollectorRegistry, is_ours: Callable[[], bool], now: Callable[[], float]) -> None:
        self._is_ours = is_ours
        self._now = now
        self._chains: dict[str, ChainStats] = {}
        self._bridges: dict[tuple[str, str], BridgeStats] = {}
        registry.register(self)

    def note(self, found: Round) -> None:
        """The end of a round."""
        self._chains |= {row.slug: row for row in found.chains}
        self._bridges |= {(row.provider, row.route): row for row in found.bridges}

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Their names are known without a look."""
        return self._families((), ())

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """See prometheus_client."""
        if not self._is_ours():
            return ()
        return self._families(tuple(self._chains.values()), tuple(self._bridges.values()))

    def _families(
        self, chains: tuple[ChainStats, ...], bridges: tuple[BridgeStats, ...]
    ) -> Iterator[GaugeMetricFamily]:
        by_chain: dict[Key, ChainStats] = {(row.slug,): row for row in chains}
        by_bridge: dict[Key, BridgeStats] = {(row.provider, row.route): row for row in bridges}
        yield _states(
            "moonxd_chain_status", "1 at the status of a chain", ("chain",),
            {key: row.status for key, row in by_chain.items()},
        )  # fmt: skip
        yield _values(
            "moonxd_chain_block_time_seconds", "Seconds between two blocks", ("chain",),
            {key: row.block_time_s for key, row in by_chain.items()},
        )  # fmt: skip
        yield _values(
            "moonxd_chain_head_age_seconds", "Age of the newest block that is known", ("chain",),
            {key: self._aged(row) for key, row in by_chain.items()},
        )  # fmt: skip
        yield _values(
            "moonxd_chain_reorgs", "Reorganisations seen since the start", ("chain",),
            {key: row.reorgs for key, row in by_chain.items()},
        )  # fmt: skip
        yield _states(
            "moonxd_bridge_status", "1 at the status of a bridge", ("provider", "route"),
            {key: row.status for key, row in by_bridge.items()},
        )  # fmt: skip
        yield _values(
            "moonxd_bridge_latency_seconds", "Time of the last good quote", ("provider", "route"),
            {key: row.latency_s for key, row in by_bridge.items()},
        )  # fmt: skip

    def _aged(self, row: ChainStats) -> float | None:
        """As of now, not of the last look."""
        return None if row.head_age_s is None else row.head_age_s + max(0.0, self._now() - row.at_ms / 1000)


def _states(name: str, text: str, labels: Key, now: dict[Key, Health]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[*labels, "status"])
    for key, current in now.items():
        for status in Health:
            family.add_metric([*key, status.value], float(status is current))
    return family


def _values(name: str, text: str, labels: Key, values: dict[Key, float | int | None]) -> GaugeMetricFamily:
    """What is not known is absent."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        if value is not None:
            family.add_metric(key, value)
    return family
