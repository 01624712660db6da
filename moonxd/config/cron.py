"""Cron patterns of five fields, or six with seconds first, as cronsim reads them: Vixie cron's words, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from cronsim import CronSim, CronSimError


class CronPattern:
    """A `domain.cron.Cron`. Raises ValueError for a pattern that `check_cron` would not let pass."""

    def __init__(self, pattern: str) -> None:
        self.pattern = check_cron(pattern)
        self.after = lru_cache(maxsize=4096)(self._after)

    def _after(self, second: int) -> int | None:
        """See domain.cron.Cron."""
        fires = next(CronSim(self.pattern, datetime.fromtimestamp(second, UTC)), None)
        return None if fires is None else int(fires.timestamp())


def check_cron(text: str) -> str:
    """`text` with single blanks. Raises ValueError naming the field that cannot be read."""
    parts = text.split()
    if len(parts) not in (5, 6):
        raise ValueError(f"this one has {len(parts)}")
    try:
        CronSim(text, datetime.now(UTC))
    except CronSimError as error:
        raise ValueError(f"{str(error).removeprefix('Bad ')} of {text!r} cannot be read") from None
    return " ".join(parts)
