"""What the live view knows, and how a message changes it: pure functions, no I/O, `now` is an argument.

The connection is part of the state, so that a number is never shown without saying how old it is.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from moonxd.api.schema import Delta, Snapshot, apply

from .figures import Asking, Figures, Measured, Unmeasured, learn
from .history import History, record

#: Seconds without a word from the daemon after which its numbers are called stale.
STALE_AFTER = 10.0
#: Seconds that a toast stays.
TOAST_S = 6.0

Phase = Literal["connecting", "live", "lost"]
Tone = Literal["info", "good", "bad"]


class Connection(msgspec.Struct, frozen=True):
    """How we stand with the daemon. `since` is when this phase began, `heard_at` when it last said anything."""

    phase: Phase = "connecting"
    since: float = 0.0
    heard_at: float | None = None
    #: Why it was lost, what to do about it, and when the next attempt starts (lost only).
    reason: str = ""
    hint: str = ""
    retry_at: float | None = None
    #: A delta was missed: the numbers stand still until a new snapshot comes.
    gap: bool = False


class Toast(msgspec.Struct, frozen=True):
    text: str
    tone: Tone
    until: float


class State(msgspec.Struct, frozen=True):
    now: float
    connection: Connection = Connection()
    #: The last one known, kept when the connection is lost.
    snapshot: Snapshot | None = None
    history: History = History()
    toast: Toast | None = None
    filter: str = ""
    #: Statistics are asked for only while their screen is open.
    figures: Figures = Figures()

    @property
    def is_live(self) -> bool:
        return self.connection.phase == "live" and not self.connection.gap and self.snapshot is not None

    @property
    def is_stale(self) -> bool:
        """Connected, but the daemon has said nothing for a while."""
        return self.is_live and self.quiet_for > STALE_AFTER

    @property
    def quiet_for(self) -> float:
        """Seconds since the daemon last said anything."""
        heard = self.connection.heard_at
        return 0.0 if heard is None else max(0.0, self.now - heard)

    @property
    def as_of(self) -> float:
        """The moment the numbers describe: ages stop growing when nobody confirms that they still do."""
        if self.is_live and not self.is_stale:
            return self.now
        return self.now if self.connection.heard_at is None else self.connection.heard_at


class Connecting(msgspec.Struct, frozen=True):
    """An attempt to reach the daemon begins."""

    now: float


class Connected(msgspec.Struct, frozen=True):
    """A whole picture: the first message of a stream, and a later one when we had fallen behind."""

    snapshot: Snapshot
    now: float


class Changed(msgspec.Struct, frozen=True):
    """A further message of a stream."""

    delta: Delta
    now: float


class Lost(msgspec.Struct, frozen=True):
    """The stream ended, or could not be opened. `hint` says what to do."""

    reason: str
    hint: str
    retry_at: float
    now: float


class Tick(msgspec.Struct, frozen=True):
    """Time passed."""

    now: float


class Said(msgspec.Struct, frozen=True):
    """The result of a key: one sentence."""

    text: str
    tone: Tone
    now: float


class Filtered(msgspec.Struct, frozen=True):
    """Show only running jobs and failures that contain `text`."""

    text: str


Message = Connecting | Connected | Changed | Lost | Tick | Said | Filtered | Asking | Measured | Unmeasured


def reduce(state: State, message: Message) -> State:
    """The state after `message`."""
    match message:
        case Connecting(now):
            return _connecting(state, now)
        case Connected(snapshot, now):
            since = state.connection.since if state.is_live else now
            connection = Connection(phase="live", since=since, heard_at=now)
            return msgspec.structs.replace(state, now=now, connection=connection, snapshot=snapshot)
        case Changed(delta, now):
            return _changed(state, delta, now)
        case Lost():
            return _lost(state, message)
        case Tick(now):
            return _ticked(state, now)
        case Said(text, tone, now):
            return msgspec.structs.replace(state, toast=Toast(text, tone, now + TOAST_S))
        case Filtered(text):
            return msgspec.structs.replace(state, filter=text)
        case Asking() | Measured() | Unmeasured():
            return msgspec.structs.replace(state, figures=learn(state.figures, message))


def _connecting(state: State, now: float) -> State:
    """While a retry runs the reason of the loss stays on screen."""
    phase: Phase = "lost" if state.connection.phase == "lost" else "connecting"
    since = state.connection.since if phase == "lost" else now
    connection = msgspec.structs.replace(state.connection, phase=phase, since=since, retry_at=None)
    return msgspec.structs.replace(state, now=now, connection=connection)


def _changed(state: State, delta: Delta, now: float) -> State:
    if state.snapshot is None or state.connection.gap:
        return state
    try:
        snapshot = apply(state.snapshot, delta)
    except ValueError:
        gap = msgspec.structs.replace(state.connection, gap=True, since=now)
        return msgspec.structs.replace(state, now=now, connection=gap)
    connection = msgspec.structs.replace(state.connection, heard_at=now)
    return msgspec.structs.replace(state, now=now, connection=connection, snapshot=snapshot)


def _lost(state: State, lost: Lost) -> State:
    before = state.connection
    connection = Connection(
        phase="lost",
        since=before.since if before.phase == "lost" else lost.now,
        heard_at=before.heard_at,
        reason=lost.reason,
        hint=lost.hint,
        retry_at=lost.retry_at,
    )
    return msgspec.structs.replace(state, now=lost.now, connection=connection)


def _ticked(state: State, now: float) -> State:
    snapshot = state.snapshot
    toast = state.toast if state.toast and now < state.toast.until else None
    if snapshot is None:
        return msgspec.structs.replace(state, now=now, toast=toast)
    told = state.is_live and not state.is_stale
    queue = snapshot.queue if told and snapshot.queue.fresh else None
    rates = snapshot.rates if told else None
    history = record(state.history, now, queue, rates, snapshot.daemon.started_at)
    return msgspec.structs.replace(state, now=now, toast=toast, history=history)
