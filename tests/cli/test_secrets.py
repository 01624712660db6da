"""A secret in every key that takes one, a daemon whose parts fail one after the other, and no trace of any of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx
import pytest

from moonxd.config import Config, load_config
from moonxd.config.keys import specs_of
from moonxd.config.secret import Secret
from moonxd.config.tree import secrets_in
from tests.services import free_port
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.kafka import USER, KafkaServer
from tests.services.postgres import PostgresServer
from tests.services.redis import RedisServer
from tests.services.simulator import SimulatorProcess

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.postgres, pytest.mark.kafka]

#: Part of every secret, and of nothing else.
MARK = "staple"
WALLET = "0x" + "ab" * 20
NOBODY = "127.0.0.1:9"
CHAINS = ("ETHEREUM", "POLYGON", "OPTIMISM", "ARBITRUM", "BASE", "BSC")


def planted(redis: RedisServer, postgres: PostgresServer, kafka: KafkaServer) -> dict[str, str]:
    """Variables with a secret each. Kafka refuses its password; MongoDB, a node and a socket of heads are not there."""
    return {
        "REDIS_URL": redis.url,
        "MOONXD_REDIS__PASSWORD": f"{MARK}-redis-part",
        "MOONXD_REDIS__SENTINEL_PASSWORD": f"{MARK}-sentinel",
        "DATABASE_URL": f"postgresql://moonxd:{MARK}-database@127.0.0.1:{postgres.port}/postgres",
        "DB_PASSWORD": f"{MARK}-database-part",
        "KAFKA_BROKERS": kafka.address("SASL"),
        "KAFKA_USERNAME": USER,
        "KAFKA_PASSWORD": f"{MARK}-kafka",
        "MONGODB_URI": f"mongodb://stats:{MARK}-mongo@{NOBODY}/farm",
        "ALCHEMY_API_KEY": f"{MARK}-alchemy",
        **{f"ALCHEMY_API_KEY_{chain}": f"{MARK}-alchemy-{chain}" for chain in CHAINS},
        "BASE_RPC_URL": f"http://node:{MARK}-user@{NOBODY}/v2/{MARK}-path-0123456789abcdef?key={MARK}-query",
        "BASE_WS_URL": f"ws://{NOBODY}/{MARK}-ws",
        "MOONXD_CHAINS__BASE__SOURCE": "rpc",
        **{f"{name}_API_KEY": f"{MARK}-{name}" for name in ("COINGECKO", "DEXSCREENER", "BINANCE", "ONEINCH", "LIFI")},
        **{f"{name}_API_SECRET": f"{MARK}-{name}-2" for name in ("COINGECKO", "DEXSCREENER", "BINANCE")},
        "MOONXD_LIVE__HS256_SECRET": f"{MARK}-live-" + "x" * 40,
        "MOONXD_HTTP__TOKEN": f"{MARK}-http-token",
        "MOONXD_CHAINS__READ_TIMEOUT_S": "2",
        "LOG_LEVEL": "debug",
        "WORKER_RETRIES": "1",
    }  # fmt: skip


def http(daemon: DaemonProcess) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(daemon.socket))
    return httpx.Client(transport=transport, base_url="http://moonxd", timeout=30)


def everything_asked(daemon: DaemonProcess, job_id: str) -> Iterator[tuple[str, str]]:
    """What each path that only looks answers."""
    with http(daemon) as client:
        for line in client.get("/v1").json()["paths"]:
            method, path = line.split(" ", 1)
            if method == "GET" and path not in ("/v1/ws", "/v1/stream"):
                path = path.replace("{job_id:path}", job_id).replace("{wallet}", WALLET)
                yield path, client.get(path, params={"limit": "500"} if path == "/v1/events" else {}).text
        with client.stream("GET", "/v1/stream") as stream:
            yield "/v1/stream", next(stream.iter_text())


def command(environ: dict[str, str], *arguments: str) -> str:
    """What a command says on both outputs."""
    plain = {"PATH": "/usr/bin:/bin", "HOME": "/", **environ}
    line = [sys.executable, "-m", "moonxd", *arguments]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, env=plain)
    return done.stdout + done.stderr


def rows(postgres: PostgresServer) -> str:
    return "\n".join(
        str(row)
        for table in ("moonxd_outbox", "sync_operations", "user_sync_status", "moonxd_dead_letters", "moonxd_breakers")
        for row in postgres.execute(f"SELECT * FROM {table}")
    )


def test_every_key_that_takes_a_secret_has_one_here(
    start_redis: Callable[..., RedisServer],
    start_postgres: Callable[..., PostgresServer],
    kafka_server: KafkaServer,
    simulator: SimulatorProcess,
) -> None:
    redis, postgres = start_redis(password=f"{MARK}-redis"), start_postgres()
    environ = {"HOME": "/", **simulator.env, **planted(redis, postgres, kafka_server)}
    loaded = load_config(None, environ)
    takes = [key for key, spec in specs_of(Config).items() if issubclass(spec.kind, Secret)]
    unplanted = set(takes) - set(loaded.origins) - {f"chains.{chain.lower()}.ws_url" for chain in CHAINS}
    assert {key for key in unplanted if not key.endswith((".rpc_urls", ".url"))} == set()
    assert {f"{MARK}-database", f"{MARK}-redis", f"{MARK}-path-0123456789abcdef"} <= set(secrets_in(loaded.config))


@pytest.mark.chaos
def test_no_secret_leaves_a_daemon_whose_parts_fail(
    start_daemon: StartDaemon,
    simulator: SimulatorProcess,
    start_redis: Callable[..., RedisServer],
    start_postgres: Callable[..., PostgresServer],
    kafka_server: KafkaServer,
) -> None:
    redis = start_redis(password=f"{MARK}-redis")
    # It is killed below: what it confirmed must be there afterwards.
    postgres = start_postgres(("synchronous_commit=on",), password=f"{MARK}-database")
    environ = {**simulator.env, **planted(redis, postgres, kafka_server), "PORT": str(free_port())}
    environ |= {"CHAIN_PERFORMANCE_INTERVAL": "*/3 * * * * *", "BRIDGE_LATENCY_INTERVAL": "*/3 * * * * *"}
    daemon = start_daemon(environ)
    done = daemon.wait(daemon.enqueue(WALLET))
    assert done.state == "completed", done
    # Vendors that fail in words of their own, and a job that fails for good with their reasons.
    simulator.turn({"*": {"error_rate": 1.0}})
    with http(daemon) as client:
        failing = {"type": "portfolio-sync", "userId": "u2", "walletAddress": WALLET, "chainIds": [8453]}
        failed = client.post("/jobs", json=failing).json()["jobId"]
    reason = daemon.wait(failed)
    assert reason.state == "failed"
    assert "127.0.0.1" in str(reason.reason), "it names the node"
    for server, word in ((redis, "Redis is away"), (postgres, "the right to publish was lost")):
        server.kill()
        until(lambda word=word: word in daemon.log(), f"{word} is logged", 60)
        server.start()

    def alerted() -> bool:
        with http(daemon) as client:
            return "kafka_failing" in client.get("/v1/events", params={"limit": "500"}).text

    until(alerted, "what Kafka says is an alert", 90, daemon.log)
    until(lambda: "MongoDB" in daemon.log(), "and MongoDB's absence is logged", 60)
    for path, text in everything_asked(daemon, failed):
        assert MARK not in text, path
        assert path != "/v1/status" or json.loads(text)["children"]
    told = rows(postgres)
    assert WALLET in told
    assert "no chain could be read (base" in told, "the dead letter and the audit row say so too"
    assert MARK not in told
    shown = command(environ, "config", "show") + command(environ, "config", "check")
    shown += command({}, "status", "--socket", str(daemon.socket)) + command(
        {}, "status", "--json", "--socket", str(daemon.socket)
    )
    assert "publisher" in shown
    assert MARK not in shown
    daemon.terminate()
    assert MARK not in daemon.log()
