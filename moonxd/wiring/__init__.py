"""From the configuration to the adapters: each function opens one part of the outside."""

from __future__ import annotations

from .bridges import bridge_probes, market_figures
from .chainstats import chain_heads, chain_probes, cost_statement
from .ledger import Database, ledger_name, migrate_ledger, open_ledger, postgres_dsn
from .live import live_feed
from .offices import election
from .place import WallClock, identity, make_state_dir, worker_name
from .policies import failure_alarm, gate, guards, job_defaults, pruner, retention, window_check
from .providers import new_sources, quota
from .redis import connections, redis_settings
from .stats import SharedIsland, WithArchive, shared_island, with_archive

__all__ = [
    "Database",
    "SharedIsland",
    "WallClock",
    "WithArchive",
    "bridge_probes",
    "chain_heads",
    "chain_probes",
    "connections",
    "cost_statement",
    "election",
    "failure_alarm",
    "gate",
    "guards",
    "identity",
    "job_defaults",
    "ledger_name",
    "live_feed",
    "make_state_dir",
    "market_figures",
    "migrate_ledger",
    "new_sources",
    "open_ledger",
    "postgres_dsn",
    "pruner",
    "quota",
    "redis_settings",
    "retention",
    "shared_island",
    "window_check",
    "with_archive",
    "worker_name",
]
