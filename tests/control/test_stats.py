"""Statistics over the API and as the command line shows them, from an archive with something in it."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
import trio

from moonxd.adapters.memory.archive import MemoryArchive
from moonxd.api import stats as calls
from moonxd.api.client import ApiError
from moonxd.api.stats import CollectorView
from moonxd.control.deps import Statistics
from moonxd.domain.stats import BridgeStats, ChainStats, EndpointStats, Health, Overview, Probe
from tests.control.harness import Served, serving

NOW = 1_800_000_000.0
NOW_MS = int(NOW * 1000)
MINUTE_MS = 60_000
BASE = ChainStats(
    chain_id=8453,
    name="Base",
    slug="base",
    llama="base",
    at_ms=NOW_MS,
    measured_at_ms=NOW_MS,
    status=Health.HEALTHY,
    block_time_s=2.0,
    block_time_change_pct=-1.25,
    head=40_000_000,
    head_age_s=1.5,
    finality_lag=600,
    gas_price_wei=1_234_567,
    endpoints=(
        EndpointStats(host="mainnet.base.org", outcome=Probe.OK, p50_s=0.08, p95_s=0.2, head=40_000_000, lag=0),
    ),
    volume_24h_usd=Decimal("1234567890.12"),
)
BRIDGE = BridgeStats(
    provider="LI.FI",
    route="ethereum-base USDC",
    from_chain=1,
    to_chain=8453,
    at_ms=NOW_MS,
    measured_at_ms=NOW_MS - MINUTE_MS,
    status=Health.DEGRADED,
    outcome=Probe.TIMEOUT,
    latency_s=6.1,
    p50_s=5.5,
    quoted_s=90.0,
    error="li.quest: no answer within 10 s",
)
COLLECTOR = CollectorView(
    name="chain_performance",
    is_ours=True,
    is_running=False,
    rounds=7,
    missed=1,
    outcome="ok",
    error=None,
    took_s=0.4,
    last_at=NOW,
    good_at=NOW,
    next_at=NOW + 60,
)


async def archive() -> MemoryArchive:
    kept = MemoryArchive(now=lambda: NOW)
    for minute in range(10, -1, -1):
        at = NOW_MS - minute * MINUTE_MS
        await kept.put_chains(
            [msgspec.structs.replace(BASE, at_ms=at, measured_at_ms=at, block_time_s=2.0 + minute / 10)]
        )
    await kept.put_bridges([BRIDGE])
    await kept.put_overview(Overview(at_ms=NOW_MS, status=Health.DEGRADED, chains=(BASE,), bridges=(BRIDGE,)))
    return kept


def statistics(kept: MemoryArchive) -> Statistics:
    return Statistics(archive=kept, collectors=lambda: (COLLECTOR,))


async def test_the_latest_of_everything(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path, statistics=statistics(await archive()), now=lambda: NOW) as bench:
        (chain,) = (await bench.call(calls.chains())).chains
        assert (chain.slug, chain.status, chain.block_time_s, chain.head_age_s) == ("base", "healthy", 2.0, 1.5)
        assert (chain.endpoints[0].host, chain.endpoints[0].p50_s) == ("mainnet.base.org", 0.08)
        assert chain.volume_24h_usd == Decimal("1234567890.12")
        (bridge,) = (await bench.call(calls.bridges())).bridges
        assert (bridge.status, bridge.outcome, bridge.latency_s, bridge.quoted_s) == ("degraded", "timeout", 6.1, 90.0)
        overview = await bench.call(calls.overview())
        assert (overview.status, overview.at_ms, overview.collectors) == ("degraded", NOW_MS, (COLLECTOR,))
        assert (len(overview.chains), len(overview.bridges)) == (1, 1)


async def test_the_history_in_steps(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path, statistics=statistics(await archive()), now=lambda: NOW) as bench:
        reply = await bench.call(calls.chains(since=NOW - 600, step=300))
        (series,) = reply.history
        assert (series.key, [point.samples for point in series.points]) == ("base", [5, 5, 1])
        assert series.points[0].values["block_time_s"] == pytest.approx(2.8)
        assert series.points[2].values["block_time_s"] == 2.0
        (bridge,) = (await bench.call(calls.bridges(since=NOW - 600))).history
        assert (bridge.key, bridge.points[0].status) == ("LI.FI ethereum-base USDC", "degraded")
        assert bridge.points[0].values == {}, "a look that failed measured nothing"


@pytest.mark.parametrize(
    ("since", "step", "said"),
    [("yesterday", 60, "since='yesterday' is no time"), (0, 60, "more than 2000 steps"), (NOW - 60, 0, "2000 steps")],
)
async def test_a_history_that_cannot_be_had(
    redis_url: str, socket_path: Path, since: str | float, step: float, said: str
) -> None:
    async with serving(redis_url, socket_path, statistics=statistics(await archive()), now=lambda: NOW) as bench:
        with pytest.raises(ApiError, match=said):
            await bench.call(calls.chains(since=since, step=step))


async def test_before_anything_was_measured_and_without_statistics(redis_url: str, socket_path: Path) -> None:
    empty = Statistics(archive=MemoryArchive(), collectors=tuple)
    async with serving(redis_url, socket_path, statistics=empty) as bench:
        overview = await bench.call(calls.overview())
        assert (overview.at_ms, overview.status, overview.chains) == (None, "unknown", ())
    async with serving(redis_url, socket_path) as bench:
        with pytest.raises(ApiError, match="keeps no statistics"):
            await bench.call(calls.overview())


async def test_before_the_first_overview_the_latest_values_stand_in(redis_url: str, socket_path: Path) -> None:
    kept, latest = await archive(), MemoryArchive()
    await latest.put_chains(await kept.chains())
    await latest.put_bridges(await kept.bridges())
    async with serving(redis_url, socket_path, statistics=statistics(latest)) as bench:
        overview = await bench.call(calls.overview())
        assert (overview.at_ms, overview.status) == (None, "unknown")
        assert (len(overview.chains), len(overview.bridges)) == (1, 1)


async def command(bench: Served, *arguments: str) -> str:
    done = await trio.run_process(
        [sys.executable, "-m", "moonxd", "stats", *arguments],
        env={"PATH": os.environ["PATH"], "MOONXD_SOCKET": str(bench.socket), "COLUMNS": "200"},
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


@pytest.mark.slow
async def test_the_command_line_shows_it(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path, statistics=statistics(await archive()), now=lambda: NOW) as bench:
        chains = await command(bench, "chains")
        assert "base   healthy" in chains
        assert "2.00s" in chains
        assert "-1.2%" in chains
        bridges = await command(bench, "bridges")
        assert "LI.FI" in bridges
        assert "no answer within 10 s" in bridges
        overview = await command(bench)
        assert "overview: degraded" in overview
        assert "chain_performance  ok" in overview
        reply = msgspec.json.decode((await command(bench, "chains", "--json")).encode())
        assert reply["chains"][0]["blockTimeS"] == 2.0


@pytest.mark.slow
async def test_watching_prints_a_line_each_time_until_it_is_ended(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path, statistics=statistics(await archive()), now=lambda: NOW) as bench:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "moonxd", "stats", "overview", "--watch", "--every", "500ms", "--json"],
            env={"PATH": os.environ["PATH"], "MOONXD_SOCKET": str(bench.socket)},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        seen = b""
        with trio.fail_after(60):
            async for part in process.stdout:
                seen += part
                if seen.count(b"\n") >= 2:
                    break
            process.send_signal(2)
            assert await process.wait() == 130
            await process.stdout.aclose()
    first, second = seen.splitlines()[:2]
    assert msgspec.json.decode(first) == msgspec.json.decode(second)
