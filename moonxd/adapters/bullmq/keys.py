"""Names of a queue's keys in Redis."""

from __future__ import annotations


class Keys:
    """Every key of queue `name` under `prefix`. `base` ends in a colon: a job's key is base + id."""

    def __init__(self, prefix: str, name: str) -> None:
        self.queue = f"{prefix}:{name}"
        self.base = base = self.queue + ":"
        self.wait = base + "wait"
        self.active = base + "active"
        self.prioritized = base + "prioritized"
        self.events = base + "events"
        self.stalled = base + "stalled"
        self.stalled_check = base + "stalled-check"
        self.limiter = base + "limiter"
        self.delayed = base + "delayed"
        self.paused = base + "paused"
        self.meta = base + "meta"
        self.counter = base + "pc"
        self.completed = base + "completed"
        self.failed = base + "failed"
        self.waiting_children = base + "waiting-children"
        self.marker = base + "marker"
        self.id = base + "id"
        self.repeat = base + "repeat"

    def job(self, job_id: str) -> str:
        return self.base + job_id

    def state(self, name: str) -> str:
        """Key of a state's list or set; BullMQ's word for "waiting" is `wait` here."""
        return self.base + ("wait" if name == "waiting" else name)
