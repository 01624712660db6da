"""The circuit breaker: what it promises under any interleaving of requests, restarts, operators and clocks."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain import breaker
from moonxd.domain.breaker import Policy, State, Ticket
from moonxd.domain.breakers import Breakers

POLICY = Policy(open_s=10.0, open_max_s=100.0, calm_s=300.0, min_volume=4, streak=3, probes=2, closes_after=2)

LEGAL = {
    "closed": {"closed", "open", "cordoned"},
    "open": {"open", "half-open", "closed", "cordoned"},
    "half-open": {"half-open", "open", "closed", "cordoned"},
    "cordoned": {"cordoned", "half-open", "closed", "open"},
}

steps = st.one_of(
    st.tuples(st.just("admit")),
    st.tuples(st.just("settle"), st.integers(0, 20), st.sampled_from(["good", "bad", "neutral"])),
    st.tuples(st.just("pass"), st.floats(0, 200)),
    st.tuples(st.just("back"), st.floats(0, 1e6)),
    st.tuples(st.just("trip"), st.one_of(st.none(), st.floats(1, 500))),
    st.tuples(st.just("cordon"), st.one_of(st.none(), st.floats(1, 500))),
    st.tuples(st.just("quarantine")),
    st.tuples(st.just("uncordon")),
    st.tuples(st.just("reset")),
    st.tuples(st.just("restart")),
)


class Machine:
    """A breaker, its clock, and what a careful observer knows of the tickets."""

    def __init__(self) -> None:
        self.state = State()
        self.now = 1_000_000.0
        self.real = 0.0
        self.tickets: list[Ticket] = []
        self.probes: dict[int, float] = {}

    def step(self, kind: str, *given: object) -> None:
        state, now = self.state, self.now
        match kind, given:
            case "admit", ():
                self.admit()
                return
            case "settle", (int(which), verdict):
                if self.tickets:
                    ticket = self.tickets.pop(which % len(self.tickets))
                    self.probes.pop(ticket.probe, None)
                    state = breaker.settle(state, POLICY, now, ticket, verdict, "why")  # type: ignore[arg-type]
            case "pass", (float(seconds),):
                self.now += seconds
                self.real += seconds
                return
            case "back", (float(seconds),):
                self.now -= seconds
                state = breaker.tick(state, POLICY, self.now)
            case "trip", (for_s,):
                state = breaker.trip(state, POLICY, now, "key", for_s)  # type: ignore[arg-type]
            case "cordon", (ttl_s,):
                state = breaker.cordon(state, POLICY, now, "work", ttl_s=ttl_s, by="operator")  # type: ignore[arg-type]
            case "quarantine", ():
                state = breaker.quarantine(state, POLICY, now, "lags")
            case "uncordon", ():
                state = breaker.uncordon(state, POLICY, now)
            case "reset", ():
                state = breaker.reset(state, POLICY, now)
            case "restart", ():
                state = breaker.restore(breaker.dump(state))
                self.tickets.clear()
                self.probes.clear()
        self.state = state

    def admit(self) -> None:
        self.state, ticket = breaker.admit(self.state, POLICY, self.now)
        if ticket is None:
            return
        assert breaker.shown_mode(self.state) in ("closed", "half-open")
        self.tickets.append(ticket)
        if ticket.probe:
            self.probes = {number: until for number, until in self.probes.items() if until > self.state.clock}
            self.probes[ticket.probe] = self.state.clock + POLICY.probe_s
            assert len(self.probes) <= POLICY.probes


@given(st.lists(steps, max_size=80))
def test_never_more_probes_than_allowed_and_only_legal_changes(sequence: list[tuple[object, ...]]) -> None:
    machine = Machine()
    modes = ["closed"]
    for kind, *given_ in sequence:
        machine.step(str(kind), *given_)
        modes.append(breaker.shown_mode(machine.state))
        state = machine.state
        assert state.clock <= machine.real + 1e-6, "the breaker's own clock never runs ahead of time"
        wait = breaker.wait_s(state, machine.now)
        assert wait is None or 0 <= wait < math.inf
    for before, after in pairwise(modes):
        assert after in LEGAL[before] or (before, after) == ("closed", "half-open")


@given(st.lists(steps, max_size=60), st.lists(steps, max_size=30))
def test_a_restart_changes_nothing(before: list[tuple[object, ...]], after: list[tuple[object, ...]]) -> None:
    """With every request given back first, restored and never stopped take the same way from there."""
    stayed = Machine()
    for kind, *given_ in before:
        stayed.step(str(kind), *given_)
    for ticket in stayed.tickets:
        stayed.state = breaker.settle(stayed.state, POLICY, stayed.now, ticket, "neutral")
    stayed.tickets.clear()
    stayed.probes.clear()
    # A probe that ran into its time limit is gone from both.
    stayed.state = breaker.tick(stayed.state, POLICY, stayed.now)
    restarted = Machine()
    restarted.now, restarted.state = stayed.now, breaker.restore(breaker.dump(stayed.state))
    for kind, *given_ in after:
        stayed.step(str(kind), *given_)
        restarted.step(str(kind), *given_)
        assert restarted.state == stayed.state
        assert restarted.tickets == stayed.tickets


@given(st.lists(st.floats(-1e9, 100), min_size=1, max_size=50))
def test_clock_jumps_backwards_keep_nothing_open_for_longer(jumps: list[float]) -> None:
    state, now, passed = State(), 1e9, 0.0
    state = breaker.trip(state, POLICY, now, "down")
    for jump in jumps:
        now += jump
        passed += max(0.0, jump)
        state = breaker.tick(state, POLICY, now)
        wait = breaker.wait_s(state, now)
        assert wait is not None
        assert wait <= POLICY.open_s
        assert (state.mode == "open") == (state.clock < POLICY.open_s)
        assert state.clock == pytest.approx(passed, abs=1e-3)


def test_a_jump_forward_lets_probes_through_and_nothing_more() -> None:
    state = breaker.trip(State(), POLICY, 0.0, "down")
    tickets = []
    for _ in range(10):
        state, ticket = breaker.admit(state, POLICY, 1e10)
        tickets.append(ticket)
    assert [ticket is not None for ticket in tickets] == [True] * POLICY.probes + [False] * (10 - POLICY.probes)


@given(st.lists(st.tuples(st.floats(0.1, 30), st.booleans()), max_size=400))
def test_no_flapping_whatever_the_other_side_does(life: list[tuple[float, bool]]) -> None:
    """Openings within a span of time are bounded by how the open time grows."""
    policy = Policy(open_s=10, open_max_s=80, calm_s=100, streak=1, closes_after=1)
    state, now, opened = State(), 0.0, 0
    for seconds, is_good in life:
        now += seconds
        state, ticket = breaker.admit(state, policy, now)
        if ticket is not None:
            before = state.mode
            state = breaker.settle(state, policy, now, ticket, "good" if is_good else "bad")
            opened += before != "open" and state.mode == "open"
    growths = math.log2(policy.open_max_s / policy.open_s) + 1
    assert opened <= growths + 1 + now / policy.open_max_s * (growths + 1)


def test_a_cancelled_probe_frees_its_place() -> None:
    state = breaker.trip(State(), POLICY, 0.0, "down")
    now = 11.0
    for _ in range(100):
        state, first = breaker.admit(state, POLICY, now)
        state, second = breaker.admit(state, POLICY, now)
        state, third = breaker.admit(state, POLICY, now)
        assert first is not None
        assert second is not None
        assert third is None
        state = breaker.settle(state, POLICY, now, first, "neutral")
        state = breaker.settle(state, POLICY, now, second, "neutral")
    assert state.mode == "half-open"


def test_probes_that_nobody_settles_do_not_lock_it_for_ever() -> None:
    state = breaker.trip(State(), POLICY, 0.0, "down")
    for _ in range(POLICY.probes):
        state, ticket = breaker.admit(state, POLICY, 11.0)
        assert ticket is not None
    assert breaker.admit(state, POLICY, 12.0)[1] is None
    assert breaker.admit(state, POLICY, 12.0 + POLICY.probe_s)[1] is not None


def run(state: State, verdicts: str, now: float = 0.0) -> State:
    """g: a good request, b: a bad one, n: one that says nothing."""
    for word in verdicts:
        state, ticket = breaker.admit(state, POLICY, now)
        if ticket is not None:
            verdict = {"g": "good", "b": "bad", "n": "neutral"}[word]
            state = breaker.settle(state, POLICY, now, ticket, verdict, "why")  # type: ignore[arg-type]
    return state


@pytest.mark.parametrize(
    ("verdicts", "mode"),
    [
        ("bb", "closed"),
        ("bbb", "open"),
        ("bbg" + "ggggg", "closed"),
        ("bgb", "closed"),
        ("bgbg", "closed"),
        ("bgbb", "open"),
        ("ggggggbb", "closed"),
        ("nnnnnnnnnn", "closed"),
        ("bbnb", "open"),
    ],
)
def test_when_it_opens(verdicts: str, mode: str) -> None:
    assert run(State(), verdicts).mode == mode


def test_old_failures_drop_out_of_the_window() -> None:
    state = run(State(), "bbg")
    assert run(state, "bg", now=30.0).mode == "open"
    assert run(state, "bg", now=POLICY.window_s + 1).mode == "closed"


def test_outcomes_of_before_do_not_count_after() -> None:
    state, old = breaker.admit(State(), POLICY, 0.0)
    assert old is not None
    state = breaker.trip(state, POLICY, 1.0, "down")
    state, probe = breaker.admit(state, POLICY, 12.0)
    assert probe is not None
    assert probe.probe
    assert breaker.settle(state, POLICY, 12.0, old, "good").mode == "half-open"
    assert breaker.settle(state, POLICY, 12.0, old, "bad").mode == "half-open"


def test_open_times_grow_and_calm_down() -> None:
    state, now, lengths = State(), 0.0, []
    for _ in range(6):
        state = run(state, "bbb", now)
        wait = breaker.wait_s(state, now)
        assert state.mode == "open"
        assert wait is not None
        lengths.append(wait)
        now += wait
    assert lengths == [10, 20, 40, 80, 100, 100]
    state = run(state, "gg", now)
    assert state.mode == "closed"
    assert breaker.wait_s(run(state, "bbb", now + 200), now + 200) == 100
    assert breaker.wait_s(run(state, "bbb", now + POLICY.calm_s), now + POLICY.calm_s) == 10


def test_a_cordon_ends_in_probes_and_an_operators_is_not_replaced() -> None:
    state = breaker.cordon(State(), POLICY, 0.0, "maintenance", ttl_s=50, by="operator")
    state = breaker.quarantine(state, POLICY, 1.0, "it lags")
    assert state.cordon is not None
    assert state.cordon.reason == "maintenance"
    assert breaker.admit(state, POLICY, 49.0)[1] is None
    state, ticket = breaker.admit(state, POLICY, 51.0)
    assert state.mode == "half-open"
    assert ticket is not None
    assert ticket.probe
    assert run(state, "g", 51.0).mode == "half-open"
    state = breaker.settle(state, POLICY, 51.0, ticket, "good")
    assert run(state, "g", 51.0).mode == "closed"


def test_lifting_a_cordon() -> None:
    by_operator = breaker.cordon(State(), POLICY, 0.0, "work", ttl_s=None, by="operator")
    assert breaker.wait_s(by_operator, 1e9) is None
    assert breaker.uncordon(by_operator, POLICY, 1.0).mode == "closed"
    assert breaker.uncordon(breaker.quarantine(State(), POLICY, 0.0, "lags"), POLICY, 1.0).mode == "half-open"
    open_below = breaker.cordon(breaker.trip(State(), POLICY, 0.0, "down"), POLICY, 1.0, "w", ttl_s=None, by="operator")
    assert breaker.uncordon(open_below, POLICY, 2.0).mode == "open"
    assert breaker.uncordon(State(), POLICY, 1.0).epoch == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mode":"ajar"}', '{"clock":"x"}', "null", "\ud800", "[" * 100_000])
def test_what_is_no_state_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a breaker's state"):
        breaker.restore(text)


# ---- by name -----------------------------------------------------------------------------------------------------


def test_breakers_tell_what_changed_and_what_opened() -> None:
    opened: list[tuple[str, str]] = []
    now = 0.0
    breakers = Breakers(lambda: now, on_open=lambda name, reason: opened.append((name, reason)))
    breakers.register("base/a", POLICY)
    breakers.register("base/b", POLICY)
    ticket = breakers.admit("base/a")
    assert ticket is not None
    breakers.settle("base/a", ticket, "good")
    assert breakers.dirty == set()
    breakers.trip("base/a", "HTTP 401")
    breakers.cordon("base/b", "maintenance", 60.0)
    assert breakers.dirty == {"base/a", "base/b"}
    assert opened == [("base/a", "HTTP 401"), ("base/b", "maintenance")]
    assert [(view.name, view.mode, view.reason) for view in breakers.views()] == [
        ("base/a", "open", "HTTP 401"),
        ("base/b", "cordoned", "maintenance"),
    ]
    now = 11.0
    assert breakers.mode("base/a") == "half-open"
    breakers.uncordon("base/b")
    breakers.reset("base/a")
    assert {view.mode for view in breakers.views()} == {"closed"}
    with pytest.raises(KeyError):
        breakers.reset("base/c")


def test_kept_breakers_come_back_as_they_were() -> None:
    breakers = Breakers(lambda: 100.0)
    breakers.register("base/a", POLICY)
    breakers.trip("base/a", "HTTP 401", 3600.0)
    kept = breakers.dumps(breakers.dirty)
    successor = Breakers(lambda: 400.0)
    successor.restore({name: breaker.restore(text) for name, text in kept.items()})
    assert successor.views() == (), "shown once it is registered"
    successor.register("base/a", POLICY)
    assert successor.admit("base/a") is None
    assert successor.wait_s("base/a") == 3300.0
    successor.hide(["base/a"])
    assert successor.views() == ()
