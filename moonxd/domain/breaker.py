"""A circuit breaker as a value: every function takes a state and a time and gives the next state.

closed -> open (too many failures) -> half-open (the open time is over: a few probes) -> closed or open again. Above
that lies the cordon, by an operator or by us: nothing is admitted until it is lifted or its time is over.

`now` is unix seconds. A state keeps a clock of its own that only moves forward, by what `now` moved forward since the
last call: when the wall clock goes back no time passes, and nothing stays open for longer than it was opened for.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

Mode = Literal["closed", "open", "half-open"]
Verdict = Literal["good", "bad", "neutral"]

#: The window of failures is counted in so many slices, of which the oldest drops out as a whole.
_SLICES = 10
#: Doublings beyond it would overflow before any bound on the open time is looked at.
_TRIPS_MAX = 60


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """When a breaker opens and how it comes back. Durations are seconds."""

    window_s: float = 60.0
    #: Fewer outcomes in the window than this never open it by their rate.
    min_volume: int = 8
    #: Share of failures in the window that opens it.
    failure_rate: float = 0.5
    #: Failures in a row that open it whatever the volume; 0: none do.
    streak: int = 5
    #: The first open time; each further one is longer by `growth`, up to `open_max_s`.
    open_s: float = 30.0
    growth: float = 2.0
    open_max_s: float = 600.0
    #: Probes at a time while half-open, and how many must succeed in a row before it closes.
    probes: int = 1
    closes_after: int = 2
    #: A probe that nobody settled by then no longer holds its place.
    probe_s: float = 120.0
    #: Closed for so long, the next opening is a first one again.
    calm_s: float = 600.0


class Slice(NamedTuple):
    """Outcomes in one slice of the window."""

    number: int
    good: int
    bad: int


class Probe(NamedTuple):
    """An unsettled probe; `until` is on the state's own clock."""

    number: int
    until: float


class Cordon(msgspec.Struct, frozen=True):
    """Nothing is admitted, for a stated reason. `until` is on the state's own clock; None: until it is lifted."""

    reason: str
    until: float | None
    #: "operator", or "moonxd" when we noticed something ourselves.
    by: str


class Ticket(NamedTuple):
    """The right to one request; give it back by `settle`, whatever became of the request."""

    epoch: int
    #: The number of the probe; 0 for an ordinary request.
    probe: int


class State(msgspec.Struct, frozen=True):
    """Everything there is to a breaker."""

    mode: Mode = "closed"
    #: Grows with every change of mode: outcomes of requests admitted before it do not count after it.
    epoch: int = 0
    #: Seconds that passed for this breaker, and the unix time at which they were last counted.
    clock: float = 0.0
    seen: float | None = None
    window: tuple[Slice, ...] = ()
    #: Failures in a row while closed, successes in a row while half-open.
    streak: int = 0
    #: Openings since it was last calm.
    trips: int = 0
    #: On its own clock: when the open time ends (open), since when it is closed (closed).
    turn: float = 0.0
    probes: tuple[Probe, ...] = ()
    issued: int = 0
    #: Unix seconds, for people only.
    opened_at: float | None = None
    reason: str | None = None
    cordon: Cordon | None = None
    #: What it is about, as its owner tells one from another (a hash of an endpoint's URL): another one starts afresh.
    subject: str = ""


_replace = msgspec.structs.replace


def shown_mode(state: State) -> str:
    """closed | open | half-open | cordoned."""
    return "cordoned" if state.cordon is not None else state.mode


def failures(state: State) -> int:
    """Failures in the window."""
    return sum(one.bad for one in state.window)


def tick(state: State, policy: Policy, now: float) -> State:
    """What the passing of time alone does."""
    passed = max(0.0, now - state.seen) if state.seen is not None else 0.0
    state = _replace(state, clock=state.clock + passed, seen=now)
    if state.probes and any(probe.until <= state.clock for probe in state.probes):
        state = _replace(state, probes=tuple(probe for probe in state.probes if probe.until > state.clock))
    cordon = state.cordon
    if cordon is not None and cordon.until is not None and cordon.until <= state.clock:
        return _half_open(_replace(state, cordon=None, reason=cordon.reason))
    if state.mode == "open" and state.turn <= state.clock:
        return _half_open(state)
    if state.mode == "closed" and state.trips and state.clock - state.turn >= policy.calm_s:
        return _replace(state, trips=0)
    return state


def admit(state: State, policy: Policy, now: float) -> tuple[State, Ticket | None]:
    """The ticket for one request, None when it must not be sent."""
    state = tick(state, policy, now)
    if state.cordon is not None or state.mode == "open":
        return state, None
    if state.mode == "closed":
        return state, Ticket(state.epoch, 0)
    if len(state.probes) >= policy.probes:
        return state, None
    number = state.issued + 1
    probe = Probe(number, state.clock + policy.probe_s)
    return _replace(state, issued=number, probes=(*state.probes, probe)), Ticket(state.epoch, number)


def settle(
    state: State, policy: Policy, now: float, ticket: Ticket, verdict: Verdict, reason: str | None = None
) -> State:
    """Give a ticket back. `neutral` frees a probe's place and says nothing about the other side."""
    state = tick(state, policy, now)
    if ticket.probe:
        state = _replace(state, probes=tuple(probe for probe in state.probes if probe.number != ticket.probe))
    if verdict == "neutral" or ticket.epoch != state.epoch:
        return state
    if state.mode == "half-open":
        return _probed(state, policy, now, verdict, reason)
    state = _count(state, policy, verdict)
    if verdict == "bad" and _is_too_bad(state, policy):
        return _open(state, policy, now, _grown(state, policy), reason)
    return state


def trip(state: State, policy: Policy, now: float, reason: str, for_s: float | None = None) -> State:
    """Open at once, for `for_s` seconds (None: as long as it is its turn to)."""
    state = tick(state, policy, now)
    length = _grown(state, policy) if for_s is None else for_s
    if state.mode == "open" and state.turn >= state.clock + length:
        return state
    return _open(state, policy, now, length, reason)


def cordon(state: State, policy: Policy, now: float, reason: str, *, ttl_s: float | None, by: str) -> State:
    """Admit nothing for `ttl_s` seconds (None: until `uncordon`). A cordon by an operator is not replaced by ours."""
    state = tick(state, policy, now)
    if state.cordon is not None and state.cordon.by == "operator" and by != "operator":
        return state
    until = None if ttl_s is None else state.clock + ttl_s
    return _replace(state, cordon=Cordon(reason, until, by), epoch=state.epoch + 1, streak=0)


def quarantine(state: State, policy: Policy, now: float, reason: str) -> State:
    """Cordon by ourselves, for longer each time that it did not help."""
    length = _grown(tick(state, policy, now), policy)
    state = cordon(state, policy, now, reason, ttl_s=length, by="moonxd")
    return _replace(state, trips=min(state.trips + 1, _TRIPS_MAX))


def uncordon(state: State, policy: Policy, now: float) -> State:
    """Lift the cordon; what lay under it is in force again. One of ours leaves probes to decide."""
    state = tick(state, policy, now)
    if state.cordon is None:
        return state
    ours, state = state.cordon.by == "moonxd", _replace(state, cordon=None, epoch=state.epoch + 1)
    return _half_open(state) if ours and state.mode == "closed" else state


def reset(state: State, policy: Policy, now: float) -> State:
    """Closed and without a past. Probes under way keep their places."""
    state = tick(state, policy, now)
    return State(
        epoch=state.epoch + 1, clock=state.clock, seen=now, turn=state.clock, probes=state.probes, issued=state.issued,
        subject=state.subject,
    )  # fmt: skip


def wait_s(state: State, now: float) -> float | None:
    """Seconds until a request may be admitted; 0 when one may be now, None when only an operator can tell."""
    passed = max(0.0, now - state.seen) if state.seen is not None else 0.0
    clock = state.clock + passed
    if state.cordon is not None:
        return None if state.cordon.until is None else max(0.0, state.cordon.until - clock)
    return max(0.0, state.turn - clock) if state.mode == "open" else 0.0


# ---- keeping -----------------------------------------------------------------------------------------------------

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(State).decode


def dump(state: State) -> str:
    """`state` as JSON. Probes under way are left out: whoever reads it back did not send them."""
    return _encode(_replace(state, probes=())).decode()


def restore(text: str) -> State:
    """What `dump` wrote. Raises ValueError for anything else."""
    try:
        return _decode(text.encode())
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(f"not a breaker's state: {error}") from error


# ---- the steps ---------------------------------------------------------------------------------------------------


def _half_open(state: State) -> State:
    return _replace(state, mode="half-open", epoch=state.epoch + 1, streak=0, window=())


def _grown(state: State, policy: Policy) -> float:
    return min(policy.open_s * policy.growth ** min(state.trips, _TRIPS_MAX), policy.open_max_s)


def _open(state: State, policy: Policy, now: float, length: float, reason: str | None) -> State:
    return _replace(
        state, mode="open", epoch=state.epoch + 1, turn=state.clock + length, streak=0, window=state.window,
        trips=min(state.trips + 1, _TRIPS_MAX), opened_at=now, reason=reason,
    )  # fmt: skip


def _probed(state: State, policy: Policy, now: float, verdict: Verdict, reason: str | None) -> State:
    if verdict == "bad":
        return _open(state, policy, now, _grown(state, policy), reason)
    if state.streak + 1 < policy.closes_after:
        return _replace(state, streak=state.streak + 1)
    return _replace(
        state, mode="closed", epoch=state.epoch + 1, turn=state.clock, streak=0, opened_at=None, reason=None
    )


def _count(state: State, policy: Policy, verdict: Verdict) -> State:
    index = int(state.clock * _SLICES / policy.window_s)
    window = tuple(one for one in state.window if one.number > index - _SLICES)
    last = window[-1] if window and window[-1].number == index else Slice(index, 0, 0)
    bad = verdict == "bad"
    counted = Slice(index, last.good + (not bad), last.bad + bad)
    before = window[:-1] if window and window[-1].number == index else window
    return _replace(state, window=(*before, counted), streak=state.streak + 1 if bad else 0)


def _is_too_bad(state: State, policy: Policy) -> bool:
    if policy.streak and state.streak >= policy.streak:
        return True
    bad = failures(state)
    volume = bad + sum(one.good for one in state.window)
    return volume >= policy.min_volume and bad / volume >= policy.failure_rate
