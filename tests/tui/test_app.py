"""The application under keys, news, outages and other sizes, without a terminal and with a scripted daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from rich.cells import cell_len
from textual.pilot import Pilot
from textual.widgets import Input, Static

from moonxd.api.schema import Delta, Snapshot, difference
from tests.tui.feeds import Script, Watch, app_for, drive, until
from tests.tui.scenes import EMPTY, NOW, busy, tripped
from tui.app import TopApp
from tui.dialogs import DetailsScreen, HelpScreen, Question
from tui.feed import FeedError
from tui.state import STALE_AFTER
from tui.table import Table

pytestmark = pytest.mark.slow


def screen(app: TopApp) -> list[str]:
    """The panels' screen as lines of text."""
    base = app.screen_stack[0]
    width, height = base.size
    return [strip.text for strip in base._compositor.render_strips()][:height] if width else []


def shown(app: TopApp) -> str:
    return "\n".join(screen(app))


def focus_on(app: TopApp) -> str | None:
    return app.focused.id if app.focused else None


def paused(scene: Snapshot, *, queue: bool = True) -> Snapshot:
    target = "queue" if queue else "daemon"
    section = msgspec.structs.replace(getattr(scene, target), is_paused=True)
    return msgspec.structs.replace(scene, **{target: section})


async def live(pilot: Pilot[int], app: TopApp) -> None:
    await until(pilot, lambda: app.state.is_live)


async def dialog(pilot: Pilot[int], app: TopApp, kind: type) -> None:
    await until(pilot, lambda: isinstance(app.screen, kind))


async def toast(pilot: Pilot[int], app: TopApp) -> str:
    await until(pilot, lambda: app.state.toast)
    assert app.state.toast is not None
    return app.state.toast.text


# ---- news --------------------------------------------------------------------------------------------------------


def test_news_reach_the_screen() -> None:
    script = Script(busy())
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await live(pilot, app)
        assert "1,284" in shown(app)
        fuller = msgspec.structs.replace(
            busy(), queue=msgspec.structs.replace(busy().queue, waiting=4_321), seq=2, at=NOW + 1
        )
        script.say(difference(busy(), fuller))
        await until(pilot, lambda: app.state.snapshot == fuller)
        assert "4,321" in shown(app)

    drive(app, play)


def test_a_gap_leads_to_a_new_stream_and_a_new_snapshot() -> None:
    script = Script(busy(), Delta(seq=7, at=NOW))
    later = msgspec.structs.replace(EMPTY, seq=9)
    script.say(later)
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: app.state.snapshot == later)
        assert script.connections == 2
        assert app.state.is_live

    drive(app, play)


def test_a_lost_daemon_is_said_and_found_again() -> None:
    script, watch = Script(busy()), Watch()
    app = app_for(script, watch)

    async def play(pilot: Pilot[int]) -> None:
        await live(pilot, app)
        script.down = FeedError("no daemon is running at /run/m.sock", "start one with `moonxd serve`")
        script.drop()
        await until(pilot, lambda: app.state.connection.reason.startswith("no daemon") and script.connections > 3)
        await until(pilot, lambda: "moonxd serve" in shown(app))
        assert "NO CONNECTION" in shown(app)
        assert "1,284" in shown(app), "the last numbers stay"
        script.say(EMPTY)
        script.down = None
        await live(pilot, app)
        assert "NO CONNECTION" not in shown(app)
        assert not app.query_one("#notice").display

    drive(app, play)


def test_a_daemon_that_never_was_is_explained() -> None:
    script = Script()
    script.down = FeedError("no daemon is running at /run/m.sock", "start one with `moonxd serve`")
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: app.state.connection.phase == "lost")
        await until(pilot, lambda: "moonxd serve" in shown(app))
        await pilot.press("P")
        assert "Not connected" in await toast(pilot, app)

    drive(app, play)


def test_silence_is_shown() -> None:
    script, watch = Script(busy()), Watch()
    app = app_for(script, watch)

    async def play(pilot: Pilot[int]) -> None:
        await live(pilot, app)
        watch.now += STALE_AFTER + 2
        await until(pilot, lambda: app.state.is_stale)
        assert "NO NEWS for 12 s" in shown(app)

    drive(app, play)


def test_the_screen_goes_on_under_an_open_dialog() -> None:
    script = Script(busy())
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await live(pilot, app)
        await pilot.press("question_mark")
        await dialog(pilot, app, HelpScreen)
        later = msgspec.structs.replace(EMPTY, seq=5)
        script.say(later)
        await until(pilot, lambda: app.state.snapshot == later)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, HelpScreen))
        assert "no job is running" in shown(app)

    drive(app, play)


# ---- keys that act -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "scene", "asked", "question"),
    [
        ("P", busy(), "pause", "Pause the queue sync-jobs?"),
        ("p", busy(), "pause", "1,321 jobs stay waiting"),
        ("U", paused(busy()), "resume", "1,321 jobs are waiting"),
        ("r", paused(busy()), "resume", "Resume the queue sync-jobs?"),
        ("U", paused(busy(), queue=False), "resume worker", "Resume worker worker-1?"),
        ("R", busy(), "requeue", "Requeue 5 failed jobs?"),
        ("R", paused(busy()), "requeue", "The queue is paused"),
    ],
)
def test_acting_keys_ask_and_only_y_says_yes(key: str, scene: Snapshot, asked: str, question: str) -> None:
    script = Script(scene)
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await live(pilot, app)
        for refusal in ("n", "escape", "q"):
            await pilot.press(key)
            await dialog(pilot, app, Question)
            words = " ".join(str(each.content) for each in app.screen.query(Static))
            assert question in words
            await pilot.press("enter", "space")
            assert isinstance(app.screen, Question), "a key pressed by habit decides nothing"
            await pilot.press(refusal)
            await until(pilot, lambda: not isinstance(app.screen, Question))
        assert script.asked == []
        await pilot.press(key)
        await dialog(pilot, app, Question)
        await pilot.press("y")
        await toast(pilot, app)
        assert script.asked == [asked]

    drive(app, play)


@pytest.mark.parametrize(
    ("key", "scene", "sentence"),
    [
        ("P", paused(busy()), "The queue sync-jobs is already paused."),
        ("U", busy(), "The queue sync-jobs is not paused."),
        ("R", EMPTY, "No failed job to requeue."),
    ],
)
def test_what_would_change_nothing_is_not_asked(key: str, scene: Snapshot, sentence: str) -> None:
    script = Script(scene)
    script.failed_jobs = 0
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await live(pilot, app)
        await pilot.press(key)
        assert await toast(pilot, app) == sentence
        assert sentence in shown(app)

    drive(app, play)


def test_a_refusal_is_shown_with_its_hint() -> None:
    script = Script(busy())
    script.refusal = FeedError("Redis does not answer", "look at its log")
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await live(pilot, app)
        await pilot.press("P")
        await dialog(pilot, app, Question)
        await pilot.press("y")
        assert await toast(pilot, app) == "Redis does not answer. Look at its log."

    drive(app, play)


# ---- keys that look ----------------------------------------------------------------------------------------------


def test_numbers_and_tab_move_between_panels() -> None:
    script = Script(tripped())
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await live(pilot, app)
        for number, name in enumerate(
            ("queue", "chains", "throughput", "running", "failures", "breakers", "parts"), start=1
        ):
            await pilot.press(str(number))
            assert focus_on(app) == name
        await pilot.press("1", "tab")
        assert focus_on(app) == "chains"
        await pilot.press("shift+tab")
        assert focus_on(app) == "queue"

    drive(app, play)


def test_the_cursor_moves_scrolls_and_follows_its_row() -> None:
    script = Script(busy())
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await live(pilot, app)
        failures = app.query_one("#failures", Table)
        await pilot.press("5", "j", "down", "down", "down")
        chosen = failures.selected
        assert chosen is not None
        assert chosen.startswith("184146#")
        newer = msgspec.structs.replace(busy().failures[0], job_id="190000", at=NOW - 1)
        scene = msgspec.structs.replace(busy(), seq=2, failures=(newer, *busy().failures))
        script.say(difference(busy(), scene))
        await until(pilot, lambda: app.state.snapshot == scene)
        assert failures.selected == chosen, "a new failure above must not move the cursor to another job"
        await pilot.press("end")
        assert failures.selected is not None
        assert failures.selected.startswith("184137#")
        await pilot.press("home")
        assert failures.selected.startswith("190000#")
        await pilot.press("pagedown", "k")
        assert failures.selected.startswith("184150#")

    drive(app, play)


def test_a_cursor_on_top_stays_on_top_to_see_what_is_new() -> None:
    script = Script(busy())
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await live(pilot, app)
        await pilot.press("5")
        newer = msgspec.structs.replace(busy().failures[0], job_id="190000", at=NOW - 1)
        scene = msgspec.structs.replace(busy(), seq=2, failures=(newer, *busy().failures))
        script.say(difference(busy(), scene))
        await until(pilot, lambda: app.state.snapshot == scene)
        selected = app.query_one("#failures", Table).selected
        assert selected is not None
        assert selected.startswith("190000#")

    drive(app, play)


def test_details_show_all_of_a_reason_and_copy_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(busy())
    app = app_for(script)
    copied: list[str] = []
    monkeypatch.setattr(app, "copy_to_clipboard", copied.append)

    async def play(pilot: Pilot[int]) -> None:
        await live(pilot, app)
        await pilot.press("5", "j", "enter")
        await dialog(pilot, app, DetailsScreen)
        words = [str(each.content) for each in app.screen.query(Static)]
        assert (
            "all 6 chains failed; the first: ethereum: HTTP 429 from ethereum-rpc.example, asked to wait 30 s" in words
        )
        await pilot.press("c", "a")
        assert copied[0] == "184149"
        assert "wallet: 0x" in copied[1]
        await pilot.press("q")
        await until(pilot, lambda: not isinstance(app.screen, DetailsScreen))
        assert app.is_running

    drive(app, play)


def test_zoom_fills_the_screen_and_ends() -> None:
    script = Script(tripped())
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await live(pilot, app)
        await pilot.press("7", "z")
        await until(pilot, lambda: app.query_one("#parts").size.height == 21)
        assert app.query_one("#parts").size.width >= 79
        assert "stalled-check" in shown(app)
        assert "QUEUE PAUSED" in shown(app)
        await pilot.press("6")
        await until(pilot, lambda: "half-open" in shown(app))
        await pilot.press("escape")
        await until(pilot, lambda: "RUNNING" in shown(app))
        await pilot.press("1", "enter")
        await until(pilot, lambda: app.zoomed == "queue")

    drive(app, play)


def test_the_filter_narrows_jobs_and_failures_while_typing() -> None:
    script = Script(busy())
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await live(pilot, app)
        await pilot.press("slash", *"chain id")
        await until(pilot, lambda: app.state.filter == "chain id")
        assert "/chain id: 2 of 14" in shown(app)
        assert "nothing matches /chain id" in shown(app)
        await pilot.press("enter")
        assert focus_on(app) == "running"
        assert not app.query_one("#filter", Input).display
        assert app.state.filter == "chain id"
        await pilot.press("escape")
        assert app.state.filter == ""
        await pilot.press("slash", *"q1", "escape")
        assert app.state.filter == ""
        assert app.is_running, "letters typed into the filter are no commands"

    drive(app, play)


@pytest.mark.parametrize("size", [(80, 24), (60, 15), (30, 8), (10, 3), (200, 60)])
def test_any_size_can_be_shown(size: tuple[int, int]) -> None:
    script = Script(tripped())
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await live(pilot, app)
        assert "LIVE" in shown(app)
        assert all(cell_len(text) == size[0] for text in screen(app))

    drive(app, play, size)


def test_resizing_back_and_forth() -> None:
    script = Script(busy())
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await live(pilot, app)
        small = screen(app)
        await pilot.resize_terminal(200, 60)
        await until(pilot, lambda: "stalled-check" in shown(app))
        assert len(screen(app)) == 60
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: screen(app) == small)

    drive(app, play)


def test_only_changed_rows_are_painted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(busy())
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await live(pilot, app)
        table = app.query_one("#chains", Table)
        painted: list[int] = []
        refreshed: Callable[..., Table] = table.refresh

        def note(*regions, **how):  # type: ignore[no-untyped-def]
            painted.extend(region.y for region in regions)
            return refreshed(*regions, **how)

        monkeypatch.setattr(table, "refresh", note)
        slower = msgspec.structs.replace(busy().chains[4], p95=7.5)
        scene = msgspec.structs.replace(busy(), seq=2, chains=(*busy().chains[:4], slower, *busy().chains[5:]))
        script.say(difference(busy(), scene))
        await until(pilot, lambda: app.state.snapshot == scene)
        await until(pilot, lambda: "7.50 s" in shown(app))
        assert painted == [2], "base is the second chain by name; nothing else changed"

    drive(app, play)


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
def test_quitting_returns_zero(key: str) -> None:
    script = Script(busy())
    app = app_for(script)

    async def run() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await live(pilot, app)
            await pilot.press(key)
            async with asyncio.timeout(10):
                while app.return_value is None:
                    await pilot.pause(0.01)

    asyncio.run(run())
    assert app.return_value == 0
