"""Every event that leaves the daemon: its type, what it says, and where it goes. Shapes are the contract's.

A new event is a struct in one of these files and a line in the table; `make schemas` writes its schema.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .envelope import Data
from .others import SystemAlert, UserActivity
from .portfolio import PortfolioUpdated
from .stats import (
    BridgeLatencyUpdated,
    ChainPerformanceUpdated,
    CollectionCompleted,
    CollectionFailed,
    CollectionStarted,
    HealthCheck,
    OverviewUpdated,
)
from .sync import SyncCancelled, SyncCompleted, SyncFailed, SyncQueued, SyncRejected, SyncRetrying, SyncStarted

SYNC_EVENTS = "sync.events"
PORTFOLIO_UPDATES = "portfolio.updates"
SYSTEM_ALERTS = "system.alerts"
USER_ACTIVITIES = "user.activities"
STATS_EVENTS = "stats.events"


class EventType(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of event. `topic` is the name under which the configuration knows it."""

    name: str
    struct: type[Data]
    topic: str
    #: When it is sent.
    doc: str


EVENT_TYPES: Mapping[str, EventType] = {
    name: EventType(name=name, struct=struct, topic=topic, doc=doc)
    for name, struct, topic, doc in (
        ("sync.queued", SyncQueued, SYNC_EVENTS, "a sync waits in the queue"),
        ("sync.started", SyncStarted, SYNC_EVENTS, "an attempt was admitted"),
        ("sync.completed", SyncCompleted, SYNC_EVENTS, "with the commit"),
        ("sync.retrying", SyncRetrying, SYNC_EVENTS, "an attempt failed or was handed back, another follows"),
        ("sync.failed", SyncFailed, SYNC_EVENTS, "an admitted job failed for good, or its worker died"),
        ("sync.cancelled", SyncCancelled, SYNC_EVENTS, "an operator stopped it, or another sync stood in for it"),
        ("sync.rejected", SyncRejected, SYNC_EVENTS, 'over the rate limit, with on_limit = "reject"'),
        ("portfolio.updated", PortfolioUpdated, PORTFOLIO_UPDATES, "with the commit, if the portfolio really changed"),
        ("system.alert", SystemAlert, SYSTEM_ALERTS, "something is wrong, or is over"),
        ("user.activity", UserActivity, USER_ACTIVITIES, "a user asked for a sync or looked at a portfolio"),
        ("stats.chain_performance_updated", ChainPerformanceUpdated, STATS_EVENTS, "chains changed"),
        ("stats.bridge_latency_updated", BridgeLatencyUpdated, STATS_EVENTS, "bridges changed"),
        ("stats.overview_updated", OverviewUpdated, STATS_EVENTS, "any of it changed"),
        ("stats.health_check", HealthCheck, STATS_EVENTS, "after each round of the overview"),
        ("stats.collection_started", CollectionStarted, STATS_EVENTS, "a collector begins a round"),
        ("stats.collection_completed", CollectionCompleted, STATS_EVENTS, "a round gave something"),
        ("stats.collection_failed", CollectionFailed, STATS_EVENTS, "a round gave nothing"),
    )
}
#: The other way round, for the builders.
BY_STRUCT: Mapping[type[Data], EventType] = {one.struct: one for one in EVENT_TYPES.values()}
