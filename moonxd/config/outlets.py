"""Parts beside the sync itself: events out, periodic syncs, statistics, limits, the core service's lists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ..domain.guard import Trip, Window
from ..domain.stats_change import Thresholds
from .keys import Key, Section
from .secret import Secret, SecretUrl


class Breaker(Section, frozen=True, kw_only=True):
    """A user whose syncs keep failing is left alone for a while."""

    enabled: Annotated[bool, Key("Whether there is one", ("ENABLE_CIRCUIT_BREAKER",), live=True)] = True
    threshold: Annotated[
        int,
        Key("Failed syncs of a user in a row that open it", ("WORKER_CIRCUIT_BREAKER_THRESHOLD",), low=1, live=True),
    ] = 5
    open_s: Annotated[
        float,
        Key(
            "How long it stays open; then one sync at a time is let through",
            ("WORKER_CIRCUIT_BREAKER_TIMEOUT",),
            low=0.001,
            live=True,
        ),
    ] = 60.0

    @property
    def trip(self) -> Trip | None:
        return Trip(threshold=self.threshold, open_s=self.open_s) if self.enabled else None


class RateLimit(Section, frozen=True, kw_only=True):
    """How many syncs one user gets."""

    enabled: Annotated[bool, Key("Whether there is a limit", live=True)] = True
    window_s: Annotated[
        float, Key("Length of the sliding window", ("WORKER_RATE_LIMIT_WINDOW",), low=0.001, live=True)
    ] = 900.0
    max: Annotated[
        int,
        Key(
            "Syncs per user and window; periodic and bulk work does not count",
            ("WORKER_RATE_LIMIT_MAX",),
            low=1,
            live=True,
        ),
    ] = 5
    on_limit: Annotated[
        str,
        Key(
            "delay: a queued job over the limit waits until the window frees; reject: it fails at once",
            choices=("delay", "reject"),
            live=True,
        ),
    ] = "delay"

    @property
    def window(self) -> Window | None:
        if not self.enabled:
            return None
        return Window(most=self.max, window_s=self.window_s, reject=self.on_limit == "reject")


class Retention(Section, frozen=True, kw_only=True):
    """How long the ledger keeps what nobody needs for syncing. 0 keeps it for ever."""

    history_days: Annotated[float, Key("Snapshots of portfolios", low=0, live=True)] = 365.0
    operations_days: Annotated[
        float, Key("Ended sync operations; never within rate_limit.window_s", low=0, live=True)
    ] = 90.0
    outbox_days: Annotated[float, Key("Events, once published; without Kafka, once this old", low=0, live=True)] = 7.0
    outbox_rows: Annotated[int, Key("And at most this many of those events; 0 no bound", low=0, live=True)] = 1_000_000
    batch_size: Annotated[int, Key("Rows of a table removed in one transaction", low=1, high=100_000, live=True)] = 1000


class Alerts(Section, frozen=True, kw_only=True):
    """When the daemon calls for help with a system.alert event."""

    failed_share: Annotated[
        float, Key("Share of jobs that failed for good, from 0 to 1; 0 never alerts", low=0, high=1)
    ] = 0.2
    cleared_share: Annotated[float, Key("Below this share the alert is over", low=0, high=1)] = 0.1
    window_s: Annotated[float, Key("The share is of the jobs that ended within this", low=1)] = 300.0
    min_jobs: Annotated[int, Key("Fewer ended jobs than this raise no alert", low=1)] = 20


class Topics(Section, frozen=True, kw_only=True):
    """Topic names; all may be the same."""

    portfolio_updates: Annotated[str, Key("Portfolio events", ("KAFKA_TOPIC_PORTFOLIO_UPDATES",))] = "portfolio.updates"
    sync_events: Annotated[str, Key("Sync events", ("KAFKA_TOPIC_SYNC_EVENTS",))] = "sync.events"
    system_alerts: Annotated[str, Key("Alerts", ("KAFKA_TOPIC_SYSTEM_ALERTS",))] = "system.alerts"
    user_activities: Annotated[str, Key("User activities", ("KAFKA_TOPIC_USER_ACTIVITIES",))] = "user.activities"
    stats_events: Annotated[str, Key("Statistics", ("KAFKA_TOPIC_EVENTS",))] = "stats.events"


class Kafka(Section, frozen=True, kw_only=True):
    """Events leave through Kafka. With nothing set here they stay in the outbox, readable over the API."""

    mode: Annotated[
        str,
        Key(
            "auto: external once any key here (or any KAFKA_*) is set",
            choices=("auto", "off", "external"),
            embedded=True,
        ),
    ] = "auto"
    brokers: Annotated[
        tuple[str, ...], Key("Bootstrap brokers as host:port", ("KAFKA_BROKERS",), check="host-port")
    ] = ("localhost:9092",)
    client_id: Annotated[str, Key("Client id", ("KAFKA_CLIENT_ID",))] = "moonxd"
    sasl_mechanism: Annotated[
        str,
        Key(
            "Used when a username is set",
            ("KAFKA_SASL_MECHANISM",),
            choices=("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
        ),
    ] = "PLAIN"
    username: Annotated[str | None, Key("SASL user", ("KAFKA_SASL_USERNAME", "KAFKA_USERNAME"))] = None
    password: Annotated[Secret | None, Key("SASL password", ("KAFKA_SASL_PASSWORD", "KAFKA_PASSWORD"))] = None
    tls: Annotated[bool, Key("Speak TLS", ("KAFKA_SSL",))] = False
    tls_ca: Annotated[Path | None, Key("PEM file of the accepted authorities. Unset: the system's", check="file")] = (
        None
    )
    tls_cert: Annotated[Path | None, Key("PEM file of our certificate, where brokers ask for one", check="file")] = None
    tls_key: Annotated[Path | None, Key("PEM file of its key", check="file")] = None
    connect_timeout_s: Annotated[float, Key("Deadline of connecting", ("KAFKA_CONNECTION_TIMEOUT",), low=0.001)] = 1.0
    request_timeout_s: Annotated[float, Key("Deadline of one request", ("KAFKA_REQUEST_TIMEOUT",), low=0.001)] = 5.0
    retry_min_s: Annotated[
        float, Key("First pause of the relay after a failure", ("KAFKA_RETRY_INITIAL_DELAY",), low=0.001)
    ] = 0.1
    retry_max_s: Annotated[float, Key("Longest pause of the relay", ("KAFKA_RETRY_MAX_DELAY",), low=0.001)] = 1.0
    retries: Annotated[
        int,
        Key(
            "Failures in a row before the relay reports itself as failing; it never gives up",
            ("KAFKA_RETRY_RETRIES",),
            low=0,
        ),
    ] = 3
    compression: Annotated[
        str, Key("Compression", ("KAFKA_COMPRESSION",), choices=("none", "gzip", "snappy", "lz4", "zstd"))
    ] = "none"
    publish: Annotated[
        bool, Key("Whether this daemon may publish events; one of those that may does at a time", embedded=True)
    ] = True
    lag_alert_s: Annotated[
        float, Key("An unpublished event older than this is a system.alert; 0 never", low=0, embedded=True)
    ] = 60.0
    transaction_alert_s: Annotated[
        float,
        Key("So is a transaction in PostgreSQL that is open for longer than this; 0 never", low=0, embedded=True),
    ] = 300.0
    group: Annotated[str, Key("Consumer group of the daemons that read user activities")] = "moonxd"
    websocket_topic: Annotated[
        str | None, Key("Mirror events to the WebSocket service's topic in its form", example="moonx.ws.events")
    ] = None
    topics: Topics = Topics()

    @property
    def is_external(self) -> bool:
        return self.mode == "external"


class Scheduler(Section, frozen=True, kw_only=True):
    """Periodic syncs of active users."""

    enabled: Annotated[
        bool, Key("Whether this daemon runs it; any number of daemons may", ("PERIODIC_SYNC_ENABLED",))
    ] = True
    market_hours_interval_s: Annotated[
        float, Key("Interval while markets are open", ("PERIODIC_SYNC_MARKET_HOURS_INTERVAL",), low=1)
    ] = 300.0
    off_hours_interval_s: Annotated[
        float, Key("Interval at other times", ("PERIODIC_SYNC_OFF_HOURS_INTERVAL",), low=1)
    ] = 900.0
    market_open_hour: Annotated[
        int, Key("Markets open, hour of the wallet's time zone (UTC without one)", low=0, high=23)
    ] = 9
    market_close_hour: Annotated[int, Key("Markets close; before the opening hour: over midnight", low=0, high=24)] = 17
    market_days: Annotated[
        tuple[str, ...], Key("Days on which they open", choices=("mon", "tue", "wed", "thu", "fri", "sat", "sun"))
    ] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    active_s: Annotated[float, Key("Only users active within this are synced", low=1)] = 86400.0
    stale_after_s: Annotated[
        float, Key("Older portfolios are synced with high priority", ("PERIODIC_SYNC_STALE_THRESHOLD",), low=1)
    ] = 3600.0
    batch_size: Annotated[
        int, Key("Jobs per call to the queue; a page, never a cap", ("PERIODIC_SYNC_BATCH_SIZE",), low=1)
    ] = 10
    max_waiting: Annotated[int, Key("Jobs waiting in the queue from which no more are added", low=1)] = 100_000
    high_value_usd: Annotated[
        float, Key("Richer wallets come first", ("PERIODIC_SYNC_HIGH_VALUE_THRESHOLD",), low=0)
    ] = 10000.0
    cron: Annotated[
        str | None,
        Key(
            "5 or 6 fields, UTC; when set it replaces the intervals",
            ("PERIODIC_SYNC_CRON_PATTERN",),
            check="cron",
            example="*/5 * * * *",
        ),
    ] = None
    cron_spread_s: Annotated[
        float, Key("The wallets of one instant of the cron pattern are spread over this", low=1)
    ] = 300.0
    max_users: Annotated[
        int | None,
        Key("Most wallets looked at in one round (a second)", ("PERIODIC_SYNC_MAX_USERS",), low=1, example="1000"),
    ] = None


class LiFi(Section, frozen=True, kw_only=True):
    """LI.FI's quote API."""

    base_url: Annotated[str, Key("Endpoint", ("LIFI_API_URL",), check="plain-url")] = "https://li.quest/v1"
    api_key: Annotated[Secret | None, Key("Key; without one 200 requests in two hours", ("LIFI_API_KEY",))] = None
    timeout_s: Annotated[float, Key("Deadline of one request", low=0.001)] = 10.0
    routes: Annotated[tuple[str, ...], Key("Quotes to ask for; empty: it is not probed", check="route")] = (
        "base:USDC->arbitrum:USDC",
        "ethereum:ETH->base:ETH",
    )


class Relay(Section, frozen=True, kw_only=True):
    """Relay.link's quote API."""

    base_url: Annotated[str, Key("Endpoint", ("RELAY_API_URL",), check="plain-url")] = "https://api.relay.link"
    timeout_s: Annotated[float, Key("Deadline of one request", low=0.001)] = 10.0
    routes: Annotated[tuple[str, ...], Key("Quotes to ask for; empty: it is not probed", check="route")] = (
        "base:USDC->arbitrum:USDC",
        "ethereum:ETH->base:ETH",
    )


class OneInch(Section, frozen=True, kw_only=True):
    """1inch is probed only with a key."""

    base_url: Annotated[str, Key("Endpoint", check="plain-url")] = "https://api.1inch.com"
    api_key: Annotated[Secret | None, Key("Key", ("ONEINCH_API_KEY",))] = None
    timeout_s: Annotated[float, Key("Deadline of one request", low=0.001)] = 10.0
    routes: Annotated[tuple[str, ...], Key("Quotes to ask for; empty: it is not probed", check="route")] = (
        "base:USDC->arbitrum:USDC",
    )


class Across(Section, frozen=True, kw_only=True):
    """Across's fees API, which its makers call legacy. It does not serve BNB Smart Chain."""

    enabled: Annotated[bool, Key("Whether it is probed")] = False
    base_url: Annotated[str, Key("Endpoint", check="plain-url")] = "https://app.across.to/api"
    timeout_s: Annotated[float, Key("Deadline of one request", low=0.001)] = 10.0
    routes: Annotated[tuple[str, ...], Key("Quotes to ask for", check="route")] = ("base:USDC->arbitrum:USDC",)


class News(Section, frozen=True, kw_only=True):
    """Statistics are told when their status changed, or a value by this share of what was last told."""

    block_time: Annotated[float, Key("Of a chain's block time", low=0.001)] = 0.1
    latency: Annotated[float, Key("Of a bridge's latency, as far as it is above 0.2 s", low=0.001)] = 0.25
    volume: Annotated[float, Key("Of a chain's volume and TVL", low=0.001)] = 0.05

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(block_time=self.block_time, latency=self.latency, volume=self.volume)


class Stats(Section, frozen=True, kw_only=True):
    """Chain and bridge statistics. Cron patterns have 6 fields (seconds first), UTC."""

    enabled: Annotated[bool, Key("Whether they are collected")] = True
    overview_cron: Annotated[str, Key("When the overview is built", ("STATS_COLLECTION_INTERVAL",), check="cron")] = (
        "0 */5 * * * *"
    )
    chains_cron: Annotated[str, Key("When chains are probed", ("CHAIN_PERFORMANCE_INTERVAL",), check="cron")] = (
        "0 */1 * * * *"
    )
    bridges_cron: Annotated[str, Key("When bridges are probed", ("BRIDGE_LATENCY_INTERVAL",), check="cron")] = (
        "0 */2 * * * *"
    )
    overview_timeout_s: Annotated[float, Key("Deadline of the overview", ("STATS_COLLECTION_TIMEOUT",), low=0.001)] = (
        120.0
    )
    chains_timeout_s: Annotated[
        float, Key("Deadline of a round of chains", ("CHAIN_PERFORMANCE_TIMEOUT",), low=0.001)
    ] = 60.0
    bridges_timeout_s: Annotated[
        float, Key("Deadline of a round of bridges", ("BRIDGE_LATENCY_TIMEOUT",), low=0.001)
    ] = 90.0
    defillama_url: Annotated[str, Key("DefiLlama's statistics API", ("DEFILLAMA_API_URL",), check="plain-url")] = (
        "https://api.llama.fi"
    )
    defillama_ttl_s: Annotated[
        float, Key("Its figures move by the hour and are kept for so long", low=900, high=86400)
    ] = 1800.0
    use_alchemy: Annotated[
        bool, Key("Whether chains with an Alchemy key are looked at there too, beside their rpc_urls")
    ] = False
    alchemy_share: Annotated[
        float,
        Key("Share of [alchemy] plan_units_per_month that statistics may spend at Alchemy's endpoints", low=0, high=1),
    ] = 0.05
    heads_block_time_s: Annotated[
        float, Key("Heads are subscribed to (chains.X.ws_url) where blocks take at least this", low=0)
    ] = 1.0
    history_days: Annotated[float, Key("How long samples of chains and bridges are kept", low=0.01)] = 30.0
    overview_hours: Annotated[float, Key("How long overviews are kept", low=0.1)] = 24.0
    lifi: LiFi = LiFi()
    relay: Relay = Relay()
    oneinch: OneInch = OneInch()
    across: Across = Across()
    news: News = News()


class MongoDb(Section, frozen=True, kw_only=True):
    """MongoDB holds the statistics for their readers. With nothing set here they live in SQLite, in statistics.db."""

    mode: Annotated[
        str,
        Key(
            "auto: external once any key here (or any MONGODB_*) is set",
            choices=("auto", "embedded", "external"),
            embedded=True,
        ),
    ] = "auto"
    uri: Annotated[SecretUrl, Key("mongodb:// or mongodb+srv://", ("MONGODB_URI",), check="mongodb-url")] = SecretUrl(
        "mongodb://localhost:27017/moonx-farm"
    )
    database: Annotated[
        str | None, Key("Database. Unset: the one in the URI", ("MONGODB_DATABASE",), example="moonx-farm")
    ] = None
    pool_max: Annotated[int, Key("Most connections", ("MONGODB_MAX_POOL_SIZE",), low=1)] = 10
    pool_min: Annotated[int, Key("Connections kept open", ("MONGODB_MIN_POOL_SIZE",), low=0)] = 0

    @property
    def is_external(self) -> bool:
        return self.mode == "external"


class CoreService(Section, frozen=True, kw_only=True):
    """The core service's request lists in Redis."""

    enabled: Annotated[bool, Key("Whether they are served")] = False
    prefixes: Annotated[tuple[str, ...], Key("Prefixes of the lists; replies go under the request's own")] = (
        "moonx:sync-proxy:",
        "moonx:sync-worker:",
    )
    at_once: Annotated[int, Key("Most requests of one list that are worked on together", low=1, high=1000)] = 8
    reply_ttl_s: Annotated[float, Key("How long a reply waits for its reader", low=1)] = 300.0
    lease_s: Annotated[float, Key("Requests of a daemon that was silent for this long are put back", low=1)] = 15.0
    dead_max: Annotated[int, Key("Malformed messages kept per prefix, the newest ones", low=1)] = 1000


class Cluster(Section, frozen=True, kw_only=True):
    """Several worker processes under one daemon."""

    mode: Annotated[
        str,
        Key(
            "auto: one worker per core; manual: workers; true and false are accepted for manual and single",
            ("CLUSTER_MODE",),
            choices=("single", "auto", "manual"),
            check="cluster-mode",
        ),
    ] = "single"
    workers: Annotated[int, Key("Worker processes when the mode is manual", ("CLUSTER_WORKERS",), low=1, high=256)] = 4

    def count(self, cores: int) -> int:
        """Worker processes on a machine with `cores` cores; 1 means that the daemon itself does the work."""
        return {"auto": cores, "manual": self.workers}.get(self.mode, 1)
