"""When a failed attempt is tried again: a table of backoff curves and one decision."""

from __future__ import annotations

from collections.abc import Callable

from .errors import Permanent, Transient
from .job import Backoff, Failed, Outcome, Retry

#: No backoff waits longer than a day, whatever a producer asks for.
MAX_DELAY_MS = 24 * 3600 * 1000


def _exponential(backoff: Backoff, attempt: int) -> int:
    # The exponent is bounded: a job with a thousand attempts must not overflow.
    return int(backoff.delay * backoff.multiplier ** min(attempt - 1, 32))


def _fixed(backoff: Backoff, _attempt: int) -> int:
    return backoff.delay


def _linear(backoff: Backoff, attempt: int) -> int:
    return backoff.delay * attempt


#: fixed and exponential are BullMQ's; the others are what its ports call custom strategies.
CURVES: dict[str, Callable[[Backoff, int], int]] = {
    "exponential": _exponential,
    "fixed": _fixed,
    "linear": _linear,
}


def backoff_delay(backoff: Backoff, attempt: int, rand: float) -> int:
    """Milliseconds to wait after the `attempt`-th failure (1-based). `rand` in [0, 1) spends the jitter downwards.

    Raises Permanent when the producer named a curve that is not in CURVES.
    """
    curve = CURVES.get(backoff.kind)
    if curve is None:
        raise Permanent(f"unknown backoff type {backoff.kind!r}: use one of {', '.join(sorted(CURVES))}")
    delay = min(curve(backoff, attempt), MAX_DELAY_MS)
    return max(0, int(delay * (1.0 - backoff.jitter * rand)))


def after_failure(
    error: Exception,
    *,
    attempts_made: int,
    attempts: int,
    backoff: Backoff,
    rand: float,
    stack: tuple[str, ...] = (),
) -> Outcome:
    """What becomes of a job whose attempt raised `error`. `attempts_made` does not count the attempt that just failed.

    Permanent fails at once. Anything else is retried until `attempts` are used up; a Transient's own
    retry_after is respected when it is longer than the backoff.
    """
    reason = str(error) or type(error).__name__
    made = attempts_made + 1
    if isinstance(error, Permanent) or made >= attempts:
        return Failed(reason, stack)
    try:
        delay = backoff_delay(backoff, made, rand)
    except Permanent as unknown_curve:
        return Failed(f"{reason} (not retried: {unknown_curve})", stack)
    if isinstance(error, Transient) and error.retry_after is not None:
        delay = max(delay, min(int(error.retry_after * 1000), MAX_DELAY_MS))
    return Retry(delay, reason, stack)
