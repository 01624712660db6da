"""The collector of chain statistics: a round as a whole, on memory probes in simulated time, and on real nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from moonxd.domain.blocktime import Block
from moonxd.domain.chain import CHAINS, Chain
from moonxd.domain.errors import Transient
from moonxd.domain.heads import HeadsSeen
from moonxd.domain.looks import Look, Want
from moonxd.domain.stats import ChainStats, Health, Point, Probe
from moonxd.ports import ChainProbe
from moonxd.stats.chain_performance import ChainPerformance
from tests.services.kept import Archive

ETHEREUM, BASE, BSC = CHAINS[1], CHAINS[8453], CHAINS[56]
NOW_MS = 1_800_000_000_000
MINUTE_MS, DAY_MS = 60_000, 86_400_000


class MemoryProbe:
    """An endpoint that takes `seconds` and then says what the test told it to. `looks` are (begun, ended)."""

    def __init__(self, host: str = "a.example", seconds: float = 0.0, **answer: Any) -> None:
        self.host = host
        self.seconds = seconds
        self.answer: dict[str, Any] = {"outcome": Probe.OK, "latencies": (0.1, 0.3, 0.2, 0.1, 0.2)} | answer
        self.wants: list[Want] = []
        self.looks: list[tuple[float, float]] = []

    async def look(self, want: Want) -> Look | None:
        begun = trio.current_time()
        self.wants.append(want)
        await trio.sleep(self.seconds)
        self.looks.append((begun, trio.current_time()))
        return Look(host=self.host, **self.answer)


def block(number: int, at_ms: float) -> Block:
    return Block(number=number, hash=f"a{number}", parent=f"a{number - 1}", at=at_ms / 1000)


def good(now_ms: int, *, block_time_s: float = 2.0, number: int = 10_000, behind_ms: int = 1000) -> dict[str, Any]:
    """What an endpoint of base says at this time."""
    head = block(number, now_ms - behind_ms)
    older = block(number - 60, now_ms - behind_ms - 60 * block_time_s * 1000)
    return {"outcome": Probe.OK, "error": None, "head": head, "older": older, "finalized": number - 64,
            "gas_price_wei": 10**9}  # fmt: skip


def failed(outcome: Probe) -> dict[str, Any]:
    return {"outcome": outcome, "error": f"a.example: {outcome}", "head": None, "older": None, "latencies": ()}


def collector(*probes: ChainProbe, archive: Archive | None = None, **options: Any) -> ChainPerformance:
    return ChainPerformance({BASE.id: probes}, archive or Archive(), **options)


async def row_of(stats: ChainPerformance, now_ms: int, chain: Chain = BASE) -> ChainStats:
    found = await stats.collect(now_ms)
    return next(row for row in found.chains if row.chain_id == chain.id)


# ---- the time a round takes -----------------------------------------------------------------------------------------


async def test_a_round_of_six_chains_takes_as_long_as_its_slowest_probe(autojump_clock: MockClock) -> None:
    slow = MemoryProbe("slow.example", 10.0, **failed(Probe.TIMEOUT))
    quick = {chain_id: (MemoryProbe(seconds=0.2), MemoryProbe("b.example", 1.0)) for chain_id in CHAINS}
    probes: dict[int, Sequence[ChainProbe]] = {**quick, 1: (*quick[1], slow)}
    archive = Archive()
    archive.delay_s = 0.5
    started = trio.current_time()
    await ChainPerformance(probes, archive).collect(NOW_MS)
    assert trio.current_time() - started == 10.0
    for pair in quick.values():
        assert [probe.looks for probe in pair] == [[(started, started + 0.2)], [(started, started + 1.0)]]


async def test_an_archive_that_hangs_holds_up_one_round_in_five_minutes_by_five_seconds(
    autojump_clock: MockClock,
) -> None:
    archive = Archive()
    archive.delay_s = math.inf
    stats = collector(MemoryProbe(seconds=0.5, **good(NOW_MS)), archive=archive)
    took = []
    for minute in range(7):
        started = trio.current_time()
        await stats.collect(NOW_MS + minute * MINUTE_MS)
        took.append(trio.current_time() - started)
    assert took == [5.0, 0.5, 0.5, 0.5, 0.5, 5.0, 0.5]


# ---- what is in a row -----------------------------------------------------------------------------------------------


async def test_a_row_has_what_was_measured() -> None:
    first = MemoryProbe(**good(NOW_MS))
    second = MemoryProbe("b.example", **good(NOW_MS, number=9_997, behind_ms=7000))
    heads = HeadsSeen(host="a.example", reorgs=3, deepest=2)
    row = await row_of(
        collector(
            first,
            second,
            heads=lambda chain_id: heads,
            markets=lambda: {BASE.id: (Decimal("1.5"), Decimal(7))},
        ),
        NOW_MS,
    )
    assert (row.status, row.reason, row.error) == (Health.HEALTHY, None, None)
    assert (row.at_ms, row.measured_at_ms) == (NOW_MS, NOW_MS)
    assert row.block_time_s == pytest.approx(2.0)
    assert row.usual_block_time_s == 2.0
    assert row.block_time_change_pct is None
    assert (row.head, row.head_age_s, row.finality_lag, row.gas_price_wei) == (10_000, 1.0, 64, 10**9)
    assert (row.reorgs, row.deepest_reorg) == (3, 2)
    assert (row.volume_24h_usd, row.tvl_usd) == (Decimal("1.5"), Decimal(7))
    one, other = row.endpoints
    assert (one.host, one.p50_s, one.p95_s, one.lag, one.status) == ("a.example", 0.2, 0.3, 0, Health.HEALTHY)
    assert (other.host, other.head, other.lag) == ("b.example", 9_997, 3)


async def test_a_failed_round_keeps_the_last_good_values_beside_the_error() -> None:
    probe = MemoryProbe(**good(NOW_MS))
    stats = collector(probe, markets=lambda: {BASE.id: (Decimal(5), None)})
    before = await row_of(stats, NOW_MS)
    probe.answer |= failed(Probe.SERVER_ERROR)
    found = await stats.collect(NOW_MS + MINUTE_MS)
    (row,) = found.chains
    assert row.error == "a.example: server_error"
    assert found.failed == ("base: a.example: server_error",)
    assert (row.at_ms, row.measured_at_ms) == (NOW_MS + MINUTE_MS, NOW_MS)
    for name in ("block_time_s", "head", "finality_lag", "gas_price_wei", "volume_24h_usd"):
        assert getattr(row, name) == getattr(before, name) is not None
    # The head itself has aged meanwhile.
    assert row.head_age_s == 61.0
    (endpoint,) = row.endpoints
    assert (endpoint.outcome, endpoint.p50_s, endpoint.status) == (Probe.SERVER_ERROR, None, Health.UNHEALTHY)


async def test_latency_is_of_successes_only() -> None:
    probe = MemoryProbe(**(failed(Probe.TIMEOUT) | {"latencies": (10.0,)}))
    row = await row_of(collector(probe), NOW_MS)
    assert [(one.p50_s, one.p95_s) for one in row.endpoints] == [(None, None)]


async def test_the_older_block_comes_with_the_head_once_a_head_is_known() -> None:
    probe = MemoryProbe(**good(NOW_MS))
    stats = collector(probe)
    for minute in range(2):
        await stats.collect(NOW_MS + minute * MINUTE_MS)
    assert probe.wants == [Want(older=None, back=60), Want(older=9_940, back=60)]
    # After a long silence the window would be too long.
    await stats.collect(NOW_MS + 60 * MINUTE_MS)
    assert probe.wants[-1].older is None


async def test_a_chain_that_became_faster_is_measured_over_a_minute_again() -> None:
    probe = MemoryProbe(**good(NOW_MS, block_time_s=0.5))
    stats = collector(probe)
    first = await row_of(stats, NOW_MS)
    assert first.block_time_s is None
    assert probe.wants[0].back == 60
    await stats.collect(NOW_MS + MINUTE_MS)
    assert probe.wants[1].back == 240


async def test_a_block_from_the_future_is_not_believed_while_another_endpoint_tells_the_time() -> None:
    liar = MemoryProbe("b.example", **good(NOW_MS, number=10_001, behind_ms=-DAY_MS))
    honest = MemoryProbe(**good(NOW_MS))
    row = await row_of(collector(liar, honest), NOW_MS)
    assert (row.head, row.head_age_s) == (10_000, 1.0)
    # Alone it is: then it may be our clock that is wrong.
    stats = collector(liar)
    assert (await row_of(stats, NOW_MS)).head_age_s == 0.0


async def test_the_endpoint_with_the_highest_head_tells_the_block_time() -> None:
    stuck = MemoryProbe(**good(NOW_MS, number=9_995, block_time_s=5.0))
    row = await row_of(collector(stuck, MemoryProbe("b.example", **good(NOW_MS))), NOW_MS)
    assert row.block_time_s == pytest.approx(2.0)


# ---- what was kept --------------------------------------------------------------------------------------------------


async def test_the_change_is_against_our_own_sample_of_the_day_before() -> None:
    kept = [
        Point(at_ms=NOW_MS - DAY_MS + offset, samples=samples, values=values, status=Health.HEALTHY)
        for offset, samples, values in (
            (-600_000, 30, {"block_time_s": 1.5}),
            (600_000, 10, {"block_time_s": 1.9}),
            (700_000, 99, {"latency_s": 1.0}),
            # Neither of these is a day ago.
            (7_200_000, 40, {"block_time_s": 9.0}),
        )
    ]
    row = await row_of(collector(MemoryProbe(**good(NOW_MS)), archive=Archive(points={BASE.id: kept})), NOW_MS)
    assert row.block_time_change_pct is not None
    # 2 against (30 x 1.5 + 10 x 1.9) / 40 = 1.6; the archive was asked while the endpoints were.
    assert row.block_time_change_pct == pytest.approx(25.0)


async def test_what_is_usual_is_learnt_from_what_was_kept() -> None:
    kept = [
        Point(at_ms=NOW_MS - hour * 3_600_000, samples=60, values={"block_time_s": 1.5}, status=Health.HEALTHY)
        for hour in range(1, 100)
    ]
    stats = collector(MemoryProbe(**good(NOW_MS, block_time_s=2.4)), archive=Archive(points={BASE.id: kept}))
    row = await row_of(stats, NOW_MS)
    assert row.usual_block_time_s == 1.5
    assert stats.usual_block_time(BASE.id) == 1.5
    assert "usually 1.5 s" in str(row.reason)


async def test_a_restart_goes_on_from_the_status_and_the_values_that_were_kept() -> None:
    kept = ChainStats(
        chain_id=BASE.id,
        name="Base",
        slug="base",
        llama="base",
        at_ms=NOW_MS - MINUTE_MS,
        measured_at_ms=NOW_MS - DAY_MS,
        status=Health.UNHEALTHY,
        reason="no new block for 900 s",
        block_time_s=1.9,
        head=77,
        head_age_s=900.0,
    )
    probe = MemoryProbe(**failed(Probe.TIMEOUT))
    stats = collector(probe, archive=Archive(kept))
    row = await row_of(stats, NOW_MS)
    assert (row.status, row.reason) == (Health.UNHEALTHY, "no new block for 900 s")
    assert (row.block_time_s, row.head, row.head_age_s, row.measured_at_ms) == (1.9, 77, 960.0, NOW_MS - DAY_MS)
    probe.answer |= good(NOW_MS)
    assert [(await row_of(stats, NOW_MS)).status for _ in range(3)] == [
        Health.UNHEALTHY,
        Health.UNHEALTHY,
        Health.HEALTHY,
    ]


async def test_without_the_archive_it_goes_on_by_what_it_sees() -> None:
    archive = Archive()
    archive.error = Transient("the archive is away")
    stats = collector(MemoryProbe(**good(NOW_MS)), archive=archive)
    assert (await row_of(stats, NOW_MS)).status is Health.HEALTHY
    archive.error = None
    assert (await row_of(stats, NOW_MS + MINUTE_MS)).status is Health.HEALTHY


# ---- whose fault it is ----------------------------------------------------------------------------------------------


async def statuses(stats: ChainPerformance, rounds: int, start_ms: int = NOW_MS) -> list[dict[str, str]]:
    found = [await stats.collect(start_ms + turn * MINUTE_MS) for turn in range(rounds)]
    return [{row.slug: str(row.status) for row in one.chains} for one in found]


async def test_our_own_network_down_is_unknown_for_every_chain() -> None:
    probes = [MemoryProbe(**good(NOW_MS)), MemoryProbe(**good(NOW_MS))]
    stats = ChainPerformance({BASE.id: [probes[0]], ETHEREUM.id: [probes[1]]}, Archive())
    assert await statuses(stats, 1) == [{"base": "healthy", "ethereum": "healthy"}]
    for probe, outcome in zip(probes, (Probe.NETWORK, Probe.TIMEOUT), strict=True):
        probe.answer |= failed(outcome)
    assert (await statuses(stats, 4, NOW_MS + MINUTE_MS))[-1] == {"base": "unknown", "ethereum": "unknown"}


async def test_one_chain_that_does_not_answer_while_others_do_is_its_own_fault() -> None:
    dead, alive = MemoryProbe(**good(NOW_MS)), MemoryProbe(**good(NOW_MS))
    stats = ChainPerformance({BASE.id: [dead], ETHEREUM.id: [alive]}, Archive())
    await stats.collect(NOW_MS)
    dead.answer |= failed(Probe.TIMEOUT)
    found = await statuses(stats, 4, NOW_MS + MINUTE_MS)
    assert [one["base"] for one in found] == ["healthy", "degraded", "unhealthy", "unhealthy"]
    assert {one["ethereum"] for one in found[:1]} == {"healthy"}


async def test_a_rate_limit_of_ours_says_nothing_against_a_chain() -> None:
    probe = MemoryProbe(**good(NOW_MS))
    stats = collector(probe)
    await stats.collect(NOW_MS)
    probe.answer |= failed(Probe.RATE_LIMITED)
    assert [one["base"] for one in await statuses(stats, 3, NOW_MS + MINUTE_MS)] == ["healthy", "unknown", "unknown"]


async def test_volume_never_feeds_health() -> None:
    def away() -> dict[int, tuple[Decimal | None, Decimal | None]]:
        return {BASE.id: (Decimal(0), None)}

    assert (await row_of(collector(MemoryProbe(**good(NOW_MS)), markets=away), NOW_MS)).status is Health.HEALTHY


async def test_heads_that_come_keep_a_chain_from_being_called_dead() -> None:
    newest = block(10_100, NOW_MS + 5 * MINUTE_MS)
    heads = HeadsSeen(host="a.example", is_connected=True, newest=newest, seen_at=newest.at, heads=9)
    stats = collector(MemoryProbe(**failed(Probe.SERVER_ERROR)), heads=lambda chain_id: heads)
    assert [one["base"] for one in await statuses(stats, 5)] == ["degraded"] * 5
    row = await row_of(stats, NOW_MS + 5 * MINUTE_MS)
    assert (row.head, row.head_age_s) == (10_100, 0.0)
    assert "new heads come" in str(row.reason)


class Rare(MemoryProbe):
    """Lets itself be looked at once."""

    async def look(self, want: Want) -> Look | None:
        return await super().look(want) if not self.looks else None


async def test_an_endpoint_whose_turn_it_is_not_stands_as_it_was() -> None:
    stats = collector(Rare(**good(NOW_MS)))
    first = await row_of(stats, NOW_MS)
    later = await row_of(stats, NOW_MS + MINUTE_MS)
    assert later.endpoints == first.endpoints
    assert (later.status, later.measured_at_ms, later.error) == (Health.HEALTHY, NOW_MS, None)


async def test_an_endpoint_that_is_left_alone_still_fails_as_far_as_anybody_knows() -> None:
    stats = collector(Rare(**failed(Probe.SERVER_ERROR)))
    rows = [await row_of(stats, NOW_MS + turn * MINUTE_MS) for turn in range(5)]
    assert {row.error for row in rows} == {"a.example: server_error"}
    assert {(row.status, row.endpoints[0].outcome) for row in rows} == {(Health.DEGRADED, Probe.SERVER_ERROR)}


async def test_heads_of_any_chain_show_that_our_network_works() -> None:
    newest = block(10_100, NOW_MS)
    heads = HeadsSeen(host="a.example", is_connected=True, newest=newest, seen_at=newest.at, heads=9)
    probes = {BASE.id: [MemoryProbe(**failed(Probe.NETWORK))], ETHEREUM.id: [MemoryProbe(**failed(Probe.NETWORK))]}
    stats = ChainPerformance(probes, Archive(), heads={BASE.id: heads}.get)
    assert await statuses(stats, 1) == [{"base": "degraded", "ethereum": "degraded"}]
