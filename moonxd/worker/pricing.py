"""One batched price look-up per job: the cache first, then each source in order for what is still to be settled."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

import msgspec
import trio

from ..domain.breaker import Policy, Verdict
from ..domain.breakers import Breakers
from ..domain.errors import MoonxdError, Permanent, Transient
from ..domain.portfolio import PriceLookup
from ..domain.pricing import Rules, decide, settled
from ..domain.token import Price, TokenRef
from ..ports import Cache, PriceSource

log = logging.getLogger("moonxd.pricing")

#: Stored for a token that every source answered about and none knew, and for one that nobody could be asked about.
_UNKNOWN, _UNAVAILABLE = b"-", b"?"
#: How long the last price is kept, to tell a jump of the market from a mistake of one source.
_LAST_S = 900.0
#: How long a token that nobody could be asked about is not asked about again.
_UNAVAILABLE_S = 30.0
#: Longest rest a source gets for asking us to slow down.
_REST_MAX_S = 1800.0
#: Five failures in a row, then half an hour without it.
PENALTY = Policy(
    streak=5, min_volume=1_000_000_000, open_s=1800.0, growth=1.0, open_max_s=1800.0, closes_after=1, calm_s=1800.0
)


class PriceBook:
    """Prices for jobs. A cached price lives `ttl_s`, a cached "nobody knows it" `unknown_ttl_s`.

    Each source has a breaker in `breakers`: one that keeps failing is passed over for a while.
    """

    def __init__(
        self,
        sources: Sequence[PriceSource],
        cache: Cache,
        *,
        ttl_s: float = 60.0,
        unknown_ttl_s: float = 600.0,
        rules: Rules | None = None,
        breakers: Breakers | None = None,
    ) -> None:
        self._sources = tuple(sources)
        self._cache = cache
        self._ttl_s = ttl_s
        self._unknown_ttl_s = unknown_ttl_s
        self._rules = rules or Rules()
        self._breakers = breakers or Breakers(trio.current_time)
        for source in self._sources:
            self._breakers.register(_breaker(source), PENALTY)
        #: Until when (trio time) a source that asked us to slow down is left alone.
        self._rest_until: dict[str, float] = {}

    async def lookup(self, tokens: Sequence[TokenRef]) -> PriceLookup:
        """What is known of `tokens`. Never raises for an outage: the tokens then count as unavailable."""
        found, unavailable, missing = await self._cached(tuple(dict.fromkeys(tokens)))
        if not missing:
            return PriceLookup(found, frozenset(unavailable))
        last = await self._last(missing)
        said, unasked = await self._ask(missing, last)
        fresh, held = self._decide(missing, said, last)
        unasked -= fresh.keys()
        await self._remember(fresh, held)
        await self._note([token for token in missing if token not in fresh and token not in unasked], unasked)
        return PriceLookup(found | fresh, frozenset(unasked.union(unavailable)))

    async def _cached(self, tokens: Sequence[TokenRef]) -> tuple[dict[TokenRef, Price], list[TokenRef], list[TokenRef]]:
        """Prices, tokens that could not be asked about a moment ago, and tokens to ask about."""
        stored = await self._cache.get_many([_key(token) for token in tokens])
        found: dict[TokenRef, Price] = {}
        unavailable: list[TokenRef] = []
        missing: list[TokenRef] = []
        for token in tokens:
            entry = stored.get(_key(token))
            if entry is None:
                missing.append(token)
            elif entry == _UNAVAILABLE:
                unavailable.append(token)
            elif entry != _UNKNOWN:
                found[token] = _DECODER.decode(entry)
        return found, unavailable, missing

    async def _last(self, tokens: Sequence[TokenRef]) -> dict[TokenRef, Price]:
        stored = await self._cache.get_many([_last_key(token) for token in tokens])
        return {token: _DECODER.decode(stored[key]) for token in tokens if (key := _last_key(token)) in stored}

    async def _ask(
        self, missing: Sequence[TokenRef], last: Mapping[TokenRef, Price]
    ) -> tuple[dict[TokenRef, list[Price]], set[TokenRef]]:
        """What the sources said, each asked once about all it has to settle, and the tokens that one which might know
        was not asked about."""
        said: dict[TokenRef, list[Price]] = {}
        unasked: set[TokenRef] = set() if self._sources else set(missing)
        for source in self._sources:
            wanted = [token for token in missing if settled(said.get(token, ()), last.get(token), self._rules) is None]
            if not wanted:
                break
            asked = wanted[: source.most]
            unasked.update(wanted[len(asked) :])
            prices = await self._prices(source, asked)
            if prices is None:
                unasked.update(asked)
                continue
            for token, price in prices.items():
                said.setdefault(token, []).append(price)
        return said, unasked

    async def _prices(self, source: PriceSource, wanted: Sequence[TokenRef]) -> Mapping[TokenRef, Price] | None:
        """None when the source cannot be asked, or did not answer."""
        name = _breaker(source)
        if self._rest_until.get(name, 0.0) > trio.current_time():
            return None
        ticket = self._breakers.admit(name)
        if ticket is None:
            return None
        verdict: Verdict = "neutral"
        reason: str | None = None
        try:
            prices = await source.prices(wanted)
            verdict = "good"
            return prices
        except MoonxdError as error:
            verdict, reason = self._judge(name, error), str(error)
            log.warning("price source %s failed: %s", source.name, error, extra={"source": source.name})
            return None
        finally:
            self._breakers.settle(name, ticket, verdict, reason)

    def _judge(self, name: str, error: MoonxdError) -> Verdict:
        if isinstance(error, Permanent):
            self._breakers.trip(name, str(error))
            return "neutral"
        if isinstance(error, Transient) and error.retry_after is not None:
            # It asked for a rest: no failure, as long as it gets it.
            self._rest_until[name] = trio.current_time() + min(error.retry_after, _REST_MAX_S)
            return "neutral"
        return "bad"

    def _decide(
        self, missing: Sequence[TokenRef], said: Mapping[TokenRef, Sequence[Price]], last: Mapping[TokenRef, Price]
    ) -> tuple[dict[TokenRef, Price], set[TokenRef]]:
        """Prices that stand, and which of them are old ones that nobody confirmed the change of."""
        fresh: dict[TokenRef, Price] = {}
        held: set[TokenRef] = set()
        for token in missing:
            verdict = decide(said.get(token, ()), last.get(token), self._rules, others=len(self._sources) > 1)
            if verdict.price is not None:
                fresh[token] = verdict.price
            if verdict.held:
                held.add(token)
        if held:
            log.warning("%d prices jumped and stay as they were until a second source agrees", len(held))
        return fresh, held

    async def _remember(self, fresh: Mapping[TokenRef, Price], held: set[TokenRef]) -> None:
        if fresh:
            encoded = {token: _ENCODER.encode(price) for token, price in fresh.items()}
            await self._cache.put_many({_key(token): entry for token, entry in encoded.items()}, self._ttl_s)
            # A held price keeps its old date: otherwise one mistake could hold it for ever.
            confirmed = {_last_key(token): entry for token, entry in encoded.items() if token not in held}
            await self._cache.put_many(confirmed, _LAST_S)

    async def _note(self, unknown: Collection[TokenRef], unasked: Collection[TokenRef]) -> None:
        for tokens, mark, ttl_s in ((unknown, _UNKNOWN, self._unknown_ttl_s), (unasked, _UNAVAILABLE, _UNAVAILABLE_S)):
            if tokens:
                await self._cache.put_many({_key(token): mark for token in tokens}, ttl_s)


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Price)


def _breaker(source: PriceSource) -> str:
    return f"prices/{source.name}"


def _key(token: TokenRef) -> str:
    return f"price:{token.chain_id}:{token.address}"


def _last_key(token: TokenRef) -> str:
    return f"price-last:{token.chain_id}:{token.address}"
