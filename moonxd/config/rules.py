"""Rules between keys: which parts are external, where state lives, and what does not go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..domain.chain import CHAINS
from ..paths import SOCKET_NAME, default_state_dir
from .keys import specs_of, value_at
from .secret import SecretUrl
from .tree import Config

#: Parts that run embedded (or not at all) until something of theirs is set.
PARTS = {"redis": "embedded", "database": "embedded", "kafka": "off", "mongodb": "embedded"}
#: Keys that are accepted for an old .env only.
UNUSED = frozenset(
    {
        "prices.coingecko.api_secret",
        "prices.dexscreener.api_key",
        "prices.dexscreener.api_secret",
        "prices.binance.api_key",
        "prices.binance.api_secret",
    }
)
#: The kernel's limit for the path of a unix socket, without the final NUL.
_SOCKET_PATH_MAX = 107


class Draft:
    """What the layers said so far: values and origins by dotted key, problems and notes as sentences."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.problems: list[str] = []
        self.notes: list[str] = []
        #: Parts that an old variable touched, and which one did first.
        self.touched: dict[str, str] = {}
        #: Keys that nobody set and a rule decided.
        self.ruled: set[str] = set()

    def rule(self, key: str, value: Any, why: str) -> None:
        self.values[key] = value
        self.origins[key] = why
        self.ruled.add(key)

    def touch(self, part: str, name: str) -> None:
        self.touched.setdefault(part, name)

    def get(self, key: str) -> Any:
        return self.values[key] if key in self.values else specs_of(Config)[key].default


def resolve(draft: Draft, environ: Mapping[str, str]) -> None:
    """Replace what is decided by rule (modes, paths) and note what does not go together."""
    for part, otherwise in PARTS.items():
        _resolve_mode(draft, part, otherwise)
    _resolve_paths(draft, environ)
    if not draft.problems:
        draft.problems.extend(_conflicts(draft))
    draft.notes.extend(_remarks(draft))


def _resolve_mode(draft: Draft, part: str, otherwise: str) -> None:
    key = f"{part}.mode"
    if draft.get(key) != "auto":
        return
    own = _outward(draft, part)
    because = draft.touched.get(part) or (own[0] if own else None)
    draft.rule(key, "external" if because else otherwise, f"{because} is set" if because else "default")


def _resolve_paths(draft: Draft, environ: Mapping[str, str]) -> None:
    def settle(key: str, default: Path, origin: str) -> Path:
        if draft.values.get(key) is None:
            draft.rule(key, default.absolute(), origin)
        path = draft.values[key]
        assert isinstance(path, Path)
        return path

    state_dir = settle("daemon.state_dir", default_state_dir(environ), "default")
    socket = settle("daemon.socket", state_dir / SOCKET_NAME, "in daemon.state_dir")
    settle("database.sqlite_path", state_dir / "moonxd.db", "in daemon.state_dir")
    if len(str(socket).encode()) > _SOCKET_PATH_MAX:
        draft.problems.append(
            f"daemon.socket = {str(socket)!r}: the path of a unix socket may have {_SOCKET_PATH_MAX} bytes, "
            f"this one has {len(str(socket).encode())}: choose a shorter daemon.state_dir or daemon.socket"
        )


def _conflicts(draft: Draft) -> Iterator[str]:
    get = draft.get
    for part in ("database", "mongodb"):
        if get(f"{part}.pool_min") > get(f"{part}.pool_max"):
            yield f"{part}.pool_min = {get(f'{part}.pool_min')} is above {part}.pool_max = {get(f'{part}.pool_max')}"
    if get("kafka.retry_min_s") > get("kafka.retry_max_s"):
        yield f"kafka.retry_min_s is above kafka.retry_max_s = {get('kafka.retry_max_s'):g}"
    if 0 < get("alerts.failed_share") < get("alerts.cleared_share"):
        yield f"alerts.cleared_share is above alerts.failed_share = {get('alerts.failed_share'):g}"
    for cert, key in _PAIRS:
        if (get(cert) is None) != (get(key) is None):
            yield f"{cert} and {key} belong together: set both or neither"
    listen = get("http.listen")
    if listen is not None and not listen.is_loopback and get("http.token") is None:
        yield (
            f"http.listen = '{listen}' must be a loopback address (127.0.0.1, [::1] or localhost) without http.token: "
            "anybody who reaches the port could operate the daemon"
        )
    if get("mongodb.mode") == "external" and not get("mongodb.database") and not _names_a_database(get("mongodb.uri")):
        yield "mongodb.uri names no database: add /NAME behind its hosts, or set mongodb.database"
    if get("core_service.enabled") and not get("core_service.prefixes"):
        yield "core_service.enabled is true and core_service.prefixes is empty: name at least one"
    yield from _conflicting_logins(draft)
    yield from _unreachable_chains(draft)


def _names_a_database(uri: SecretUrl) -> bool:
    return bool(urlsplit(uri.reveal()).path.strip("/"))


def _conflicting_logins(draft: Draft) -> Iterator[str]:
    get = draft.get
    if get("redis.sentinels") and not get("redis.service"):
        yield "redis.sentinels is set without redis.service: name the master that they watch"
    if get("redis.service") and not get("redis.sentinels"):
        yield "redis.service is set without redis.sentinels: list the sentinels as host:port"
    if (get("kafka.username") is None) != (get("kafka.password") is None):
        yield "kafka.username and kafka.password belong together: set both or neither"


def _unreachable_chains(draft: Draft) -> Iterator[str]:
    get = draft.get
    if not get("chains.enabled"):
        yield f"chains.enabled is empty: name at least one of {', '.join(chain.slug for chain in CHAINS.values())}"
    for slug in get("chains.enabled"):
        has_key = bool(get(f"chains.{slug}.alchemy_key") or get("alchemy.api_key"))
        source = get(f"chains.{slug}.source")
        if source == "alchemy" and not has_key:
            yield f"chains.{slug}.source = 'alchemy' needs chains.{slug}.alchemy_key or alchemy.api_key"
        elif not get(f"chains.{slug}.rpc_urls") and (source == "rpc" or not has_key):
            yield f"chains.{slug}.rpc_urls is empty and there is no Alchemy key: give the chain an endpoint"


def _remarks(draft: Draft) -> Iterator[str]:
    get = draft.get
    for part, parts in _COVERED.items():
        covered = [f"{part}.{name}" for name in parts if draft.values.get(f"{part}.{name}") is not None]
        if get(f"{part}.url") is not None and covered:
            yield f"{part}.url is set and wins over {', '.join(covered)}"
    for part in PARTS:
        if get(f"{part}.mode") in ("embedded", "off") and (part in draft.touched or _outward(draft, part)):
            yield f"{part}.mode = {get(f'{part}.mode')!r}: what is set for an external one has no effect"
    if get("worker.concurrency") > get("worker.max_jobs"):
        yield f"worker.max_jobs = {get('worker.max_jobs')} bounds worker.concurrency = {get('worker.concurrency')}"


_PAIRS = (
    ("redis.tls_cert", "redis.tls_key"),
    ("database.sslcert", "database.sslkey"),
    ("kafka.tls_cert", "kafka.tls_key"),
)
_COVERED = {
    "redis": ("host", "port", "socket", "db", "username", "password", "tls"),
    "database": ("host", "port", "name", "user", "password", "sslmode"),
}


def _outward(draft: Draft, part: str) -> list[str]:
    """The keys that somebody set and that speak of an external part."""
    specs = specs_of(Config)
    return [
        key
        for key, value in draft.values.items()
        if key.startswith(f"{part}.") and value is not None and not specs[key].key.embedded
    ]


def without_effect(draft: Draft) -> list[str]:
    """One sentence per key that somebody set and that changes nothing in this version."""
    ours = [key for key in draft.origins if key not in draft.ruled]
    return [f"{key} ({draft.origins[key]}): accepted, has no effect in this version" for key in ours if key in UNUSED]


def diff_reloadable(old: Config, new: Config) -> tuple[list[str], list[str]]:
    """The keys that differ: those that take effect on reload, and those that need a restart.

    Keys without effect are in neither list.
    """
    applied: list[str] = []
    restart: list[str] = []
    for key, spec in specs_of(Config).items():
        if key not in UNUSED and value_at(old, key) != value_at(new, key):
            (applied if spec.key.live else restart).append(key)
    return applied, restart
