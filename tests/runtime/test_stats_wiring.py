"""Where the configuration says that statistics are kept."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from moonxd import wiring
from moonxd.adapters.sqlite.archive import open_sqlite_archive
from moonxd.adapters.sqlite.ledger import open_sqlite_ledger
from moonxd.config import load_config
from moonxd.domain.errors import ConfigError
from moonxd.ports import StatsArchive
from tests.conformance.archive_data import START_MS, bridge, chain


def now() -> float:
    return START_MS / 1000


async def test_without_mongodb_they_are_in_a_file_of_the_state_directory(tmp_path: Path) -> None:
    config = load_config(None, {"MOONXD_DAEMON__STATE_DIR": str(tmp_path)}).config
    assert wiring.shared_island(config) is None

    async def work(archive: StatsArchive) -> None:
        await archive.put_chains([chain()])
        assert await archive.chains() == (chain(),)

    await wiring.with_archive(config, None)(work)
    assert (tmp_path / "statistics.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.mongo
async def test_with_one_they_are_there(tmp_path: Path, mongo_uri: str) -> None:
    environ = {"MOONXD_DAEMON__STATE_DIR": str(tmp_path), "MONGODB_URI": mongo_uri, "MONGODB_MAX_POOL_SIZE": "2"}
    config = load_config(None, environ).config
    island = wiring.shared_island(config)
    assert island is not None

    async def work(archive: StatsArchive) -> None:
        await archive.put_bridges([bridge()])
        assert await archive.bridges() == (bridge(),)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(island.run, lambda: None)
        with trio.fail_after(20):
            await wiring.with_archive(config, island)(work)
        nursery.cancel_scope.cancel()
    assert not (tmp_path / "statistics.db").exists()


async def test_a_torn_file_is_set_aside_and_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "statistics.db"
    path.write_bytes(b"this is no database at all\n" * 200)
    async with open_sqlite_archive(path, now=now) as archive:
        await archive.put_chains([chain()])
        assert await archive.chains() == (chain(),)
    assert (tmp_path / "statistics.db.torn").read_bytes().startswith(b"this is no")


async def test_the_ledgers_file_is_not_taken_for_statistics(tmp_path: Path) -> None:
    path = tmp_path / "moonxd.db"
    async with open_sqlite_ledger(path):
        pass
    with pytest.raises(ConfigError, match="another program's database"):
        async with open_sqlite_archive(path, now=now):
            pass


async def test_what_is_too_old_goes_with_the_next_write(tmp_path: Path) -> None:
    clock = [START_MS / 1000]
    window = {"since_ms": 0, "until_ms": START_MS * 2, "step_s": 1e9}
    async with open_sqlite_archive(tmp_path / "statistics.db", now=lambda: clock[0]) as archive:
        await archive.put_chains([chain(START_MS), chain(START_MS + 60_000)])
        clock[0] += 30 * 86400 + 1
        (point,) = await archive.chain_history(8453, **window)
        assert point.samples == 1
        await archive.put_chains([chain(int(clock[0] * 1000))])
        assert len(await archive.chains()) == 1
        clock[0] -= 86400  # a clock that is set back brings nothing back
        (point,) = await archive.chain_history(8453, **window)
        assert point.samples == 2


async def test_a_row_that_a_newer_version_wrote_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "statistics.db"
    async with open_sqlite_archive(path, now=now) as archive:
        await archive.put_chains([chain(), chain(chain_id=1)])
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("""UPDATE chains SET body = '{"chain_id": 1, "status": "splendid"}' WHERE chain_id = 1""")
        assert [row.chain_id for row in await archive.chains()] == [8453]
        await archive.put_chains([chain(START_MS + 1, chain_id=1)])
        assert [row.chain_id for row in await archive.chains()] == [1, 8453]
