"""A daemon made of a queue of messages: what it is told to say it says, what it is asked to do it notes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from textual.pilot import Pilot

from moonxd.api.schema import Delta, Snapshot
from tests.tui.scenes import NOW
from tui.app import REPAINT_S, TopApp
from tui.feed import Failed, FeedError, Requeued, Statistics
from tui.text import UNICODE, Glyphs


class Script:
    """`say` queues a message for the viewer, `drop` ends its stream; `down` refuses connections while it is set."""

    def __init__(self, *messages: Snapshot | Delta) -> None:
        self._messages: asyncio.Queue[Snapshot | Delta | FeedError | None] = asyncio.Queue()
        self.down: FeedError | None = None
        self.connections = 0
        self.asked: list[str] = []
        self.failed_jobs = 5
        self.refusal: FeedError | None = None
        #: What is said when statistics are asked for: nothing for as long as it is None.
        self.statistics_now: Statistics | FeedError | None = None
        self.spans: list[tuple[float, float]] = []
        self.abandoned = 0
        for message in messages:
            self.say(message)

    def say(self, message: Snapshot | Delta) -> None:
        self._messages.put_nowait(message)

    def drop(self, error: FeedError | None = None) -> None:
        self._messages.put_nowait(error)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Script]:
        self.connections += 1
        if self.down is not None:
            raise self.down
        yield self

    async def stream(self) -> AsyncGenerator[Snapshot | Delta]:
        while True:
            message = await self._messages.get()
            if message is None:
                return
            if isinstance(message, FeedError):
                raise message
            yield message

    async def statistics(self, *, since: float, step: float) -> Statistics:
        self.spans.append((since, step))
        if self.statistics_now is None:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                self.abandoned += 1
                raise
        if isinstance(self.statistics_now, FeedError):
            raise self.statistics_now
        assert self.statistics_now is not None
        return self.statistics_now

    def _note(self, what: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(what)

    async def pause(self) -> None:
        self._note("pause")

    async def resume(self, *, worker: bool = False) -> None:
        self._note("resume worker" if worker else "resume")

    async def requeueable(self) -> Failed:
        return Failed(self.failed_jobs)

    async def requeue_failed(self) -> Requeued:
        self._note("requeue")
        return Requeued(self.failed_jobs, 0)


class Watch:
    """A clock that stands still until it is set."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def app_for(
    script: Script, watch: Watch | None = None, *, pause: float = 0.02, every: float = 0.02, glyphs: Glyphs = UNICODE
) -> TopApp:
    """An application that tries again `pause` seconds after the daemon went away, and looks again after `every`."""
    return TopApp(script.connect, clock=watch or Watch(), pause=lambda attempt: pause, every=every, glyphs=glyphs)


async def until(pilot: Pilot[int], condition: Callable[[], object]) -> None:
    """Let the application run until `condition` holds and the screen was painted since."""
    app = pilot.app
    assert isinstance(app, TopApp)
    async with asyncio.timeout(20):
        while not condition():
            await pilot.pause(0.01)
        painted = app.painted
        while app.painted is painted and app.painted is not app.state:
            await pilot.pause(0.01)
        await pilot.pause()


async def settled(pilot: Pilot[int]) -> None:
    """Let the application run until a repaint changes nothing: a new layout is painted after it was measured."""
    async with asyncio.timeout(20):
        picture = ""
        while picture != (picture := pilot.app.export_screenshot()):
            await pilot.pause(2 * REPAINT_S)


def drive(app: TopApp, script: Callable[[Pilot[int]], Awaitable[None]], size: tuple[int, int] = (80, 24)) -> None:
    """Run `app` without a terminal under an event loop of its own."""

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await script(pilot)

    asyncio.run(run())
