"""The feed over a real unix socket: streams, calls, and what becomes of errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from textual.pilot import Pilot

from moonxd.api.messages import PauseRequest, Problem, RequeueResult
from moonxd.api.schema import Delta, Snapshot
from tests.tui.feeds import drive, until
from tests.tui.scenes import EMPTY, busy
from tests.tui.socket_daemon import SocketDaemon
from tests.tui.stats_scenes import measured
from tui.app import TopApp
from tui.client import SocketFeed, over
from tui.dialogs import Question
from tui.feed import FeedError, NoStatistics, Requeued


@pytest.fixture
def socket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s") / "moonxd.sock"


@asynccontextmanager
async def feed_of(daemon: SocketDaemon, socket: Path) -> AsyncIterator[SocketFeed]:
    async with asyncio.timeout(30), daemon.serve(socket), over(socket)() as feed:
        assert isinstance(feed, SocketFeed)
        yield feed


def run(daemon: SocketDaemon, socket: Path, script: Callable[[SocketFeed], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with feed_of(daemon, socket) as feed:
            await script(feed)

    asyncio.run(inside())


def test_a_stream_is_a_snapshot_and_deltas_and_ends_with_an_explained_break(socket: Path) -> None:
    daemon = SocketDaemon(EMPTY)

    async def script(feed: SocketFeed) -> None:
        async with aclosing(feed.stream()) as messages:
            assert await anext(messages) == EMPTY
            daemon.say(busy())
            delta = await anext(messages)
            assert isinstance(delta, Delta)
            assert delta.running == busy().running
            daemon.drop()
            with pytest.raises(FeedError, match="broke") as lost:
                await anext(messages)
            assert lost.value.hint

    run(daemon, socket, script)


def test_what_cannot_be_understood_is_said_to_be_a_matter_of_versions(socket: Path) -> None:
    daemon = SocketDaemon(EMPTY)

    async def script(feed: SocketFeed) -> None:
        async with aclosing(feed.stream()) as messages:
            assert isinstance(await anext(messages), Snapshot)
            daemon.garbage()
            with pytest.raises(FeedError, match="does not understand") as wrong:
                await anext(messages)
            assert "moonxd version" in wrong.value.hint

    run(daemon, socket, script)


def test_calls_ask_for_what_they_say(socket: Path) -> None:
    daemon = SocketDaemon(EMPTY)

    async def script(feed: SocketFeed) -> None:
        await feed.pause()
        await feed.resume()
        await feed.resume(worker=True)
        assert await feed.requeueable() == (5, False)
        assert await feed.requeue_failed() == Requeued(5, 0)

    run(daemon, socket, script)
    paths = [path.rsplit("/", 1)[1] for path, _ in daemon.calls]
    assert paths == ["pause", "resume", "resume", "requeue", "requeue"]
    assert [msgspec.json.decode(body, type=PauseRequest).worker for _, body in daemon.calls[:3]] == [None, None, "this"]


def test_a_long_requeue_takes_as_many_calls_as_it_needs_and_ends(socket: Path) -> None:
    daemon = SocketDaemon(EMPTY)
    page = RequeueResult(matched=10, requeued=8, restored=2, skipped=1, ids=(), more=True)
    stuck = RequeueResult(matched=10, requeued=0, restored=0, skipped=10, ids=(), more=True)
    daemon.requeues = [page, page, stuck]

    async def script(feed: SocketFeed) -> None:
        assert await feed.requeue_failed() == Requeued(20, 12)

    run(daemon, socket, script)


def test_a_refusal_keeps_its_words(socket: Path) -> None:
    daemon = SocketDaemon(EMPTY)
    daemon.refuse = Problem(code="redis", message="Redis does not answer", hint="look at its log")

    async def script(feed: SocketFeed) -> None:
        with pytest.raises(FeedError, match="Redis does not answer") as refused:
            await feed.pause()
        assert refused.value.hint == "look at its log"

    run(daemon, socket, script)


def test_statistics_come_with_their_history_and_without_them_it_says_what_to_do(socket: Path) -> None:
    daemon = SocketDaemon(EMPTY)

    async def script(feed: SocketFeed) -> None:
        with pytest.raises(NoStatistics, match="keeps no statistics") as none:
            await feed.statistics(since=0.0, step=60.0)
        assert none.value.hint == "set stats.enabled = true"
        daemon.statistics = measured()
        assert await feed.statistics(since=0.0, step=60.0) == measured()

    run(daemon, socket, script)


def test_without_a_daemon_it_says_what_to_do(socket: Path) -> None:
    async def script() -> None:
        async with asyncio.timeout(30), over(socket)() as feed:
            with pytest.raises(FeedError, match="no daemon is running") as nobody:
                await anext(feed.stream())
            assert "moonxd serve" in nobody.value.hint

    asyncio.run(script())


def test_the_view_over_the_socket_from_first_news_to_a_requeue_and_a_restart(socket: Path) -> None:
    daemon = SocketDaemon(busy())
    app = TopApp(over(socket), pause=lambda attempt: 0.02)

    async def play(pilot: Pilot[int]) -> None:
        async with daemon.serve(socket):
            await until(pilot, lambda: app.state.snapshot == busy())
            await pilot.press("R")
            await until(pilot, lambda: isinstance(app.screen, Question))
            await pilot.press("y")
            await until(pilot, lambda: app.state.toast)
            assert app.state.toast is not None
            assert app.state.toast.text == "Requeued 5 jobs."
        await until(pilot, lambda: app.state.connection.phase == "lost" and "no daemon" in app.state.connection.reason)
        async with daemon.serve(socket):
            await until(pilot, lambda: app.state.is_live)

    drive(app, play)
