"""Pictures of a daemon for the live view's tests: fixed, so that a screen can be compared cell by cell."""

from __future__ import annotations

import msgspec

from moonxd.api.schema import Breaker, ChainHealth, Child, Daemon, Failure, QueueDepth, Rates, RunningJob, Snapshot
from tui.history import History, Sample

#: 2026-03-01 03:12:45 UTC.
NOW = 1_772_334_765.0
CHAINS = (
    (1, "ethereum", "ethereum-rpc.example"),
    (137, "polygon", "polygon-bor.example"),
    (10, "optimism", "optimism.example"),
    (42161, "arbitrum", "arbitrum-one.example"),
    (8453, "base", "base-rpc.example"),
    (56, "bsc", "bsc-dataseed.example"),
)
PARTS = (
    "consumer",
    "control",
    "heartbeat",
    "janitor",
    "lease-renewal",
    "loop-lag",
    "relay",
    "sampler",
    "stalled-check",
)

EMPTY = Snapshot(
    seq=1,
    at=NOW,
    daemon=Daemon(
        version="0.1.0",
        pid=4711,
        worker="worker-1",
        host="syncbox",
        state="running",
        started_at=NOW - 42,
        slots=10,
        slots_busy=0,
        is_paused=False,
        rss_bytes=46 << 20,
        cpu=0.004,
        loop_lag=0.0004,
        redis="embedded",
        database="embedded",
    ),
    queue=QueueDepth(
        name="sync-jobs",
        waiting=0,
        prioritized=0,
        active=0,
        delayed=0,
        waiting_children=0,
        completed=0,
        failed=0,
        paused=0,
        is_paused=False,
    ),
    rates=Rates(completed=0, failed=0, retried=0, per_second=0.0, p50=None, p95=None),
    running=(),
    chains=(),
    breakers=None,
    failures=(),
    children=(),
)

_REASONS = (
    ("timed out after 10.0 s waiting for polygon (polygon-bor.example): the endpoint is slow or down", False),
    ("all 6 chains failed; the first: ethereum: HTTP 429 from ethereum-rpc.example, asked to wait 30 s", True),
    ("walletAddress 0xZZ… is not hexadecimal: expected 0x and 40 hex digits", True),
    ("the endpoint of base answered chain id 1, expected 8453: check BASE_RPC_URL", False),
    ("\x1b[31;1mred\x1b[0m\x07 reason with control characters\nand a second line \u202etxt.exe", False),
    ("余额查询失败：节点没有响应 👩‍👧 🇩🇪 (a reason in Chinese, with emoji)", False),
)


def address(number: int) -> str:
    return f"0x{number * 0x9E3779B97F4A7C15 % (1 << 160):040x}"


def busy() -> Snapshot:
    """A worker under load in which nearly everything that can be said is said."""
    running = tuple(
        RunningJob(
            id=str(184_200 + n),
            name="portfolio-sync",
            user=f"user-{n * 37 % 90:02d}",
            wallet=address(n + 1),
            attempt=2 if n == 3 else 1,
            step=("fetch", "price", "fetch", "commit", "admit")[n % 5],
            started_at=NOW - (0.2 + n * 0.35 if n else 47.5),
        )
        for n in range(9)
    )
    chains = tuple(
        ChainHealth(
            chain_id=chain_id,
            chain=name,
            provider=provider,
            requests=12_480 - 911 * n,
            errors=(0, 2_310, 0, 3, 0, 0)[n],
            p50=0.084 + 0.03 * n,
            p95=(0.31, 9.87, 0.29, 1.24, 0.4, 0.5)[n],
            last_error=(None, "timed out after 10.0 s", None, "HTTP 429, asked to wait 30 s", None, None)[n],
        )
        for n, (chain_id, name, provider) in enumerate(CHAINS)
    )
    failures = tuple(
        Failure(
            at=NOW - 3 - 29 * n,
            job_id=str(184_150 - n),
            name="portfolio-sync",
            user=f"user-{n * 17 % 90:02d}",
            wallet=address(n + 50),
            attempt=3 if _REASONS[n % 6][1] else 1 + n % 2,
            reason=_REASONS[n % 6][0],
            final=_REASONS[n % 6][1],
        )
        for n in range(14)
    )
    children = tuple(
        Child(
            name=name,
            state="backing-off" if name == "relay" else "running",
            critical=name in ("consumer", "control"),
            restarts=4 if name == "relay" else 0,
            since=NOW - (6 if name == "relay" else 11_530),
            last_error="cannot reach the broker" if name == "relay" else None,
        )
        for name in PARTS
    )
    return msgspec.structs.replace(
        EMPTY,
        daemon=msgspec.structs.replace(
            EMPTY.daemon, started_at=NOW - 11_530, slots_busy=9, rss_bytes=51 << 20, cpu=0.62, loop_lag=0.0031
        ),
        queue=msgspec.structs.replace(
            EMPTY.queue, waiting=1_284, prioritized=37, active=9, delayed=12, completed=100, failed=5
        ),
        rates=Rates(completed=184_191, failed=5, retried=212, per_second=16.4, p50=0.42, p95=1.31),
        running=running,
        chains=chains,
        failures=failures,
        children=children,
    )


def tripped() -> Snapshot:
    """Breakers configured, two of them not closed; the queue paused."""
    scene = busy()
    breakers = (
        Breaker(name="ethereum", state="closed", failures=0),
        Breaker(name="polygon", state="open", failures=7, opened_at=NOW - 93, reason="7 failures in 60 s"),
        Breaker(name="optimism", state="half-open", failures=5, opened_at=NOW - 300),
    )
    queue = msgspec.structs.replace(scene.queue, is_paused=True)
    return msgspec.structs.replace(scene, breakers=breakers, queue=queue)


def history(scene: Snapshot, seconds: int = 90) -> History:
    """A past that led to `scene`: work that swells and ebbs, a queue that fills."""
    samples = []
    for n in range(seconds):
        share = (n + 1) / seconds
        queue = msgspec.structs.replace(
            scene.queue,
            waiting=int(scene.queue.waiting * (0.4 + 0.6 * share)),
            active=max(0, scene.queue.active - n % 4),
        )
        working = scene.rates.completed > 0
        samples.append(
            Sample(
                second=int(NOW) - seconds + 1 + n,
                queue=queue,
                completed=12.0 + 5 * (n % 20) / 20 if working else 0.0,
                failed=float(n == 60 and working),
                retried=float(n % 13 == 0 and working),
            )
        )
    return History(tuple(samples), scene.rates, scene.daemon.started_at)
