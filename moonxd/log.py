"""Log lines on stderr: JSON for machines, coloured text on a terminal; never a secret, never a wait.

A blocked reader of stderr must not stop the event loop, so lines go through a bounded queue to a thread of their own;
what does not fit is dropped and counted. Formatting happens where the line is logged: arguments may change later.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TextIO

from .log_format import Fields, JsonFormatter, PrettyFormatter, Redactor

#: What may wait for the reader of stderr, in bytes.
QUEUE_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
#: How long the end of the process waits for a slow reader, in seconds.
FLUSH_S = 2.0
#: Libraries that tell every request, with its URL, at INFO.
_TALKATIVE = (
    "aiokafka", "asyncio", "h11", "h2", "hpack", "httpcore", "httpx", "hypercorn.access", "hypercorn.error", "pymongo",
)  # fmt: skip

#: Writes whole lines; may block, and raises OSError when the reader is gone.
Write = Callable[[bytes], object]

_bound: ContextVar[Fields] = ContextVar("moonxd_log_fields", default={})  # noqa: B039 (never changed in place)


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Every line logged inside, also by tasks started inside, carries these fields."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


class _Entry(NamedTuple):
    line: bytes
    #: How many lost lines this one tells of; 0 for an ordinary line.
    told: int = 0


class LineWriter:
    """Hands lines to a thread that may block. `write` gets whole lines; what it cannot write is dropped and counted,
    and a line made by `tell` stands where lines are missing. `limit` bounds the bytes that wait."""

    def __init__(self, write: Write, tell: Callable[[int], bytes], limit: int = QUEUE_BYTES) -> None:
        self._write = write
        self._tell = tell
        self._limit = limit
        self._entries: deque[_Entry] = deque()
        #: Bytes waiting or being written.
        self._held = 0
        self._closing = False
        #: Lost lines that no line tells of yet.
        self._untold = 0
        self.dropped = 0
        self._changed = threading.Condition()
        # A daemon thread: one that is stuck in a write must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="moonxd-log", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Never blocks."""
        with self._changed:
            if self._closing or self._held + len(line) > self._limit:
                self.dropped += 1
                self._untold += 1
                return
            self._confess()
            self._append(_Entry(line))

    def flush(self, timeout: float) -> bool:
        """Wait until everything was written; False when `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: self._held == 0, timeout)

    def close(self, timeout: float = FLUSH_S) -> bool:
        """Write what is left, for at most `timeout` seconds. False when the reader was too slow for that."""
        with self._changed:
            self._confess()
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _confess(self) -> None:
        if self._untold:
            self._append(_Entry(self._tell(self._untold), self._untold))
            self._untold = 0

    def _append(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self._held += len(entry.line)
        self._changed.notify_all()

    def _run(self) -> None:
        while chunk := self._next():
            lost = False
            try:
                self._write(b"".join(entry.line for entry in chunk))
            except OSError:
                # The reader is gone or its disk is full: later lines may fare better.
                lost = True
            with self._changed:
                if lost:
                    fresh = sum(not entry.told for entry in chunk)
                    self.dropped += fresh
                    self._untold += fresh + sum(entry.told for entry in chunk)
                self._held -= sum(len(entry.line) for entry in chunk)
                self._changed.notify_all()

    def _next(self) -> list[_Entry]:
        """The next lines, about 64 kB of them; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._entries or self._closing)
            chunk: list[_Entry] = []
            size = 0
            while self._entries and size < _CHUNK_BYTES:
                chunk.append(self._entries.popleft())
                size += len(chunk[-1].line)
            return chunk


class _Handler(logging.Handler):
    def __init__(self, formatter: JsonFormatter | PrettyFormatter, write: Write) -> None:
        super().__init__()
        self.formatter = formatter
        self.lines = LineWriter(write, self._dropped)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception as error:
            # A line that cannot be formatted is still a line; whatever its arguments do must not reach the caller.
            line = self._line(_record(logging.ERROR, f"a log line could not be formatted: {type(error).__name__}"))
        self.lines.put(line)

    def _line(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode("utf-8", "replace") + b"\n"

    def _dropped(self, count: int) -> bytes:
        return self._line(_record(logging.WARNING, f"{count} log lines were dropped: nobody read them fast enough"))


def _record(level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord("moonxd.log", level, __file__, 0, message, None, None)


class Logging:
    """The running log: what may be changed while it runs."""

    def __init__(self, handler: _Handler, redactor: Redactor) -> None:
        self._handler = handler
        self._redactor = redactor

    @property
    def dropped(self) -> int:
        """Lines that nobody read."""
        return self._handler.lines.dropped

    def set_level(self, level: str) -> None:
        """debug | info | warning | error | critical, for moonxd's own loggers."""
        number = logging.getLevelNamesMapping()[level.upper()]
        logging.getLogger("moonxd").setLevel(number)
        # Libraries speak from WARNING upwards, whatever our own level is.
        self._handler.setLevel(number if number > logging.WARNING else logging.NOTSET)

    def add_secrets(self, secrets: Iterable[str]) -> None:
        """Mask these too, from the next line on."""
        self._redactor.add(secrets)

    def flush(self, timeout: float = FLUSH_S) -> bool:
        return self._handler.lines.flush(timeout)


@contextmanager
def setup_logging(
    level: str = "info", format: str = "auto", secrets: Iterable[str] = (), *, stream: TextIO | None = None
) -> Iterator[Logging]:
    """Send every log line to `stream` (stderr); at the end write what is left and put everything back as it was.

    `format`: auto (pretty on a terminal) | json | pretty. `secrets` are strings to mask wherever they appear.
    """
    out = stream or sys.stderr
    redactor = Redactor(secrets)
    pretty = format == "pretty" or (format == "auto" and out.isatty())
    formatter = (
        PrettyFormatter(redactor, _bound.get, colour=_colour(out)) if pretty else JsonFormatter(redactor, _bound.get)
    )
    handler = _Handler(formatter, _writer(out))
    running = Logging(handler, redactor)
    with _restored("", "moonxd", *_TALKATIVE):
        root = logging.getLogger()
        root.addHandler(handler)
        root.setLevel(logging.WARNING)
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        running.set_level(level)
        logging.captureWarnings(True)
        try:
            yield running
        finally:
            logging.captureWarnings(False)
            handler.lines.close()


@contextmanager
def _restored(*names: str) -> Iterator[None]:
    before = [(logger := logging.getLogger(name), logger.level, list(logger.handlers)) for name in names]
    try:
        yield
    finally:
        for logger, level, handlers in before:
            logger.setLevel(level)
            logger.handlers[:] = handlers


def _colour(stream: TextIO) -> bool:
    """The convention of no-color.org, and terminals that say they have none."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _writer(stream: TextIO) -> Write:
    try:
        fd = stream.fileno()
    except (OSError, ValueError, AttributeError):

        def write(data: bytes) -> None:
            stream.write(data.decode("utf-8", "replace"))
            stream.flush()

        return write
    return lambda data: _write_all(fd, data)


def _write_all(fd: int, data: bytes) -> None:
    import select

    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            # Somebody who shares the terminal made it non-blocking.
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll(1000)


# ---- repeated warnings ---------------------------------------------------------------------------------------------


class Throttle:
    """Lets one line per key and period through and counts the others. Remembers at most `limit` keys."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, limit: int = 1000) -> None:
        self._clock = clock
        self._limit = limit
        #: Key -> when it was let through last, and how many were held back since.
        self._seen: dict[object, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def admit(self, key: object, every_s: float) -> int | None:
        """How many were held back since the last one; None when this one is to be held back too."""
        now = self._clock()
        with self._lock:
            last, held = self._seen.get(key, (-float("inf"), 0))
            if now - last < every_s:
                self._seen[key] = (last, held + 1)
                return None
            self._seen.pop(key, None)
            if len(self._seen) >= self._limit:
                # The one that spoke longest ago; insertion order is that order.
                self._seen.pop(next(iter(self._seen)))
            self._seen[key] = (now, 0)
            return held


_throttle = Throttle()


def log_once_per(
    every_s: float,
    logger: logging.Logger,
    level: int,
    message: str,
    *args: object,
    key: object = None,
    extra: Mapping[str, Any] | None = None,
) -> bool:
    """Log unless the same `key` (the logger and the message's template if none) was logged less than `every_s` seconds
    ago. The next line says in `suppressed` how many were held back. True when it was logged."""
    if not logger.isEnabledFor(level):
        return False
    held = _throttle.admit((logger.name, message) if key is None else (logger.name, key), every_s)
    if held is None:
        return False
    fields = {**(extra or {}), **({"suppressed": held} if held else {})}
    logger.log(level, message, *args, extra=fields, stacklevel=2)
    return True
