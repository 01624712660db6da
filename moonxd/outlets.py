"""Counters of what leaves the process beside the syncs: events, statistics, the live feed, the core service's replies.

Told and read like telemetry.py, which they are a part of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_ROUND_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_PUBLISH_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LIVE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Outlets:
    """Times are seconds."""

    def __init__(self, reg: CollectorRegistry) -> None:
        self._collections = Counter(
            "moonxd_stats_collections", "Rounds of statistics", ["job", "outcome"], registry=reg
        )
        self._collecting = Histogram(
            "moonxd_stats_collection_seconds", "Time of a round", ["job"], buckets=_ROUND_BUCKETS, registry=reg
        )
        self._samples = Gauge("moonxd_stats_samples_waiting", "Samples that the archive has not taken", registry=reg)
        self._samples_lost = Counter(
            "moonxd_stats_samples_dropped", "Samples left out: too many waited, or unfit", ["why"], registry=reg
        )
        self._samples_told: dict[str, int] = {}
        self._heard = Counter(
            "moonxd_activity_messages", "Messages about users by what became of them", ["result"], registry=reg
        )
        self._published = Counter("kafka_events_published", "Messages that Kafka acknowledged", ["topic"], registry=reg)
        self._publishing = Histogram(
            "kafka_publish_duration_seconds", "From handing a page over until all of it is acknowledged",
            buckets=_PUBLISH_BUCKETS, registry=reg,
        )  # fmt: skip
        self._publish_errors = Counter("kafka_publish_errors", "Failures of publishing", ["kind"], registry=reg)
        self._outbox_lag = Gauge("moonxd_outbox_lag", "Age of the oldest unpublished event in seconds", registry=reg)
        self._outbox = Gauge("moonxd_outbox_unpublished", "Events that are not published yet", registry=reg)
        self._publishes = Gauge("moonxd_publisher_holding", "1 in the daemon that publishes", registry=reg)
        for gauge in (self._outbox_lag, self._outbox):
            gauge.set(math.nan)
        self._core = Counter(
            "moonxd_core_service_requests", "Requests of the core service", ["type", "outcome"], registry=reg
        )
        self._live_clients = Gauge("moonxd_live_clients", "Browsers connected to the live feed", registry=reg)
        self._live_sent = Counter("moonxd_live_messages", "Events told to browsers", ["type"], registry=reg)
        self._live_ended = Counter("moonxd_live_ended", "Connections of browsers that ended", ["reason"], registry=reg)
        self._live_lag = Histogram(
            "moonxd_live_lag_seconds", "From an event's commit until a whole room was told",
            buckets=_LIVE_BUCKETS, registry=reg,
        )  # fmt: skip

    # ---- statistics --------------------------------------------------------------------------------------------------

    def collection(self, job: str, outcome: str, seconds: float) -> None:
        """A round of statistics ended: ok | partial | failed | timeout."""
        self._collections.labels(job, outcome).inc()
        self._collecting.labels(job).observe(seconds)

    def archive(self, *, waiting: int, thinned: int, refused: int) -> None:
        """How writing statistics stands: samples that wait now, and those left out since the start."""
        self._samples.set(waiting)
        for why, count in (("thinned", thinned), ("refused", refused)):
            self._samples_lost.labels(why).inc(count - self._samples_told.get(why, 0))
            self._samples_told[why] = count

    # ---- events --------------------------------------------------------------------------------------------------

    def published(self, topics: Mapping[str, int], seconds: float) -> None:
        """One page: messages by the broker's topic."""
        self._publishing.observe(seconds)
        for topic, count in topics.items():
            self._published.labels(topic).inc(count)

    def publish_failed(self, kind: str) -> None:
        """`kind`: transient, broken (the producer was replaced), parked (an event was set aside)."""
        self._publish_errors.labels(kind).inc()

    def outbox(self, *, count: int, lag_s: float, is_holding: bool) -> None:
        """How the outbox stands, and whether this daemon empties it."""
        self._outbox.set(count)
        self._outbox_lag.set(lag_s)
        self._publishes.set(is_holding)

    def core_request(self, kind: str, outcome: str) -> None:
        """A request of the core service. `outcome`: queued, answered, refused, malformed, or what went wrong."""
        self._core.labels(kind, outcome).inc()

    # ---- the live feed -------------------------------------------------------------------------------------------

    def live_clients(self, count: int) -> None:
        self._live_clients.set(count)

    def live_sent(self, kind: str, count: int, lag_s: float) -> None:
        """An event of this kind was told to so many, so long after its commit."""
        self._live_sent.labels(kind).inc(count)
        self._live_lag.observe(lag_s)

    def live_ended(self, why: str) -> None:
        """`why`: a word for how a connection ended."""
        self._live_ended.labels(why).inc()

    def activities_heard(self, counts: Mapping[str, int]) -> None:
        """Messages about users by what became of them: touched | ignored | stale | malformed."""
        for result, count in counts.items():
            self._heard.labels(result).inc(count)
