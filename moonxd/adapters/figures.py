"""Money locked and traded per chain, from DefiLlama's statistics API."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
import trio

from ..domain.breakers import Breakers
from ..domain.chain import CHAINS
from ..domain.stats import Figures
from .rpc import Endpoint, Transport
from .rpc.errors import Garbage, HttpFailure, KeyRefused, RateLimited
from .upstream import Kept, Manners, Upstream

T = TypeVar("T")

#: Overviews carry every protocol of the chain.
_MAX_BODY = 8 * 1024 * 1024
_ABSURD_USD = 1e18
#: Charts would make each of them megabytes.
_LEAN = "excludeTotalDataChart=true&excludeTotalDataChartBreakdown=true"


class _ChainRow(msgspec.Struct, rename="camel"):
    name: str
    chain_id: Any = None
    tvl: Any = None


class _Dexes(msgspec.Struct):
    total24h: Any = None


class LlamaFigures:
    """A `ports.MarketFigures`. What was fetched is kept for `ttl_s`, that nothing came for a sixth of it."""

    def __init__(
        self,
        transport: Transport,
        breakers: Breakers,
        *,
        base_url: str,
        timeout_s: float = 10.0,
        ttl_s: float = 1800.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Raises ConfigError when `base_url` cannot be used. `now` gives unix seconds."""
        self._transport = transport
        self._endpoint = Endpoint(base_url)
        self._now = now
        self._upstream = Upstream("stats/defillama", breakers, Manners(timeout_s=timeout_s, most=120, window_s=60.0))
        kept = partial(Kept, ttl_s=ttl_s, failed_s=ttl_s / 6)
        self._chains: Kept[dict[int, _ChainRow]] = kept(self._fetch_chains)
        self._volumes: dict[int, Kept[tuple[int, Decimal | None]]] = {
            chain_id: kept(partial(self._fetch_volume, chain_id)) for chain_id in CHAINS
        }
        self._chains_at_ms = 0

    @property
    def error(self) -> str | None:
        """Why something of it is older than it should be, None while nothing is."""
        said = (self._chains.error, *(kept.error for kept in self._volumes.values()))
        return next((error for error in said if error), None)

    async def figures(self, chain_ids: Sequence[int]) -> Mapping[int, Figures]:
        """See ports.MarketFigures."""
        wanted = [chain_id for chain_id in dict.fromkeys(chain_ids) if chain_id in self._volumes]
        # Names first: a chain that is not found by ours is asked for by theirs.
        rows = await self._chains.get() or {}
        async with trio.open_nursery() as nursery:
            for chain_id in wanted:
                nursery.start_soon(self._volumes[chain_id].get)
        found = ((chain_id, self._figures(chain_id, rows.get(chain_id))) for chain_id in wanted)
        return {chain_id: figures for chain_id, figures in found if figures is not None}

    def _figures(self, chain_id: int, row: _ChainRow | None) -> Figures | None:
        at_ms, volume = self._volumes[chain_id].last or (0, None)
        tvl = None if row is None else _money(row.tvl)
        if at_ms == 0 and tvl is None:
            return None
        ages = [at for at, known in ((at_ms, volume), (self._chains_at_ms, tvl)) if known is not None]
        return Figures(at_ms=min(ages, default=at_ms), volume_24h_usd=volume, tvl_usd=tvl)

    async def _fetch_chains(self) -> dict[int, _ChainRow]:
        rows = await self._get("/v2/chains", list[_ChainRow])
        self._chains_at_ms = int(self._now() * 1000)
        # By id: chains are renamed now and then.
        return {int(row.chain_id): row for row in rows if str(row.chain_id).isdecimal()}

    async def _fetch_volume(self, chain_id: int) -> tuple[int, Decimal | None]:
        name = CHAINS[chain_id].llama
        theirs = (self._chains.last or {}).get(chain_id)
        try:
            found = await self._dexes(name)
        except HttpFailure as error:
            if error.status >= 500 or theirs is None or theirs.name.lower() == name:
                raise
            found = await self._dexes(theirs.name)
        return int(self._now() * 1000), _money(found.total24h)

    async def _dexes(self, name: str) -> _Dexes:
        return await self._get(f"/overview/dexs/{quote(name, safe='')}?{_LEAN}", _Dexes)

    async def _get(self, path: str, kind: type[T]) -> T:
        async def once(deadline: float) -> T:
            reply = await self._transport.request(
                self._endpoint, self._endpoint.get(path), deadline=deadline, max_body=_MAX_BODY
            )
            self._upstream.heard(reply)
            host, status = self._endpoint.host, reply.status
            if status == 429:
                raise RateLimited(f"{host} asks us to slow down", retry_after=reply.retry_after)
            if status in (401, 402, 403):
                raise KeyRefused(f"{host} answered with HTTP {status}: check stats.defillama_url")
            if status != 200:
                raise HttpFailure(f"{host} answered with HTTP {status}", status=status)
            try:
                return msgspec.json.decode(reply.body, type=kind)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise Garbage(f"{host}: answered garbage to {path.partition('?')[0]}") from error

        return await self._upstream.ask(once)


def _money(given: Any) -> Decimal | None:
    """None for what is no amount of money, negative and absurd ones among them."""
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given < _ABSURD_USD:
        return None
    return Decimal(str(given))
