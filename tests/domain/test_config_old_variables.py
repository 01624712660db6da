"""The variables of the earlier workers: each has its effect, or is said to have none."""

from __future__ import annotations

from typing import Any

import pytest

from moonxd.config import Config, InvalidConfig, load_config, parse_env
from moonxd.config.keys import specs_of, value_at
from moonxd.config.legacy import EFFECTLESS, old_variables
from moonxd.config.write import plain

CHAINS = ("ETHEREUM", "POLYGON", "OPTIMISM", "ARBITRUM", "BASE", "BSC")

#: line of the .env -> (key, value it must have). None: it must be named as having no effect.
EVERY_NAME: dict[str, tuple[str, Any] | None] = {
    "NODE_ENV=production": None,
    "PORT=3101": ("http.listen", "127.0.0.1:3101"),
    "LOG_LEVEL=warn": ("log.level", "warning"),
    "DB_HOST=db.internal": ("database.host", "db.internal"),
    "DB_PORT=5433": ("database.port", 5433),
    "DB_NAME=farm": ("database.name", "farm"),
    "DB_USER=sync": ("database.user", "sync"),
    "DB_PASSWORD=hunter22": ("database.password", "hunter22"),
    "DB_SSL=true": ("database.sslmode", "require"),
    "DB_MAX_CONNECTIONS=21": ("database.pool_max", 21),
    "DB_MIN_CONNECTIONS=6": ("database.pool_min", 6),
    "DB_IDLE_TIMEOUT=31000": ("database.pool_idle_s", 31.0),
    "DATABASE_URL=postgres://u:p@h:5432/d": ("database.url", "postgres://u:p@h:5432/d"),
    "REDIS_URL=redis://:pw@cache:6380/2": ("redis.url", "redis://:pw@cache:6380/2"),
    "REDIS_HOST=cache.internal": ("redis.host", "cache.internal"),
    "REDIS_PORT=6380": ("redis.port", 6380),
    "REDIS_PASSWORD=hunter23": ("redis.password", "hunter23"),
    "REDIS_DB=3": ("redis.db", 3),
    "REDIS_CONNECT_TIMEOUT=10001": ("redis.connect_timeout_s", 10.001),
    "REDIS_COMMAND_TIMEOUT=5001": ("redis.command_timeout_s", 5.001),
    "REDIS_RETRY_DELAY_ON_FAILOVER=150": None,
    "REDIS_ENABLE_READY_CHECK=true": None,
    "REDIS_MAX_RETRIES_PER_REQUEST=3": None,
    "REDIS_LAZY_CONNECT=true": None,
    "REDIS_KEY_PREFIX=moonx:": ("redis.key_prefix", "moonx:"),
    "WORKER_CONCURRENCY=11": ("worker.concurrency", 11),
    "WORKER_MAX_JOBS=101": ("worker.max_jobs", 101),
    "WORKER_TIMEOUT=60000": ("worker.timeout_s", 60.0),
    "WORKER_RETRIES=4": ("queue.attempts", 4),
    "WORKER_RETRY_DELAY=2000": ("queue.backoff_delay_s", 2.0),
    "WORKER_BACKOFF_MULTIPLIER=1.5": ("queue.backoff_multiplier", 1.5),
    "WORKER_BATCH_SIZE=51": ("worker.batch_size", 51),
    "WORKER_CIRCUIT_BREAKER_THRESHOLD=6": ("breaker.threshold", 6),
    "WORKER_CIRCUIT_BREAKER_TIMEOUT=61000": ("breaker.open_s", 61.0),
    "ENABLE_CIRCUIT_BREAKER=false": ("breaker.enabled", False),
    "WORKER_RATE_LIMIT_WINDOW=900001": ("rate_limit.window_s", 900.001),
    "WORKER_RATE_LIMIT_MAX=7": ("rate_limit.max", 7),
    "WORKER_CLEANUP_INTERVAL=300001": ("worker.janitor_interval_s", 300.001),
    "WORKER_STATS_INTERVAL=30001": ("worker.heartbeat_interval_s", 30.001),
    "KAFKA_BROKERS=k1:9092, k2:9092": ("kafka.brokers", ["k1:9092", "k2:9092"]),
    "KAFKA_CLIENT_ID=sync-worker-publisher": ("kafka.client_id", "sync-worker-publisher"),
    "KAFKA_SASL_MECHANISM=scram-sha-256": ("kafka.sasl_mechanism", "SCRAM-SHA-256"),
    "KAFKA_SASL_USERNAME=ku": ("kafka.username", "ku"),
    "KAFKA_USERNAME=second": ("kafka.username", "ku"),
    "KAFKA_SASL_PASSWORD=hunter24": ("kafka.password", "hunter24"),
    "KAFKA_PASSWORD=second": ("kafka.password", "hunter24"),
    "KAFKA_SSL=1": ("kafka.tls", True),
    "KAFKA_CONNECTION_TIMEOUT=1001": ("kafka.connect_timeout_s", 1.001),
    "KAFKA_REQUEST_TIMEOUT=5001": ("kafka.request_timeout_s", 5.001),
    "KAFKA_RETRY_INITIAL_DELAY=101": ("kafka.retry_min_s", 0.101),
    "KAFKA_RETRY_MAX_DELAY=1001": ("kafka.retry_max_s", 1.001),
    "KAFKA_RETRY_RETRIES=5": ("kafka.retries", 5),
    "KAFKA_PRODUCER_MAX_IN_FLIGHT=1": None,
    "KAFKA_PRODUCER_IDEMPOTENT=true": None,
    "KAFKA_PRODUCER_TRANSACTION_TIMEOUT=5000": None,
    "KAFKA_COMPRESSION=gzip": ("kafka.compression", "gzip"),
    "KAFKA_TOPIC_PORTFOLIO_UPDATES=t1": ("kafka.topics.portfolio_updates", "t1"),
    "KAFKA_TOPIC_SYNC_EVENTS=t2": ("kafka.topics.sync_events", "t2"),
    "KAFKA_TOPIC_SYSTEM_ALERTS=t3": ("kafka.topics.system_alerts", "t3"),
    "KAFKA_TOPIC_USER_ACTIVITIES=t4": ("kafka.topics.user_activities", "t4"),
    "KAFKA_TOPIC_EVENTS=t5": ("kafka.topics.stats_events", "t5"),
    "ALCHEMY_API_KEY=akey": ("alchemy.api_key", "akey"),
    **{f"ALCHEMY_API_KEY_{c}=key-{c}": (f"chains.{c.lower()}.alchemy_key", f"key-{c}") for c in CHAINS},
    **{f"{c}_RPC_URL=https://h/{c}": (f"chains.{c.lower()}.rpc_urls", [f"https://h/{c}"]) for c in CHAINS},
    **{f"{c}_WS_URL=wss://rpc.example/{c}": (f"chains.{c.lower()}.ws_url", f"wss://rpc.example/{c}") for c in CHAINS},
    "ALCHEMY_TIMEOUT=10001": ("alchemy.timeout_s", 10.001),
    "ALCHEMY_RETRIES=2": ("alchemy.retries", 2),
    "ALCHEMY_RETRY_DELAY=1001": ("alchemy.retry_delay_s", 1.001),
    "ALCHEMY_RATE_LIMIT_RPM=301": ("alchemy.rate_limit_rpm", 301),
    "ALCHEMY_BASE_URL=http://127.0.0.1:8545/alchemy/": ("alchemy.base_url", "http://127.0.0.1:8545/alchemy"),
    "ALCHEMY_PRICES_URL=http://127.0.0.1:8545/prices": ("alchemy.prices_url", "http://127.0.0.1:8545/prices"),
    "ENABLED_CHAINS=base,56": ("chains.enabled", ["base", "bsc"]),
    "PERIODIC_SYNC_ENABLED=false": ("scheduler.enabled", False),
    "PERIODIC_SYNC_MARKET_HOURS_INTERVAL=300001": ("scheduler.market_hours_interval_s", 300.001),
    "PERIODIC_SYNC_OFF_HOURS_INTERVAL=900001": ("scheduler.off_hours_interval_s", 900.001),
    "PERIODIC_SYNC_STALE_THRESHOLD=3600001": ("scheduler.stale_after_s", 3600.001),
    "PERIODIC_SYNC_BATCH_SIZE=11": ("scheduler.batch_size", 11),
    "PERIODIC_SYNC_HIGH_VALUE_THRESHOLD=10001": ("scheduler.high_value_usd", 10001.0),
    "PERIODIC_SYNC_CRON_PATTERN=*/5 * * * *": ("scheduler.cron", "*/5 * * * *"),
    "PERIODIC_SYNC_MAX_USERS=500": ("scheduler.max_users", 500),
    "BINANCE_API_KEY=b1": ("prices.binance.api_key", "b1"),
    "BINANCE_API_SECRET=b2": ("prices.binance.api_secret", "b2"),
    "BINANCE_BASE_URL=https://b.example": ("prices.binance.base_url", "https://b.example"),
    "BINANCE_TIMEOUT=5001": ("prices.binance.timeout_s", 5.001),
    "COINGECKO_API_KEY=c1": ("prices.coingecko.api_key", "c1"),
    "COINGECKO_API_SECRET=c2": ("prices.coingecko.api_secret", "c2"),
    "COINGECKO_BASE_URL=https://c.example/api/v3": ("prices.coingecko.base_url", "https://c.example/api/v3"),
    "COINGECKO_TIMEOUT=10002": ("prices.coingecko.timeout_s", 10.002),
    "DEXSCREENER_API_KEY=d1": ("prices.dexscreener.api_key", "d1"),
    "DEXSCREENER_API_SECRET=d2": ("prices.dexscreener.api_secret", "d2"),
    "DEXSCREENER_BASE_URL=https://d.example/latest": ("prices.dexscreener.base_url", "https://d.example"),
    "DEXSCREENER_TIMEOUT=5002": ("prices.dexscreener.timeout_s", 5.002),
    "DEFILLAMA_API_URL=https://s.example": ("stats.defillama_url", "https://s.example"),
    "DEFILLAMA_COINS_URL=https://p.example": ("prices.defillama.base_url", "https://p.example"),
    "ONEINCH_API_KEY=o1": ("stats.oneinch.api_key", "o1"),
    "LIFI_API_URL=https://l.example": ("stats.lifi.base_url", "https://l.example"),
    "LIFI_API_KEY=l1": ("stats.lifi.api_key", "l1"),
    "RELAY_API_URL=https://r.example": ("stats.relay.base_url", "https://r.example"),
    "MONGODB_URI=mongodb://u:p@m1,m2/stats": ("mongodb.uri", "mongodb://u:p@m1,m2/stats"),
    "MONGODB_DATABASE=stats": ("mongodb.database", "stats"),
    "MONGODB_MAX_POOL_SIZE=12": ("mongodb.pool_max", 12),
    "MONGODB_MIN_POOL_SIZE=2": ("mongodb.pool_min", 2),
    "STATS_COLLECTION_INTERVAL=0 */6 * * * *": ("stats.overview_cron", "0 */6 * * * *"),
    "CHAIN_PERFORMANCE_INTERVAL=0 */3 * * * *": ("stats.chains_cron", "0 */3 * * * *"),
    "BRIDGE_LATENCY_INTERVAL=0 */4 * * * *": ("stats.bridges_cron", "0 */4 * * * *"),
    "STATS_COLLECTION_TIMEOUT=120001": ("stats.overview_timeout_s", 120.001),
    "CHAIN_PERFORMANCE_TIMEOUT=60001": ("stats.chains_timeout_s", 60.001),
    "BRIDGE_LATENCY_TIMEOUT=90001": ("stats.bridges_timeout_s", 90.001),
    "CLUSTER_MODE=true": ("cluster.mode", "manual"),
    "CLUSTER_WORKERS=3": ("cluster.workers", 3),
    "SERVICE_NAME=stats-worker": ("daemon.service_name", "stats-worker"),
    "SERVICE_VERSION=1.0.0": None,
}  # fmt: skip

#: Keys whose values are used although their part may not be there yet: named by `config check` until it is.
HOME = {"HOME": "/home/nobody"}


def name_of(line: str) -> str:
    return line.partition("=")[0]


@pytest.fixture(scope="module")
def loaded() -> Any:
    return load_config(None, HOME | parse_env("\n".join(EVERY_NAME)).variables)


@pytest.mark.parametrize("line", EVERY_NAME)
def test_every_name_has_its_effect_or_is_said_to_have_none(loaded: Any, line: str) -> None:
    expected = EVERY_NAME[line]
    if expected is None:
        assert any(note.startswith(f"{name_of(line)} has no effect: ") for note in loaded.notes)
    else:
        key, value = expected
        assert plain(value_at(loaded.config, key), reveal=True) == value


def test_the_list_above_and_the_tables_name_the_same_variables() -> None:
    assert {name_of(line) for line in EVERY_NAME} == set(old_variables()) | set(EFFECTLESS)


def test_every_value_differs_from_its_default_so_that_the_test_above_can_fail() -> None:
    specs = specs_of(Config)
    same = {
        name_of(line)
        for line, expected in EVERY_NAME.items()
        if expected and plain(specs[expected[0]].default, reveal=True) == expected[1]
    }
    assert same == set()


def test_keys_of_parts_that_are_not_built_are_said_to_have_no_effect(loaded: Any) -> None:
    said = [note for note in loaded.notes if note.endswith("accepted, has no effect in this version")]
    assert "prices.binance.api_key (BINANCE_API_KEY): accepted, has no effect in this version" in said
    assert not any(note.startswith(("redis.", "database.", "mongodb.", "queue.", "log.")) for note in said)


DOCUMENTED_DEFAULTS = {
    "database": {"host": "localhost", "port": 5432, "name": "moonx_farm", "user": "postgres", "pool_max": 20,
                 "pool_min": 5, "pool_idle_s": 30.0},
    "redis": {"host": "localhost", "port": 6379, "db": 0, "connect_timeout_s": 10.0, "command_timeout_s": 5.0},
    "worker": {"concurrency": 10, "max_jobs": 100, "timeout_s": 300.0, "batch_size": 50, "janitor_interval_s": 300.0,
               "heartbeat_interval_s": 30.0, "lock_s": 30.0, "stalled_interval_s": 30.0, "max_stalled": 1},
    "queue": {"name": "sync-jobs", "prefix": "bull", "attempts": 3, "backoff_delay_s": 5.0, "backoff_multiplier": 2.0,
              "backoff_jitter": 0.0, "remove_on_complete": 100, "remove_on_fail": 50},
    "breaker": {"threshold": 5, "open_s": 60.0},
    "rate_limit": {"window_s": 900.0, "max": 5},
    "kafka": {"brokers": ("localhost:9092",), "sasl_mechanism": "PLAIN", "connect_timeout_s": 1.0,
              "request_timeout_s": 5.0, "retry_min_s": 0.1, "retry_max_s": 1.0, "retries": 3},
    "alchemy": {"timeout_s": 10.0, "retries": 3, "retry_delay_s": 1.0, "rate_limit_rpm": 300},
    "scheduler": {"enabled": True, "market_hours_interval_s": 300.0, "off_hours_interval_s": 900.0,
                  "stale_after_s": 3600.0, "batch_size": 10, "high_value_usd": 10000.0, "cron": None},
    "stats": {"overview_cron": "0 */5 * * * *", "chains_cron": "0 */1 * * * *", "bridges_cron": "0 */2 * * * *",
              "overview_timeout_s": 120.0, "chains_timeout_s": 60.0, "bridges_timeout_s": 90.0},
}  # fmt: skip


@pytest.mark.parametrize("section", DOCUMENTED_DEFAULTS)
def test_the_documented_defaults_hold(section: str) -> None:
    found = {name: value_at(Config(), f"{section}.{name}") for name in DOCUMENTED_DEFAULTS[section]}
    assert found == DOCUMENTED_DEFAULTS[section]


def test_without_any_variable_every_part_is_embedded() -> None:
    config = load_config(None, HOME).config
    assert (config.redis.mode, config.database.mode, config.mongodb.mode) == ("embedded",) * 3
    assert config.kafka.mode == "off"
    assert config.http.listen is None


@pytest.mark.parametrize(
    ("variable", "part"),
    [
        ("REDIS_DB=0", "redis"),
        ("REDIS_LAZY_CONNECT=true", "redis"),
        ("DB_SSL=false", "database"),
        ("KAFKA_PRODUCER_IDEMPOTENT=true", "kafka"),
        ("MONGODB_DATABASE=x", "mongodb"),
    ],
)
def test_one_variable_makes_its_part_external_and_no_other(variable: str, part: str) -> None:
    loaded = load_config(None, HOME | parse_env(variable).variables)
    modes = {name: value_at(loaded.config, f"{name}.mode") for name in ("redis", "database", "kafka", "mongodb")}
    assert [name for name, mode in modes.items() if mode == "external"] == [part]
    assert loaded.origins[f"{part}.mode"] == f"{name_of(variable)} is set"


def test_an_empty_variable_counts_as_not_set() -> None:
    loaded = load_config(None, HOME | {"REDIS_PASSWORD": "", "REDIS_HOST": "  ", "PORT": "", "MOONXD_LOG__LEVEL": ""})
    assert loaded.config == load_config(None, HOME).config


def test_unknown_names_of_others_are_ignored() -> None:
    assert load_config(None, HOME | {"REDIS_SENTINEL_MAGIC": "1", "PATH": "/bin"}).config.redis.mode == "embedded"


def test_what_kubernetes_injects_beside_services_does_not_disturb() -> None:
    pod = {
        "REDIS_PORT": "tcp://10.0.0.1:6379",
        "REDIS_SERVICE_HOST": "10.0.0.1",
        "MOONXD_SERVICE_HOST": "10.0.0.2",
        "MOONXD_PORT": "tcp://10.0.0.2:3001",
        "MOONXD_PORT_3001_TCP_ADDR": "10.0.0.2",
        "MOONXD_METRICS_SERVICE_PORT_HTTP": "3002",
    }
    loaded = load_config(None, HOME | pod)
    assert loaded.config.redis.mode == "embedded"
    assert "REDIS_PORT was put there by Kubernetes for another service and is ignored" in loaded.notes


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("WORKER_TIMEOUT=soon", "WORKER_TIMEOUT = 'soon': must be a number of milliseconds"),
        (
            "WORKER_TIMEOUT=0",
            "(milliseconds; worker.timeout_s) = 0.0: must be a number of seconds, at least",
        ),
        ("PORT=http", "PORT = 'http': must be a port from 1 to 65535"),
        ("DB_SSL=perhaps", "DB_SSL = 'perhaps': must be one of disable, allow, prefer,"),
        ("ENABLED_CHAINS=base,solana", "unknown chain 'solana'"),
        ("PERIODIC_SYNC_CRON_PATTERN=61 * * * *", "minute of '61 * * * *' cannot be read"),
        ("STATS_COLLECTION_INTERVAL=* * *", "this one has 3"),
        ("BASE_RPC_URL=ftp://u:hunter22@h/hunter23", "must be a URL starting with http:// or https://"),
        ("CLUSTER_MODE=sometimes", "must be one of single, auto, manual"),
    ],
)
def test_an_unusable_value_is_named_with_what_is_allowed(variable: str, says: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load_config(None, HOME | parse_env(variable).variables)
    assert says in str(caught.value)
    assert "hunter" not in str(caught.value)
