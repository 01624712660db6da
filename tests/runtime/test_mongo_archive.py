"""What is MongoDB's own: the documents as their readers find them, indexes of older programs, expiry, refusals."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import bson
import msgspec
import pytest
import trio
from bson.codec_options import CodecOptions
from hypothesis import given
from hypothesis import strategies as st
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from moonxd.adapters.island import mongo_documents as documents
from moonxd.adapters.island.loop import open_island
from moonxd.adapters.island.mongo import MongoArchive, open_mongo_archive
from moonxd.domain.archive import Keep
from moonxd.domain.errors import ConfigError, Transient
from moonxd.domain.stats import BridgeStats, ChainStats, Health
from tests.conformance.archive_data import MINUTE_MS, START_MS, bridge, chain, failed, overview
from tests.services import free_port
from tests.services.mongo import MongoServer

pytestmark = pytest.mark.mongo
Client = MongoClient[dict[str, Any]]
UTC_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
START = datetime.fromtimestamp(START_MS / 1000, UTC)


@asynccontextmanager
async def opened(uri: str, **options: Any) -> AsyncIterator[MongoArchive]:
    async with open_island() as island, open_mongo_archive(island, uri, **options) as archive:
        yield archive


def database(client: Client) -> Any:
    return client.get_default_database()


# ---- documents -----------------------------------------------------------------------------------------------------


async def test_a_chains_document_has_the_form_its_readers_know(mongo_uri: str, mongo_client: Client) -> None:
    async with opened(mongo_uri) as archive:
        await archive.put_chains([chain()])
    (found,) = database(mongo_client)["chainstats"].find()
    del found["_id"]
    assert found == {
        "chainId": 8453,
        "chainName": "Base",
        "chainSlug": "base",
        "logoUrl": "https://icons.llamao.fi/icons/chains/rsz_base.jpg",
        "blockTime": {"current": 2.0, "change": "+1.23%", "changePercent": 1.234, "timestamp": START},
        "volume24h": "$1.2B",
        "volumeUSD": 1234567890.12,
        "defiLlamaSlug": "base",
        "status": "healthy",
        "updatedAt": START,
        "createdAt": START,
        # Ours, beside them.
        "health": "healthy",
        "reason": None,
        "error": None,
        "measuredAt": START,
        "tvlUSD": 4.5e9,
        "head": 40_000_000,
        "headAge": 1.5,
        "finalityLag": 400,
        "gasPriceWei": 5_000_000,
        "reorgs": 1,
        "deepestReorg": 0,
        "usualBlockTime": None,
        "endpoints": [
            {
                "host": "rpc.test",
                "outcome": "ok",
                "status": "unknown",
                "error": None,
                "p50": 0.05,
                "p95": 0.1,
                "head": 40_000_000,
                "lag": 0,
            }
        ],
    }


async def test_a_bridges_document_has_the_form_its_readers_know(mongo_uri: str, mongo_client: Client) -> None:
    async with opened(mongo_uri) as archive:
        await archive.put_bridges([bridge()])
    (found,) = database(mongo_client)["bridgestats"].find()
    known = {"provider": "LI.FI", "latency": 750.0, "status": "healthy", "timestamp": START, "route": "base-arbitrum"}
    known |= {"fromChain": 8453, "toChain": 42161, "updatedAt": START, "error": None}
    assert {name: found[name] for name in known} == known


async def test_one_overview_is_the_latest(mongo_uri: str, mongo_client: Client) -> None:
    async with opened(mongo_uri) as archive:
        for n in range(3):
            await archive.put_overview(overview(START_MS + n * MINUTE_MS))
    found = list(database(mongo_client)["statsoverviews"].find().sort("lastUpdated", 1))
    assert [one["isLatest"] for one in found] == [False, False, True]
    newest = found[-1]
    assert newest["healthStatus"] == "degraded"
    assert newest["chainPerformance"][0]["chainName"] == "Base"
    assert newest["bridgeLatency"][0]["provider"] == "LI.FI"


async def test_not_to_know_leaves_old_readers_the_last_known_status(mongo_uri: str, mongo_client: Client) -> None:
    good = chain(status=Health.DEGRADED)
    async with opened(mongo_uri) as archive:
        await archive.put_chains([good])
        await archive.put_chains([failed(good, START_MS + MINUTE_MS), failed(chain(chain_id=1), START_MS)])
    unseen, found = database(mongo_client)["chainstats"].find().sort("chainId", 1)
    assert (found["status"], found["health"], found["volume24h"]) == ("degraded", "unknown", "$1.2B")
    assert "status" not in unseen


async def test_documents_of_an_older_program_are_read_and_taken_over(mongo_uri: str, mongo_client: Client) -> None:
    chains = database(mongo_client)["chainstats"]
    created = START - timedelta(days=100)
    before = START - timedelta(minutes=1)
    old = {
        "chainId": 8453,
        "chainName": "Base",
        "chainSlug": "base",
        "logoUrl": "https://example.test/base.png",
        "blockTime": {"current": 2, "change": "+0.00%", "changePercent": 0, "timestamp": before},
        "volume24h": "$1.0B",
        "volumeUSD": 1e9,
        "defiLlamaSlug": "base",
        "status": "healthy",
        "updatedAt": before,
        "createdAt": created,
        "theirs": 1,
    }
    chains.insert_many([old, {"chainId": "what is this"}])
    async with opened(mongo_uri) as archive:
        (read,) = await archive.chains()
        assert (read.block_time_s, read.status, read.measured_at_ms) == (2, Health.HEALTHY, START_MS - MINUTE_MS)
        await archive.put_chains([failed(chain(), START_MS)])
        (read,) = await archive.chains()
        assert (read.block_time_s, read.status) == (2, Health.UNKNOWN)
        await archive.put_chains([chain(START_MS + MINUTE_MS)])
    (found,) = chains.find({"chainId": 8453})
    assert (found["createdAt"], found["logoUrl"], found["theirs"]) == (created, old["logoUrl"], 1)
    assert found["blockTime"]["change"] == "+1.23%"


@pytest.mark.parametrize(
    ("amount", "text"),
    [("12", "$12.00"), ("999", "$999.00"), ("1000", "$1.0K"), ("999960", "$1.0M"), ("1234567890", "$1.2B")],
)
def test_money_for_people(amount: str, text: str) -> None:
    assert documents.short_usd(Decimal(amount)) == text


numbers = st.floats(-1e6, 1e6, allow_nan=False)
LATENCIES = ("latency_s", "p50_s", "p95_s")
of_types = {
    float: numbers,
    int: st.integers(-(2**80), 2**80),
    Decimal: numbers.map(lambda number: Decimal(str(number))),
    str: st.text(st.characters(codec="utf-8"), max_size=8),
}


def any_row(kind: type) -> st.SearchStrategy[Any]:
    """Every field that the domain has or will have, whatever is in it."""
    with_times = {"at_ms": st.integers(0, 2**42), "measured_at_ms": st.none() | st.integers(0, 2**42)}
    hints = {name: _of(hint) for name, hint in get_type_hints(kind).items()}
    return st.builds(kind, **(hints | {name: times for name, times in with_times.items() if name in hints}))


def _of(hint: Any) -> st.SearchStrategy[Any]:
    if isinstance(hint, UnionType):
        return st.one_of(*(_of(one) for one in get_args(hint)))
    if get_origin(hint) is tuple:
        return st.lists(_of(get_args(hint)[0]), max_size=2).map(tuple)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return any_row(hint)
    return of_types[hint] if hint in of_types else st.from_type(hint)


def exact(row: BridgeStats) -> BridgeStats:
    """Latencies pass through milliseconds."""
    return msgspec.structs.replace(
        row, **{name: round(value, 6) for name in LATENCIES if (value := getattr(row, name)) is not None}
    )


@given(row=any_row(ChainStats))
def test_no_field_of_a_chain_is_lost(row: ChainStats) -> None:
    document = documents.chain_look(row) | documents.chain_values(row)
    assert documents.chain_of(bson.decode(bson.encode(document), UTC_CODEC)) == row


@given(row=any_row(BridgeStats))
def test_no_field_of_a_bridge_is_lost(row: BridgeStats) -> None:
    document = documents.bridge_look(row) | documents.bridge_values(row)
    assert exact(documents.bridge_of(bson.decode(bson.encode(document), UTC_CODEC))) == exact(row)


# ---- indexes -------------------------------------------------------------------------------------------------------

EXPIRING = ("statsoverviews", "chainstats_history", "bridgestats_history")


def expiries(client: Client) -> list[Any]:
    return [database(client)[name].index_information()["expiresAt_1"].get("expireAfterSeconds") for name in EXPIRING]


async def write_everything(uri: str) -> None:
    async with opened(uri) as archive:
        await archive.put_chains([chain()])
        await archive.put_bridges([bridge(route="a"), bridge(route="b")])
        await archive.put_overview(overview())
        assert len(await archive.bridges()) == 2


async def test_indexes_are_made_once(mongo_uri: str, mongo_client: Client) -> None:
    await write_everything(mongo_uri)
    first = {name: database(mongo_client)[name].index_information() for name in (*EXPIRING, "chainstats")}
    await write_everything(mongo_uri)
    assert {name: database(mongo_client)[name].index_information() for name in first} == first
    assert expiries(mongo_client) == [0, 0, 0]
    assert first["chainstats"]["chainId_1"]["unique"] is True


async def test_a_plain_index_on_expires_at_is_converted(mongo_uri: str, mongo_client: Client) -> None:
    for name in EXPIRING:
        database(mongo_client)[name].create_index("expiresAt")
    await write_everything(mongo_uri)
    assert expiries(mongo_client) == [0, 0, 0]


async def test_another_expiry_is_converted(mongo_uri: str, mongo_client: Client) -> None:
    for name in EXPIRING:
        database(mongo_client)[name].create_index("expiresAt", expireAfterSeconds=86400)
    await write_everything(mongo_uri)
    assert expiries(mongo_client) == [0, 0, 0]


async def test_where_converting_in_place_is_refused_the_index_is_made_anew(
    start_mongo: Callable[..., MongoServer],
) -> None:
    server = start_mongo("--enable-test-commands")
    with Client(server.uri()) as client:
        for name in EXPIRING:
            database(client)[name].create_index("expiresAt")
        client.admin.command(
            "configureFailPoint", "failCommand", mode="alwaysOn", data={"failCommands": ["collMod"], "errorCode": 13}
        )
        with pytest.raises(OperationFailure):
            database(client).command("collMod", "statsoverviews", index={"keyPattern": {"expiresAt": 1}})
        await write_everything(server.uri())
        assert expiries(client) == [0, 0, 0]


async def test_a_unique_provider_gets_a_second_route(mongo_uri: str, mongo_client: Client) -> None:
    database(mongo_client)["bridgestats"].create_index("provider", unique=True)
    await write_everything(mongo_uri)
    assert "unique" not in database(mongo_client)["bridgestats"].index_information()["provider_1"]


async def test_older_collections_that_cannot_have_unique_chains_still_work(
    mongo_uri: str, mongo_client: Client
) -> None:
    chains = database(mongo_client)["chainstats"]
    for _ in range(2):
        chains.insert_one({"chainId": 8453, "chainName": "Base", "chainSlug": "base", "updatedAt": START})
    async with opened(mongo_uri) as archive:
        await archive.put_chains([chain(START_MS + MINUTE_MS)])
        (found,) = await archive.chains()
        assert found.head == 40_000_000


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_what_is_too_old_expires(mongo_uri: str, mongo_client: Client) -> None:
    """On whichever server runs: both sweep once a minute."""
    now_ms = int(time.time() * 1000)
    async with opened(mongo_uri, keep=Keep(history_ms=1_000, overview_ms=1_000)) as archive:
        await archive.put_chains([chain(now_ms)])
        await archive.put_bridges([bridge(now_ms)])
        await archive.put_overview(overview(now_ms))
    async with opened(mongo_uri) as archive:
        await archive.put_chains([chain(now_ms + 1, chain_id=1)])
    counts = {name: database(mongo_client)[name].count_documents({}) for name in EXPIRING}
    assert counts == {"statsoverviews": 1, "chainstats_history": 2, "bridgestats_history": 1}
    with trio.fail_after(100):
        while any(  # noqa: ASYNC110
            database(mongo_client)[name].count_documents({}) > left
            for name, left in zip(EXPIRING, (0, 1, 0), strict=True)
        ):
            await trio.sleep(0.5)
    # What is not too old, and the latest values, stay.
    assert database(mongo_client)["chainstats_history"].find_one({})["chainId"] == 1
    assert database(mongo_client)["chainstats"].count_documents({}) == 2
    assert database(mongo_client)["bridgestats"].count_documents({}) == 1


# ---- refusals ------------------------------------------------------------------------------------------------------


async def test_a_server_that_is_away_is_transient_and_no_secret_is_told() -> None:
    uri = f"mongodb://alice:s3cret@127.0.0.1:{free_port()}/stats?serverSelectionTimeoutMS=300"
    async with opened(uri) as archive:
        with pytest.raises(Transient, match=r"MongoDB at 127\.0\.0\.1:\d+ does not answer") as caught:
            await archive.put_chains([chain()])
        with pytest.raises(Transient):
            await archive.chains()
    assert "s3cret" not in str(caught.value)
    assert "alice" not in str(caught.value)


async def test_a_caller_that_is_cancelled_leaves_at_once() -> None:
    async with opened(f"mongodb://127.0.0.1:{free_port()}/stats") as archive:
        before = trio.current_time()
        with trio.move_on_after(0.2) as scope:
            await archive.chains()
        assert scope.cancelled_caught
        assert trio.current_time() - before < 2.0


@pytest.mark.slow
async def test_a_wrong_password_is_said_clearly(start_mongo: Callable[..., MongoServer]) -> None:
    server = start_mongo()
    with Client(server.uri()) as client:
        client.admin.command("createUser", "alice", pwd="s3cret", roles=["readWriteAnyDatabase"])
    server.stop()
    server.start("--auth")
    for login in ("alice:wr0ng@", ""):
        async with opened(f"mongodb://{login}{server.host}/stats?authSource=admin") as archive:
            with pytest.raises(ConfigError, match="refused us") as caught:
                await archive.put_chains([chain()])
            assert "wr0ng" not in str(caught.value)
    async with opened(f"mongodb://alice:s3cret@{server.host}/stats?authSource=admin") as archive:
        await archive.put_chains([chain()])
        assert await archive.chains() == (chain(),)


async def test_a_connection_that_breaks_in_the_middle_doubles_nothing(start_mongo: Callable[..., MongoServer]) -> None:
    server = start_mongo("--enable-test-commands")
    async with opened(server.uri()) as archive:
        await archive.put_chains([chain()])
        with Client(server.uri()) as client:
            client.admin.command(
                "configureFailPoint", "failCommand", mode={"times": 2},
                data={"failCommands": ["update"], "closeConnection": True},
            )  # fmt: skip
        rows = [chain(START_MS + n * MINUTE_MS) for n in range(1, 20)]
        with pytest.raises(Transient):
            await archive.put_chains(rows)
        await archive.put_chains(rows)
        window = {"since_ms": START_MS, "until_ms": START_MS + 60 * MINUTE_MS, "step_s": 3600.0}
        (point,) = await archive.chain_history(8453, **window)
        assert point.samples == 20


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mongodb://localhost:27017", "names no database"),
        ("mongodb://alice:p%ss@localhost/x", "not understood"),
        ("mongodb://alice:pa/ss@localhost/x", "not understood"),
        ("mongodb://localhost/x?tls=false&tlsInsecure=true&ssl=true", "mongodb.uri"),
    ],
)
async def test_a_uri_that_cannot_be_used_is_a_configuration_error(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        async with opened(uri):
            pass
    assert not [part for part in ("alice", "ss@", "p%ss", "pa/") if part in str(caught.value)]


async def test_the_database_may_be_named_beside_the_uri(mongo_uri: str, mongo_client: Client) -> None:
    parts = urlsplit(mongo_uri)
    async with opened(parts._replace(path="/").geturl(), database=parts.path.lstrip("/")) as archive:
        await archive.put_chains([chain()])
    assert database(mongo_client)["chainstats"].count_documents({}) == 1
