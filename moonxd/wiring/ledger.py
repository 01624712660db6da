"""Opens the ledger: PostgreSQL or SQLite, migrated."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

from ..config import Config
from ..ports import (
    BreakerStore,
    DeadLetters,
    History,
    Ledger,
    LedgerUpkeep,
    Outbox,
    Publication,
    Schedule,
)

log = logging.getLogger("moonxd.wiring")


class Database(Ledger, LedgerUpkeep, History, DeadLetters, Outbox, Protocol):
    """What a ledger's adapter gives beside the ledger itself."""

    @property
    def schedule(self) -> Schedule:
        """Which wallets are synced periodically; shares the ledger's connections."""
        ...

    async def ping(self) -> None: ...

    def publication(self) -> Publication:
        """The right to publish its events."""
        ...

    def breakers(self) -> BreakerStore: ...


@asynccontextmanager
async def open_ledger(config: Config) -> AsyncIterator[Database]:
    """The ledger, migrated to what this version needs."""
    database = config.database
    if not database.is_external:
        from ..adapters.sqlite.ledger import open_sqlite_ledger

        async with open_sqlite_ledger(config.sqlite_path) as ledger:
            yield ledger
        return
    from ..adapters.postgres.ledger import open_postgres_ledger

    for step in await migrate_ledger(config):
        log.info("database migrated: %s", step)
    async with open_postgres_ledger(
        postgres_dsn(config),
        min_size=database.pool_min,
        max_size=database.pool_max,
        idle_s=database.pool_idle_s,
        wait_s=database.pool_wait_s,
        connect_timeout_s=database.connect_timeout_s,
        direct_dsn=_direct_dsn(config),
    ) as ledger:
        yield ledger


async def migrate_ledger(config: Config, *, dry_run: bool = False) -> list[str]:
    """Bring the PostgreSQL database up to date; the steps taken (with `dry_run`: that would be).

    Raises ConfigError when it refuses or holds foreign tables, Transient when it cannot be reached.
    """
    from ..adapters.postgres.migrate import migrate

    return await migrate(postgres_dsn(config), dry_run=dry_run, connect_timeout_s=config.database.connect_timeout_s)


def ledger_name(config: Config) -> str:
    """What to call the ledger in front of people: "embedded", or host:port/name, never with credentials."""
    if not config.database.is_external:
        return "embedded"
    parts = urlsplit(config.database.to_url().reveal())
    host = parts.hostname or dict(parse_qsl(parts.query)).get("host", "localhost")
    return f"{host}:{parts.port or config.database.port}{parts.path}"


def postgres_dsn(config: Config) -> str:
    return _with_parameters(config, config.database.to_url().reveal())


def _direct_dsn(config: Config) -> str | None:
    direct = config.database.direct_url
    return None if direct is None else _with_parameters(config, direct.reveal())


def _with_parameters(config: Config, url: str) -> str:
    from ..adapters.postgres.dsn import with_parameters

    database = config.database
    files = {"sslrootcert": database.sslrootcert, "sslcert": database.sslcert, "sslkey": database.sslkey}
    return with_parameters(url, files, database.statement_timeout_s)
