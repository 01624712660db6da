"""`moonxd queues`: counts, rates and ages of the queue."""

from __future__ import annotations

from ..api import calls
from ..api.messages import QueueStats
from .output import Json, age, connect, note, print_json, say, table


def queues(json: Json = False) -> None:
    """Jobs per state and priority, rates, and how long the oldest has waited."""
    with connect() as daemon:
        stats = daemon.call(calls.queue_stats())
    if json:
        print_json({"queues": [stats]})
    else:
        _show(stats)


def _show(stats: QueueStats) -> None:
    if not stats.fresh:
        note("Redis does not answer: these are the last numbers known")
    states = list(stats.counts)
    table(
        ("QUEUE", "STATE", *(state.upper() for state in states)),
        [(stats.queue, "paused" if stats.is_paused else "running", *(stats.counts[state] for state in states))],
        right=[state.upper() for state in states],
    )
    if stats.by_priority:
        say("waiting by priority: " + ", ".join(f"{key}: {count}" for key, count in stats.by_priority.items()))
    if stats.oldest_waiting_age is not None:
        say(f"the oldest has waited {age(stats.oldest_waiting_age)}")
    say(f"this worker: {stats.rates.per_second:.1f} jobs/s, p50 {age(stats.rates.p50)}, p95 {age(stats.rates.p95)}")
