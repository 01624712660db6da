"""Where prices come from. A new source is a file here and a line in SOURCES."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ...domain.token import TokenRef
from ...ports import PriceSource
from ..rpc import Transport
from .alchemy import AlchemyPrices
from .binance import BinancePrices
from .coingecko import CoinGeckoPrices
from .dexscreener import DexScreenerPrices
from .llama import LlamaPrices

__all__ = [
    "SOURCES",
    "AlchemyPrices",
    "BinancePrices",
    "CoinGeckoPrices",
    "DexScreenerPrices",
    "LlamaPrices",
    "SourceOptions",
    "build_sources",
]


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What a source is opened with: `timeout_s` bounds one request, less trusted prices count as unknown.

    `listed`: symbols of tokens on a curated list, for sources that know tokens by symbol.
    """

    base_url: str
    timeout_s: float = 10.0
    min_confidence: float = 0.2
    api_key: str | None = field(default=None, repr=False)
    listed: Mapping[TokenRef, str | None] = field(default_factory=dict, repr=False)


def _llama(transport: Transport, options: SourceOptions) -> PriceSource:
    return LlamaPrices(
        transport,
        base_url=options.base_url,
        timeout_s=options.timeout_s,
        min_confidence=options.min_confidence,
    )


def _coingecko(transport: Transport, options: SourceOptions) -> PriceSource:
    return CoinGeckoPrices(transport, base_url=options.base_url, api_key=options.api_key, timeout_s=options.timeout_s)


def _dexscreener(transport: Transport, options: SourceOptions) -> PriceSource:
    return DexScreenerPrices(transport, base_url=options.base_url, timeout_s=options.timeout_s)


def _binance(transport: Transport, options: SourceOptions) -> PriceSource:
    return BinancePrices(transport, base_url=options.base_url, timeout_s=options.timeout_s, listed=options.listed)


def _alchemy(transport: Transport, options: SourceOptions) -> PriceSource:
    return AlchemyPrices(
        transport, base_url=options.base_url, api_key=options.api_key or "", timeout_s=options.timeout_s
    )


#: Names as the configuration uses them.
SOURCES: dict[str, Callable[[Transport, SourceOptions], PriceSource]] = {
    "defillama": _llama,
    "alchemy": _alchemy,
    "coingecko": _coingecko,
    "dexscreener": _dexscreener,
    "binance": _binance,
}
#: Sources that cannot be asked without a key.
_KEYED = frozenset({"alchemy"})


def build_sources(
    names: Sequence[str], transport: Transport, options: Mapping[str, SourceOptions]
) -> tuple[PriceSource, ...]:
    """The sources named, in that order; those that need a key and have none are left out."""
    return tuple(
        SOURCES[name](transport, options[name])
        for name in names
        if name in options and (name not in _KEYED or options[name].api_key)
    )
