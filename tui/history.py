"""What a second looked like: samples of the counters, kept for ten minutes, folded into as many columns as fit."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from moonxd.api.schema import QueueDepth, Rates

#: Samples kept, one a second.
SPAN = 600
#: Seconds that one column of a sparkline may stand for.
STEPS = (1, 2, 5, 10, 20, 30, 60)
#: A pause between samples up to this long is spread evenly; a longer one is a gap, not a guess.
MAX_SPREAD = 3


class Sample(msgspec.Struct, frozen=True):
    """One second. Depths as last told; rates are jobs in that second; everything None when nothing was known."""

    second: int
    queue: QueueDepth | None = None
    completed: float | None = None
    failed: float | None = None
    retried: float | None = None


class History(msgspec.Struct, frozen=True):
    """The last SPAN samples, oldest first and without holes, and the counters the next rates are counted from."""

    samples: tuple[Sample, ...] = ()
    counters: Rates | None = None
    #: Which daemon the counters belong to: a restart starts them at zero.
    epoch: float = 0.0


def record(history: History, now: float, queue: QueueDepth | None, rates: Rates | None, epoch: float) -> History:
    """`history` with every whole second up to `now`. `queue` and `rates` are None while nobody tells us."""
    second = int(now)
    last = history.samples[-1].second if history.samples else second - 1
    elapsed = second - last
    if elapsed <= 0:
        # The wall clock was set back far enough to matter: start again rather than stand still until it catches up.
        return history if elapsed > -MAX_SPREAD else History()
    known = history.counters if epoch == history.epoch else None
    fresh = _samples(last, elapsed, queue, rates, known)
    return History(samples=(history.samples + fresh)[-SPAN:], counters=rates, epoch=epoch)


def _samples(
    last: int, elapsed: int, queue: QueueDepth | None, rates: Rates | None, known: Rates | None
) -> tuple[Sample, ...]:
    gap = elapsed - 1 if elapsed > MAX_SPREAD else 0
    unknown = tuple(Sample(last + 1 + n) for n in range(max(0, gap - SPAN), gap))
    spread = elapsed - gap
    counted = rates if rates and known and not gap else None
    sample = Sample(
        0,
        queue,
        _per_second(counted, known, "completed", spread),
        _per_second(counted, known, "failed", spread),
        _per_second(counted, known, "retried", spread),
    )
    return unknown + tuple(msgspec.structs.replace(sample, second=last + gap + 1 + n) for n in range(spread))


def _per_second(now: Rates | None, before: Rates | None, name: str, elapsed: int) -> float | None:
    if now is None or before is None:
        return None
    change: int = getattr(now, name) - getattr(before, name)
    return change / elapsed if change >= 0 else None


def step_for(history: History, width: int) -> int:
    """Seconds per column so that all of the history fits `width` columns, or the most that STEPS allow."""
    needed = len(history.samples)
    return next((step for step in STEPS if step * width >= needed), STEPS[-1])


def reach(history: History, width: int) -> str:
    """How far back `width` columns look, for a column's title."""
    span = step_for(history, width) * width
    return f"last {span} s" if span < 120 else f"last {span // 60} min"


def columns(
    history: History, width: int, pick: Callable[[Sample], float | None], *, peak: bool
) -> tuple[float | None, ...]:
    """`width` values, oldest first, the highest (`peak`) or the mean of each column's seconds; None where unknown.

    Columns start at multiples of their length, so a picture moves by whole columns instead of shimmering.
    """
    if not history.samples or width <= 0:
        return (None,) * max(0, width)
    step = step_for(history, width)
    newest = history.samples[-1].second // step
    buckets: dict[int, list[float]] = {}
    for sample in history.samples:
        value = pick(sample)
        if value is not None:
            buckets.setdefault(sample.second // step, []).append(value)
    wanted = (buckets.get(index) for index in range(newest - width + 1, newest + 1))
    return tuple(None if not found else max(found) if peak else sum(found) / len(found) for found in wanted)
