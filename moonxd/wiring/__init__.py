"""From the configuration to the adapters: each function opens one part of the outside."""

from __future__ import annotations

from .ledger import Database, ledger_name, migrate_ledger, open_ledger, postgres_dsn
from .live import live_feed
from .place import WallClock, identity, make_state_dir, worker_name
from .policies import failure_alarm, guards, job_defaults, pruner, retention, window_check
from .providers import new_sources
from .redis import connections, redis_settings

__all__ = [
    "Database",
    "WallClock",
    "connections",
    "failure_alarm",
    "guards",
    "identity",
    "job_defaults",
    "ledger_name",
    "live_feed",
    "make_state_dir",
    "migrate_ledger",
    "new_sources",
    "open_ledger",
    "postgres_dsn",
    "pruner",
    "redis_settings",
    "retention",
    "window_check",
    "worker_name",
]
