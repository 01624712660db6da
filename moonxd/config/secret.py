"""Values that must never be seen by accident: they print, format and encode as ***."""

from __future__ import annotations

import re
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

MASK = "***"
_SENSITIVE = re.compile(r"(?i)pass|pwd|key|secret|token|auth|user|sig")
#: In these schemes the path is a database's name; in every other one it may be an API key.
_PATH_IS_A_NAME = frozenset({"redis", "rediss", "postgres", "postgresql", "mongodb", "mongodb+srv", "unix"})
#: A path segment this long is taken for a key rather than for a word such as "rpc" or "v2".
_KEY_LENGTH = 12


class Secret:
    """A password or key. Only `reveal()` gives the text; comparing two secrets works, pickling one is refused."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def parts(self) -> tuple[str, ...]:
        """The strings that must not appear in a log."""
        return (self._text,) if self._text else ()

    def __str__(self) -> str:
        return MASK

    def __repr__(self) -> str:
        return repr(str(self))

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((type(self), self._text))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: pickles end up in files and logs")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _memo: Any) -> Secret:
        return self


class SecretUrl(Secret):
    """A URL that may carry a password or a key: prints as `redact_url` shows it."""

    __slots__ = ()

    def __str__(self) -> str:
        return redact_url(self._text)

    @property
    def host(self) -> str:
        """Host name alone, for logs and metrics; empty when the URL has none."""
        try:
            return urlsplit(self._text).hostname or ""
        except ValueError:
            return ""

    def parts(self) -> tuple[str, ...]:
        found = [self._text] if redact_url(self._text) != self._text else []
        _, _, rest = self._text.partition("://")
        userinfo, at, _ = rest.rpartition("@")
        if at:
            password = userinfo.partition(":")[2]
            found += [password, unquote(password)]
        try:
            url = urlsplit(self._text)
        except ValueError:
            return tuple(dict.fromkeys(filter(None, found)))
        if url.scheme.lower() not in _PATH_IS_A_NAME:
            found += [segment for segment in url.path.split("/") if len(segment) >= _KEY_LENGTH]
        for pair in url.query.split("&"):
            name, _, value = pair.partition("=")
            if _SENSITIVE.search(name):
                found += [value, unquote(value)]
        return tuple(dict.fromkeys(filter(None, found)))


def redact_url(url: str) -> str:
    """`url` with user, password, key-like path and query masked; scheme, host and port stay readable."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return MASK
    # A password may hold an unescaped '/' or '?': everything up to the last '@' is taken for credentials.
    credentials, at, place = rest.rpartition("@")
    match = re.match(r"[^/?#]*", place)
    host = match.group() if match else ""
    path, _, query = place[len(host) :].partition("#")[0].partition("?")
    if path.strip("/") and scheme.lower() not in _PATH_IS_A_NAME:
        path = f"/{MASK}"
    shown = "&".join(_redact_pair(pair) for pair in query.split("&")) if query else ""
    return f"{scheme}://{MASK + at if credentials or at else ''}{host}{path}{'?' + shown if shown else ''}"


def _redact_pair(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}={MASK}" if equals and _SENSITIVE.search(name) else pair
