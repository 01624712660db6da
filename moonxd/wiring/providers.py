"""Opens chains and price sources; done anew on a reload."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from ..adapters.chains import Guards as ProviderGuards
from ..adapters.chains import TokenList, build_reader, builtin_tokens, parse_token_list
from ..adapters.prices import SourceOptions, build_sources
from ..adapters.redis.cache import RedisCache
from ..adapters.redis.client import Redis
from ..adapters.redis.quota import RedisQuota
from ..adapters.rpc import Transport, open_transport
from ..config import Config
from ..domain.breaker import Policy
from ..domain.breakers import Breakers
from ..domain.chain import Chain
from ..domain.errors import ConfigError, Permanent
from ..domain.pricing import Rules
from ..domain.token import TokenRef
from ..jobs import Env
from ..ports import (
    Cache,
    ChainReader,
    PriceSource,
    Quota,
)
from ..sources import Sources
from ..telemetry import Telemetry
from ..worker.pricing import PriceBook

log = logging.getLogger("moonxd.wiring")

#: Breakers of the statistics begin with this; they outlive a reload.
STATISTICS = "stats/"


def new_sources(config: Config, redis: Redis, telemetry: Telemetry, breakers: Breakers) -> Sources:
    """The chains and price sources, still closed."""
    cache = RedisCache(redis, prefix=f"{config.redis.key_prefix}cache:")
    return Sources(
        config,
        lambda current: open_env(current, cache, telemetry, breakers, quota(config, redis)),
        linger_s=config.worker.timeout_s,
    )


def quota(config: Config, redis: Redis) -> Quota:
    """The budgets that all workers share."""
    return RedisQuota(redis, prefix=f"{config.redis.key_prefix}quota:")


@asynccontextmanager
async def open_env(
    config: Config, cache: Cache, telemetry: Telemetry, breakers: Breakers, quota: Quota
) -> AsyncGenerator[Env]:
    """Readers of the enabled chains and the price book."""
    tokens = await load_tokens(config.tokens.list_files)
    async with open_transport(connections=max(100, config.worker.slots * 4)) as transport:
        # Those of endpoints that are still configured register again at once; those of statistics are not ours.
        breakers.hide([view.name for view in breakers.views() if not view.name.startswith(STATISTICS)])
        guards = _guards(config, breakers, quota)
        readers = {
            chain.id: _reader(config, chain, transport, tokens, cache, telemetry, guards)
            for chain in config.enabled_chains
        }
        book = PriceBook(
            _price_sources(config, transport, tokens),
            cache,
            ttl_s=config.prices.ttl_s,
            rules=_price_rules(config),
            breakers=breakers,
        )
        yield Env(readers=readers, prices=book.lookup, chain_timeout_s=config.chains.read_timeout_s)


def _guards(config: Config, breakers: Breakers, quota: Quota) -> ProviderGuards:
    providers, alchemy = config.providers, config.alchemy
    policy = Policy(
        window_s=providers.window_s,
        min_volume=providers.min_volume,
        failure_rate=providers.failure_rate,
        streak=providers.streak,
        open_s=providers.open_s,
        open_max_s=providers.open_max_s,
        probes=providers.probes,
        calm_s=providers.open_max_s,
    )
    return ProviderGuards(
        breakers=breakers,
        policy=policy,
        quota=quota,
        public_rpm=providers.public_rpm,
        alchemy_rpm=alchemy.rate_limit_rpm,
        alchemy_units_per_s=alchemy.compute_units_per_s,
        hedge_share=providers.hedge_share,
    )


def _reader(
    config: Config,
    chain: Chain,
    transport: Transport,
    tokens: TokenList,
    cache: Cache,
    telemetry: Telemetry,
    guards: ProviderGuards,
) -> ChainReader:
    endpoints = config.chains.endpoints(chain.slug)
    key = config.alchemy_key(chain.slug)
    alchemy = config.alchemy
    observed = partial(_observe, telemetry, chain.id)
    return build_reader(
        chain,
        transport,
        tokens,
        cache,
        urls=[url.reveal() for url in endpoints.rpc_urls],
        alchemy_url=alchemy.url(chain.alchemy, key).reveal() if key else None,
        timeout_s=alchemy.timeout_s if key else config.chains.timeout_s,
        retries=alchemy.retries,
        retry_delay_s=alchemy.retry_delay_s,
        chunk=config.chains.batch_size,
        on_call=observed,
        guards=replace(guards, rpm=endpoints.rate_limit_rpm),
    )


def _observe(telemetry: Telemetry, chain_id: int, host: str, _method: str, outcome: str, seconds: float) -> None:
    telemetry.rpc(chain_id, host, outcome, seconds)


def _price_rules(config: Config) -> Rules:
    prices = config.prices
    return Rules(
        trusted=prices.trusted_confidence,
        alone=prices.min_confidence,
        agree=prices.agreement,
        jump=prices.max_jump,
    )


def _price_sources(config: Config, transport: Transport, tokens: TokenList) -> Sequence[PriceSource]:
    prices, alchemy = config.prices, config.alchemy
    listed = {
        TokenRef(chain.id, address): meta.symbol
        for chain in config.enabled_chains
        for address, meta in tokens.on(chain.id).items()
    }
    llama, gecko, screener, binance = prices.defillama, prices.coingecko, prices.dexscreener, prices.binance
    gecko_key = gecko.api_key.reveal() if gecko.api_key else None
    alchemy_key = alchemy.api_key.reveal() if alchemy.api_key else None
    options = {
        "defillama": SourceOptions(llama.base_url, llama.timeout_s),
        "alchemy": SourceOptions(alchemy.prices_url, alchemy.timeout_s, api_key=alchemy_key),
        "coingecko": SourceOptions(gecko.base_url, gecko.timeout_s, api_key=gecko_key),
        "dexscreener": SourceOptions(screener.base_url, screener.timeout_s),
        "binance": SourceOptions(binance.base_url, binance.timeout_s, listed=listed),
    }
    return build_sources(prices.sources, transport, options)


async def load_tokens(files: Sequence[Path]) -> TokenList:
    """The shipped list and the operator's. Raises ConfigError naming the file that cannot be read."""
    lists = [builtin_tokens()]
    for path in files:
        try:
            parsed = parse_token_list(await trio.Path(path).read_bytes())
        except (OSError, Permanent) as error:
            raise ConfigError(f"tokens.list_files: {path} cannot be used: {error}") from error
        for bad in parsed.bad:
            log.warning("token list %s: %s", path, bad)
        lists.append(parsed.tokens)
    return TokenList.merged(*lists)
