"""The daemon and the parts that every installation has: log, HTTP, Redis, the queue, the worker, the database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import msgspec

from ..domain.job import Backoff, Keep
from .keys import Key, Section
from .secret import Secret, SecretUrl

LEVELS = ("debug", "info", "warning", "error", "critical")


class Listen(msgspec.Struct, frozen=True):
    """A TCP address to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        from ipaddress import ip_address

        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


class Daemon(Section, frozen=True, kw_only=True):
    """The process itself."""

    state_dir: Annotated[
        Path | None,
        Key(
            "Where everything embedded lives. Unset: $XDG_STATE_HOME/moonxd, else /var/lib/moonxd for root, "
            "else ~/.local/state/moonxd. Short form: MOONXD_STATE_DIR",
            example="/var/lib/moonxd",
        ),
    ] = None
    socket: Annotated[
        Path | None,
        Key(
            "The control socket. Unset: moonxd.sock in state_dir. Short form: MOONXD_SOCKET", example="/run/moonxd.sock"
        ),
    ] = None
    socket_mode: Annotated[
        int, Key("File mode of the control socket, octal: who may open it, may operate the daemon", check="mode")
    ] = 0o660
    drain_s: Annotated[float, Key("How long running jobs may finish on stop; the rest is handed back", low=0)] = 30.0
    worker_name: Annotated[
        str | None,
        Key("This worker's name in audit rows and the fleet. Unset: host name and process id", example="sync-1"),
    ] = None
    service_name: Annotated[str, Key("What alerts and GET /health call this service", ("SERVICE_NAME",))] = "moonxd"


class Log(Section, frozen=True, kw_only=True):
    """Log lines on stderr."""

    level: Annotated[
        str, Key("The least serious lines to write", ("LOG_LEVEL",), choices=LEVELS, check="level", live=True)
    ] = "info"
    format: Annotated[
        str, Key("auto: pretty on a terminal, JSON lines elsewhere", choices=("auto", "json", "pretty"))
    ] = "auto"


class Http(Section, frozen=True, kw_only=True):
    """The API over TCP, beside the control socket. Off unless listen (or the old PORT) is set."""

    listen: Annotated[
        Listen | None,
        Key("host:port; without a token loopback addresses only", ("PORT",), example="127.0.0.1:3001"),
    ] = None
    token: Annotated[
        Secret | None,
        Key(
            "What calls over TCP that change something show as Authorization: Bearer, 16 bytes or more; on other "
            "addresses than loopback those that read do too. Unset: nothing is changed over TCP",
            check="token",
        ),
    ] = None


class Redis(Section, frozen=True, kw_only=True):
    """Redis holds the queue. With nothing set here a private redis-server runs in state_dir."""

    mode: Annotated[
        str,
        Key(
            "auto: external once any key here (or any REDIS_*) is set",
            choices=("auto", "embedded", "external"),
            embedded=True,
        ),
    ] = "auto"
    url: Annotated[
        SecretUrl | None,
        Key(
            "redis://, rediss:// or unix://; wins over host, port, db, username, password, socket and tls",
            ("REDIS_URL",),
            check="redis-url",
            example="rediss://user:password@redis.example:6379/0",
        ),
    ] = None
    host: Annotated[str, Key("Host name or address", ("REDIS_HOST",))] = "localhost"
    port: Annotated[int, Key("TCP port", ("REDIS_PORT",), low=1, high=65535)] = 6379
    socket: Annotated[Path | None, Key("Unix socket instead of host and port", example="/run/redis/redis.sock")] = None
    db: Annotated[int, Key("Database number", ("REDIS_DB",), low=0)] = 0
    username: Annotated[str | None, Key("ACL user", example="moonxd")] = None
    password: Annotated[Secret | None, Key("Password", ("REDIS_PASSWORD",))] = None
    tls: Annotated[bool, Key("Speak TLS")] = False
    tls_ca: Annotated[Path | None, Key("PEM file of the accepted authorities. Unset: the system's", check="file")] = (
        None
    )
    tls_cert: Annotated[Path | None, Key("PEM file of our certificate", check="file")] = None
    tls_key: Annotated[Path | None, Key("PEM file of our private key", check="file")] = None
    sentinels: Annotated[
        tuple[str, ...], Key("Sentinels as host:port; needs service", check="host-port", example='["10.0.0.1:26379"]')
    ] = ()
    service: Annotated[str | None, Key("Name of the master that the sentinels watch", example="mymaster")] = None
    sentinel_username: Annotated[str | None, Key("ACL user at the sentinels")] = None
    sentinel_password: Annotated[Secret | None, Key("Password at the sentinels")] = None
    key_prefix: Annotated[
        str,
        Key(
            "Put before our own cache keys; the queue's keys have [queue] prefix",
            ("REDIS_KEY_PREFIX",),
            check="may-be-empty",
        ),
    ] = "moonxd:"
    connect_timeout_s: Annotated[
        float, Key("Deadline of one connection attempt", ("REDIS_CONNECT_TIMEOUT",), low=0.001)
    ] = 10.0
    command_timeout_s: Annotated[float, Key("Deadline of one command", ("REDIS_COMMAND_TIMEOUT",), low=0.001)] = 5.0
    appendfsync: Annotated[
        str,
        Key(
            "Embedded only. everysec may lose the last second on power loss, always loses nothing and is slower",
            choices=("everysec", "always"),
            embedded=True,
        ),
    ] = "everysec"
    server: Annotated[
        Path | None,
        Key("Embedded only: the redis-server to run. Unset: PATH, else the bundled one", check="file", embedded=True),
    ] = None

    @property
    def is_external(self) -> bool:
        return self.mode == "external"

    def to_url(self) -> SecretUrl:
        """`url`, or the same made of the parts."""
        if self.url is not None:
            return self.url
        user = quote(self.username or "", safe="")
        login = f"{user}:{quote(self.password.reveal(), safe='')}@" if self.password else f"{user}@" if user else ""
        if self.socket is not None:
            return SecretUrl(f"unix://{login}{self.socket}?db={self.db}")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return SecretUrl(f"{'rediss' if self.tls else 'redis'}://{login}{host}:{self.port}/{self.db}")


class Queue(Section, frozen=True, kw_only=True):
    """The BullMQ queue, and what holds for jobs whose producer did not say otherwise."""

    name: Annotated[str, Key("Queue name", check="no-colon")] = "sync-jobs"
    prefix: Annotated[str, Key("Key prefix; must be the producers'")] = "bull"
    attempts: Annotated[int, Key("Attempts before a job is a dead letter", ("WORKER_RETRIES",), low=1, live=True)] = 3
    backoff_type: Annotated[
        str, Key("How the pause grows from attempt to attempt", choices=("exponential", "fixed", "linear"), live=True)
    ] = "exponential"
    backoff_delay_s: Annotated[float, Key("First pause", ("WORKER_RETRY_DELAY",), low=0, high=86400, live=True)] = 5.0
    backoff_multiplier: Annotated[
        float, Key("Factor of exponential backoff", ("WORKER_BACKOFF_MULTIPLIER",), low=1, high=100, live=True)
    ] = 2.0
    backoff_jitter: Annotated[float, Key("Share of the pause that is random", low=0, high=1, live=True)] = 0.0
    remove_on_complete: Annotated[int, Key("Completed jobs kept; 0 none, -1 all", low=-1)] = 100
    remove_on_complete_age_s: Annotated[int, Key("Completed jobs kept this long; 0 no bound", low=0)] = 0
    remove_on_fail: Annotated[int, Key("Failed jobs kept; 0 none, -1 all", low=-1)] = 50
    remove_on_fail_age_s: Annotated[int, Key("Failed jobs kept this long; 0 no bound", low=0)] = 0

    @property
    def backoff(self) -> Backoff:
        return Backoff(
            self.backoff_type, round(self.backoff_delay_s * 1000), self.backoff_jitter, self.backoff_multiplier
        )

    @property
    def keep_completed(self) -> Keep:
        return _keep(self.remove_on_complete, self.remove_on_complete_age_s)

    @property
    def keep_failed(self) -> Keep:
        return _keep(self.remove_on_fail, self.remove_on_fail_age_s)


def _keep(count: int, age_s: int) -> Keep:
    return Keep(count=None if count < 0 else count, age_s=age_s or None)


class Worker(Section, frozen=True, kw_only=True):
    """How this process works on jobs."""

    concurrency: Annotated[int, Key("Jobs at a time", ("WORKER_CONCURRENCY",), low=1, high=10000)] = 10
    max_jobs: Annotated[int, Key("Jobs that this worker may hold; bounds concurrency", ("WORKER_MAX_JOBS",), low=1)] = (
        100
    )
    timeout_s: Annotated[float, Key("Deadline of one attempt", ("WORKER_TIMEOUT",), low=0.001, live=True)] = 300.0
    snapshot_every_s: Annotated[
        float, Key("A changed portfolio is copied to the history at most this often", low=0, live=True)
    ] = 3600.0
    lock_s: Annotated[float, Key("A job's lock and a wallet's lease; renewed at half", low=1)] = 30.0
    stalled_interval_s: Annotated[float, Key("Between checks for jobs of dead workers", low=1)] = 30.0
    max_stalled: Annotated[int, Key("How often a job may stall before it fails", low=0)] = 1
    batch_size: Annotated[int, Key("Wallets per page of a bulk job", ("WORKER_BATCH_SIZE",), low=1, high=10000)] = 50
    janitor_interval_s: Annotated[
        float, Key("Between sweeps for runs that nobody closed", ("WORKER_CLEANUP_INTERVAL",), low=0.1)
    ] = 300.0
    heartbeat_interval_s: Annotated[
        float, Key("Between heartbeats to the fleet", ("WORKER_STATS_INTERVAL",), low=0.1)
    ] = 30.0

    @property
    def slots(self) -> int:
        return min(self.concurrency, self.max_jobs)


class Database(Section, frozen=True, kw_only=True):
    """PostgreSQL holds the ledger. With nothing set here it is an SQLite file in state_dir."""

    mode: Annotated[
        str,
        Key(
            "auto: external once any key here (or DATABASE_URL, DB_*) is set",
            choices=("auto", "embedded", "external"),
            embedded=True,
        ),
    ] = "auto"
    url: Annotated[
        SecretUrl | None,
        Key(
            "postgresql://; wins over host, port, name, user, password and sslmode",
            ("DATABASE_URL",),
            check="postgres-url",
            example="postgresql://user:password@db.example:5432/moonx_farm",
        ),
    ] = None
    direct_url: Annotated[
        SecretUrl | None,
        Key(
            "The server itself when url leads to a connection pooler: the relay needs a session of its own",
            check="postgres-url",
            embedded=True,
            example="postgresql://user:password@db.example:5432/moonx_farm",
        ),
    ] = None
    host: Annotated[str, Key("Host name, address, or directory of a unix socket", ("DB_HOST",))] = "localhost"
    port: Annotated[int, Key("TCP port", ("DB_PORT",), low=1, high=65535)] = 5432
    name: Annotated[str, Key("Database", ("DB_NAME",))] = "moonx_farm"
    user: Annotated[str, Key("Role", ("DB_USER",))] = "postgres"
    password: Annotated[Secret | None, Key("Password", ("DB_PASSWORD",))] = None
    sslmode: Annotated[
        str,
        Key(
            "libpq's; the old DB_SSL=true means require, false means disable",
            ("DB_SSL",),
            choices=("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
        ),
    ] = "prefer"
    sslrootcert: Annotated[Path | None, Key("PEM file of the accepted authorities", check="file")] = None
    sslcert: Annotated[Path | None, Key("PEM file of our certificate", check="file")] = None
    sslkey: Annotated[Path | None, Key("PEM file of our private key", check="file")] = None
    pool_max: Annotated[int, Key("Most connections", ("DB_MAX_CONNECTIONS",), low=1, high=1000)] = 20
    pool_min: Annotated[int, Key("Connections kept open", ("DB_MIN_CONNECTIONS",), low=0, high=1000)] = 5
    pool_idle_s: Annotated[
        float, Key("Idle connections above pool_min close after", ("DB_IDLE_TIMEOUT",), low=0.001)
    ] = 30.0
    pool_wait_s: Annotated[float, Key("How long a job waits for a free connection", low=0.001)] = 10.0
    connect_timeout_s: Annotated[float, Key("Deadline of one connection attempt", low=0.001)] = 10.0
    statement_timeout_s: Annotated[float, Key("Deadline of one transaction", low=0.001)] = 30.0
    sqlite_path: Annotated[
        Path | None,
        Key(
            "Embedded only: the file. Unset: moonxd.db in state_dir", embedded=True, example="/var/lib/moonxd/moonxd.db"
        ),
    ] = None

    @property
    def is_external(self) -> bool:
        return self.mode == "external"

    def to_url(self) -> SecretUrl:
        """`url`, or the same made of the parts; TLS files are always given as parts."""
        if self.url is not None:
            return self.url
        login = quote(self.user, safe="") + (f":{quote(self.password.reveal(), safe='')}" if self.password else "")
        name = quote(self.name, safe="")
        if self.host.startswith("/"):
            return SecretUrl(f"postgresql://{login}@/{name}?host={quote(self.host)}&port={self.port}")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return SecretUrl(f"postgresql://{login}@{host}:{self.port}/{name}?sslmode={self.sslmode}")
