"""The lines around the panels: who the daemon is and how we stand with it above, the keys below."""

from __future__ import annotations

import time

from moonxd.api.schema import Daemon, Snapshot

from .panel import Cell, Tone, pack
from .state import State
from .text import UNICODE, Glyphs, age, clean, gauge, megabytes, percent, seconds

#: Event loop delay (seconds) from which the daemon is called sluggish.
LAG_WARN_S = 0.1
KEYS = (
    (0, "q", "quit"),
    (0, "?", "help"),
    (1, "P", "pause"),
    (1, "U", "resume"),
    (1, "R", "requeue"),
    (2, "/", "filter"),
    (3, "enter", "details"),
    (3, "s", "stats"),
    (5, "z", "zoom"),
    (6, "tab", "next panel"),
)

Line = tuple[Cell, ...]
Keys = tuple[tuple[int, str, str], ...]


def header(state: State, room: int, glyphs: Glyphs = UNICODE) -> tuple[Line, Line]:
    """How we stand with the daemon and who it is; what it uses and where its state lives."""
    snapshot = state.snapshot
    at = Cell(f"{clock(state.now)} ", "dim")
    if snapshot is None:
        known = [(0, (badge(state, glyphs),)), (1, (Cell("moonxd", "strong"),))]
        return pack(known, room, end=at, glyphs=glyphs), pack([], room)
    daemon = snapshot.daemon
    current = state.is_live and not state.is_stale
    first: list[tuple[int, Line]] = [
        (0, (badge(state, glyphs),)),
        *((0, (alarm,)) for alarm in _alarms(snapshot, glyphs)),
        (1, () if current else (Cell(f"as of {clock(state.as_of)}", "warn"),)),
        (3, (Cell("moonxd ", "strong"), Cell(clean(daemon.version, glyphs)))),
        (5, (Cell("worker ", "dim"), Cell(clean(daemon.worker, glyphs)))),
        # A worker's default name begins with its host's.
        (6, () if daemon.worker.startswith(daemon.host) else (Cell("on ", "dim"), Cell(clean(daemon.host, glyphs)))),
        (4, (Cell("up ", "dim"), Cell(age(state.as_of - daemon.started_at)))),
    ]
    second = [*_resources(daemon, glyphs), *_outbox(snapshot)]
    return pack(first, room, end=at, glyphs=glyphs), pack(second, room, glyphs=glyphs)


def _resources(daemon: Daemon, glyphs: Glyphs) -> list[tuple[int, Line]]:
    sluggish: Tone = "warn" if daemon.loop_lag >= LAG_WARN_S else ""
    mark = f" {glyphs.warn}" if sluggish else ""
    full: Tone = "strong" if daemon.slots_busy >= daemon.slots > 0 else ""
    return [
        (
            0,
            (
                Cell(" slots ", "dim"),
                Cell(gauge(daemon.slots_busy, daemon.slots, 5, glyphs), "accent"),
                Cell(f" {daemon.slots_busy}/{daemon.slots}", full),
            ),
        ),
        (1, (Cell("cpu ", "dim"), Cell(percent(daemon.cpu)))),
        (2, (Cell("rss ", "dim"), Cell(megabytes(daemon.rss_bytes)))),
        (3, (Cell("lag ", "dim"), Cell(seconds(daemon.loop_lag) + mark, sluggish))),
        (5, (Cell("redis ", "dim"), Cell(clean(daemon.redis, glyphs)))),
        (4, (Cell("db ", "dim"), Cell(clean(daemon.database, glyphs)))),
    ]


def _outbox(snapshot: Snapshot) -> list[tuple[int, Line]]:
    outbox = snapshot.outbox
    if outbox is None:
        return []
    waiting = Cell(f"{outbox.unpublished} behind {age(outbox.lag)}" if outbox.unpublished else "0")
    return [(3, (Cell("outbox ", "dim"), waiting))]


def badge(state: State, glyphs: Glyphs = UNICODE) -> Cell:
    """The state of the connection, in words and with how long it has lasted."""
    connection = state.connection
    lasted = int(state.now - connection.since)
    if connection.phase == "connecting":
        return Cell(f" {glyphs.waiting} CONNECTING ", "busy")
    if connection.phase == "lost":
        how_long = f"for {age(lasted) if lasted >= 60 else f'{lasted} s'} " if lasted > 0 else ""
        return Cell(f" {glyphs.lost} NO CONNECTION {how_long}", "alarm")
    if connection.gap:
        return Cell(f" {glyphs.retry} RESYNCING ", "busy")
    if state.is_stale:
        return Cell(f" {glyphs.warn} NO NEWS for {age(state.quiet_for)} ", "alarm")
    return Cell(f" {glyphs.live} LIVE ", "live")


def _alarms(snapshot: Snapshot, glyphs: Glyphs) -> list[Cell]:
    """What an operator must not overlook."""
    alarms = []
    if snapshot.queue.is_paused:
        alarms.append(Cell(f" {glyphs.paused} QUEUE PAUSED ", "paused"))
    if snapshot.daemon.is_paused:
        alarms.append(Cell(f" {glyphs.paused} WORKER PAUSED ", "paused"))
    if snapshot.daemon.away:
        alarms.append(Cell(f" {glyphs.warn} {' AND '.join(snapshot.daemon.away).upper()} AWAY ", "alarm"))
    outbox = snapshot.outbox
    if outbox is not None and outbox.trouble:
        alarms.append(Cell(f" {glyphs.warn} {outbox.unpublished} EVENTS WAIT FOR KAFKA ", "alarm"))
    if snapshot.daemon.state != "running":
        alarms.append(Cell(f" {glyphs.retry} {clean(snapshot.daemon.state, glyphs).upper()} ", "paused"))
    return alarms


def notice(state: State, glyphs: Glyphs = UNICODE) -> Cell | None:
    """The sentence that must be read now: the result of a key, else why there is no connection."""
    toast = state.toast
    if toast is not None:
        marks = {"good": glyphs.live, "bad": glyphs.lost, "info": glyphs.dot}
        return Cell(f"{marks[toast.tone]} {clean(toast.text, glyphs)}", "bad" if toast.tone == "bad" else "strong")
    connection = state.connection
    if connection.phase != "lost":
        return None
    left = None if connection.retry_at is None else max(0.0, connection.retry_at - state.now)
    again = "Trying again now." if left is None else f"Next try in {left:.0f} s."
    said = clean(sentences(connection.reason, connection.hint), glyphs)
    return Cell(f"{glyphs.lost} {said} {again}", "bad")


def sentences(*texts: str) -> str:
    """`texts`, as clients phrase them, as sentences."""
    return " ".join(_sentence(text) for text in texts if text)


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."


def footer(room: int, keys: Keys = KEYS, glyphs: Glyphs = UNICODE) -> Line:
    """The keys worth knowing; the rest is behind `?`."""
    said = [(rank, (Cell(key, "accent"), Cell(f" {does}", "dim"))) for rank, key, does in keys]
    return pack(said, room, glyphs=glyphs)


def clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
