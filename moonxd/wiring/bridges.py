"""Who is asked about bridges and markets, from the configuration."""

from __future__ import annotations

from ..adapters.bridges import ProviderOptions, build_probes
from ..adapters.figures import LlamaFigures
from ..adapters.rpc import Transport
from ..config import Config
from ..domain.breakers import Breakers
from ..ports import BridgeProbe, MarketFigures


def bridge_probes(config: Config, transport: Transport, breakers: Breakers) -> tuple[BridgeProbe, ...]:
    """The providers that are to be asked. `transport` should be the statistics' own: probes must not wait for syncs."""
    stats = config.stats
    lifi, relay, oneinch, across = stats.lifi, stats.relay, stats.oneinch, stats.across
    lifi_key = lifi.api_key.reveal() if lifi.api_key else None
    oneinch_key = oneinch.api_key.reveal() if oneinch.api_key else None
    options = {
        "lifi": ProviderOptions(lifi.base_url, lifi.routes, lifi.timeout_s, lifi_key),
        "relay": ProviderOptions(relay.base_url, relay.routes, relay.timeout_s),
        "oneinch": ProviderOptions(oneinch.base_url, oneinch.routes, oneinch.timeout_s, oneinch_key),
    }
    if across.enabled:
        options["across"] = ProviderOptions(across.base_url, across.routes, across.timeout_s)
    return build_probes(transport, breakers, {name: option for name, option in options.items() if option.routes})


def market_figures(config: Config, transport: Transport, breakers: Breakers) -> MarketFigures:
    """Volumes and what is locked, kept for as long as configured."""
    stats = config.stats
    return LlamaFigures(transport, breakers, base_url=stats.defillama_url, ttl_s=stats.defillama_ttl_s)
