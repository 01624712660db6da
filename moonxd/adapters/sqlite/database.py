"""Opening the ledger's file: its mode, its pragmas, whether it is ours, and its migrations."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from ...domain.errors import ConfigError

#: "moon" in ASCII, written into the file's header: tells our files from others'.
APPLICATION_ID = 0x6D6F6F6E
#: Seconds SQLite waits for another process' lock before it gives up.
BUSY_S = 5.0
#: Files up to this size are checked page by page at every start; larger ones would delay it by seconds.
CHECKED_BYTES = 32 * 1024 * 1024


def open_file(path: Path) -> sqlite3.Connection:
    """A connection to our ledger at `path`, created and migrated if needed.

    Raises ConfigError, naming the file, when it is torn, not ours, of a newer version, or cannot be opened.
    """
    try:
        # Created by us, so that it is never readable by others, not even for a moment; WAL files inherit the mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.chmod(path, 0o600)
    except OSError as error:
        raise ConfigError(f"the ledger {path} cannot be opened ({error.strerror}): choose another path") from error
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, cached_statements=256)
    try:
        _check(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA temp_store = MEMORY")
        migrate(connection, str(path))
    except sqlite3.DatabaseError as error:
        connection.close()
        raise ConfigError(
            f"the ledger {path} is torn or not a SQLite file ({error}): restore a backup or move it away"
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


def _check(connection: sqlite3.Connection, path: Path) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if tables and application != APPLICATION_ID:
        shown = ", ".join(sorted(tables)[:3])
        raise ConfigError(f"{path} is another program's database (it holds {shown}): choose another path")
    if path.stat().st_size <= CHECKED_BYTES:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise ConfigError(f"the ledger {path} is torn ({verdict}): restore a backup or move it away")


def migrations() -> list[tuple[int, str, str]]:
    """(version, file name, SQL) of every migration, oldest first."""
    entries = (entry for entry in files(f"{__package__}.migrations").iterdir() if entry.name.endswith(".sql"))
    return sorted((int(entry.name[:4]), entry.name, entry.read_text("utf-8")) for entry in entries)


def migrate(connection: sqlite3.Connection, name: str) -> list[str]:
    """Apply what is missing, all of it or nothing; the names of the files applied.

    Raises ConfigError when the file was written by a newer version.
    """
    known = migrations()
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS moonxd_schema "
            "(version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at TEXT NOT NULL)"
        )
        (current,) = connection.execute("SELECT coalesce(max(version), 0) FROM moonxd_schema").fetchone()
        if current > (newest := known[-1][0]):
            raise ConfigError(
                f"the ledger {name} has schema version {current}, this moonxd knows up to {newest}: upgrade moonxd"
            )
        applied = [_apply(connection, *migration) for migration in known if migration[0] > current]
        if applied:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
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
