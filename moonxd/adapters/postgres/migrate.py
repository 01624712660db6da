"""Forward-only migrations: SQL files, all that is missing in one transaction, one migrator at a time."""

from __future__ import annotations

from importlib.resources import files

import psycopg
import trio

from ...domain.errors import ConfigError
from .connection import TrioConnection, assert_supported, connect
from .errors import reason
from .shape import assert_ours

#: gen_random_uuid and every statement of ours exist since then.
OLDEST_SERVER = 130000
#: A migration may wait for readers of a large table, but not for ever.
_LOCK_TIMEOUT = "60s"


class _DryRun(Exception):
    """Undoes the transaction that was tried."""


def migrations() -> list[tuple[int, str, str]]:
    """(version, file name, SQL) of every migration, oldest first."""
    entries = (entry for entry in files(f"{__package__}.migrations").iterdir() if entry.name.endswith(".sql"))
    return sorted((int(entry.name[:4]), entry.name, entry.read_text("utf-8")) for entry in entries)


async def migrate(dsn: str, dry_run: bool = False, *, connect_timeout_s: float = 10.0) -> list[str]:
    """Bring the database at `dsn` up to date; the names of the files applied, none when it was.

    With `dry_run` everything is tried for real and undone. Raises ConfigError, with nothing changed, for a schema that
    is newer than ours, for a table of one of our names that is another program's, and for what the database refuses;
    Transient when it cannot be reached.
    """
    assert_supported()
    connection = await connect(dsn, timeout_s=connect_timeout_s)
    applied: list[str] = []
    try:
        async with connection.transaction():
            applied = await _apply_missing(connection)
            if dry_run:
                raise _DryRun
    except _DryRun:
        return applied
    except psycopg.Error as error:
        detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
        raise ConfigError(
            f"the migration was refused and undone: {reason(error)}{detail}. Clear this and run `moonxd migrate` again"
        ) from error
    finally:
        with trio.CancelScope(shield=True):
            await connection.close()
    return applied


async def _apply_missing(connection: TrioConnection) -> list[str]:
    # The daemon's own bound on a statement would cut the widening of a large table off.
    await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'; SET LOCAL statement_timeout = 0")
    # Before anything is read: two daemons that start together must not both find the schema missing.
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('moonxd.schema', 0))")
    current = await schema_version(connection)
    missing = [migration for migration in migrations() if migration[0] > current]
    if current == 0:
        await assert_ours(connection)
        await connection.execute(
            "CREATE TABLE moonxd_schema (version integer PRIMARY KEY, name text NOT NULL, "
            "applied_at timestamptz NOT NULL DEFAULT now())"
        )
    for version, name, sql in missing:
        await connection.execute(sql.encode())
        await connection.execute("INSERT INTO moonxd_schema (version, name) VALUES (%s, %s)", [version, name])
    return [name for _, name, _ in missing]


async def schema_version(connection: TrioConnection) -> int:
    """The schema's version, 0 on a database without one.

    Raises ConfigError when the server is too old, or the schema newer than this program.
    """
    if connection.info.server_version < OLDEST_SERVER:
        raise ConfigError(
            f"PostgreSQL {connection.info.server_version // 10000} is too old, "
            f"{OLDEST_SERVER // 10000} or newer is needed: upgrade the server"
        )
    cursor = await connection.execute("SELECT to_regclass('moonxd_schema') IS NOT NULL")
    row = await cursor.fetchone()
    if not row or not row[0]:
        return 0
    cursor = await connection.execute("SELECT coalesce(max(version), 0) FROM moonxd_schema")
    row = await cursor.fetchone()
    current = int(row[0]) if row else 0
    newest = migrations()[-1][0]
    if current > newest:
        raise ConfigError(
            f"the database has schema version {current}, this moonxd knows up to {newest}: upgrade moonxd"
        )
    return current


async def assert_current(connection: TrioConnection) -> None:
    """Raises ConfigError unless every migration has been applied."""
    current = await schema_version(connection)
    newest = migrations()[-1][0]
    if current < newest:
        raise ConfigError(
            f"the database has schema version {current}, this moonxd needs {newest}: run `moonxd migrate`"
        )
