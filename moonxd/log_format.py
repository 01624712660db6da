"""How one log record becomes one line, with every known secret masked."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec

Fields = Mapping[str, Any]

MASK = "***"
#: Shorter strings are parts of ordinary words and numbers: masking them would hide the log, not the secret.
_SHORTEST = 4
_LONGEST_TEXT = 8 * 1024
_LONGEST_TRACE = 32 * 1024
_DEEPEST = 6
_BIGGEST_INT = 2**63
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime", "taskName"}
_OURS = frozenset({"time", "level", "logger", "message", "exception", "stack"})
#: Credentials in URLs, also those that nobody registered.
_URL_LOGIN = re.compile(r"\b([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@'\"<>]+@")
_RPC_KEY = re.compile(r"(\.alchemy\.com/(?:data/)?v\d/|\.infura\.io/v3/)[^\s/?'\"<>]+")


class Redactor:
    """Replaces registered secrets in any text, in their plain, URL-quoted and escaped forms."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        for secret in secrets:
            forms = (secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1], json.dumps(secret)[1:-1])
            self._known.update(form for form in forms if len(form) >= _SHORTEST)
        # The longest first: a key must not be cut by another one that it contains.
        ordered = sorted(self._known, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        if "://" in text:
            text = _RPC_KEY.sub(rf"\1{MASK}", _URL_LOGIN.sub(rf"\1{MASK}@", text))
        return text


class _Formatter(logging.Formatter):
    def __init__(self, redactor: Redactor, bound: Callable[[], Fields]) -> None:
        super().__init__()
        self._redact = redactor
        self._bound = bound

    def message(self, record: logging.LogRecord) -> str:
        try:
            text = record.getMessage()
        except Exception:
            # The arguments do not fit the template; their author wants to see both.
            text = f"{record.msg!r} % {record.args!r}"
        return _cut(self._redact(text), _LONGEST_TEXT)

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        own = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return {
            f"{name}_" if name in _OURS else name: self.clean(value) for name, value in {**self._bound(), **own}.items()
        }

    def trace(self, record: logging.LogRecord) -> str:
        """Traceback and stack, or nothing."""
        parts = [self.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
        if record.stack_info:
            parts.append(record.stack_info)
        return _cut(self._redact("\n".join(parts)), _LONGEST_TRACE)

    def clean(self, value: Any, depth: int = 0) -> Any:
        """`value` as JSON can say it, texts redacted and bounded."""
        if value is None or isinstance(value, (bool, float)):
            return value
        if isinstance(value, int):
            return int(value) if -_BIGGEST_INT < value < _BIGGEST_INT else str(int(value))
        if isinstance(value, Mapping) and depth < _DEEPEST:
            return {self._text(str(key)): self.clean(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)) and depth < _DEEPEST:
            return [self.clean(item, depth + 1) for item in value]
        return self._text(value if isinstance(value, str) else str(value))

    def _text(self, text: str) -> str:
        # str() drops subclasses (enums); lone surrogates cannot be encoded.
        return _cut(self._redact(str(text)), _LONGEST_TEXT).encode("utf-8", "replace").decode()


class JsonFormatter(_Formatter):
    """{"time", "level", "logger", "message", fields..., "exception"}, one object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._text(self.message(record)),
            **self.fields(record),
        }
        trace = self.trace(record)
        if trace:
            line["exception"] = self._text(trace)
        return msgspec.json.encode(line).decode()


_COLOURS = {
    logging.DEBUG: "2",
    logging.INFO: "32",
    logging.WARNING: "33",
    logging.ERROR: "31",
    logging.CRITICAL: "1;31",
}
#: Control characters and those that reorder text: what comes from a job must not drive a terminal.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_CONTROL_BUT_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


class PrettyFormatter(_Formatter):
    """12:03:04.123 INFO     worker  wallet synced  job_id=7 chain=base"""

    def __init__(self, redactor: Redactor, bound: Callable[[], Fields], *, colour: bool) -> None:
        super().__init__(redactor, bound)
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        clock = f"{_time(record).astimezone():%H:%M:%S.%f}"[:-3]
        level = self._paint(f"{record.levelname:<8}", _COLOURS.get(record.levelno, "0"))
        name = self._paint(f"{record.name.removeprefix('moonxd.'):<10}", "2")
        fields = " ".join(self._field(key, value) for key, value in self.fields(record).items())
        line = f"{self._paint(clock, '2')} {level} {name} {_visible(self.message(record))}"
        trace = self.trace(record)
        return line + (f"  {fields}" if fields else "") + (f"\n{_visible(trace, _CONTROL_BUT_LINES)}" if trace else "")

    def _field(self, key: str, value: Any) -> str:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        if not text or " " in text or "=" in text:
            text = json.dumps(text, ensure_ascii=False) if isinstance(value, str) else text
        return f"{self._paint(_visible(key) + '=', '2')}{_visible(text)}"

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _visible(text: str, pattern: re.Pattern[str] = _CONTROL) -> str:
    return pattern.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _cut(text: str, longest: int) -> str:
    """Beginning and end of a long text: a traceback says the most in its last lines."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]} ... {len(text) - 2 * half} characters left out ... {text[-half:]}"
