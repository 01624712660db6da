"""What the UPPER CASE keys do: the question to ask, the call, and the sentence to show afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from moonxd.api.schema import Snapshot

from .feed import Feed, FeedError
from .state import State
from .text import clean


class Plan(NamedTuple):
    """A question, and what yes does; `run` returns the sentence for the toast."""

    title: str
    body: str
    yes: str
    run: Callable[[], Awaitable[str]]


class NothingToDo(Exception):
    """The question need not be asked; the message says why."""


def jobs(number: int) -> str:
    return f"{number:,} job" if number == 1 else f"{number:,} jobs"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


async def pause(state: State, feed: Feed) -> Plan:
    """Raises NothingToDo, FeedError (as all of these)."""
    snapshot = _snapshot(state)
    queue = snapshot.queue
    name = clean(queue.name)
    if queue.is_paused:
        raise NothingToDo(f"The queue {name} is already paused.")
    body = (
        f"Every worker of this queue stops taking jobs, not only this one.\n"
        f"{jobs(queue.active)} running now will finish; {jobs(queue.waiting + queue.prioritized)} stay waiting. "
        "Producers can still add jobs."
    )

    async def run() -> str:
        await feed.pause()
        return f"The queue {name} is paused for every worker. U resumes it."

    return Plan(f"Pause the queue {name}?", body, "pause it", run)


async def resume(state: State, feed: Feed) -> Plan:
    snapshot = _snapshot(state)
    queue, name = snapshot.queue, clean(snapshot.queue.name)
    waiting = queue.waiting + queue.prioritized + queue.paused
    if not queue.is_paused and not snapshot.daemon.is_paused:
        raise NothingToDo(f"The queue {name} is not paused.")
    if not queue.is_paused:
        return _resume_worker(feed, clean(snapshot.daemon.worker))

    async def run() -> str:
        await feed.resume()
        return f"The queue {name} is running again."

    body = f"Every worker of this queue starts taking jobs again. {jobs(waiting)} {_are(waiting)} waiting."
    return Plan(f"Resume the queue {name}?", body, "resume it", run)


def _resume_worker(feed: Feed, worker: str) -> Plan:
    async def run() -> str:
        await feed.resume(worker=True)
        return f"Worker {worker} takes jobs again."

    body = "The queue itself is not paused; only this worker was told to stop taking jobs."
    return Plan(f"Resume worker {worker}?", body, "resume it", run)


async def requeue(state: State, feed: Feed) -> Plan:
    snapshot = _snapshot(state)
    number, more = await feed.requeueable()
    if number == 0:
        raise NothingToDo("No failed job to requeue.")
    body = "They go back to waiting with their attempts reset. Whatever failed them may fail them again."
    if snapshot.queue.is_paused:
        body += "\nThe queue is paused: they will wait until it is resumed."

    async def run() -> str:
        moved, skipped = await feed.requeue_failed()
        rest = f" {skipped:,} were gone or taken meanwhile." if skipped else ""
        return f"Requeued {jobs(moved)}.{rest}"

    which = f"all failed jobs ({number:,} or more)" if more else f"{number:,} failed job{'' if number == 1 else 's'}"
    return Plan(f"Requeue {which}?", body, "requeue", run)


def _snapshot(state: State) -> Snapshot:
    if state.snapshot is None or not state.is_live:
        raise FeedError("Not connected: nothing was changed.")
    return state.snapshot
