"""Where prices come from. A new source is a file here and a line in SOURCES."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...ports import PriceSource
from ..rpc import Transport
from .llama import LlamaPrices

__all__ = ["SOURCES", "LlamaPrices", "SourceOptions", "build_sources"]


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What a source is opened with: `timeout_s` bounds one request, less trusted prices count as unknown."""

    base_url: str
    timeout_s: float = 10.0
    min_confidence: float = 0.2


def _llama(transport: Transport, options: SourceOptions) -> PriceSource:
    return LlamaPrices(
        transport,
        base_url=options.base_url,
        timeout_s=options.timeout_s,
        min_confidence=options.min_confidence,
    )


#: Names as the configuration uses them.
SOURCES: dict[str, Callable[[Transport, SourceOptions], PriceSource]] = {"defillama": _llama}


def build_sources(
    names: Sequence[str], transport: Transport, options: Mapping[str, SourceOptions]
) -> tuple[PriceSource, ...]:
    """The sources named, in that order; names without a line in SOURCES are left out (the configuration warns)."""
    return tuple(SOURCES[name](transport, options[name]) for name in names if name in SOURCES)
