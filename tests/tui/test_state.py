"""The reducer: what the live view believes after each message."""

from __future__ import annotations

from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from moonxd.api.schema import Delta, Snapshot, difference
from tests.tui.scenes import EMPTY, NOW, busy, tripped
from tui.history import SPAN
from tui.state import (
    STALE_AFTER,
    TOAST_S,
    Changed,
    Connected,
    Connecting,
    Filtered,
    Lost,
    Message,
    Said,
    State,
    Tick,
    reduce,
)


def after(*messages: Message, start: State | None = None) -> State:
    state = start or State(now=NOW)
    for message in messages:
        state = reduce(state, message)
    return state


def live(scene: Snapshot = EMPTY) -> State:
    return after(Connecting(NOW), Connected(scene, NOW))


pieces = st.fixed_dictionaries(
    {},
    optional={
        "waiting": st.integers(0, 10**6),
        "completed": st.integers(0, 10**6),
        "running": st.integers(0, 9),
        "failures": st.integers(0, 14),
        "breakers": st.sampled_from([None, (), tripped().breakers]),
    },
)


def changed(scene: Snapshot, piece: dict[str, object]) -> Snapshot:
    """`scene` one sequence number later, with some sections replaced."""
    full = busy()
    queue = msgspec.structs.replace(scene.queue, waiting=piece.get("waiting", scene.queue.waiting))
    rates = msgspec.structs.replace(scene.rates, completed=piece.get("completed", scene.rates.completed))
    return msgspec.structs.replace(
        scene,
        seq=scene.seq + 1,
        at=scene.at + 0.25,
        queue=queue,
        rates=rates,
        running=full.running[: piece["running"]] if "running" in piece else scene.running,
        failures=full.failures[: piece["failures"]] if "failures" in piece else scene.failures,
        breakers=piece.get("breakers", scene.breakers),
    )


@given(st.lists(pieces, max_size=20))
def test_a_snapshot_and_its_deltas_end_at_the_daemons_own_picture(steps: list[dict[str, object]]) -> None:
    truth, state = EMPTY, live()
    for step in steps:
        following = changed(truth, step)
        wire = msgspec.json.encode(difference(truth, following))
        state = reduce(state, Changed(msgspec.json.decode(wire, type=Delta), NOW))
        truth = following
    assert state.snapshot == truth
    assert state.is_live


@given(st.lists(pieces, min_size=3, max_size=12), st.data())
def test_a_missing_delta_freezes_the_numbers_until_a_new_snapshot(
    steps: list[dict[str, object]], data: st.DataObject
) -> None:
    pictures = [EMPTY]
    for step in steps:
        pictures.append(changed(pictures[-1], step))
    missing = data.draw(st.integers(0, len(steps) - 2))
    state = live()
    for number, (old, new) in enumerate(pairwise(pictures)):
        if number != missing:
            state = reduce(state, Changed(difference(old, new), NOW))
    assert state.connection.gap
    assert not state.is_live
    assert state.snapshot == pictures[missing]
    resynced = reduce(state, Connected(pictures[-1], NOW))
    assert resynced.is_live
    assert resynced.snapshot == pictures[-1]


def test_a_delta_before_any_snapshot_is_ignored() -> None:
    assert after(Changed(Delta(seq=2, at=NOW), NOW)).snapshot is None


def test_a_lost_connection_keeps_the_numbers_and_says_since_when_and_why() -> None:
    lost = after(Tick(NOW + 5), Lost("gone", "start it", NOW + 6, NOW + 5), start=live(busy()))
    assert lost.snapshot == busy()
    assert not lost.is_live
    assert lost.connection.since == NOW + 5
    again = after(Connecting(NOW + 6), Lost("still gone", "start it", NOW + 8, NOW + 6), Tick(NOW + 7), start=lost)
    assert again.connection.since == NOW + 5, "the outage began with the first loss"
    assert again.connection.reason == "still gone"
    assert again.as_of == NOW, "ages stand still while nobody confirms them"


def test_back_after_a_loss_the_numbers_are_live() -> None:
    state = after(Lost("gone", "", NOW + 1, NOW), Connecting(NOW + 1), Connected(busy(), NOW + 2), start=live())
    assert state.is_live
    assert state.connection.reason == ""
    assert state.as_of == NOW + 2


def test_silence_is_called_stale_and_ends_with_the_next_word() -> None:
    quiet = reduce(live(), Tick(NOW + STALE_AFTER + 1))
    assert quiet.is_stale
    assert quiet.as_of == NOW
    spoken = reduce(quiet, Changed(Delta(seq=2, at=NOW), NOW + STALE_AFTER + 1))
    assert not spoken.is_stale


def test_a_later_snapshot_of_the_same_stream_is_taken_as_it_is() -> None:
    later = msgspec.structs.replace(busy(), seq=40)
    state = reduce(live(), Connected(later, NOW + 9))
    assert state.snapshot == later
    assert state.connection.since == NOW


def test_toasts_go_by_themselves() -> None:
    said = reduce(live(), Said("Requeued 5 jobs.", "good", NOW))
    assert reduce(said, Tick(NOW + TOAST_S - 0.1)).toast is not None
    assert reduce(said, Tick(NOW + TOAST_S)).toast is None


def test_the_filter_is_part_of_the_state() -> None:
    assert after(Filtered("0xab")).filter == "0xab"


@given(st.lists(st.floats(0, 50), max_size=60))
def test_history_is_bounded_and_without_holes(steps: list[float]) -> None:
    state, now = live(busy()), NOW
    for step in steps:
        now += step
        state = reduce(state, Tick(now))
    seconds = [sample.second for sample in state.history.samples]
    assert len(seconds) <= SPAN
    assert seconds == list(range(seconds[0], seconds[0] + len(seconds))) if seconds else True


def test_history_counts_jobs_per_second_and_leaves_an_outage_blank() -> None:
    state = reduce(live(busy()), Tick(NOW))
    more = msgspec.structs.replace(
        busy(), seq=2, rates=msgspec.structs.replace(busy().rates, completed=busy().rates.completed + 17)
    )
    state = after(Changed(difference(busy(), more), NOW + 1), Tick(NOW + 1), start=state)
    assert state.history.samples[-1].completed == 17
    assert state.history.samples[-1].queue == busy().queue
    state = after(Lost("gone", "", NOW + 3, NOW + 2), Tick(NOW + 2), Tick(NOW + 3), start=state)
    assert [sample.completed for sample in state.history.samples[-2:]] == [None, None]
    assert [sample.queue for sample in state.history.samples[-2:]] == [None, None]


def test_a_restarted_daemon_starts_counting_again() -> None:
    state = reduce(live(busy()), Tick(NOW))
    state = after(Connected(msgspec.structs.replace(EMPTY, at=NOW + 1), NOW + 1), Tick(NOW + 1), start=state)
    assert state.history.samples[-1].completed is None
    assert reduce(state, Tick(NOW + 2)).history.samples[-1].completed == 0


def test_old_numbers_of_a_silent_redis_are_not_drawn_as_new_ones() -> None:
    silent = msgspec.structs.replace(busy(), queue=msgspec.structs.replace(busy().queue, fresh=False))
    assert reduce(live(silent), Tick(NOW)).history.samples[-1].queue is None


def test_a_clock_that_was_set_back_does_not_stop_the_history() -> None:
    state = reduce(live(busy()), Tick(NOW))
    state = after(Tick(NOW - 3600), Tick(NOW - 3599), start=state)
    assert state.history.samples[-1].second == int(NOW) - 3599
