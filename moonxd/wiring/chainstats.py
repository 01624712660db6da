"""What statistics of chains are made of: probes of the configured endpoints, subscriptions to heads, their price."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import partial

from ..adapters.chains import (
    PUBLIC_ENDPOINTS,
    UNITS_PER_HEAD,
    Guards,
    Meter,
    build_probes,
    is_metered,
    look_units,
)
from ..adapters.rpc import Transport
from ..config import Config
from ..domain.breakers import Breakers
from ..domain.chain import Chain
from ..domain.chaincost import Cost, budget_per_day, costs, heads_cost, statement
from ..ports import ChainProbe, Heads, Quota
from ..telemetry import Telemetry

log = logging.getLogger("moonxd.wiring")

#: Whatever the schedule says, a metered endpoint is not looked at more often.
_METERED_TICK_S = 60.0


def chain_probes(
    config: Config, transport: Transport, breakers: Breakers, quota: Quota, telemetry: Telemetry
) -> dict[int, tuple[ChainProbe, ...]]:
    """By id of the enabled chains."""
    budget = _budget(config)
    meters = {cost.slug: Meter(every_s=cost.every_s, units_per_day=budget) for cost in metered_costs(config)}
    probes: dict[int, tuple[ChainProbe, ...]] = {}
    for chain in config.enabled_chains:
        urls, metered = _urls(config, chain)
        probes[chain.id] = build_probes(
            chain,
            transport,
            urls=urls,
            metered=metered,
            meter=meters.get(chain.slug),
            timeout_s=config.chains.timeout_s,
            on_call=partial(_observe, telemetry, chain.id),
            guards=_guards(config, chain, breakers, quota),
        )
    return probes


def chain_heads(config: Config, transport: Transport) -> dict[int, Heads]:
    """Subscriptions of the chains that have a WebSocket endpoint and whose heads are worth their price."""
    wanted = tuple(_subscriptions(config))
    if not wanted:
        return {}
    # Late: its library takes longer to load than all the rest of the chains, and few need it.
    from ..adapters.chains.heads import SocketHeads

    return {chain.id: SocketHeads(transport, url, timeout_s=config.chains.timeout_s) for chain, url, _ in wanted}


def metered_costs(config: Config) -> tuple[Cost, ...]:
    """What statistics cost at Alchemy's endpoints; empty when they use none."""
    looks: Mapping[str, int] = {
        chain.slug: len(metered) * look_units(chain)
        for chain in config.enabled_chains
        if (metered := _urls(config, chain)[1])
    }
    heads = {chain.slug: units for chain, _, units in _subscriptions(config) if units}
    return costs(looks, heads, budget=_budget(config), tick_s=_METERED_TICK_S)


def cost_statement(config: Config) -> tuple[str, ...]:
    """The same in sentences."""
    found = metered_costs(config)
    return statement(found, budget=_budget(config)) if found else ()


def _subscriptions(config: Config) -> Iterator[tuple[Chain, str, int]]:
    """Chain, URL, and the units a day that its heads cost: no more than half of the chain's share, looks come first."""
    share = _budget(config) / max(1, len(config.enabled_chains)) / 2
    for chain in config.enabled_chains:
        url = config.chains.endpoints(chain.slug).ws_url
        if url is None or chain.block_time < config.stats.heads_block_time_s:
            continue
        units = heads_cost(chain, UNITS_PER_HEAD) if is_metered(url.reveal()) else 0
        if units <= share:
            yield chain, url.reveal(), units


def _budget(config: Config) -> int:
    return budget_per_day(config.alchemy.plan_units_per_month, config.stats.alchemy_share)


def _urls(config: Config, chain: Chain) -> tuple[list[str], list[str]]:
    """Keyless endpoints, and metered ones."""
    given = [url.reveal() for url in config.chains.endpoints(chain.slug).rpc_urls]
    keyless = [url for url in given if not is_metered(url)]
    metered = [url for url in given if is_metered(url)]
    key = config.alchemy_key(chain.slug)
    if key is not None and config.stats.use_alchemy:
        metered.append(config.alchemy.url(chain.alchemy, key).reveal())
    return keyless or ([] if metered else list(PUBLIC_ENDPOINTS[chain.id])), metered


def _guards(config: Config, chain: Chain, breakers: Breakers, quota: Quota) -> Guards:
    return Guards(
        breakers=breakers,
        quota=quota,
        rpm=config.chains.endpoints(chain.slug).rate_limit_rpm,
        public_rpm=config.providers.public_rpm,
        alchemy_rpm=config.alchemy.rate_limit_rpm,
        alchemy_units_per_s=config.alchemy.compute_units_per_s,
    )


def _observe(telemetry: Telemetry, chain_id: int, host: str, _method: str, outcome: str, seconds: float) -> None:
    telemetry.rpc(chain_id, host, outcome, seconds)
