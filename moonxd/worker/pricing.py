"""One batched price look-up per job: the cache first, then each source in order for what is still missing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import msgspec

from ..domain.errors import MoonxdError
from ..domain.portfolio import PriceLookup
from ..domain.token import Price, TokenRef
from ..ports import Cache, PriceSource

log = logging.getLogger("moonxd.pricing")

#: Stored for a token that every source answered about and none knew.
_UNKNOWN = b"-"


class PriceBook:
    """Prices for jobs. A cached price lives `ttl_s`, a cached "nobody knows it" `unknown_ttl_s`."""

    def __init__(
        self, sources: Sequence[PriceSource], cache: Cache, *, ttl_s: float = 60.0, unknown_ttl_s: float = 600.0
    ) -> None:
        self._sources = tuple(sources)
        self._cache = cache
        self._ttl_s = ttl_s
        self._unknown_ttl_s = unknown_ttl_s

    async def lookup(self, tokens: Sequence[TokenRef]) -> PriceLookup:
        """What is known of `tokens`. Never raises for an outage: the tokens then count as unavailable."""
        found, missing = await self._cached(tuple(dict.fromkeys(tokens)))
        if not missing:
            return PriceLookup(found)
        fresh, away = await self._ask(missing)
        unknown = [token for token in missing if token not in fresh]
        await self._remember(fresh, () if away else unknown)
        return PriceLookup(found | fresh, frozenset(unknown) if away else frozenset())

    async def _cached(self, tokens: Sequence[TokenRef]) -> tuple[dict[TokenRef, Price], list[TokenRef]]:
        stored = await self._cache.get_many([_key(token) for token in tokens])
        found: dict[TokenRef, Price] = {}
        missing: list[TokenRef] = []
        for token in tokens:
            entry = stored.get(_key(token))
            if entry is None:
                missing.append(token)
            elif entry != _UNKNOWN:
                found[token] = _DECODER.decode(entry)
        return found, missing

    async def _ask(self, missing: Sequence[TokenRef]) -> tuple[dict[TokenRef, Price], bool]:
        """Prices found, and whether a source that might have known more was away."""
        found: dict[TokenRef, Price] = {}
        away = not self._sources
        for source in self._sources:
            wanted = [token for token in missing if token not in found]
            if not wanted:
                break
            try:
                found |= await source.prices(wanted)
            except MoonxdError as error:
                away = True
                log.warning("price source %s failed: %s", source.name, error, extra={"source": source.name})
        return found, away

    async def _remember(self, found: Mapping[TokenRef, Price], unknown: Sequence[TokenRef]) -> None:
        if found:
            entries = {_key(token): _ENCODER.encode(price) for token, price in found.items()}
            await self._cache.put_many(entries, self._ttl_s)
        if unknown:
            await self._cache.put_many({_key(token): _UNKNOWN for token in unknown}, self._unknown_ttl_s)


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Price)


def _key(token: TokenRef) -> str:
    return f"price:{token.chain_id}:{token.address}"
