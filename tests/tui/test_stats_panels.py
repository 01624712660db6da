"""The statistics screen as text: nothing overflows, nothing unknown is a zero, and troubles are said in words."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from moonxd.api.stats import PointView
from tests.tui.scenes import NOW, busy
from tests.tui.stats_scenes import CHAINS, MINUTE_MS, THIS_MINUTE_MS, UNMEASURED, measured
from tui.feed import Statistics
from tui.figures import OLD_AFTER, Asking, Figures, Measured, Unmeasured, learn
from tui.layout import CHART_LEAST, share_statistics
from tui.panel import Panel, brief, grid, heading, line, longest
from tui.state import Connected, State, reduce
from tui.stats import TABLES, bridges, chains, charts, collectors
from tui.stats.lines import top, warning
from tui.text import ASCII, UNICODE, Glyphs, change, dollars, gwei

EDITIONS = pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])


def of(found: Statistics) -> State:
    return reduce(reduce(State(now=NOW), Connected(busy(), NOW)), Measured(found, NOW))


def texts(panel: Panel, room: int = 200) -> list[str]:
    taken = grid(panel.columns, room - 2, longest(panel))
    return ["".join(cell.text for cell in line(panel, row, room, taken)).rstrip() for row in panel.rows]


def drawn(lines: tuple[tuple[object, ...], ...]) -> list[str]:
    return ["".join(cell.text for cell in each) for each in lines]  # type: ignore[attr-defined]


@EDITIONS
@pytest.mark.parametrize("found", [measured(), UNMEASURED, None], ids=["measured", "unmeasured", "unknown"])
@given(room=st.integers(8, 260), rows=st.integers(0, 40))
def test_every_line_is_exactly_as_wide_as_its_place(
    found: Statistics | None, glyphs: Glyphs, room: int, rows: int
) -> None:
    state = State(now=NOW) if found is None else of(found)
    lines = [*top(state, room, glyphs)]
    for section in TABLES:
        panel = section.build(state, room, glyphs)
        taken = grid(panel.columns, room - 2, longest(panel))
        lines += [heading(panel, room, taken, "", glyphs), brief(panel, room, glyphs)]
        lines += [line(panel, row, room, taken, glyphs) for row in panel.rows]
    points = found.chains.history[0].points if found and found.chains.history else ()
    chart = charts.chart(state, charts.CHAIN[0], "ethereum", points, room, rows, glyphs)
    if rows >= CHART_LEAST:
        assert len(chart) == rows
    for cells in (*lines, *chart):
        assert sum(cell_len(cell.text) for cell in cells) == room, cells
        assert glyphs is UNICODE or all(cell.text.isascii() for cell in cells)


@given(st.integers(0, 100), st.integers(0, 12), st.integers(0, 30), st.integers(0, 6))
def test_rows_are_shared_out_to_the_last_one(rows: int, chains: int, bridges: int, collectors: int) -> None:
    given_rows = share_statistics(rows, chains, bridges, collectors)
    assert sum(given_rows.values()) == rows
    assert min(given_rows.values()) >= 0
    assert given_rows["charts"] == 0 or given_rows["charts"] >= CHART_LEAST
    assert given_rows["collectors"] in (0, 1, 1 + max(1, collectors))


def test_at_80x24_six_chains_and_four_bridges_are_seen_with_their_charts() -> None:
    assert share_statistics(21, 6, 4, 4) == {"chains": 7, "bridges": 5, "collectors": 1, "charts": 8}


def test_what_is_not_known_is_a_dash_and_never_a_zero() -> None:
    row = next(text for text in texts(chains.panel(of(measured()), 200)) if "arbitrum" in text)
    assert row.split()[:3] == ["arbitrum", "○", "unknown"]
    assert row.count(" -") == 11
    assert "our own network is down" in row


def test_values_that_the_last_look_did_not_confirm_are_faint() -> None:
    rows = {row.key: row for row in chains.panel(of(measured()), 200).rows}
    assert rows["base"].cells[2].tone == "dim"
    assert rows["ethereum"].cells[2].tone == "strong"
    assert "base-rpc.example: timed out" in rows["base"].cells[-1].text


def test_a_row_that_nobody_looks_at_any_more_says_so() -> None:
    (row, *_) = measured().chains.chains
    old = msgspec.structs.replace(row, at_ms=row.at_ms - 700_000, measured_at_ms=row.at_ms - 700_000)
    found = msgspec.structs.replace(measured(), chains=msgspec.structs.replace(measured().chains, chains=(old,)))
    assert "not looked at for 12m 01s" in texts(chains.panel(of(found), 200))[0]


def test_a_bridge_says_how_its_last_quote_ended() -> None:
    rows = texts(bridges.panel(of(measured()), 200))
    assert "rate limited" in rows[2]
    assert "no route" in rows[3]
    assert "half of the quotes take longer than 3 s" in rows[1]


def test_collectors_in_one_line_tell_the_trouble_and_the_next_round() -> None:
    said = " ".join(cell.text for cell in collectors.panel(of(measured()), 80).summary)
    assert said == "! partial bridge_latency missed 3 last 9.0 s ago next in 21 s"
    elsewhere = collectors.panel(of(UNMEASURED), 80)
    assert [cell.text for cell in elsewhere.summary] == ["another daemon collects"]
    assert elsewhere.rows[0].cells[1].text == "elsewhere"


@pytest.mark.parametrize("section", TABLES, ids=lambda section: section.name)
def test_details_are_complete_and_printable(section) -> None:  # type: ignore[no-untyped-def]
    state = of(measured())
    for row in section.build(state, 100, UNICODE).rows:
        details = section.explain(state, row.key, UNICODE)
        assert details is not None
        assert all(value and value.isprintable() for _, value in details.fields)
    assert section.explain(state, "gone meanwhile", UNICODE) is None
    assert section.explain(State(now=NOW), "nothing yet", UNICODE) is None


def test_every_chain_and_bridge_has_its_history() -> None:
    found = measured()
    keys = [row.key for row in bridges.panel(of(found), 80).rows]
    assert all(charts.points_of(found.bridges.history, key) for key in keys)
    assert all(charts.points_of(found.chains.history, name) for name, *_ in CHAINS[:-1])


# ---- charts ------------------------------------------------------------------------------------------------------


def point(minutes_ago: int, value: float | None, status: str = "healthy") -> PointView:
    values = {} if value is None else {"latency_s": value}
    return PointView(at_ms=THIS_MINUTE_MS - minutes_ago * MINUTE_MS, samples=1, values=values, status=status)


def test_an_hour_has_sixty_steps_and_a_look_left_out_is_a_gap() -> None:
    points = [point(ago, float(ago)) for ago in range(59, -1, -1) if ago != 7]
    values, statuses = charts.hour(points, "latency_s", NOW)
    assert len(values) == len(statuses) == 60
    assert [index for index, value in enumerate(values) if value is None] == [52]
    assert statuses[52] is None
    assert values[-1] == 0.0


def test_looks_two_minutes_apart_leave_no_gaps_between_them() -> None:
    newest = THIS_MINUTE_MS // MINUTE_MS % 2
    points = [point(ago, 1.0) for ago in range(60 + newest, -1, -2)]
    values, _ = charts.hour(points, "latency_s", NOW)
    assert len(values) == 30
    assert None not in values


def test_a_failed_look_has_a_mark_and_no_value() -> None:
    points = [point(2, 1.0), point(1, None, "unhealthy"), point(0, 1.0, "degraded")]
    values, statuses = charts.hour(points, "latency_s", NOW)
    assert values[-3:] == (1.0, None, 1.0)
    assert statuses[-3:] == ("healthy", "unhealthy", "degraded")


def test_a_chart_names_its_row_its_ends_and_its_times() -> None:
    state = of(measured())
    points = [point(ago, 0.2 if ago > 3 else 0.4, "healthy" if ago > 3 else "degraded") for ago in range(59, -1, -1)]
    lines = drawn(charts.chart(state, charts.BRIDGE[0], "Relay x", points, 70, 8, UNICODE))
    assert lines[0].startswith(" QUOTE LATENCY Relay x  last 400 ms  mean 213 ms")
    assert lines[1].startswith(" 400 ms │")
    assert lines[5].startswith(" 200 ms │")
    assert lines[6].rstrip().endswith("─!!!!")
    assert lines[7].split() == ["-60m", "-30m", "now"]


def test_a_chart_of_nothing_says_so() -> None:
    lines = drawn(charts.chart(of(UNMEASURED), charts.CHAIN[0], None, (), 60, 8, UNICODE))
    assert "nothing measured" in "\n".join(lines)


# ---- what is known, and how old it is ----------------------------------------------------------------------------


def test_figures_stay_when_a_request_fails_and_say_of_when_they_are() -> None:
    figures = learn(learn(Figures(), Asking(NOW)), Measured(measured(), NOW))
    assert figures.is_current(NOW + OLD_AFTER)
    assert not figures.is_current(NOW + OLD_AFTER + 1)
    assert figures.as_of(NOW + 3) == NOW + 3
    failed = learn(figures, Unmeasured("it broke", "try again"))
    assert failed.found is figures.found
    assert not failed.is_current(NOW + 1)
    assert failed.as_of(NOW + 9) == NOW
    assert learn(failed, Unmeasured("none", "enable", is_kept=False)).found is None
    assert learn(failed, Measured(measured(), NOW + 2)).is_current(NOW + 2)


def test_a_slow_answer_and_old_numbers_are_said() -> None:
    state = reduce(reduce(of(measured()), Asking(NOW)), Unmeasured("the daemon did not answer", "see its log"))
    said = warning(state)
    assert said is not None
    assert said.text == "✗ The daemon did not answer. See its log."
    assert "as of" in drawn(top(state, 100))[1]
    waiting = msgspec.structs.replace(reduce(of(measured()), Asking(NOW)), now=NOW + 12)
    assert "asking for 12 s" in drawn(top(waiting, 100))[1]


# ---- numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(None, "-"), ("0", "$0"), ("950", "$950"), ("12345", "$12.3k"), ("1234567", "$1.23M"), ("1.2e12", "$1.20T")],
)
def test_dollars(amount: str | None, shown: str) -> None:
    assert dollars(None if amount is None else Decimal(amount)) == shown


@pytest.mark.parametrize(
    ("wei", "shown"),
    [(None, "-"), (0, "0"), (1, "<0.0001"), (12_300_000, "0.0123"), (1_230_000_000, "1.23"), (312 * 10**9, "312")],
)
def test_gas(wei: int | None, shown: str) -> None:
    assert gwei(wei) == shown


@given(st.floats(-1e9, 1e9), st.integers(0, 10**14), st.decimals(0, 10**15))
def test_numbers_fit_their_columns(percents: float, wei: int, amount: Decimal) -> None:
    assert max(map(len, (change(percents), gwei(wei), dollars(amount)))) <= 7


def test_changes() -> None:
    assert [change(value) for value in (None, 0.0, -12.5, 340.4)] == ["-", "+0.0 %", "-12.5 %", "+340 %"]
