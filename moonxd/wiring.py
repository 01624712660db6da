"""From the configuration to the adapters: each function opens one part of the outside. Used by daemon.py only."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

import trio

from .adapters.chains import Guards as ProviderGuards
from .adapters.chains import TokenList, build_reader, builtin_tokens, parse_token_list
from .adapters.prices import SourceOptions, build_sources
from .adapters.redis.cache import RedisCache
from .adapters.redis.client import Redis
from .adapters.redis.quota import RedisQuota
from .adapters.redis.settings import RedisSettings, parse_redis_url
from .adapters.rpc import Transport, open_transport
from .agents.alarm import FailureAlarm, Notice
from .agents.janitor import Pruner
from .api.schema import Daemon as Identity
from .config import Config
from .domain.alarm import AlarmRule
from .domain.breaker import Policy
from .domain.breakers import Breakers
from .domain.chain import Chain
from .domain.errors import ConfigError, Permanent
from .domain.guard import Guards
from .domain.job import JobOptions
from .domain.ledger import Retention
from .domain.pricing import Rules
from .domain.token import TokenRef
from .jobs import Env
from .ports import (
    BreakerStore,
    Cache,
    ChainReader,
    DeadLetters,
    History,
    Ledger,
    LedgerUpkeep,
    Outbox,
    PriceSource,
    Quota,
    Schedule,
)
from .sources import Sources
from .telemetry import Telemetry
from .version import VERSION
from .worker.pricing import PriceBook

log = logging.getLogger("moonxd.wiring")

#: Concurrent slots from which a second connection to Redis pays off.
_SECOND_CONNECTION_FROM = 32
_HOUR_S, _DAY_S = 3600.0, 86400.0


class Database(Ledger, LedgerUpkeep, History, DeadLetters, Outbox, Protocol):
    """What a ledger's adapter gives beside the ledger itself."""

    @property
    def schedule(self) -> Schedule:
        """Which wallets are synced periodically; shares the ledger's connections."""
        ...

    async def ping(self) -> None: ...

    def breakers(self) -> BreakerStore: ...


class WallClock:
    """Wall time as ports.Clock."""

    def now(self) -> float:
        return time.time()


def worker_name(config: Config) -> str:
    return config.daemon.worker_name or f"{socket.gethostname()}:{os.getpid()}"


def make_state_dir(path: Path) -> None:
    """Open to the group, as the control socket in it is. What is private in it has modes of its own."""
    try:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"daemon.state_dir {path} cannot be made: {error.strerror}; choose another") from error


def redis_settings(config: Config) -> RedisSettings:
    """An external Redis, from its URL and the keys beside it."""
    redis = config.redis
    beside = {
        "tls_ca": str(redis.tls_ca) if redis.tls_ca else None,
        "tls_cert": str(redis.tls_cert) if redis.tls_cert else None,
        "tls_key": str(redis.tls_key) if redis.tls_key else None,
        "sentinels": tuple(_host_port(one) for one in redis.sentinels),
        "sentinel_service": redis.service,
        "sentinel_username": redis.sentinel_username,
        "sentinel_password": redis.sentinel_password.reveal() if redis.sentinel_password else None,
    }
    return parse_redis_url(
        redis.to_url().reveal(),
        connect_timeout_s=redis.connect_timeout_s,
        command_timeout_s=redis.command_timeout_s,
        connections=connections(config),
        **{name: value for name, value in beside.items() if value},
    )


def connections(config: Config) -> int:
    return 2 if config.worker.slots >= _SECOND_CONNECTION_FROM else 1


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def job_defaults(config: Config) -> JobOptions:
    """What holds for jobs whose producer did not say otherwise."""
    queue = config.queue
    return JobOptions(
        attempts=queue.attempts,
        backoff=queue.backoff,
        remove_on_complete=queue.keep_completed,
        remove_on_fail=queue.keep_failed,
    )


def guards(config: Config) -> Guards:
    return Guards(window=config.rate_limit.window, breaker=config.breaker.trip)


def window_check(ledger: LedgerUpkeep, current: Callable[[], Guards]) -> Callable[[str], Awaitable[datetime | None]]:
    """When a user's next counted sync may be admitted, by the guards in force at that moment."""

    async def frees_at(user: str) -> datetime | None:
        window = current().window
        return None if window is None else await ledger.window_frees_at(user, window)

    return frees_at


def retention(config: Config) -> Retention:
    """Without Kafka nobody will publish what lies in the outbox, so its age alone decides."""
    keep = config.retention
    operations_s = keep.operations_days * _DAY_S
    return Retention(
        history_s=keep.history_days * _DAY_S or None,
        # The audit rows are what the rate limit counts.
        operations_s=max(operations_s, config.rate_limit.window_s + _HOUR_S) if operations_s else None,
        outbox_s=keep.outbox_days * _DAY_S or None,
        outbox_rows=keep.outbox_rows or None,
        unpublished=not config.kafka.is_external,
    )


def pruner(config: Config, ledger: LedgerUpkeep) -> Pruner:
    return Pruner(
        ledger,
        retention(config),
        interval_s=config.worker.janitor_interval_s,
        limit=config.retention.batch_size,
    )


def failure_alarm(config: Config, ledger: LedgerUpkeep, notices: deque[Notice]) -> FailureAlarm:
    alerts = config.alerts
    rule = AlarmRule(
        raise_at=alerts.failed_share,
        clear_at=alerts.cleared_share,
        window_s=alerts.window_s,
        min_jobs=alerts.min_jobs,
    )
    return FailureAlarm(ledger, WallClock(), rule, notices, worker=worker_name(config), version=VERSION)


def identity(config: Config, worker: str, redis: str, started_at: float) -> Identity:
    """Who this daemon is, for the live view; what changes in it is filled in per sample."""
    return Identity(
        version=VERSION,
        pid=os.getpid(),
        worker=worker,
        host=socket.gethostname(),
        state="starting",
        started_at=started_at,
        slots=0,
        slots_busy=0,
        is_paused=False,
        rss_bytes=0,
        cpu=0.0,
        loop_lag=0.0,
        redis=redis if config.redis.is_external else "embedded",
        database=ledger_name(config),
    )


@asynccontextmanager
async def open_ledger(config: Config) -> AsyncIterator[Database]:
    """The ledger, migrated to what this version needs."""
    database = config.database
    if not database.is_external:
        from .adapters.sqlite.ledger import open_sqlite_ledger

        async with open_sqlite_ledger(config.sqlite_path) as ledger:
            yield ledger
        return
    from .adapters.postgres.ledger import open_postgres_ledger

    for step in await migrate_ledger(config):
        log.info("database migrated: %s", step)
    async with open_postgres_ledger(
        postgres_dsn(config),
        min_size=database.pool_min,
        max_size=database.pool_max,
        idle_s=database.pool_idle_s,
        wait_s=database.pool_wait_s,
        connect_timeout_s=database.connect_timeout_s,
    ) as ledger:
        yield ledger


async def migrate_ledger(config: Config, *, dry_run: bool = False) -> list[str]:
    """Bring the PostgreSQL database up to date; the steps taken (with `dry_run`: that would be).

    Raises ConfigError when it refuses or holds foreign tables, Transient when it cannot be reached.
    """
    from .adapters.postgres.migrate import migrate

    return await migrate(postgres_dsn(config), dry_run=dry_run, connect_timeout_s=config.database.connect_timeout_s)


def ledger_name(config: Config) -> str:
    """What to call the ledger in front of people: "embedded", or host:port/name, never with credentials."""
    if not config.database.is_external:
        return "embedded"
    parts = urlsplit(config.database.to_url().reveal())
    host = parts.hostname or dict(parse_qsl(parts.query)).get("host", "localhost")
    return f"{host}:{parts.port or config.database.port}{parts.path}"


def postgres_dsn(config: Config) -> str:
    from .adapters.postgres.dsn import with_parameters

    database = config.database
    files = {"sslrootcert": database.sslrootcert, "sslcert": database.sslcert, "sslkey": database.sslkey}
    return with_parameters(database.to_url().reveal(), files, database.statement_timeout_s)


# ---- chains and prices: opened anew on a reload ------------------------------------------------------------------


def new_sources(config: Config, redis: Redis, telemetry: Telemetry, breakers: Breakers) -> Sources:
    """The chains and price sources, still closed."""
    cache = RedisCache(redis, prefix=f"{config.redis.key_prefix}cache:")
    quota = RedisQuota(redis, prefix=f"{config.redis.key_prefix}quota:")
    return Sources(
        config,
        lambda current: open_env(current, cache, telemetry, breakers, quota),
        linger_s=config.worker.timeout_s,
    )


@asynccontextmanager
async def open_env(
    config: Config, cache: Cache, telemetry: Telemetry, breakers: Breakers, quota: Quota
) -> AsyncGenerator[Env]:
    """Readers of the enabled chains and the price book."""
    tokens = await load_tokens(config.tokens.list_files)
    async with open_transport(connections=max(100, config.worker.slots * 4)) as transport:
        # Those of endpoints that are still configured register again at once.
        breakers.hide([view.name for view in breakers.views()])
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
