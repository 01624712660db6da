"""The indexes of the statistics' collections: made when missing, converted where an older program left another kind."""

from __future__ import annotations

import logging
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError, OperationFailure

log = logging.getLogger("moonxd.stats")

Documents = AsyncDatabase[dict[str, Any]]
#: Collection -> key -> whether it is unique.
_INDEXES: dict[str, tuple[tuple[tuple[str, ...], bool], ...]] = {
    "chainstats": ((("chainId",), True),),
    "bridgestats": ((("provider", "route"), True),),
    "statsoverviews": ((("isLatest", "lastUpdated"), False),),
    "chainstats_history": ((("chainId", "at"), False),),
    "bridgestats_history": ((("provider", "route", "at"), False),),
}
#: Documents of these go when their `expiresAt` is over.
_EXPIRING = ("statsoverviews", "chainstats_history", "bridgestats_history")
_OTHER_OPTIONS = {85, 86}  # IndexOptionsConflict, IndexKeySpecsConflict


async def ensure_indexes(database: Documents) -> None:
    """Idempotent. Raises pymongo's errors."""
    await _one_route_per_provider_no_more(database["bridgestats"])
    for name, indexes in _INDEXES.items():
        for key, unique in indexes:
            await _ensure(database[name], key, unique)
    for name in _EXPIRING:
        await _ensure_expiry(database, name)


async def _ensure(collection: AsyncCollection[dict[str, Any]], key: tuple[str, ...], unique: bool) -> None:
    try:
        await collection.create_index([(field, 1) for field in key], unique=unique)
    except DuplicateKeyError:
        log.warning(
            "%s has several documents of one %s: their index is not unique, the newest counts",
            collection.name, "+".join(key), extra={"collection": collection.name},
        )  # fmt: skip
    except OperationFailure as error:
        # There is one of that name already. It serves the look-up; being unique only guards against a second writer.
        if error.code not in _OTHER_OPTIONS:
            raise


async def _one_route_per_provider_no_more(collection: AsyncCollection[dict[str, Any]]) -> None:
    """A unique index on the provider alone would refuse a provider's second route."""
    for name, index in (await collection.index_information()).items():
        if index.get("unique") and [field for field, _ in index["key"]] == ["provider"]:
            log.warning("the index %s of %s is unique no more: providers have routes", name, collection.name)
            await collection.drop_index(name)
            await collection.create_index("provider", name=name)


async def _ensure_expiry(database: Documents, name: str) -> None:
    """An index that expires at the time in the document. One that is there without expiry, or with another, is
    converted: in place where the server and our rights allow it, else by making it anew."""
    collection = database[name]
    try:
        await collection.create_index("expiresAt", expireAfterSeconds=0)
        return
    except OperationFailure as error:
        if error.code not in _OTHER_OPTIONS:
            raise
    try:
        index = {"keyPattern": {"expiresAt": 1}, "expireAfterSeconds": 0}
        await database.command("collMod", name, index=index)
        how = "in place"
    except OperationFailure as error:
        how = f"by making it anew (in place: {error.code})"
        await collection.drop_index([("expiresAt", 1)])
        await collection.create_index("expiresAt", expireAfterSeconds=0)
    log.info("the index on expiresAt of %s was converted %s: documents expire now", name, how)
