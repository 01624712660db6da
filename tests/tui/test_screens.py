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
from tests.tui.feeds import Script, app_for, until
from tests.tui.scenes import EMPTY, busy, history, tripped
from tui.app import TopApp
from tui.feed import FeedError

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
