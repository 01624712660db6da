"""Where Redis is and how to get in. Secrets never show in a repr or a message."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

from moonxd.domain.errors import ConfigError

DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379
_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
_SHAPES = (
    "redis://[user:password@]host[:6379][/db], rediss://... for TLS, unix:///path/to/socket[?db=N], "
    "or redis+sentinel://[user:password@]host1:26379,host2:26379/service[/db]"
)


class RedisSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach one Redis: a host, a unix socket, or a service watched by Sentinels. Times are seconds."""

    host: str = "localhost"
    port: int = DEFAULT_PORT
    #: Path of the server's unix socket; wins over host and port.
    unix_path: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = None
    tls: bool = False
    #: PEM files. Without `tls_ca` the system's authorities are trusted.
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_verify: bool = True
    #: (host, port) of every Sentinel; when given, host and port above are not used.
    sentinels: tuple[tuple[str, int], ...] = ()
    sentinel_service: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    connect_timeout_s: float = 10.0
    command_timeout_s: float = 5.0
    #: Connections for commands; each call takes the one with the fewest calls in flight. Two pay off from about 32
    #: concurrent callers, since Redis then works while we parse.
    connections: int = 1

    def __post_init__(self) -> None:
        if self.connections < 1:
            raise ConfigError(f"redis: connections is {self.connections}, it must be at least 1")
        if not 0 < self.port < 65536 or self.db < 0:
            raise ConfigError(f"redis: port {self.port} must be 1 to 65535 and db {self.db} must not be negative")
        if self.connect_timeout_s <= 0 or self.command_timeout_s <= 0:
            raise ConfigError("redis: connect_timeout_s and command_timeout_s must be greater than 0 seconds")
        if bool(self.sentinels) != bool(self.sentinel_service):
            raise ConfigError("redis: Sentinel needs both the Sentinels' addresses and the name of the service")
        if self.username and self.password is None:
            raise ConfigError(f"redis: user {self.username!r} is given without a password")

    @property
    def where(self) -> str:
        """Address for messages: no credentials in it."""
        if self.unix_path is not None:
            place = f"unix:{self.unix_path}"
        elif self.sentinels:
            place = f"service {self.sentinel_service!r} of Sentinel " + ", ".join(f"{h}:{p}" for h, p in self.sentinels)
        else:
            place = f"{self.host}:{self.port}"
        return place + (f" db {self.db}" if self.db else "") + (" (TLS)" if self.tls else "")

    def __repr__(self) -> str:
        return f"RedisSettings({self.where}, user={self.username!r}, password={'set' if self.password else 'none'})"

    def __rich_repr__(self) -> Any:
        yield self.where

    def tls_context(self) -> ssl.SSLContext | None:
        """Read the certificates (blocking, tens of milliseconds with the system's authorities). Raises ConfigError."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_cert is not None:
                context.load_cert_chain(self.tls_cert, self.tls_key)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(f for f in (self.tls_ca, self.tls_cert, self.tls_key) if f)
            raise ConfigError(f"redis: cannot read the TLS files {files}: {error}") from error
        if not self.tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def parse_redis_url(url: str, **overrides: Any) -> RedisSettings:
    """Settings from a URL; `overrides` are RedisSettings' own fields and win over the URL.

    Raises ConfigError without repeating the URL, since it may hold a password.
    """
    try:
        fields = _url_fields(urlsplit(url))
    except ValueError as error:
        raise ConfigError(f"redis URL: {error}; expected {_SHAPES}") from None
    try:
        return RedisSettings(**{**fields, **overrides})
    except TypeError:
        raise ConfigError(f"redis: unknown setting among {sorted(overrides)}") from None


def _url_fields(url: SplitResult) -> dict[str, Any]:
    if url.scheme not in _SCHEMES:
        raise ValueError(f"the scheme {url.scheme!r} is not known")
    credentials, _, address = url.netloc.rpartition("@")
    fields = _credentials(credentials)
    if url.scheme == "unix":
        fields["unix_path"] = unquote(url.path)
        if not url.path:
            raise ValueError("the socket's path is missing")
    elif url.scheme.endswith("+sentinel"):
        fields.update(_sentinel_fields(address, url.path))
    else:
        fields["host"], fields["port"] = _host_port(address or "localhost", DEFAULT_PORT)
        if url.path.strip("/"):
            fields["db"] = _database(url.path.strip("/"))
    if url.scheme.startswith("rediss"):
        fields["tls"] = True
    fields.update(_query_fields(dict(parse_qsl(url.query))))
    return fields


def _credentials(text: str) -> dict[str, Any]:
    if not text:
        return {}
    user, colon, password = text.partition(":")
    return {"username": unquote(user) or None, "password": unquote(password) if colon else None}


def _host_port(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("the host is missing")
    try:
        return parts.hostname, parts.port or default
    except ValueError:
        raise ValueError("the port is not a number between 1 and 65535") from None


def _sentinel_fields(address: str, path: str) -> dict[str, Any]:
    service, _, db = path.strip("/").partition("/")
    hosts = tuple(_host_port(part, DEFAULT_SENTINEL_PORT) for part in address.split(",") if part)
    if not service or not hosts:
        raise ValueError("Sentinel hosts or the service's name are missing")
    return {"sentinels": hosts, "sentinel_service": unquote(service), **({"db": _database(db)} if db else {})}


def _database(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"the database must be a number, not {text!r}")
    return int(text)


#: Query keys as redis-py, ioredis and node-redis users write them.
_QUERY: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "db": ("db", _database),
    "ssl_ca_certs": ("tls_ca", str),
    "ssl_certfile": ("tls_cert", str),
    "ssl_keyfile": ("tls_key", str),
    "ssl_cert_reqs": ("tls_verify", lambda text: text.lower() not in ("none", "cert_none")),
    "sentinel_username": ("sentinel_username", str),
    "sentinel_password": ("sentinel_password", str),
}
#: Accepted because other clients' URLs carry them; they change nothing here (we try every address family).
_QUERY_IGNORED = frozenset({"family", "protocol"})


def _query_fields(query: Mapping[str, str]) -> dict[str, Any]:
    unknown = set(query) - set(_QUERY) - _QUERY_IGNORED
    if unknown:
        raise ValueError(f"the parameters {sorted(unknown)} are not known (known: {sorted(_QUERY)})")
    return {_QUERY[key][0]: _QUERY[key][1](value) for key, value in query.items() if key in _QUERY}
