"""What a scrape of /metrics adds to the counters: gauges of this moment, taken from the picture operators see."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import trio
from prometheus_client import Gauge, ProcessCollector

from .api.schema import Snapshot
from .domain.errors import MoonxdError
from .telemetry import Telemetry

_STATES = ("waiting", "prioritized", "active", "delayed", "waiting_children", "completed", "failed", "paused")
#: Seconds that asking the queue for its oldest job may take.
_ASK_S = 1.0


class Metrics:
    """`oldest` gives the epoch ms at which the job next in line was added, None when nothing waits."""

    def __init__(
        self,
        telemetry: Telemetry,
        sample: Callable[[], Awaitable[Snapshot]],
        oldest: Callable[[], Awaitable[int | None]],
    ) -> None:
        self._telemetry = telemetry
        #: May be replaced by a wider picture.
        self.sample = sample
        self._oldest = oldest
        reg = telemetry.registry
        self._jobs = Gauge("moonxd_queue_jobs", "Jobs per state", ["queue", "state"], registry=reg)
        self._paused = Gauge("moonxd_queue_paused", "1 while the queue is paused", ["queue"], registry=reg)
        self._fresh = Gauge("moonxd_queue_fresh", "0 when Redis did not answer this scrape", ["queue"], registry=reg)
        self._age = Gauge("moonxd_queue_oldest_waiting_seconds", "Age of the job next in line", ["queue"], registry=reg)
        self._slots = Gauge("moonxd_slots", "Jobs this worker runs at a time", registry=reg)
        self._busy = Gauge("moonxd_slots_busy", "Slots that hold a job", registry=reg)
        # Memory, CPU, open files and start time of this process, under the names every dashboard knows.
        ProcessCollector(registry=reg)
        self._lag = Gauge("moonxd_loop_lag_seconds", "Worst delay of the event loop in the last 10 s", registry=reg)
        self._up = Gauge("moonxd_child_up", "1 while a part works", ["child"], registry=reg)
        self._info = Gauge("moonxd_info", "Always 1", ["version"], registry=reg)

    async def text(self) -> bytes:
        """Prometheus' text format. A Redis that is away costs a second and leaves its gauges as they were."""
        snapshot = await self.sample()
        self._set(snapshot)
        with trio.move_on_after(_ASK_S):
            try:
                oldest = await self._oldest()
            except MoonxdError:
                # moonxd_queue_fresh says so.
                oldest = None
            age = 0.0 if oldest is None else max(0.0, time.time() - oldest / 1000)
            self._age.labels(snapshot.queue.name).set(age)
        return self._telemetry.prometheus()

    def _set(self, snapshot: Snapshot) -> None:
        queue, daemon = snapshot.queue, snapshot.daemon
        for state in _STATES:
            self._jobs.labels(queue.name, state).set(getattr(queue, state))
        self._paused.labels(queue.name).set(queue.is_paused)
        self._fresh.labels(queue.name).set(queue.fresh)
        self._slots.set(daemon.slots)
        self._busy.set(daemon.slots_busy)
        self._lag.set(daemon.loop_lag)
        self._info.labels(daemon.version).set(1)
        for child in snapshot.children:
            self._up.labels(child.name).set(child.state == "running")
