"""How each chain does: its blocks, its head, its gas, and the fastest of its endpoints."""

from __future__ import annotations

import msgspec

from moonxd.api.stats import ChainView, EndpointView

from ..panel import Cell, Column, Details, Panel, Row
from ..state import State
from ..text import UNICODE, Glyphs, change, clean, count, dollars, gwei, seconds
from .health import ground, health, measured_age, moment, nothing, tally, why

COLUMNS = (
    Column("chain", 8, most=14),
    Column("status", 11),
    Column("block", 7, right=True),
    Column("24 h", 7, right=True, drop=3),
    Column("usual", 7, right=True, drop=7),
    Column("head", 11, right=True, drop=6),
    Column("head age", 8, right=True, drop=1),
    Column("behind", 6, right=True, drop=5),
    Column("gwei", 7, right=True, drop=4),
    Column("rpc p50", 7, right=True, drop=2),
    Column("reorgs", 6, right=True, drop=8),
    Column("seen", 7, right=True, drop=9),
    Column("TVL", 7, right=True, drop=10),
    Column("vol 24h", 7, right=True, drop=11),
    Column("why", 12, fill=True, drop=2),
)


def panel(state: State, room: int, glyphs: Glyphs = UNICODE) -> Panel:
    found = state.figures.found
    if found is None:
        return Panel(1, "CHAINS", COLUMNS, empty=nothing(state))
    as_of = state.figures.as_of(state.now)
    columns = (*COLUMNS[:-1], msgspec.structs.replace(COLUMNS[-1], width=max(12, room // 3 - 15)))
    rows = tuple(_row(row, as_of, glyphs) for row in found.chains.chains)
    summary = tally((row.status for row in found.chains.chains), glyphs)
    return Panel(1, "CHAINS", columns, rows, summary=summary, empty=nothing(state))


def best(row: ChainView) -> float | None:
    """The fastest endpoint's usual latency."""
    return min((end.p50_s for end in row.endpoints if end.p50_s is not None), default=None)


def _row(row: ChainView, as_of: float, glyphs: Glyphs) -> Row:
    tone = ground(row, as_of)
    status = health(row.status, glyphs)
    cells = (
        Cell(clean(row.slug, glyphs)),
        status,
        Cell(seconds(row.block_time_s), tone or "strong"),
        Cell(change(row.block_time_change_pct), tone),
        Cell(seconds(row.usual_block_time_s), "dim"),
        Cell(_plain(row.head), tone),
        Cell(seconds(row.head_age_s), tone),
        Cell("-" if row.finality_lag is None else count(row.finality_lag), tone),
        Cell(gwei(row.gas_price_wei), tone),
        Cell(seconds(best(row)), tone),
        Cell(count(row.reorgs), "" if row.reorgs else "dim"),
        Cell(measured_age(row, as_of), "dim"),
        Cell(dollars(row.tvl_usd), tone),
        Cell(dollars(row.volume_24h_usd), tone),
        why(row, as_of, glyphs),
    )
    return Row(row.slug, cells)


def _plain(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _head(row: ChainView) -> str:
    old = "" if row.head_age_s is None else f", {seconds(row.head_age_s)} old when looked at"
    return _plain(row.head) + old


def details(state: State, key: str, glyphs: Glyphs = UNICODE) -> Details | None:
    found = state.figures.found
    row = next((each for each in (found.chains.chains if found else ()) if each.slug == key), None)
    if row is None:
        return None
    as_of = state.figures.as_of(state.now)
    behind = "not known" if row.finality_lag is None else f"{row.finality_lag:,} blocks behind the head"
    fields = (
        ("chain", f"{clean(row.name, glyphs)} (id {row.chain_id})"),
        ("status", health(row.status, glyphs).text),
        ("why", why(row, as_of, glyphs).text or "nothing to complain about"),
        *moment(row, as_of),
        ("block time", f"{seconds(row.block_time_s)}, {change(row.block_time_change_pct)} against 24 h before"),
        ("usual", f"{seconds(row.usual_block_time_s)} over the last week"),
        ("head", _head(row)),
        ("finality", behind),
        ("gas price", f"{gwei(row.gas_price_wei)} gwei"),
        ("reorgs", f"{row.reorgs:,} since the daemon started"),
        ("TVL, volume", f"{dollars(row.tvl_usd)}, {dollars(row.volume_24h_usd)} in 24 h"),
        *(("endpoint", _endpoint(end, glyphs)) for end in row.endpoints),
    )
    return Details("Chain", fields)


def _endpoint(end: EndpointView, glyphs: Glyphs) -> str:
    lag = "" if end.lag is None else f", {end.lag:,} blocks behind"
    outcome = clean(end.outcome.replace("_", " "), glyphs)
    return f"{clean(end.host, glyphs)}: {outcome}, p50 {seconds(end.p50_s)}, p95 {seconds(end.p95_s)}{lag}"
