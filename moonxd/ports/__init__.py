"""What the inside asks of the outside. Every Protocol has at most eight methods and one conformance suite.

Rules for whoever implements one: map foreign errors to domain.errors at your border (Transient when trying again can
help, Permanent when it cannot), never swallow a cancellation, bound every wait, leave nothing half-done when cancelled.
"""

from __future__ import annotations

from .clock import Clock
from .events import Drain, Feed, Publication, Sink, Topic
from .ledger import ANY_LETTER, BreakerStore, DeadLetters, History, Ledger, LedgerUpkeep, Outbox, Schedule
from .queue import Election, Fleet, Queue, QueueAdmin, QueueUpkeep
from .requests import Requests
from .sources import Cache, ChainReader, ManyReader, PriceSource, Quota, TokenReader
from .stats import BridgeProbe, ChainProbe, Collector, Heads, HeadStream, MarketFigures, StatsArchive
from .verify import Records, Scratch

__all__ = [
    "ANY_LETTER",
    "BreakerStore",
    "BridgeProbe",
    "Cache",
    "ChainProbe",
    "ChainReader",
    "Clock",
    "Collector",
    "DeadLetters",
    "Drain",
    "Election",
    "Feed",
    "Fleet",
    "HeadStream",
    "Heads",
    "History",
    "Ledger",
    "LedgerUpkeep",
    "ManyReader",
    "MarketFigures",
    "Outbox",
    "PriceSource",
    "Publication",
    "Queue",
    "QueueAdmin",
    "QueueUpkeep",
    "Quota",
    "Records",
    "Requests",
    "Schedule",
    "Scratch",
    "Sink",
    "StatsArchive",
    "TokenReader",
    "Topic",
]
