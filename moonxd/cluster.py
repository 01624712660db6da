"""Several worker processes under one daemon: this process runs no jobs, keeps the others running, and speaks for them.

Each worker is `moonxd serve` with a socket and a state directory of its own, and shares this daemon's Redis and ledger.
It is a supervised child like any other part: started again with backoff, drained when the daemon stops. What operators
ask goes to the workers through the fleet's orders, so that one socket answers for all.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import msgspec
import trio

from .agents.orders import Verb
from .agents.sampler import Sampler
from .api.merge import merged
from .api.schema import Snapshot
from .domain.errors import ConfigError, MoonxdError, Transient
from .domain.fleet import Answer
from .exposition import joined
from .metrics import Metrics
from .ports import Fleet
from .supervisor import Child, Restarts, Supervisor

log = logging.getLogger("moonxd.cluster")

#: A worker's exit code for a configuration that cannot be used: starting it again mends nothing.
_BAD_CONFIG = 78
#: Seconds beyond its drain that a worker may take to end before it is killed.
_END_S = 15.0
_START_S = 90.0
_LOOK_S = 0.1
#: Seconds that a worker's picture may take: the others are not to wait for one that starts.
_PICTURE_S = 0.5
#: A worker never counts as failed for good: the others work, and this one may again.
_RESTARTS = Restarts(most=1_000_000, first_s=0.2, longest_s=15.0)

Ask = Callable[[str, str, str], Awaitable[Answer | None]]


class Process(Protocol):
    """A worker's process."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int: ...

    def ask_to_end(self) -> None: ...

    def ask_to_reload(self) -> None: ...

    async def end(self, within_s: float) -> None: ...


class Cluster:
    """`names` are the workers'; `start(number)` starts the process of worker `number` (from 1), in this thread."""

    def __init__(
        self,
        names: tuple[str, ...],
        *,
        start: Callable[[int], Process],
        fleet: Fleet,
        ask: Ask,
        supervisor: Supervisor,
        drain_s: float,
    ) -> None:
        self.names = names
        self._start = start
        self._fleet = fleet
        self._ask = ask
        self._supervisor = supervisor
        self._drain_s = drain_s
        self._processes: dict[str, Process] = {}
        self._pictures: dict[str, Snapshot] = {}
        self._send, self._work = trio.open_memory_channel[Callable[[], Awaitable[None]]](64)

    def children(self) -> tuple[Child, ...]:
        """The foreman last: he needs the workers."""
        workers = [self._child(number) for number in range(1, len(self.names) + 1)]
        return (*workers, Child(name="foreman", body=self._obey, critical=False))

    def _child(self, number: int) -> Child:
        return Child(name=f"worker-{number}", body=partial(self._keep, number), start_s=_START_S, restarts=_RESTARTS)

    # ---- one worker's process ----------------------------------------------------------------------------------------

    async def _keep(self, number: int, ready: Callable[[], None]) -> None:
        """Run the process until it ends by itself, which is an error, or we are cancelled."""
        name, began = self.names[number - 1], time.time()
        process = self._processes[name] = self._start(number)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._await_running, name, began, ready)
                code = await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            await process.end(self._drain_s + _END_S)
            self._pictures.pop(name, None)
        if code == _BAD_CONFIG:
            raise ConfigError(f"worker {name} refused its configuration: its own lines above say why")
        raise Transient(f"worker {name} ended with code {code}")

    async def _await_running(self, name: str, began: float, ready: Callable[[], None]) -> None:
        while True:
            try:
                beats = await self._fleet.heartbeats()
            except MoonxdError:
                beats = ()
            for beat in beats:
                if beat.worker == name and beat.started_at >= began and beat.state == "running":
                    ready()
                    return
            await trio.sleep(_LOOK_S)

    async def drain(self, hurry: trio.Event) -> None:
        """End every worker at once, each within its own drain; `hurry` makes them hand back what runs."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hurry, hurry)
            async with trio.open_nursery() as ending:
                for number in range(1, len(self.names) + 1):
                    ending.start_soon(self._supervisor.stop_child, f"worker-{number}")
            nursery.cancel_scope.cancel()

    async def _hurry(self, hurry: trio.Event) -> None:
        await hurry.wait()
        for process in self._processes.values():
            process.ask_to_end()

    def reload(self) -> None:
        """Every worker reads its configuration again."""
        for process in self._processes.values():
            process.ask_to_reload()

    # ---- what operators ask ------------------------------------------------------------------------------------------

    async def _obey(self, ready: Callable[[], None]) -> None:
        ready()
        async for work in self._work:
            await work()

    def pause(self, paused: bool) -> None:
        """Every worker of ours; returns before they are."""
        self._send.send_nowait(partial(self._pause_all, paused))

    async def _pause_all(self, paused: bool) -> None:
        for name in self.names:
            try:
                reply = await self._ask(name, "pause" if paused else "resume", "")
            except MoonxdError as error:
                log.warning("worker %s was not reached: %s", name, error)
            else:
                if reply is None:
                    log.warning("worker %s did not answer", name)

    def restart(self, worker: str | None) -> tuple[str, ...]:
        """One worker, or all of them one after the other; the names. Raises KeyError for a name that is not ours."""
        if worker is not None and worker not in self.names:
            raise KeyError(worker)
        names = self.names if worker is None else (worker,)
        self._send.send_nowait(partial(self._roll, names))
        return names

    async def _roll(self, names: tuple[str, ...]) -> None:
        for name in names:
            number = self.names.index(name) + 1
            log.info("restarting worker %s", name)
            await self._supervisor.stop_child(f"worker-{number}")
            await self._supervisor.start(self._child(number))

    async def picture(self, own: Snapshot) -> Snapshot:
        """`own` and what every worker shows now; one that does not answer is shown as it last was."""
        async with trio.open_nursery() as nursery:
            for name in self.names:
                nursery.start_soon(self._look, name)
        return merged(own, self._pictures)

    async def metrics(self, own: bytes) -> bytes:
        """`own` page of metrics and every worker's; one that does not answer in time is missing."""
        pages: dict[str, bytes] = {}

        async def fetch(number: int, name: str) -> None:
            try:
                with trio.move_on_after(_PICTURE_S):
                    answer = await self._ask(name, "metrics", "")
                    if answer is not None and isinstance(answer.body, str):
                        pages[str(number)] = answer.body.encode()
            except MoonxdError as error:
                log.debug("no metrics of worker %s: %s", name, error)

        async with trio.open_nursery() as nursery:
            for number, name in enumerate(self.names, 1):
                nursery.start_soon(fetch, number, name)
        return joined(own, pages)

    async def _look(self, name: str) -> None:
        try:
            with trio.move_on_after(_PICTURE_S):
                answer = await self._ask(name, "snapshot", "")
                if answer is not None and answer.done:
                    self._pictures[name] = msgspec.convert(answer.body, Snapshot)
        except (MoonxdError, msgspec.ValidationError) as error:
            log.debug("no picture of worker %s: %s", name, error)


def worker_verbs(sampler: Sampler, metrics: Metrics) -> dict[str, Verb]:
    """What a worker answers its head."""

    async def snapshot(_about: str) -> Answer:
        return Answer(done=True, body=await sampler.sample())

    async def counters(_about: str) -> Answer:
        return Answer(done=True, body=(await metrics.text()).decode())

    return {"snapshot": snapshot, "metrics": counters}


def whole(
    sampler: Sampler, metrics: Metrics, cluster: Cluster | None
) -> tuple[Callable[[], Awaitable[Snapshot]], Callable[[], Awaitable[bytes]]]:
    """The picture and the page of metrics that operators get: of this process, or of it and its workers."""
    if cluster is None:
        return sampler.sample, metrics.text

    async def picture() -> Snapshot:
        return await cluster.picture(await sampler.sample())

    async def page() -> bytes:
        return await cluster.metrics(await metrics.text())

    metrics.sample = picture
    return picture, page
