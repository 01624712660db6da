"""aiokafka's own log, kept short: while a broker is away it repeats itself many times a second."""

from __future__ import annotations

import logging
import time

log = logging.getLogger("moonxd.kafka")
_EVERY_S = 60.0
#: Kinds remembered at most.
_KINDS = 100


class _Seldom(logging.Handler):
    """Passes each kind of message on once in a while, as a warning at most: our own errors say what matters."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._seen: dict[str, tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        kind, now = str(record.msg), time.monotonic()
        told, hidden = self._seen.get(kind, (-_EVERY_S, 0))
        if now - told < _EVERY_S:
            self._seen[kind] = told, hidden + 1
            return
        if len(self._seen) >= _KINDS:
            self._seen.clear()
        self._seen[kind] = now, 0
        more = f" ({hidden} more like it in the last minutes)" if hidden else ""
        log.info("aiokafka: %s%s", record.getMessage(), more, exc_info=record.exc_info)


def quieten() -> None:
    """Do so from now on; doing it again changes nothing."""
    logger = logging.getLogger("aiokafka")
    if not any(isinstance(handler, _Seldom) for handler in logger.handlers):
        logger.addHandler(_Seldom())
    logger.setLevel(logging.WARNING)  # what is below names keys and values
    logger.propagate = False
