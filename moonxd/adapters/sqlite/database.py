"""Opening a file of ours: its mode, its pragmas, whether it is ours, and its migrations."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from ...domain.errors import ConfigError

#: "moon" in ASCII, written into the file's header: tells our files from others'.
APPLICATION_ID = 0x6D6F6F6E


class Kind(NamedTuple):
    """What a file of ours is for."""

    name: str
    application_id: int
    #: Package with its migrations, below this one.
    migrations: str
    synchronous: str


class Torn(ConfigError):
    """The file is damaged."""


LEDGER = Kind("the ledger", APPLICATION_ID, "migrations", "FULL")
#: A file of its own: what the ledger commits must not wait for statistics, nor be lost with them. A power cut may
#: cost the last seconds of it.
STATISTICS = Kind("the statistics", 0x6D6F6F73, "statistics", "NORMAL")
#: Seconds SQLite waits for another process' lock before it gives up.
BUSY_S = 5.0
#: Files up to this size are checked page by page at every start; larger ones would delay it by seconds.
CHECKED_BYTES = 32 * 1024 * 1024


def open_file(path: Path, kind: Kind = LEDGER) -> sqlite3.Connection:
    """A connection to our file at `path`, created and migrated if needed.

    Raises ConfigError, naming the file, when it is not ours, of a newer version, or cannot be opened; Torn when it is
    torn.
    """
    try:
        # Created by us, so that it is never readable by others, not even for a moment; WAL files inherit the mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.chmod(path, 0o600)
    except OSError as error:
        raise ConfigError(f"{kind.name} {path} cannot be opened ({error.strerror}): choose another path") from error
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, cached_statements=256)
    try:
        _check(connection, path, kind)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {kind.synchronous}")
        connection.execute("PRAGMA temp_store = MEMORY")
        migrate(connection, str(path), kind)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise Torn(
            f"{kind.name} {path} is torn or not a SQLite file ({error}): restore a backup or move it away"
        ) from error
    except BaseException:
        connection.close()
        raise
    return connection


def open_memory() -> sqlite3.Connection:
    """An empty ledger that lives as long as its connection."""
    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=256, check_same_thread=False)
    migrate(connection, "in memory")
    return connection


def _check(connection: sqlite3.Connection, path: Path, kind: Kind) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if tables and application != kind.application_id:
        shown = ", ".join(sorted(tables)[:3])
        raise ConfigError(f"{path} is another program's database (it holds {shown}): choose another path")
    if path.stat().st_size <= CHECKED_BYTES:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise Torn(f"{kind.name} {path} is torn ({verdict}): restore a backup or move it away")


def migrations(kind: Kind = LEDGER) -> list[tuple[int, str, str]]:
    """(version, file name, SQL) of every migration, oldest first."""
    entries = (entry for entry in files(f"{__package__}.{kind.migrations}").iterdir() if entry.name.endswith(".sql"))
    return sorted((int(entry.name[:4]), entry.name, entry.read_text("utf-8")) for entry in entries)


def migrate(connection: sqlite3.Connection, name: str, kind: Kind = LEDGER) -> list[str]:
    """Apply what is missing, all of it or nothing; the names of the files applied.

    Raises ConfigError when the file was written by a newer version.
    """
    known = migrations(kind)
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS moonxd_schema "
            "(version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at TEXT NOT NULL)"
        )
        (current,) = connection.execute("SELECT coalesce(max(version), 0) FROM moonxd_schema").fetchone()
        if current > (newest := known[-1][0]):
            raise ConfigError(
                f"{kind.name} {name} has schema version {current}, this moonxd knows up to {newest}: upgrade moonxd"
            )
        applied = [_apply(connection, *migration) for migration in known if migration[0] > current]
        if applied:
            connection.execute(f"PRAGMA application_id = {kind.application_id}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return applied


def _apply(connection: sqlite3.Connection, version: int, name: str, sql: str) -> str:
    for statement in _statements(sql):
        connection.execute(statement)
    applied_at = datetime.now(UTC).isoformat(timespec="microseconds")
    connection.execute("INSERT INTO moonxd_schema VALUES (?, ?, ?)", (version, name, applied_at))
    return name


def _statements(sql: str) -> Iterator[str]:
    """`sql` split at its statements' ends: executescript would commit what stands before it."""
    lines: list[str] = []
    for line in sql.splitlines():
        lines.append(line)
        if line.rstrip().endswith(";") and sqlite3.complete_statement("\n".join(lines)):
            yield "\n".join(lines)
            lines.clear()
