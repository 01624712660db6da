"""`moonxd stats`: how chains and bridges do, now and over the last while."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from ..api import stats as calls
from ..api.calls import Call
from ..api.stats import BridgesReply, BridgeView, ChainsReply, ChainView, CollectorView, OverviewReply, Series
from .duration import parse_duration
from .output import Json, age, connect, note, print_json, say, short, since_ms, table

app = typer.Typer(help="How chains and bridges do.", add_completion=False)

T = TypeVar("T")
Watch = Annotated[bool, typer.Option("--watch", help="Show it again and again until Ctrl-C; --json: a line each time.")]
Every = Annotated[str, typer.Option(metavar="AGE", help="How often --watch looks.")]
Since = Annotated[str | None, typer.Option(metavar="AGE", help="The history too, from so long ago: 90m, 24h, 7d.")]
Step = Annotated[str, typer.Option(metavar="AGE", help="One line of the history stands for so long.")]

_EVERY, _STEP = "5s", "5m"
_CLEAR = "\033[H\033[2J"
_GWEI = 10**9


@app.callback(invoke_without_command=True)
def stats(context: typer.Context, watch: Watch = False, every: Every = _EVERY, json: Json = False) -> None:
    """How chains and bridges do. Without a command: everything at once."""
    if context.invoked_subcommand is None:
        overview(watch=watch, every=every, json=json)


@app.command()
def chains(
    watch: Watch = False, every: Every = _EVERY, since: Since = None, step: Step = _STEP, json: Json = False
) -> None:
    """Block times, heads, finality, gas and the endpoints' latency of each chain."""
    _show(lambda: calls.chains(since=_ago(since), step=parse_duration(step)), _print_chains, watch, every, json)


@app.command()
def bridges(
    watch: Watch = False, every: Every = _EVERY, since: Since = None, step: Step = _STEP, json: Json = False
) -> None:
    """How fast each bridge answers a quote, and how long it says that a transfer takes."""
    _show(lambda: calls.bridges(since=_ago(since), step=parse_duration(step)), _print_bridges, watch, every, json)


@app.command()
def overview(watch: Watch = False, every: Every = _EVERY, json: Json = False) -> None:
    """Everything at once, and how the collectors stand."""
    _show(calls.overview, _print_overview, watch, every, json)


def _ago(text: str | None) -> float | None:
    return None if text is None else time.time() - parse_duration(text)


def _show(call: Callable[[], Call[T]], show: Callable[[T], None], watch: bool, every: str, json: bool) -> None:
    pause = max(0.5, parse_duration(every))
    with connect() as daemon:
        while True:
            found = daemon.call(call())
            if json:
                print_json(found, compact=watch)
            else:
                if watch and sys.stdout.isatty():
                    sys.stdout.write(_CLEAR)
                show(found)
            if not watch:
                return
            time.sleep(pause)


def _print_chains(found: ChainsReply) -> None:
    _chains(found.chains)
    _history(found.history, ("block_time_s", "head_age_s", "rpc_p50_s"))


def _print_bridges(found: BridgesReply) -> None:
    _bridges(found.bridges)
    _history(found.history, ("latency_s", "quoted_s"))


def _print_overview(found: OverviewReply) -> None:
    built = (
        "not built yet, these are the latest values"
        if found.at_ms is None
        else f"{found.status}, built {since_ms(found.at_ms)} ago"
    )
    say(f"overview: {built}")
    _chains(found.chains)
    _bridges(found.bridges)
    table(
        ("COLLECTOR", "STATE", "ROUNDS", "MISSED", "TOOK", "NEXT", "LAST ERROR"),
        [_collector(one) for one in found.collectors],
        right=("ROUNDS", "MISSED", "TOOK", "NEXT"),
    )
    for line in found.costs:
        say(f"cost: {line}")


def _chains(rows: tuple[ChainView, ...]) -> None:
    table(
        ("CHAIN", "STATUS", "BLOCK", "24H", "HEAD", "AGE", "FINAL", "GAS", "RPC", "REORGS", "SEEN", "WHY"),
        [_chain(row) for row in rows],
        right=("BLOCK", "24H", "HEAD", "AGE", "FINAL", "GAS", "RPC", "REORGS", "SEEN"),
    )
    if not rows:
        note("nothing was measured yet")


def _chain(row: ChainView) -> tuple[object, ...]:
    change, gas = row.block_time_change_pct, row.gas_price_wei
    best = min((end.p50_s for end in row.endpoints if end.p50_s is not None), default=None)
    return (
        row.slug,
        row.status,
        None if row.block_time_s is None else f"{row.block_time_s:.2f}s",
        None if change is None else f"{change:+.1f}%",
        row.head,
        age(row.head_age_s),
        None if row.finality_lag is None else f"-{row.finality_lag}",
        None if gas is None else f"{gas / _GWEI:.3g}",
        age(best),
        row.reorgs,
        since_ms(row.measured_at_ms),
        short(row.error or row.reason or ""),
    )


def _bridges(rows: tuple[BridgeView, ...]) -> None:
    table(
        ("BRIDGE", "ROUTE", "STATUS", "QUOTE", "P95", "TRANSFER", "SEEN", "LAST", "WHY"),
        [_bridge(row) for row in rows],
        right=("QUOTE", "P95", "TRANSFER", "SEEN"),
    )
    if not rows:
        note("nothing was measured yet")


def _bridge(row: BridgeView) -> tuple[object, ...]:
    return (
        row.provider,
        row.route,
        row.status,
        age(row.latency_s),
        age(row.p95_s),
        age(row.quoted_s),
        since_ms(row.measured_at_ms),
        row.outcome,
        short(row.error or row.reason or ""),
    )


def _collector(one: CollectorView) -> tuple[object, ...]:
    state = "running" if one.is_running else one.outcome or "waiting"
    ahead = None if one.next_at is None else max(0.0, one.next_at - time.time())
    error = short(one.error or "")
    return (one.name, state if one.is_ours else "elsewhere", one.rounds, one.missed, age(one.took_s), age(ahead), error)


def _history(history: tuple[Series, ...], names: tuple[str, ...]) -> None:
    if not history:
        return
    say("")
    table(
        ("TIME", "WHAT", "STATUS", "SAMPLES", *(name.upper() for name in names)),
        [
            (
                _clock(point.at_ms),
                series.key,
                point.status,
                point.samples,
                *(_number(point.values.get(n)) for n in names),
            )
            for series in history
            for point in series.points
        ],
        right=("SAMPLES", *(name.upper() for name in names)),
    )


def _clock(at_ms: int) -> str:
    return time.strftime("%m-%d %H:%M:%SZ", time.gmtime(at_ms / 1000))


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"
