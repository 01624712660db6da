"""What workers tell each other: where each stands, and orders from one to another."""

from __future__ import annotations

from typing import Any

import msgspec


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as it last described itself. Times are unix seconds."""

    worker: str
    queue: str
    host: str
    pid: int
    version: str
    #: starting | running | draining | stopping
    state: str
    slots: int
    slots_busy: int
    is_paused: bool
    started_at: float
    seen_at: float
    #: Jobs ended per second, lately.
    per_second: float = 0.0
    completed: int = 0
    failed: int = 0
    rss_bytes: int = 0
    #: Share of one core, 1.0 = a whole core.
    cpu: float = 0.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """From one worker to another. `verb` is one of the names in the receiver's table."""

    id: str
    verb: str
    #: What the verb is about, for example a job's id.
    about: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an order. `done` False means that the receiver could not do it, `body` is what it has to say."""

    done: bool
    body: Any = None
