"""Statistics in MongoDB, through pymongo on the asyncio island: one crossing per batch."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import trio
from pymongo import AsyncMongoClient, UpdateMany, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError, ConfigurationError, InvalidURI, PyMongoError

from ...domain.archive import (
    BRIDGE_VALUES,
    BY_SEVERITY,
    CHAIN_VALUES,
    Keep,
    bridge_sample,
    chain_sample,
    latest_of,
    step_ms,
)
from ...domain.errors import ConfigError, Transient
from ...domain.stats import BridgeStats, ChainStats, Overview, Point
from . import mongo_documents as documents
from .loop import Island
from .mongo_errors import is_only_duplicates, ours
from .mongo_indexes import Documents, ensure_indexes

log = logging.getLogger("moonxd.stats")
T = TypeVar("T")
Client = AsyncMongoClient[dict[str, Any]]
Update = UpdateOne | UpdateMany

#: Seconds; whatever the URI says of its own wins.
_OPTIONS = {
    "serverSelectionTimeoutMS": 5_000,
    "connectTimeoutMS": 5_000,
    "socketTimeoutMS": 10_000,
    "appName": "moonxd",
}
#: Longest one crossing takes, in seconds, whatever pymongo does meanwhile.
PATIENCE_S = 20.0
#: Seconds that closing the client may take.
CLOSE_S = 3.0


class MongoArchive:
    """A `ports.StatsArchive`. Nothing is asked of the server before the first call; indexes come before the first
    write. Raises Transient while it is away, ConfigError when it refuses us, Permanent when it refuses a document."""

    def __init__(self, island: Island, database: Documents, where: str, keep: Keep) -> None:
        self._island = island
        self._database = database
        self._where = where
        self._keep = keep
        self._is_prepared = False

    async def put_chains(self, rows: Sequence[ChainStats]) -> None:
        latest = [
            UpdateOne({"chainId": row.chain_id}, documents.chain_update(row), upsert=True)
            for row in latest_of(rows, lambda row: row.chain_id)
        ]
        samples = [({"chainId": row.chain_id}, chain_sample(row)) for row in rows]
        added = [_add(documents.sample_document(key, sample, self._keep.history_ms)) for key, sample in samples]
        await self._write({"chainstats": latest, "chainstats_history": added})

    async def put_bridges(self, rows: Sequence[BridgeStats]) -> None:
        latest = [
            UpdateOne({"provider": row.provider, "route": row.route}, documents.bridge_update(row), upsert=True)
            for row in latest_of(rows, lambda row: (row.provider, row.route))
        ]
        samples = [({"provider": row.provider, "route": row.route}, bridge_sample(row)) for row in rows]
        added = [_add(documents.sample_document(key, sample, self._keep.history_ms)) for key, sample in samples]
        await self._write({"bridgestats": latest, "bridgestats_history": added})

    async def put_overview(self, overview: Overview) -> None:
        """The new one first: for a moment there are two latest ones, never none."""
        older = {"isLatest": True, "lastUpdated": {"$lt": documents.date(overview.at_ms)}}
        await self._write(
            {
                "statsoverviews": [
                    _add(documents.overview_document(overview, self._keep.overview_ms)),
                    UpdateMany(older, {"$set": {"isLatest": False}}),
                ]
            }
        )

    async def chains(self) -> tuple[ChainStats, ...]:
        rows = _understood(await self._find("chainstats"), documents.chain_of)
        return tuple(sorted(latest_of(rows, lambda row: row.chain_id), key=lambda row: row.chain_id))

    async def bridges(self) -> tuple[BridgeStats, ...]:
        rows = _understood(await self._find("bridgestats"), documents.bridge_of)
        latest = latest_of(rows, lambda row: (row.provider, row.route))
        return tuple(sorted(latest, key=lambda row: (row.provider, row.route)))

    async def overview(self) -> Overview | None:
        async def find() -> list[dict[str, Any]]:
            collection = self._database["statsoverviews"]
            return await collection.find({"isLatest": True}).sort("lastUpdated", -1).limit(1).to_list()

        found = _understood(await self._cross(find), documents.overview_of)
        return found[0] if found else None

    async def chain_history(self, chain_id: int, *, since_ms: int, until_ms: int, step_s: float) -> tuple[Point, ...]:
        match = {"chainId": chain_id, "at": _window(since_ms, until_ms)}
        return await self._steps("chainstats_history", match, step_s, CHAIN_VALUES)

    async def bridge_history(
        self, provider: str, route: str, *, since_ms: int, until_ms: int, step_s: float
    ) -> tuple[Point, ...]:
        match = {"provider": provider, "route": route, "at": _window(since_ms, until_ms)}
        return await self._steps("bridgestats_history", match, step_s, BRIDGE_VALUES)

    async def ping(self) -> None:
        await self._cross(lambda: self._database.command("ping"))

    # ---- on the island -------------------------------------------------------------------------------------------

    async def _write(self, writes: Mapping[str, Sequence[Update]]) -> None:
        async def write() -> None:
            if not self._is_prepared:
                await ensure_indexes(self._database)
                self._is_prepared = True
            for name, updates in writes.items():
                await _bulk(self._database[name], updates)

        await self._cross(write)

    async def _find(self, name: str) -> list[dict[str, Any]]:
        return await self._cross(lambda: self._database[name].find().sort("updatedAt", 1).to_list())

    async def _steps(
        self, name: str, match: Mapping[str, Any], step_s: float, values: Sequence[str]
    ) -> tuple[Point, ...]:
        step = {"$subtract": ["$at", {"$mod": [{"$toLong": "$at"}, step_ms(step_s)]}]}
        averages = {value: {"$avg": f"$values.{value}"} for value in values}
        pipeline: list[dict[str, Any]] = [
            {"$match": match},
            {"$group": {"_id": step, "samples": {"$sum": 1}, "severity": {"$max": "$severity"}, **averages}},
            {"$sort": {"_id": 1}},
        ]

        async def aggregate() -> list[dict[str, Any]]:
            return await (await self._database[name].aggregate(pipeline)).to_list()

        return tuple(_point(found, values) for found in await self._cross(aggregate))

    async def _cross(self, fn: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            with trio.fail_after(PATIENCE_S):
                return await self._island.call(fn)
        except (PyMongoError, OverflowError) as error:
            raise ours(error, self._where) from error
        except trio.TooSlowError:
            raise Transient(f"MongoDB at {self._where} did not answer within {PATIENCE_S:g} s") from None


async def _bulk(collection: AsyncCollection[dict[str, Any]], updates: Sequence[Update]) -> None:
    if not updates:
        return
    try:
        await collection.bulk_write(updates, ordered=False)
    except BulkWriteError as error:
        if not is_only_duplicates(error):
            raise


def _add(document: dict[str, Any]) -> UpdateOne:
    """Insert it unless it is there."""
    return UpdateOne({"_id": document["_id"]}, {"$setOnInsert": document}, upsert=True)


def _window(since_ms: int, until_ms: int) -> dict[str, Any]:
    return {"$gte": documents.date(since_ms), "$lt": documents.date(until_ms)}


def _point(found: Mapping[str, Any], names: Sequence[str]) -> Point:
    return Point(
        at_ms=documents.millis(found["_id"]),
        samples=found["samples"],
        values={name: float(found[name]) for name in names if found[name] is not None},
        status=BY_SEVERITY[found["severity"]],
    )


def _understood(found: Iterable[Mapping[str, Any]], read: Callable[[Mapping[str, Any]], T]) -> list[T]:
    """Other programs write here too: a document that makes no sense to us is not shown."""
    rows = []
    for document in found:
        try:
            rows.append(read(document))
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            log.debug("a document is passed over: %s %s", document.get("_id"), type(error).__name__)
    return rows


# ---- opening -------------------------------------------------------------------------------------------------------


def where_of(uri: str) -> str:
    """The hosts of a URI: what may be shown of it."""
    return urlsplit(uri).netloc.rpartition("@")[2] or "?"


@asynccontextmanager
async def open_mongo_archive(
    island: Island,
    uri: str,
    *,
    database: str | None = None,
    pool_max: int = 10,
    pool_min: int = 0,
    keep: Keep | None = None,
) -> AsyncIterator[MongoArchive]:
    """The statistics in the database that `uri` (or `database`) names. Does not connect: a server that is away shows
    at the first call. Raises ConfigError when the URI cannot be used."""
    own = {name.lower() for name, _ in parse_qsl(urlsplit(uri).query, keep_blank_values=True)}
    options: dict[str, Any] = {**_OPTIONS, "maxPoolSize": pool_max, "minPoolSize": pool_min}
    options = {name: value for name, value in options.items() if name.lower() not in own}

    async def connect() -> tuple[Client, Documents]:
        client: Client = AsyncMongoClient(uri, tz_aware=True, **options)
        try:
            return client, client.get_database(database) if database else client.get_default_database()
        except BaseException:
            await client.close()
            raise

    try:
        client, documents_of = await island.call(connect)
    except InvalidURI:
        raise ConfigError(_NOT_UNDERSTOOD) from None
    except ConfigurationError as error:
        raise ConfigError(_unusable(uri, str(error))) from None
    except (PyMongoError, ValueError, TypeError):
        raise ConfigError(_NOT_UNDERSTOOD) from None
    try:
        yield MongoArchive(island, documents_of, where_of(uri), keep or Keep())
    finally:
        with trio.move_on_after(CLOSE_S, shield=True), suppress(Transient):
            await island.call(client.close)


#: Without a word of it: pymongo quotes the part that it does not understand, which may be of the password.
_NOT_UNDERSTOOD = "mongodb.uri is not understood: mongodb://[user:password@]host[:port]/database, %-escaped"


def _unusable(uri: str, why: str) -> str:
    if "default database" in why:
        return f"mongodb.uri names no database (hosts {where_of(uri)}): add /NAME to it, or set mongodb.database"
    return f"mongodb.uri cannot be used (hosts {where_of(uri)}): {why}"
