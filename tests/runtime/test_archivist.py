"""The archivist: collectors never wait, an archive that is away loses little, one that comes back gets everything."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from moonxd.adapters.memory.archive import MemoryArchive
from moonxd.agents import archivist as module
from moonxd.agents.archivist import Archivist
from moonxd.domain.errors import ConfigError, MoonxdError, Permanent, Transient
from moonxd.domain.stats import BridgeStats, ChainStats, Overview
from moonxd.telemetry import Telemetry
from tests.conformance.archive_data import HOUR_MS, MINUTE_MS, START_MS, bridge, chain, failed, overview

WINDOW = {"since_ms": START_MS, "until_ms": START_MS + 1000 * HOUR_MS}


class Moody(MemoryArchive):
    """A memory archive that is sometimes away, and that does not take everything."""

    def __init__(self) -> None:
        super().__init__(now=lambda: START_MS / 1000)
        self.mood: MoonxdError | None = None
        self.hangs = False
        self.calls = 0

    async def _feel(self) -> None:
        self.calls += 1
        if self.hangs:
            await trio.sleep_forever()
        if self.mood is not None:
            raise self.mood

    async def put_chains(self, rows: Sequence[ChainStats]) -> None:
        await self._feel()
        if any(row.name == "poison" for row in rows):
            raise Permanent("too large")
        await super().put_chains(rows)

    async def put_bridges(self, rows: Sequence[BridgeStats]) -> None:
        await self._feel()
        await super().put_bridges(rows)

    async def put_overview(self, overview: Overview) -> None:
        await self._feel()
        await super().put_overview(overview)

    async def chains(self) -> tuple[ChainStats, ...]:
        await self._feel()
        return await super().chains()


@pytest.fixture
def archive() -> Moody:
    return Moody()


async def run(archivist: Archivist, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    await archivist.run(task_status.started)


async def idle(archivist: Archivist) -> None:
    while archivist.report().pending:  # noqa: ASYNC110
        await trio.sleep(0.5)
    await trio.testing.wait_all_tasks_blocked()


async def samples(archive: MemoryArchive, chain_id: int = 8453) -> int:
    points = await archive.chain_history(chain_id, step_s=3600 * 10_000.0, **WINDOW)
    return sum(point.samples for point in points)


async def test_what_is_put_is_read_at_once_and_written_soon(archive: Moody, autojump_clock: object) -> None:
    archivist = Archivist(archive)
    async with trio.open_nursery() as nursery:
        await nursery.start(run, archivist)
        await archivist.put_chains([chain()])
        await archivist.put_bridges([bridge()])
        await archivist.put_overview(overview())
        assert await archivist.chains() == (chain(),)
        assert await archivist.bridges() == (bridge(),)
        assert await archivist.overview() == overview()
        await idle(archivist)
        assert await archive.chains() == (chain(),)
        assert await archive.overview() == overview()
        assert archivist.report().written == 2
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("mood", [Transient("no server"), ConfigError("refused")])
async def test_while_it_is_away_memory_answers_and_nothing_is_lost(
    archive: Moody, mood: MoonxdError, autojump_clock: object
) -> None:
    archive.mood = mood
    archivist = Archivist(archive)
    async with trio.open_nursery() as nursery:
        await nursery.start(run, archivist)
        for minute in range(300):
            await archivist.put_chains([chain(START_MS + minute * MINUTE_MS)])
            await trio.sleep(60)
        assert await archivist.chains() == (chain(START_MS + 299 * MINUTE_MS),)
        assert archivist.report().away == str(mood)
        assert archivist.report().pending == 300
        with pytest.raises(Transient, match="cannot be read now"):
            await archivist.chain_history(8453, step_s=60.0, **WINDOW)
        # Half a minute at most from try to try: an outage of five hours is no reason to ask every second.
        assert 400 < archive.calls < 1300
        archive.mood = None
        await idle(archivist)
        assert await samples(archive) == 300
        assert archivist.report().away is None
        nursery.cancel_scope.cancel()


async def test_when_too_many_wait_the_oldest_are_thinned(archive: Moody, autojump_clock: object) -> None:
    archive.mood = Transient("no server")
    archivist = Archivist(archive, most=100)
    async with trio.open_nursery() as nursery:
        await nursery.start(run, archivist)
        for minute in range(500):
            await archivist.put_chains([chain(START_MS + minute * MINUTE_MS, n, head=minute) for n in (1, 10)])
        report = archivist.report()
        assert report.pending <= 100
        assert report.pending + report.thinned == 1000
        archive.mood = None
        await idle(archivist)
        assert await samples(archive, 1) + await samples(archive, 10) == report.pending
        assert [row.head for row in await archive.chains()] == [499, 499]
        nursery.cancel_scope.cancel()


async def test_one_sample_that_does_not_fit_stops_no_other(archive: Moody, autojump_clock: object) -> None:
    archivist = Archivist(archive)
    rows = [chain(START_MS + n * MINUTE_MS, name="poison" if n == 3 else "Base") for n in range(10)]
    await archivist.put_chains(rows)
    async with trio.open_nursery() as nursery:
        await nursery.start(run, archivist)
        await idle(archivist)
        assert await samples(archive) == 9
        assert (archivist.report().refused, archivist.report().written) == (1, 9)
        nursery.cancel_scope.cancel()


async def test_stopping_writes_what_waits(archive: Moody, autojump_clock: object) -> None:
    archivist = Archivist(archive)
    async with trio.open_nursery() as nursery:
        await nursery.start(run, archivist)
        await archivist.put_chains([chain(START_MS + n) for n in range(module.BATCH * 3)])
        nursery.cancel_scope.cancel()
    assert archivist.report().pending == 0
    assert await samples(archive) == module.BATCH * 3


async def test_stopping_waits_for_no_archive_that_hangs(archive: Moody, autojump_clock: object) -> None:
    archive.hangs = True
    archivist = Archivist(archive)
    async with trio.open_nursery() as nursery:
        await nursery.start(run, archivist)
        await archivist.put_chains([chain()])
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - before <= module.FLUSH_S + 0.1
    assert archivist.report().pending == 1


async def test_a_reader_does_not_wait_for_an_archive_that_hangs(archive: Moody, autojump_clock: object) -> None:
    archivist = Archivist(archive)
    await archivist.put_chains([chain()])
    archive.hangs = True
    before = trio.current_time()
    assert await archivist.chains() == (chain(),)
    assert trio.current_time() - before == pytest.approx(module.READ_S)


async def test_after_a_restart_the_archives_values_are_there_beside_the_new_ones(
    archive: Moody, autojump_clock: object
) -> None:
    await archive.put_chains([chain(chain_id=1), chain(chain_id=10)])
    archivist = Archivist(archive)
    bad = failed(chain(chain_id=10), START_MS + MINUTE_MS)
    await archivist.put_chains([bad])
    first, second = await archivist.chains()
    assert first == chain(chain_id=1)
    assert (second.error, second.head) == (bad.error, 40_000_000)


async def test_what_waits_and_what_is_left_out_is_counted(archive: Moody, autojump_clock: object) -> None:
    telemetry = Telemetry()
    archivist = Archivist(archive, most=10, on_report=module.tell(telemetry))
    await archivist.put_chains([chain(START_MS + n) for n in range(15)])
    page = telemetry.prometheus().decode()
    waiting = archivist.report().pending
    assert f"moonxd_stats_samples_waiting {waiting:.1f}" in page
    assert f'moonxd_stats_samples_dropped_total{{why="thinned"}} {15 - waiting:.1f}' in page
    assert 'moonxd_stats_samples_dropped_total{why="refused"} 0.0' in page


async def test_its_reports_say_how_it_stands(archive: Moody, autojump_clock: object) -> None:
    reports: list[module.Report] = []
    archivist = Archivist(archive, on_report=reports.append)
    archive.mood = Transient("no server")
    async with trio.open_nursery() as nursery:
        await nursery.start(run, archivist)
        await archivist.put_chains([chain()])
        await trio.testing.wait_all_tasks_blocked()
        assert reports[-1].away == "no server"
        archive.mood = None
        await idle(archivist)
        assert (reports[-1].away, reports[-1].written, reports[-1].pending) == (None, 1, 0)
        nursery.cancel_scope.cancel()
