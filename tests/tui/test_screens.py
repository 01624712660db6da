"""Whole screens, compared cell by cell with pictures that a person has looked at.

After a change that is meant: `pytest tests/tui/test_screens.py --snapshot-update`, and look at the new pictures.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot

from moonxd.api.schema import Snapshot
from tests.tui.feeds import Script, app_for, settled, until
from tests.tui.scenes import EMPTY, busy, history, tripped
from tests.tui.stats_scenes import UNMEASURED, measured
from tui.app import TopApp
from tui.feed import FeedError, NoStatistics, Statistics
from tui.text import ASCII, UNICODE, Glyphs

pytestmark = pytest.mark.slow

GONE = FeedError(
    "no daemon is running at /var/lib/moonxd/moonxd.sock (there is no such socket)",
    "start one with `moonxd serve`, or say where it is with --socket or --state-dir",
)
Before = Callable[[Pilot[int]], Awaitable[None]]


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The screens show local times."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def scene_of(scene: Snapshot, *keys: str) -> tuple[TopApp, Before]:
    app = app_for(Script(scene))
    app.state = msgspec.structs.replace(app.state, history=history(scene))

    async def before(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: app.state.is_live)
        await pilot.press(*keys)
        await until(pilot, lambda: True)

    return app, before


@pytest.mark.parametrize("size", [(80, 24), (140, 40)], ids=["80x24", "140x40"])
@pytest.mark.parametrize("scene", [EMPTY, busy(), tripped()], ids=["empty", "busy", "tripped"])
def test_screen(snap_compare: Any, scene: Snapshot, size: tuple[int, int]) -> None:
    app, before = scene_of(scene)
    assert snap_compare(app, terminal_size=size, run_before=before)


@pytest.mark.parametrize(
    "keys",
    [("question_mark",), ("P",), ("5", "j", "enter"), ("5", "z"), ("slash", *"time")],
    ids=["help", "question", "details", "zoom", "filter"],
)
def test_screen_after_keys(snap_compare: Any, keys: tuple[str, ...]) -> None:
    app, before = scene_of(busy(), *keys)
    assert snap_compare(app, terminal_size=(80, 24), run_before=before)


@pytest.mark.parametrize("size", [(80, 24), (140, 40)], ids=["80x24", "140x40"])
def test_lost_screen(snap_compare: Any, size: tuple[int, int]) -> None:
    script = Script(busy())
    app = app_for(script, pause=300)
    app.state = msgspec.structs.replace(app.state, history=history(busy()))

    async def before(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: app.state.is_live)
        script.drop(GONE)
        await until(pilot, lambda: app.state.connection.phase == "lost")

    assert snap_compare(app, terminal_size=size, run_before=before)


def test_never_connected_screen(snap_compare: Any) -> None:
    script = Script()
    script.down = GONE
    app = app_for(script, pause=300)

    async def before(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: app.state.connection.phase == "lost")

    assert snap_compare(app, terminal_size=(80, 24), run_before=before)


NONE_KEPT = NoStatistics("this daemon keeps no statistics", "set stats.enabled = true")
SLOW = FeedError(
    "the daemon at /var/lib/moonxd/moonxd.sock did not answer in time",
    "it may be overloaded or stopped by a debugger; its log says more",
)


def statistics_of(
    found: Statistics | FeedError, *keys: str, lost: bool = False, glyphs: Glyphs = UNICODE
) -> tuple[TopApp, Before]:
    """The statistics screen after its first answer; with `lost` the daemon goes away then."""
    script = Script(busy())
    script.statistics_now = found
    app = app_for(script, pause=300, every=0.02 if lost else 300, glyphs=glyphs)

    async def before(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: app.state.is_live)
        await pilot.press("s")
        await until(pilot, lambda: app.state.figures.heard_at or app.state.figures.reason)
        if lost:
            script.statistics_now = GONE
            script.drop(GONE)
            await until(pilot, lambda: app.state.figures.reason and app.state.connection.phase == "lost")
        await pilot.press(*keys)
        await settled(pilot)

    return app, before


@pytest.mark.parametrize("size", [(80, 24), (140, 40)], ids=["80x24", "140x40"])
@pytest.mark.parametrize(
    "found", [measured(), UNMEASURED, NONE_KEPT, SLOW], ids=["measured", "unmeasured", "none-kept", "slow"]
)
def test_statistics(snap_compare: Any, found: Statistics | FeedError, size: tuple[int, int]) -> None:
    app, before = statistics_of(found)
    assert snap_compare(app, terminal_size=size, run_before=before)


def test_statistics_on_a_wide_terminal(snap_compare: Any) -> None:
    app, before = statistics_of(measured(), "j", "j", "j")
    assert snap_compare(app, terminal_size=(200, 50), run_before=before)


@pytest.mark.parametrize("keys", [("2", "j"), ("3",), ("1", *"jjjj", "enter")], ids=["bridge", "collectors", "details"])
def test_statistics_after_keys(snap_compare: Any, keys: tuple[str, ...]) -> None:
    app, before = statistics_of(measured(), *keys)
    assert snap_compare(app, terminal_size=(80, 24), run_before=before)


def test_statistics_on_a_plain_terminal(snap_compare: Any) -> None:
    app, before = statistics_of(measured(), glyphs=ASCII)
    assert snap_compare(app, terminal_size=(80, 24), run_before=before)


def test_statistics_without_colours(snap_compare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app, before = statistics_of(measured())
    assert snap_compare(app, terminal_size=(80, 24), run_before=before)


def test_statistics_of_a_lost_daemon(snap_compare: Any) -> None:
    app, before = statistics_of(measured(), lost=True)
    assert snap_compare(app, terminal_size=(80, 24), run_before=before)
