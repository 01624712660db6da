"""The statistics screen under keys, outages and slow answers, with a scripted daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from rich.cells import cell_len
from textual.pilot import Pilot

from tests.tui.feeds import Script, Watch, app_for, drive, until
from tests.tui.scenes import NOW, busy
from tests.tui.stats_scenes import UNMEASURED, measured
from tui.app import TopApp
from tui.dialogs import DetailsScreen, HelpScreen, Question
from tui.feed import FeedError, NoStatistics, Statistics
from tui.figures import OLD_AFTER, SPAN_S, STEP_S
from tui.screen import StatisticsScreen
from tui.table import Table

pytestmark = pytest.mark.slow

BROKEN = FeedError("the connection to the daemon broke", "try again")


def scripted(found: Statistics | FeedError | None) -> Script:
    script = Script(busy())
    script.statistics_now = found
    return script


def lines(app: TopApp) -> list[str]:
    """The screen on top as lines of text."""
    width, height = app.screen.size
    return [strip.text for strip in app.screen._compositor.render_strips()][:height] if width else []


def shown(app: TopApp) -> str:
    return "\n".join(lines(app))


async def opened(pilot: Pilot[int], app: TopApp) -> None:
    await until(pilot, lambda: app.state.is_live)
    await pilot.press("s")
    await until(pilot, lambda: isinstance(app.screen, StatisticsScreen) and "STATISTICS" in shown(app))


async def sees(pilot: Pilot[int], app: TopApp, *texts: str) -> None:
    await until(pilot, lambda: all(text in shown(app) for text in texts))


def test_s_opens_the_statistics_and_esc_and_s_return() -> None:
    script = scripted(measured())
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        for key in ("escape", "s"):
            await opened(pilot, app)
            await sees(pilot, app, "optimism", "LI.FI", "COLLECTORS", "BLOCK TIME ethereum", "-60m")
            assert "RUNNING" not in shown(app)
            await pilot.press(key)
            await sees(pilot, app, "RUNNING", "184200")
        since, step = script.spans[0]
        assert (NOW - since, step) == (SPAN_S, STEP_S)

    drive(app, play)


def test_nothing_is_asked_before_it_is_opened_nor_after_it_was_left() -> None:
    script = scripted(measured())
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: app.state.is_live)
        assert script.spans == []
        await opened(pilot, app)
        await until(pilot, lambda: len(script.spans) > 3)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, StatisticsScreen))
        asked = len(script.spans)
        await pilot.pause(0.1)
        assert len(script.spans) == asked

    drive(app, play)


def test_a_slow_answer_holds_up_no_key_and_is_given_up_when_the_screen_is_left() -> None:
    script, watch = scripted(None), Watch()
    app = app_for(script, watch)

    async def play(pilot: Pilot[int]) -> None:
        await opened(pilot, app)
        await until(pilot, lambda: script.spans)
        watch.now += 12
        await sees(pilot, app, "asking for 12 s", "asking the daemon")
        await pilot.press("2")
        assert app.focused is not None
        assert app.focused.id == "stats-bridges"
        await pilot.press("escape")
        await until(pilot, lambda: script.abandoned == 1 and not isinstance(app.screen, StatisticsScreen))

    drive(app, play)


def test_quitting_from_the_statistics_gives_up_the_request() -> None:
    script = scripted(None)
    app = app_for(script)

    async def run() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await opened(pilot, app)
            await until(pilot, lambda: script.spans)
            await pilot.press("q")
            async with asyncio.timeout(10):
                while app.return_value is None:
                    await pilot.pause(0.01)

    asyncio.run(run())
    assert app.return_value == 0
    assert script.abandoned == 1


def test_numbers_stay_when_the_daemon_goes_away_and_live_on_when_it_is_back() -> None:
    script, watch = scripted(measured()), Watch()
    app = app_for(script, watch)

    async def play(pilot: Pilot[int]) -> None:
        await opened(pilot, app)
        await sees(pilot, app, "optimism")
        script.statistics_now = script.down = BROKEN
        script.drop()
        await sees(pilot, app, "NO CONNECTION", "The connection to the daemon broke. Try again.", "optimism")
        watch.now += OLD_AFTER
        await sees(pilot, app, "as of", "NO CONNECTION for 15 s")
        script.down, script.statistics_now = None, UNMEASURED
        script.say(busy())
        await sees(pilot, app, "LIVE", "nothing was measured yet")
        assert "as of" not in shown(app)

    drive(app, play)


def test_a_failed_request_is_explained_while_the_connection_is_live() -> None:
    script = scripted(FeedError("the daemon did not answer in time", "its log says more"))
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await opened(pilot, app)
        await sees(pilot, app, "✗ The daemon did not answer in time. Its log says more.", "no data yet")
        script.statistics_now = measured()
        await sees(pilot, app, "optimism")
        await until(pilot, lambda: "in time" not in shown(app))

    drive(app, play)


def test_a_daemon_without_statistics_says_what_to_do() -> None:
    script = scripted(NoStatistics("this daemon keeps no statistics", "set stats.enabled = true"))
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await opened(pilot, app)
        await sees(pilot, app, "This daemon keeps no statistics. Set stats.enabled = true.")

    drive(app, play)


def test_charts_follow_the_chosen_row() -> None:
    app = app_for(scripted(measured()))

    async def play(pilot: Pilot[int]) -> None:
        await opened(pilot, app)
        await sees(pilot, app, "BLOCK TIME ethereum", "RPC LATENCY ethereum")
        await pilot.press("j", "j")
        await sees(pilot, app, "BLOCK TIME bsc")
        await pilot.press("tab", "j")
        await sees(pilot, app, "QUOTE LATENCY Relay")
        await pilot.press("3")
        await sees(pilot, app, "QUOTE LATENCY Relay")
        await pilot.press("1", "end")
        await sees(pilot, app, "BLOCK TIME arbitrum", "nothing measured")

    drive(app, play)


def test_enter_tells_all_of_a_row_and_help_and_questions_open_over_the_statistics() -> None:
    script = scripted(measured())
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await opened(pilot, app)
        await sees(pilot, app, "optimism")
        for key, kind in (("enter", DetailsScreen), ("question_mark", HelpScreen), ("P", Question)):
            await pilot.press(key)
            await until(pilot, lambda kind=kind: isinstance(app.screen, kind))
            await pilot.press("escape")
            await until(pilot, lambda: isinstance(app.screen, StatisticsScreen))
        await pilot.press("P")
        await until(pilot, lambda: isinstance(app.screen, Question))
        await pilot.press("y")
        await sees(pilot, app, "The queue sync-jobs is paused for every worker")
        assert script.asked == ["pause"]

    drive(app, play)


def test_keys_of_the_panels_do_nothing_here() -> None:
    app = app_for(scripted(measured()))

    async def play(pilot: Pilot[int]) -> None:
        await opened(pilot, app)
        await sees(pilot, app, "optimism")
        await pilot.press("7", "z", "slash")
        assert isinstance(app.screen, StatisticsScreen)
        assert app.zoomed is None
        await pilot.press("escape")
        await sees(pilot, app, "RUNNING")
        assert app.focused is not None
        assert app.focused.id == "running"

    drive(app, play)


@pytest.mark.parametrize("size", [(80, 24), (60, 15), (30, 8), (10, 3), (200, 60)])
def test_any_size_can_be_shown(size: tuple[int, int]) -> None:
    app = app_for(scripted(measured()))

    async def play(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: app.state.is_live)
        await pilot.press("s")
        await sees(pilot, app, "STATIST")
        assert all(cell_len(text) == size[0] for text in lines(app))

    drive(app, play, size)


def test_resizing_under_the_statistics_leaves_both_screens_whole() -> None:
    app = app_for(scripted(measured()))

    async def play(pilot: Pilot[int]) -> None:
        await opened(pilot, app)
        await sees(pilot, app, "optimism")
        await pilot.resize_terminal(200, 60)
        await sees(pilot, app, "service_health", "22,345,678")
        await pilot.press("escape")
        await sees(pilot, app, "stalled-check", "184200")
        assert len(lines(app)) == 60

    drive(app, play)


def test_only_changed_rows_are_painted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    script = scripted(measured())
    app = app_for(script)

    async def play(pilot: Pilot[int]) -> None:
        await opened(pilot, app)
        await sees(pilot, app, "optimism")
        table = app.screen.query_one("#stats-chains", Table)
        painted: list[int] = []
        refreshed: Callable[..., Table] = table.refresh

        def note(*regions, **how):  # type: ignore[no-untyped-def]
            painted.extend(region.y for region in regions)
            return refreshed(*regions, **how)

        monkeypatch.setattr(table, "refresh", note)
        found = measured()
        rows = found.chains.chains
        slower = (*rows[:2], msgspec.structs.replace(rows[2], block_time_s=1.5), *rows[3:])
        chains = msgspec.structs.replace(found.chains, chains=slower)
        script.statistics_now = msgspec.structs.replace(found, chains=chains)
        await sees(pilot, app, "1.50 s")
        assert painted == [3], "bsc is the third chain; nothing else changed"

    drive(app, play)
