"""An endpoint's URL, taken apart once. Keys hide in paths, queries, user parts: only the host is ever shown."""

from __future__ import annotations

import base64
import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ...domain.errors import ConfigError
from ...version import VERSION

_UNSENDABLE = re.compile(r"[\x00-\x20\x7f-\uffff]")
#: Path segments and query values at least this long may be keys; shorter ones (v2, rpc, mainnet) are words.
_KEY_LENGTH = 12


class Origin(NamedTuple):
    """Where connections go: they are pooled per origin."""

    host: str
    port: int
    tls: bool


class Endpoint:
    """One base URL. `str()` and `repr()` show the host alone."""

    __slots__ = ("_base", "_common", "_secrets", "host", "origin")

    def __init__(self, url: str, *, headers: dict[str, str] | None = None) -> None:
        """Raises ConfigError, which names the scheme and the host at most, when `url` cannot be used."""
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError as error:
            raise ConfigError("an endpoint URL cannot be read: write it as https://host[:port]/path") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or _UNSENDABLE.search(url.strip()):
            raise ConfigError(
                f"an endpoint URL with scheme {parts.scheme!r} and host {parts.hostname!r} cannot be used: "
                "write it as https://host[:port]/path, without spaces"
            )
        tls = parts.scheme == "https"
        #: The name shown in telemetry, logs and errors.
        self.host = parts.hostname
        self.origin = Origin(parts.hostname, port or (443 if tls else 80), tls)
        self._base = parts.path.rstrip("/") + (f"?{parts.query}" if parts.query else "")
        self._secrets = tuple(
            word
            for word in (*re.split(r"[/?&=]", f"{parts.path}?{parts.query}"), parts.username, parts.password)
            if word and len(word) >= _KEY_LENGTH
        )
        self._common = self._headers(parts.netloc, parts.username, parts.password, headers or {})

    @staticmethod
    def _headers(netloc: str, user: str | None, password: str | None, extra: dict[str, str]) -> bytes:
        fields = {
            "Host": netloc.rpartition("@")[2],
            "User-Agent": f"moonxd/{VERSION}",
            "Accept-Encoding": "gzip, deflate",
            **extra,
        }
        if user is not None:
            login = f"{unquote(user)}:{unquote(password or '')}"
            fields["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        if any("\n" in text or "\r" in text for pair in fields.items() for text in pair):
            raise ConfigError("a request header contains a line break: remove it")
        return "".join(f"{name}: {text}\r\n" for name, text in fields.items()).encode("latin-1")

    def post(self, body: bytes) -> bytes:
        """A whole POST request with a JSON body."""
        return b"POST %b HTTP/1.1\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
            (self._base or "/").encode("latin-1"),
            self._common,
            len(body),
            body,
        )

    def get(self, path: str) -> bytes:
        """A whole GET request; `path` (it begins with a slash, is already quoted) is appended to the base."""
        base, mark, query = self._base.partition("?")
        target = base + path + ("&" if "?" in path else "?") * bool(mark) + query
        return b"GET %b HTTP/1.1\r\n%b\r\n" % (target.encode("latin-1"), self._common)

    def scrub(self, text: str) -> str:
        """`text` from the other side, without anything of our URL that may be a key."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def __repr__(self) -> str:
        return f"Endpoint({self.host})"
