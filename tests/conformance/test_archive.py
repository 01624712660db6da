"""Where statistics are kept: memory, SQLite and MongoDB behave alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moonxd.adapters.island.loop import open_island
from moonxd.adapters.island.mongo import open_mongo_archive
from moonxd.adapters.memory.archive import MemoryArchive
from moonxd.adapters.sqlite.archive import open_sqlite_archive
from moonxd.domain.stats import ChainStats, Health, Probe
from moonxd.ports import StatsArchive
from tests.conformance.archive_data import HOUR_MS, MINUTE_MS, START_MS, bridge, chain, failed, overview

Opener = Callable[[], AbstractAsyncContextManager[StatsArchive]]


def now() -> float:
    return START_MS / 1000


@pytest.fixture(params=["memory", "sqlite", pytest.param("mongo", marks=pytest.mark.mongo)])
def open_archive(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    if request.param == "sqlite":
        return lambda: open_sqlite_archive(tmp_path / "statistics.db", now=now)
    if request.param == "mongo":
        uri: str = request.getfixturevalue("mongo_uri")
        return lambda: _mongo(uri)
    kept = MemoryArchive(now=now)

    @asynccontextmanager
    async def memory() -> AsyncIterator[StatsArchive]:
        yield kept

    return memory


@asynccontextmanager
async def _mongo(uri: str) -> AsyncIterator[StatsArchive]:
    async with open_island() as island, open_mongo_archive(island, uri) as archive:
        yield archive


@pytest.fixture
async def archive(open_archive: Opener) -> AsyncIterator[StatsArchive]:
    async with open_archive() as opened:
        yield opened


# ---- latest values -------------------------------------------------------------------------------------------------


async def test_an_empty_archive_knows_nothing(archive: StatsArchive) -> None:
    assert await archive.chains() == ()
    assert await archive.bridges() == ()
    assert await archive.overview() is None
    assert await archive.chain_history(1, since_ms=0, until_ms=START_MS * 2, step_s=60.0) == ()


async def test_what_is_put_is_read_again_after_a_restart(open_archive: Opener) -> None:
    chains = (chain(chain_id=1), chain(chain_id=8453, gas_price_wei=2**70, block_time_change_pct=None))
    bridges = (bridge(route="a"), bridge(route="b"), bridge(provider="Relay.link"))
    async with open_archive() as archive:
        await archive.put_chains(chains[::-1])
        await archive.put_bridges(bridges)
        await archive.put_overview(overview())
    async with open_archive() as archive:
        assert await archive.chains() == chains
        assert await archive.bridges() == bridges
        assert await archive.overview() == overview()


async def test_a_look_without_some_values_is_kept_as_it_is(archive: StatsArchive) -> None:
    row = chain(volume_24h_usd=None, block_time_s=None, finality_lag=None, endpoints=())
    await archive.put_chains([chain(START_MS - MINUTE_MS)])
    await archive.put_chains([row])
    assert await archive.chains() == (row,)


async def test_a_failed_look_overwrites_no_good_value(archive: StatsArchive) -> None:
    good = chain()
    await archive.put_chains([good])
    bad = failed(good, START_MS + MINUTE_MS)
    await archive.put_chains([bad])
    (found,) = await archive.chains()
    assert found == msgspec.structs.replace(
        good,
        at_ms=bad.at_ms,
        status=Health.UNKNOWN,
        reason=bad.reason,
        error=bad.error,
        endpoints=bad.endpoints,
        reorgs=bad.reorgs,
    )


async def test_a_failed_quote_overwrites_no_latency(archive: StatsArchive) -> None:
    good = bridge()
    bad = bridge(
        START_MS + MINUTE_MS,
        measured_at_ms=None,
        status=Health.UNHEALTHY,
        outcome=Probe.SERVER_ERROR,
        latency_s=None,
        p50_s=None,
        p95_s=None,
        quoted_s=None,
        error="503",
    )
    await archive.put_bridges([good])
    await archive.put_bridges([bad])
    (found,) = await archive.bridges()
    assert (found.latency_s, found.measured_at_ms, found.quoted_s) == (0.75, START_MS, 60.0)
    assert (found.status, found.outcome, found.error) == (Health.UNHEALTHY, Probe.SERVER_ERROR, "503")


async def test_the_first_look_may_fail(archive: StatsArchive) -> None:
    bad = failed(chain(), START_MS)
    await archive.put_chains([bad])
    assert await archive.chains() == (bad,)
    good = chain(START_MS + MINUTE_MS)
    await archive.put_chains([good])
    assert await archive.chains() == (good,)


async def test_values_measured_between_two_writes_are_the_last_good_ones(archive: StatsArchive) -> None:
    """One batch may hold a look that succeeded and the one after it that failed."""
    await archive.put_chains([chain(START_MS, head=1)])
    good = chain(START_MS + MINUTE_MS, head=2)
    await archive.put_chains([good, failed(good, START_MS + 2 * MINUTE_MS)])
    (found,) = await archive.chains()
    assert (found.head, found.measured_at_ms, found.status) == (2, good.at_ms, Health.UNKNOWN)


async def test_an_older_look_replaces_nothing(archive: StatsArchive) -> None:
    newer, older = chain(START_MS), chain(START_MS - MINUTE_MS, head=1)
    await archive.put_chains([newer])
    await archive.put_chains([older])
    assert await archive.chains() == (newer,)


async def test_the_newest_overview_counts(archive: StatsArchive) -> None:
    for minutes in (0, 5, 10):
        await archive.put_overview(overview(START_MS + minutes * MINUTE_MS))
    found = await archive.overview()
    assert found is not None
    assert found.at_ms == START_MS + 10 * MINUTE_MS


# ---- history -------------------------------------------------------------------------------------------------------


async def history(archive: StatsArchive, step_s: float, since_ms: int = START_MS, until_ms: int = START_MS + HOUR_MS):
    return await archive.chain_history(8453, since_ms=since_ms, until_ms=until_ms, step_s=step_s)


async def test_history_comes_in_steps(archive: StatsArchive) -> None:
    rows = [chain(START_MS + minute * MINUTE_MS, block_time_s=float(minute)) for minute in range(60)]
    await archive.put_chains([*rows, chain(START_MS, chain_id=1)])
    points = await history(archive, 600.0)
    assert [point.at_ms for point in points] == [START_MS + n * 10 * MINUTE_MS for n in range(6)]
    assert [point.samples for point in points] == [10] * 6
    assert [point.values["block_time_s"] for point in points] == pytest.approx([4.5, 14.5, 24.5, 34.5, 44.5, 54.5])
    assert points[0].values["rpc_p50_s"] == pytest.approx(0.05)
    assert points[0].values["volume_24h_usd"] == pytest.approx(1234567890.12)


async def test_the_window_begins_with_since_and_ends_before_until(archive: StatsArchive) -> None:
    await archive.put_chains([chain(START_MS + n * MINUTE_MS) for n in range(5)])
    points = await history(archive, 60.0, START_MS + MINUTE_MS, START_MS + 3 * MINUTE_MS)
    assert [point.at_ms for point in points] == [START_MS + MINUTE_MS, START_MS + 2 * MINUTE_MS]


async def test_a_step_shows_its_worst_status_and_only_what_was_measured(archive: StatsArchive) -> None:
    good = chain(START_MS, block_time_s=2.0)
    await archive.put_chains([good, failed(good, START_MS + MINUTE_MS, status=Health.DEGRADED)])
    await archive.put_chains([failed(good, START_MS + HOUR_MS - MINUTE_MS)])
    first, last = await history(archive, 600.0)
    assert (first.samples, first.status, first.values["block_time_s"]) == (2, Health.DEGRADED, 2.0)
    assert (last.samples, last.status, last.values) == (1, Health.UNKNOWN, {})


async def test_writing_again_adds_nothing(archive: StatsArchive) -> None:
    rows = [chain(START_MS + n * MINUTE_MS) for n in range(5)]
    bridges = [bridge(START_MS + n * MINUTE_MS) for n in range(5)]
    for _ in range(3):
        await archive.put_chains(rows)
        await archive.put_bridges(bridges)
        await archive.put_overview(overview())
    (point,) = await history(archive, 3600.0)
    assert point.samples == 5
    assert await archive.chains() == (rows[-1],)


async def test_bridges_have_a_history_per_route(archive: StatsArchive) -> None:
    await archive.put_bridges([bridge(latency_s=1.0, route="a"), bridge(latency_s=3.0, route="b")])
    await archive.put_bridges([bridge(START_MS + MINUTE_MS, latency_s=2.0, route="a")])
    window = {"since_ms": START_MS, "until_ms": START_MS + HOUR_MS, "step_s": 3600.0}
    (point,) = await archive.bridge_history("LI.FI", "a", **window)
    assert (point.samples, point.values["latency_s"]) == (2, 1.5)
    assert await archive.bridge_history("LI.FI", "c", **window) == ()


async def test_nothing_to_write_is_no_error(archive: StatsArchive) -> None:
    await archive.put_chains([])
    await archive.put_bridges([])


async def test_texts_that_look_like_fields_of_a_database_are_texts(archive: StatsArchive) -> None:
    row = chain(name="$chainId", reason="$$ROOT", volume_24h_usd=Decimal(12))
    await archive.put_chains([row])
    assert await archive.chains() == (row,)


# ---- histories of any shape ------------------------------------------------------------------------------------------

looks = st.lists(
    st.tuples(
        st.integers(0, 20),
        st.sampled_from([1, 10]),
        st.sampled_from(list(Health)),
        st.one_of(st.none(), st.floats(0.01, 1000.0)),
        st.booleans(),
    ),
    max_size=25,
)


@given(looks=looks, step_s=st.sampled_from([0.001, 60.0, 90.0, 300.0, 86400.0]), cut=st.integers(0, 20))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sqlite_answers_like_memory(
    looks: list[tuple[int, int, Health, float | None, bool]], step_s: float, cut: int, tmp_path: Path
) -> None:
    rows = [_row(*look) for look in looks]

    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"

    async def compare() -> None:
        memory = MemoryArchive(now=now)
        async with open_sqlite_archive(path, now=now) as sqlite:
            for archive in (memory, sqlite):
                await archive.put_chains(rows[:cut])
                await archive.put_chains(rows[cut:])
            assert await memory.chains() == await sqlite.chains()
            window = {"since_ms": START_MS + MINUTE_MS, "until_ms": START_MS + 18 * MINUTE_MS, "step_s": step_s}
            for chain_id in (1, 10):
                expected = await memory.chain_history(chain_id, **window)
                found = await sqlite.chain_history(chain_id, **window)
                assert [(p.at_ms, p.samples, p.status) for p in found] == [
                    (p.at_ms, p.samples, p.status) for p in expected
                ]
                for ours, theirs in zip(found, expected, strict=True):
                    assert ours.values == pytest.approx(theirs.values)

    trio.run(compare)


def _row(minute: int, chain_id: int, status: Health, block_time_s: float | None, is_good: bool) -> ChainStats:
    row = chain(START_MS + minute * MINUTE_MS, chain_id, status=status, block_time_s=block_time_s)
    return row if is_good else failed(row, row.at_ms, status=status)
