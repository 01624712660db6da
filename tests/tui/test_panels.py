"""The panels as text: nothing overflows at any size, and what must be read is there."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from moonxd.api.schema import Breaker, Outbox, Snapshot
from tests.tui.scenes import EMPTY, NOW, busy, history, tripped
from tui.layout import Demand, share
from tui.lines import badge, footer, header, notice
from tui.panel import Panel, brief, grid, heading, line, longest
from tui.panels import SECTIONS, breakers, failures, parts, queue, running
from tui.state import Connected, Filtered, Lost, State, Tick, reduce
from tui.text import ASCII, UNICODE, Glyphs


def live(scene: Snapshot) -> State:
    state = reduce(State(now=NOW), Connected(scene, NOW))
    return msgspec.structs.replace(state, history=history(scene))


def texts(panel: Panel, room: int = 120) -> list[str]:
    taken = grid(panel.columns, room - 2, longest(panel))
    return ["".join(cell.text for cell in line(panel, row, room, taken)).rstrip() for row in panel.rows]


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
@pytest.mark.parametrize("scene", [EMPTY, busy(), tripped()], ids=["empty", "busy", "tripped"])
@given(room=st.integers(8, 260))
def test_every_line_is_exactly_as_wide_as_its_place(scene: Snapshot, glyphs: Glyphs, room: int) -> None:
    state = live(scene)
    for section in SECTIONS:
        panel = section.build(state, room, glyphs)
        taken = grid(panel.columns, room - 2, longest(panel))
        drawn = [heading(panel, room, taken, "↑1 ↓2", glyphs), brief(panel, room, glyphs)]
        drawn += [line(panel, row, room, taken, glyphs) for row in panel.rows]
        for cells in (*drawn, *header(state, room, glyphs), footer(room)):
            assert sum(cell_len(cell.text) for cell in cells) == room, (section.name, cells)


@given(st.integers(0, 120), st.integers(0, 40), st.integers(0, 64), st.integers(0, 30))
def test_rows_are_shared_out_to_the_last_one(rows: int, top: int, slots: int, bottom: int) -> None:
    given_rows = share(rows, Demand(top=top, running=slots, bottom=bottom))
    assert sum(given_rows.values()) == rows
    assert min(given_rows.values()) >= 0


def test_at_80x24_every_block_has_its_place() -> None:
    assert share(21, Demand(top=9, running=11, bottom=10)) == {
        "top": 7,
        "throughput": 4,
        "running": 5,
        "failures": 4,
        "bottom": 1,
    }


def test_on_a_tiny_terminal_the_jobs_and_the_failures_stay_longest() -> None:
    tiny = share(4, Demand())
    assert tiny["running"] >= 2
    assert tiny["throughput"] == tiny["bottom"] == 0


def test_every_state_of_the_queue_is_listed_with_its_number() -> None:
    rows = {line.split()[0]: line for line in texts(queue.panel(live(busy()), 60))}
    assert set(rows) == {"waiting", "prioritized", "active", "delayed", "!", "completed", "on", "paused"}
    assert "1,284" in rows["waiting"]
    assert rows["!"].split()[1:3] == ["failed", "5"]


def test_a_legacy_paused_list_moves_up_where_it_is_seen() -> None:
    scene = msgspec.structs.replace(busy(), queue=msgspec.structs.replace(busy().queue, paused=20_000))
    assert [row.key for row in queue.panel(live(scene), 60).rows].index("paused") < 6


def test_the_oldest_job_is_first_and_a_slow_one_is_marked_without_colour() -> None:
    rows = texts(running.panel(live(busy()), 100))
    assert rows[0].startswith("! 184200")
    assert rows[0].endswith("47 s")
    assert not any(row.startswith("!") for row in rows[1:])


def test_final_failures_and_retried_ones_differ_in_words() -> None:
    rows = texts(failures.panel(live(busy()), 140))
    assert "↻ retry" in rows[0]
    assert "✗ final" in rows[1]
    assert all(c.isprintable() for row in rows for c in row)


def test_the_filter_looks_at_every_text_of_a_job() -> None:
    state = reduce(live(busy()), Filtered("CHAIN ID"))
    panel = failures.panel(state, 100)
    assert len(panel.rows) == 2
    assert panel.note.text == "/CHAIN ID: 2 of 14"
    assert running.panel(state, 100).empty == "nothing matches /CHAIN ID (esc clears it)"


def test_no_breakers_and_no_breakers_configured_are_different_things() -> None:
    assert breakers.panel(live(busy()), 40).empty == "no breakers configured"
    none_yet = msgspec.structs.replace(busy(), breakers=())
    assert breakers.panel(live(none_yet), 40).empty == "none has tripped yet"


def test_the_worst_breaker_is_first() -> None:
    panel = breakers.panel(live(tripped()), 80)
    assert [row.key for row in panel.rows] == ["polygon", "optimism", "ethereum"]
    assert [cell.text for cell in panel.summary] == ["✗ OPEN polygon", "+1"]


def test_an_unknown_state_is_shown_as_it_came() -> None:
    odd = msgspec.structs.replace(busy(), breakers=(Breaker(name="x", state="melted\x1b[2J", failures=1),))
    assert "melted�[2J" in texts(breakers.panel(live(odd), 80))[0]


def test_troubled_parts_come_first_and_fill_the_summary() -> None:
    panel = parts.panel(live(busy()), 80)
    assert panel.rows[0].key == "relay"
    assert panel.summary[0].text == "↻ backing off: relay"


@pytest.mark.parametrize("section", [s for s in SECTIONS if s.explain], ids=lambda s: s.name)
def test_details_are_complete_and_printable(section) -> None:  # type: ignore[no-untyped-def]
    state = live(tripped())
    for row in section.build(state, 100, UNICODE).rows:
        details = section.explain(state, row.key, UNICODE)
        assert details is not None
        assert all(value and value.isprintable() for _, value in details.fields)
    assert section.explain(state, "gone meanwhile", UNICODE) is None
    assert section.explain(State(now=NOW), "nothing yet", UNICODE) is None


def first_line(state: State, room: int = 80) -> str:
    return "".join(cell.text for cell in header(state, room)[0])


def test_the_header_says_how_we_stand() -> None:
    state = live(tripped())
    assert first_line(state).startswith(" ● LIVE    ‖ QUEUE PAUSED ")
    lost = reduce(state, Lost("no daemon", "start it", NOW + 4, NOW + 1))
    lost = reduce(lost, Tick(NOW + 3))
    assert first_line(lost).startswith(" ✗ NO CONNECTION for 2 s ")
    assert "as of" in first_line(lost)
    said = notice(lost)
    assert said is not None
    assert said.text == "✗ No daemon. Start it. Next try in 1 s."
    assert badge(reduce(state, Tick(NOW + 30))).text.strip() == "! NO NEWS for 30 s"


def test_what_does_not_answer_is_said_in_the_header() -> None:
    assert "AWAY" not in first_line(live(busy()), 120)
    daemon = msgspec.structs.replace(busy().daemon, away=("redis", "database"))
    state = live(msgspec.structs.replace(busy(), daemon=daemon))
    assert "! REDIS AND DATABASE AWAY" in first_line(state)


def test_events_that_cannot_leave_are_said_in_the_header() -> None:
    outbox = Outbox(unpublished=0, lag=0.0, relay="holding")
    state = live(msgspec.structs.replace(busy(), outbox=outbox))
    assert "KAFKA" not in first_line(state, 120)
    assert "outbox 0" in "".join(cell.text for cell in header(state, 160)[1])
    stuck = msgspec.structs.replace(outbox, unpublished=417, lag=95.0, trouble="Kafka does not answer")
    state = live(msgspec.structs.replace(busy(), outbox=stuck))
    assert "417 EVENTS WAIT FOR KAFKA" in first_line(state, 120)
    assert "outbox 417" in "".join(cell.text for cell in header(state, 160)[1])


def test_draining_and_a_paused_worker_are_told_apart_from_a_paused_queue() -> None:
    daemon = msgspec.structs.replace(busy().daemon, is_paused=True, state="draining")
    text = first_line(live(msgspec.structs.replace(busy(), daemon=daemon)), 120)
    assert "WORKER PAUSED" in text
    assert "DRAINING" in text
    assert "QUEUE PAUSED" not in text
