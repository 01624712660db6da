"""`moonxd` with a watch on its event loop: how long one task kept it, and what the garbage collector took.

Run as `python -m benchmarks.sync_steps serve`; it watches from SIGUSR1 to SIGUSR2, and at the end the report goes to
the file that BENCHMARK_STEPS names.
"""

from __future__ import annotations

import functools
import gc
import heapq
import os
import signal
import sys
import time
import types
from pathlib import Path

import msgspec
import trio

_KEPT = 12
#: The bar: no step of the loop over 10 ms.
LIMIT_MS = 10.0


class Step(msgspec.Struct, frozen=True, order=True):
    """One uninterrupted run of a task. `cpu_ms` leaves out what other processes took from us meanwhile."""

    cpu_ms: float
    wall_ms: float
    task: str
    where: str


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    """What a watched daemon reports."""

    steps: int
    over_limit: int
    over_limit_cpu: int
    worst: list[Step]
    worst_gc_ms: float
    gc_over_limit: int


class Watch(trio.abc.Instrument):
    """Measures while `armed`: imports and migrations at the start hold nobody up."""

    def __init__(self) -> None:
        self.armed = False
        self._count = self._over = self._over_cpu = 0
        self._worst: list[Step] = []
        self._wall = self._cpu = 0
        self._collecting = 0
        self._gc_worst = 0.0
        self._gc_over = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._cpu = time.thread_time_ns()
        self._wall = time.perf_counter_ns()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        wall = (time.perf_counter_ns() - self._wall) / 1e6
        if not self.armed:
            return
        self._count += 1
        if wall < 1.0:
            return
        cpu = (time.thread_time_ns() - self._cpu) / 1e6
        self._over += wall > LIMIT_MS
        self._over_cpu += cpu > LIMIT_MS
        step = Step(round(cpu, 2), round(wall, 2), task.name, _where(task))
        if len(self._worst) < _KEPT:
            heapq.heappush(self._worst, step)
        elif step > self._worst[0]:
            heapq.heapreplace(self._worst, step)

    def collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.thread_time_ns()
            return
        took = (time.thread_time_ns() - self._collecting) / 1e6
        if self.armed:
            self._gc_worst = max(self._gc_worst, took)
            self._gc_over += took > LIMIT_MS

    def report(self) -> Steps:
        return Steps(
            steps=self._count,
            over_limit=self._over,
            over_limit_cpu=self._over_cpu,
            worst=sorted(self._worst, reverse=True),
            worst_gc_ms=round(self._gc_worst, 2),
            gc_over_limit=self._gc_over,
        )


def _where(task: trio.lowlevel.Task) -> str:
    """Our innermost line in which the task waits now: right after the step."""
    awaited: object = task.coro
    where = ""
    while isinstance(awaited, types.CoroutineType) and awaited.cr_frame is not None:
        frame = awaited.cr_frame
        if "moonxd" in frame.f_code.co_filename:
            where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        awaited = awaited.cr_await
    return where


def main() -> int:
    watch = Watch()
    gc.callbacks.append(watch.collected)
    signal.signal(signal.SIGUSR1, lambda *_: setattr(watch, "armed", True))
    signal.signal(signal.SIGUSR2, lambda *_: setattr(watch, "armed", False))
    watched = functools.partial(trio.run, instruments=[watch])
    trio.run = watched  # type: ignore[assignment]
    from moonxd.cli.main import run

    try:
        return run(sys.argv[1:])
    finally:
        Path(os.environ["BENCHMARK_STEPS"]).write_bytes(msgspec.json.encode(watch.report()))


if __name__ == "__main__":
    sys.exit(main())
