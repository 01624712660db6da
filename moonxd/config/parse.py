"""From what a file or a variable says to a typed value. An unusable one raises `Bad` with what is allowed instead."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..domain.bridge import parse_route
from ..domain.chain import parse_chain
from ..domain.errors import Permanent
from .core import Listen
from .cron import check_cron
from .keys import Spec
from .secret import MASK, Secret, SecretUrl, redact_url

TRUE = frozenset({"true", "yes", "on", "1"})
FALSE = frozenset({"false", "no", "off", "0"})
_SHOWN = 80


class Bad(ValueError):
    """The text says what is allowed, to follow the value: "must be a whole number from 1"."""


def parse(spec: Spec, raw: Any, *, text: bool, base: Path) -> Any:
    """The value of `raw` for this key. With `text` it comes from a variable or a flag: numbers and lists are written
    out. Relative paths are taken from `base`. None means unset."""
    if spec.optional and (raw is None or raw == ""):
        return None
    if not spec.many:
        return _scalar(spec, raw, text, base)
    items = _items(raw) if text and isinstance(raw, str) else raw
    if not isinstance(items, (list, tuple)):
        raise Bad("must be a list" + ("" if text else ' like ["one", "two"]'))
    return tuple(dict.fromkeys(_scalar(spec, item, text, base) for item in items))


def _items(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        import tomllib

        try:
            found: list[Any] = tomllib.loads(f"items = {text}")["items"]
        except (tomllib.TOMLDecodeError, KeyError):
            raise Bad('must be a list: one,two or ["one", "two"]') from None
        return found
    return [item.strip() for item in text.split(",") if item.strip()]


def _scalar(spec: Spec, raw: Any, text: bool, base: Path) -> Any:
    value = _KINDS[spec.kind](spec, raw, text)
    if isinstance(value, Path):
        value = base / value.expanduser()
    if spec.kind in (int, float):
        _check_range(spec, value)
    check = CHECKS.get(spec.key.check)
    if check is not None:
        value = check(value)
    return _choice(spec.key.choices, value) if spec.key.choices else value


def _bool(_spec: Spec, raw: Any, text: bool) -> bool:
    if isinstance(raw, bool):
        return raw
    if text and isinstance(raw, str) and raw.strip().lower() in TRUE | FALSE:
        return raw.strip().lower() in TRUE
    raise Bad("must be true or false")


def _int(spec: Spec, raw: Any, text: bool) -> int:
    is_mode = spec.key.check == "mode"
    if isinstance(raw, str) and (text or is_mode):
        try:
            return int(raw.strip().removeprefix("0o"), 8) if is_mode else int(raw)
        except ValueError:
            raw = None
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    raise Bad("must be an octal file mode like 0o660" if is_mode else _number(spec))


def _float(spec: Spec, raw: Any, text: bool) -> float:
    if text and isinstance(raw, str):
        try:
            raw = float(raw)
        except ValueError:
            raw = None
    if isinstance(raw, (int, float)) and not isinstance(raw, bool) and math.isfinite(raw):
        return float(raw)
    raise Bad(_number(spec))


def _str(spec: Spec, raw: Any, _text: bool) -> str:
    if not isinstance(raw, str):
        raise Bad("must be text: put it in quotes")
    if not raw and spec.key.check != "may-be-empty":
        raise Bad("must not be empty")
    if "\0" in raw:
        raise Bad("must not contain NUL")
    return raw


def _listen(spec: Spec, raw: Any, text: bool) -> Listen:
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([\w.-]*)):(\d{1,5})", _str(spec, raw, text).strip())
    if match is None or int(match[3]) > 65535:
        raise Bad("must be host:port like 127.0.0.1:3001 or [::1]:3001")
    return Listen(match[1] or match[2] or "0.0.0.0", int(match[3]))


_KINDS: dict[type, Callable[[Spec, Any, bool], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    Secret: lambda spec, raw, text: Secret(_str(spec, raw, text)),
    SecretUrl: lambda spec, raw, text: SecretUrl(_str(spec, raw, text).strip()),
    Path: lambda spec, raw, text: Path(_str(spec, raw, text)),
    Listen: _listen,
}


def _number(spec: Spec) -> str:
    low, high = spec.key.low, spec.key.high
    text = ("whole number" if spec.kind is int else "number") + (" of seconds" if spec.name.endswith("_s") else "")
    if low is not None and high is not None:
        return f"must be a {text} from {low:g} to {high:g}"
    return f"must be a {text}" + ("" if low is None else f", at least {low:g}")


def _check_range(spec: Spec, value: float) -> None:
    low, high = spec.key.low, spec.key.high
    if (low is not None and value < low) or (high is not None and value > high):
        raise Bad(_number(spec))


def _choice(choices: Sequence[str], value: str) -> str:
    found = {choice.lower(): choice for choice in choices}.get(value.strip().lower())
    if found is None:
        raise Bad(f"must be one of {', '.join(choices)}{did_you_mean(value, choices)}")
    return found


def did_you_mean(given: str, known: Sequence[str]) -> str:
    """' (did you mean X?)' when something known is near, else nothing."""
    from difflib import get_close_matches

    near = get_close_matches(given.lower(), known, n=1, cutoff=0.7)
    return f" (did you mean {near[0]}?)" if near else ""


# ---- further checks ------------------------------------------------------------------------------------------------


def _mode(value: int) -> int:
    if not 0 <= value <= 0o777:
        raise Bad("must be an octal file mode like 0o660")
    return value


def _file(path: Path) -> Path:
    try:
        found = path.is_file()
    except OSError:
        # Not ours to look at: whoever opens it will say so.
        return path
    if not found:
        raise Bad("must be an existing file")
    return path


def _url(*schemes: str) -> Callable[[SecretUrl], SecretUrl]:
    def check(url: SecretUrl) -> SecretUrl:
        _check_url(url.reveal(), schemes)
        return url

    return check


def _check_url(text: str, schemes: Sequence[str]) -> None:
    allowed = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        url = urlsplit(text)
        # Lists of hosts are the drivers' own business; a single one must have a usable port.
        usable = "," in url.netloc or url.port is None or url.port > 0
    except ValueError:
        raise Bad(f"must be a URL starting with {allowed}; write special characters in a password as %XX") from None
    if url.scheme.lower() not in schemes or not usable or re.search(r"\s", text):
        raise Bad(f"must be a URL starting with {allowed}")
    if not url.netloc and url.scheme.lower() not in ("unix", "postgres", "postgresql"):
        raise Bad(f"must name a host after {url.scheme}://")


def _plain_url(text: str) -> str:
    _check_url(text, ("http", "https"))
    if "@" in urlsplit(text).netloc:
        raise Bad("must not contain credentials: there are keys for them")
    return text.rstrip("/")


def _host_port(text: str) -> str:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):(\d{1,5})", text.strip())
    if match is None or not 0 < int(match[2]) <= 65535:
        raise Bad("must be host:port")
    return text.strip()


def _chain(text: str) -> str:
    try:
        return parse_chain(text).slug
    except Permanent as error:
        raise Bad(f"must name known chains: {error}") from None


def _route(text: str) -> str:
    try:
        return parse_route(text).name
    except Permanent as error:
        raise Bad(f"must be a route between two chains: {error}") from None


def _no_colon(text: str) -> str:
    if ":" in text:
        raise Bad("must not contain ':': BullMQ separates the parts of its keys with it")
    return text


def _cron(text: str) -> str:
    try:
        return check_cron(text)
    except ValueError as error:
        raise Bad(f"must be a cron pattern of 5 or 6 fields: {error}") from None


def _hs256(secret: Secret) -> Secret:
    if len(secret.reveal().encode()) < 32:
        raise Bad("must have at least 32 bytes, or it can be guessed: make one with openssl rand -hex 32")
    return secret


def _token(secret: Secret) -> Secret:
    text = secret.reveal()
    if len(text.encode()) < 16 or not text.isprintable() or " " in text:
        raise Bad("must have at least 16 characters and no blanks: make one with openssl rand -hex 16")
    return secret


def _origin(text: str) -> str:
    if text in ("*", "null"):
        return text
    _check_url(text, ("http", "https"))
    url = urlsplit(text)
    if url.path.strip("/") or url.query or "@" in url.netloc:
        raise Bad("must be an origin: https://host, with :port when it is not the usual one")
    return f"{url.scheme}://{url.netloc}".lower()


def _eddsa(text: str) -> str:
    if text.lstrip().startswith("-----BEGIN PUBLIC KEY-----"):
        return text
    if "-----BEGIN" in text:
        raise Bad("must be a public key: openssl pkey -in private.pem -pubout")
    path = Path(text)
    if not path.is_absolute():
        raise Bad("must be PEM text or the absolute path of a PEM file")
    return str(_file(path))


#: Names that loggers of the Node world use.
_LEVELS = {"warn": "warning", "fatal": "critical", "silent": "critical"} | dict.fromkeys(
    ("trace", "silly", "verbose", "http"), "debug"
)
_CLUSTER_MODES = dict.fromkeys(FALSE, "single") | dict.fromkeys(TRUE, "manual")

CHECKS: dict[str, Callable[[Any], Any]] = {
    "mode": _mode,
    "file": _file,
    "redis-url": _url("redis", "rediss", "unix"),
    "postgres-url": _url("postgresql", "postgres"),
    "mongodb-url": _url("mongodb", "mongodb+srv"),
    "http-url": _url("http", "https"),
    "ws-url": _url("ws", "wss"),
    "plain-url": _plain_url,
    "dexscreener-url": lambda text: _plain_url(text).removesuffix("/latest"),
    "host-port": _host_port,
    "chain": _chain,
    "no-colon": _no_colon,
    "cron": _cron,
    "route": _route,
    "hs256": _hs256,
    "token": _token,
    "eddsa": _eddsa,
    "origin": _origin,
    "level": lambda text: _LEVELS.get(text.strip().lower(), text),
    "cluster-mode": lambda text: _CLUSTER_MODES.get(text.strip().lower(), text),
}


def shown(spec: Spec, raw: Any) -> str:
    """`raw` for an error message, never a secret."""
    if spec.kind is Secret or (isinstance(raw, str) and "-----BEGIN" in raw):
        return MASK
    if spec.kind is SecretUrl or (isinstance(raw, str) and "://" in raw):
        return repr(redact_url(raw)) if isinstance(raw, str) else MASK
    text = ("true" if raw else "false") if isinstance(raw, bool) else repr(raw)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
