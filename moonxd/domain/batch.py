"""The payloads of jobs about many wallets or tokens, and what is said of them at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from .address import NATIVE, parse_address
from .chain import parse_chain
from .errors import Permanent
from .payload import WalletSync, decode_object, parse_wallet_sync
from .token import TokenRef

#: More wallets than this belong into several jobs: one job's result has to fit into one Redis value.
MAX_WALLETS = 10_000
MAX_TOKENS = 5_000
#: What the fields of the whole job mean for each of its wallets.
_SHARED = ("userId", "priority", "syncType", "forceRefresh", "chainIds")
#: How a wallet's sync says that its user did not ask for it.
TRIGGER = "bulk"


class Unusable(msgspec.Struct, frozen=True):
    """An entry of the list that cannot be synced: its place, what it says, and why it cannot."""

    place: int
    entry: Any
    reason: str


class WalletBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Wallets to sync, each once per user, in the order given."""

    wallets: tuple[WalletSync, ...]
    unusable: tuple[Unusable, ...] = ()

    @property
    def total(self) -> int:
        return len(self.wallets) + len(self.unusable)


class TokenBatch(msgspec.Struct, frozen=True):
    """Tokens to ask for their symbol, name and scale."""

    tokens: tuple[TokenRef, ...]


def parse_wallet_batch(data: bytes) -> WalletBatch:
    """`wallets` (or `users`): a list of addresses or of objects with userId and walletAddress.

    userId, priority, syncType, chainIds and forceRefresh beside the list hold for every entry that says nothing else.
    An entry that cannot be used is kept as such: the others are synced all the same. Raises Permanent when none can.
    """
    fields = decode_object(data)
    listed = _list(fields, "wallets" if fields.get("wallets") is not None else "users", MAX_WALLETS)
    shared = {name: fields[name] for name in _SHARED if fields.get(name) is not None}
    metadata = {**_object(fields, "metadata"), "trigger": TRIGGER}
    wallets: dict[tuple[str, str], WalletSync] = {}
    unusable = []
    for place, entry in enumerate(listed):
        try:
            sync = _entry(entry, shared, metadata)
        except Permanent as error:
            unusable.append(Unusable(place, entry, str(error)))
        else:
            wallets.setdefault((sync.user_id, sync.wallet), sync)
    if not wallets:
        raise Permanent(f"none of the {len(listed)} wallets can be synced; the first: {unusable[0].reason}")
    return WalletBatch(wallets=tuple(wallets.values()), unusable=tuple(unusable))


def parse_chain_batch(data: bytes) -> WalletBatch:
    """As parse_wallet_batch, on exactly one chain: `chainId` (or a `chainIds` of one)."""
    fields = decode_object(data)
    chain = _one_chain(fields)
    batch = parse_wallet_batch(msgspec.json.encode({**fields, "chainIds": [chain]}))
    return msgspec.structs.replace(
        batch, wallets=tuple(msgspec.structs.replace(sync, chain_ids=(chain,)) for sync in batch.wallets)
    )


def parse_token_batch(data: bytes) -> TokenBatch:
    """`tokens`: a list of addresses on `chainId`, or of objects with chainId and address. Raises Permanent."""
    fields = decode_object(data)
    tokens: dict[TokenRef, None] = {}
    for place, entry in enumerate(_list(fields, "tokens", MAX_TOKENS)):
        given = entry if isinstance(entry, dict) else {"address": entry}
        what = f"tokens[{place}].address"
        chain = _one_chain(given if given.get("chainId") is not None else fields)
        address = parse_address(given.get("address"), what=what)
        if address == NATIVE:
            raise Permanent(f"{what} is the chain's own coin, which has no contract to ask")
        tokens[TokenRef(chain, address)] = None
    return TokenBatch(tuple(tokens))


def _entry(entry: Any, shared: dict[str, Any], metadata: dict[str, Any]) -> WalletSync:
    if isinstance(entry, str):
        entry = {"walletAddress": entry}
    if not isinstance(entry, dict):
        raise Permanent("an entry must be an address, or an object with userId and walletAddress")
    own = {**_object(entry, "metadata"), **metadata}
    return parse_wallet_sync(msgspec.json.encode({**shared, **entry, "metadata": own}))


def _object(fields: dict[str, Any], name: str) -> dict[str, Any]:
    given = fields.get(name)
    return given if isinstance(given, dict) else {}


def _list(fields: dict[str, Any], name: str, most: int) -> list[Any]:
    given = fields.get(name)
    if not isinstance(given, list) or not given:
        raise Permanent(f"the payload has no {name}: a list with at least one entry is required")
    if len(given) > most:
        raise Permanent(f"{name} has {len(given)} entries, at most {most} are accepted: use several jobs")
    return given


def _one_chain(fields: dict[str, Any]) -> int:
    given = fields.get("chainId")
    if given is None:
        listed = fields.get("chainIds")
        if not isinstance(listed, list) or len(listed) != 1:
            raise Permanent("the payload has no chainId: exactly one chain is required")
        given = listed[0]
    return parse_chain(given).id


def summary(
    job_id: str, batch: WalletBatch, rows: Sequence[dict[str, Any]], took_ms: int, count: Callable[[str], int]
) -> dict[str, Any]:
    """The return value of a job about many wallets. `rows` are per wallet, `count` says how many have a status."""
    refused = [
        {"place": bad.place, "status": "failed", "error": bad.reason, **_named(bad.entry)} for bad in batch.unusable
    ]
    return {
        "success": True,
        "jobId": job_id,
        "total": batch.total,
        "succeeded": count("completed"),
        "failed": batch.total - count("completed"),
        "processingTime": took_ms,
        "results": [*rows, *refused],
    }


def _named(entry: Any) -> dict[str, Any]:
    if isinstance(entry, str):
        return {"walletAddress": entry[:100]}
    known = entry if isinstance(entry, dict) else {}
    return {name: str(known[name])[:255] for name in ("userId", "walletAddress") if known.get(name) is not None}
