"""The whole configuration as one frozen tree."""

from __future__ import annotations

from pathlib import Path

from ..domain.chain import CHAINS, Chain
from .core import Daemon, Database, Http, Log, Queue, Redis, Worker
from .events import Events
from .jobs import Jobs
from .keys import Section, specs_of, value_at
from .live import Live
from .outlets import Alerts, Breaker, Cluster, CoreService, Kafka, MongoDb, RateLimit, Retention, Scheduler, Stats
from .secret import Secret
from .sources import Alchemy, Chains, Prices, Providers, Tokens


class Config(Section, frozen=True, kw_only=True):
    """Everything that can be configured. From `load_config` the paths and the modes are resolved."""

    daemon: Daemon = Daemon()
    log: Log = Log()
    http: Http = Http()
    live: Live = Live()
    redis: Redis = Redis()
    queue: Queue = Queue()
    worker: Worker = Worker()
    jobs: Jobs = Jobs()
    database: Database = Database()
    chains: Chains = Chains()
    alchemy: Alchemy = Alchemy()
    providers: Providers = Providers()
    prices: Prices = Prices()
    tokens: Tokens = Tokens()
    breaker: Breaker = Breaker()
    rate_limit: RateLimit = RateLimit()
    retention: Retention = Retention()
    alerts: Alerts = Alerts()
    events: Events = Events()
    kafka: Kafka = Kafka()
    scheduler: Scheduler = Scheduler()
    stats: Stats = Stats()
    mongodb: MongoDb = MongoDb()
    core_service: CoreService = CoreService()
    cluster: Cluster = Cluster()

    @property
    def state_dir(self) -> Path:
        """Absolute; only a loaded configuration has one."""
        assert self.daemon.state_dir is not None, "load_config resolves the state directory"
        return self.daemon.state_dir

    @property
    def socket(self) -> Path:
        return self.daemon.socket or self.state_dir / "moonxd.sock"

    @property
    def sqlite_path(self) -> Path:
        return self.database.sqlite_path or self.state_dir / "moonxd.db"

    @property
    def enabled_chains(self) -> tuple[Chain, ...]:
        """In the configured order."""
        by_slug = {chain.slug: chain for chain in CHAINS.values()}
        return tuple(by_slug[slug] for slug in self.chains.enabled)

    def alchemy_key(self, slug: str) -> Secret | None:
        """The key by which this chain is read from Alchemy; None when it is read by plain JSON-RPC."""
        endpoints = self.chains.endpoints(slug)
        return None if endpoints.source == "rpc" else endpoints.alchemy_key or self.alchemy.api_key


def secrets_in(config: Config) -> tuple[str, ...]:
    """Every string of this configuration that must not appear in a log."""
    found: dict[str, None] = {}
    for key in specs_of(Config):
        value = value_at(config, key)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Secret):
                found.update(dict.fromkeys(item.parts()))
    return tuple(found)
