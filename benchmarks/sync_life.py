"""What a daemon weighs, how soon it works after it was started, and how long any step holds up its event loop."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import trio

from moonxd.adapters.redis.embedded import embedded_redis
from moonxd.adapters.redis.settings import RedisSettings
from moonxd.domain.job import NewJob

from .stats import Spread, spread
from .sync_load import WARM_UP, Bench, job
from .sync_steps import Steps
from .sync_world import Daemon, World, children, daemon, producer, rss_mb, spawn, until_count

#: Jobs that wait for a daemon that is about to start.
_WAITING = 20


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Resident megabytes of the daemon; `private_redis` beside it is a process of its own (0: an external one)."""

    idle: float
    loaded: float
    private_redis: float


async def memory(world: World, *, slots: int, wallets: int) -> Memory:
    """Idle is before the first job; loaded the highest seen while `slots` slots are busy at 100 ms."""
    world.sim.latency(100)
    with daemon(world, slots=slots) as running:
        await trio.sleep(1)
        idle = rss_mb(running.pid)
        async with producer(running.redis_settings) as (redis, queue):
            await queue.add([job(number) for number in range(wallets)])
            highest = 0.0
            with trio.fail_after(300):
                while await redis.call("ZCARD", "bull:sync-jobs:completed") < wallets:
                    highest = max(highest, rss_mb(running.pid))
                    await trio.sleep(0.1)
        beside = sum(map(rss_mb, children(running.pid)))
    return Memory(idle=round(idle, 1), loaded=round(highest, 1), private_redis=round(beside, 1))


async def steps(world: World, *, slots: int, wallets: int, latency_ms: float) -> Steps:
    """The event loop of a daemon under load."""
    world.sim.latency(0)
    report = world.home / "steps.json"
    program = ("-m", "benchmarks.sync_steps")
    with daemon(world, slots=slots, program=program, extra={"BENCHMARK_STEPS": str(report)}) as running:
        async with producer(running.redis_settings) as (redis, queue):
            bench = Bench(world, running, redis, queue)
            await bench.sync(range(WARM_UP))
            world.sim.latency(latency_ms)
            os.kill(running.pid, signal.SIGUSR1)
            await bench.sync(range(2000, 2000 + wallets))
            os.kill(running.pid, signal.SIGUSR2)
    return msgspec.json.decode(report.read_bytes(), type=Steps)


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from spawning the process."""

    first_job_done: Spread


async def start(world: World, *, rounds: int) -> Start:
    """Jobs wait in the queue, the files of an earlier run are there; the round that makes them is left out."""
    world.sim.latency(0)
    state = world.home / "start"
    with world.fresh_parts("start") as parts:
        seconds = [await _start_once(world, state, parts, number) for number in range(rounds + 1)]
    return Start(first_job_done=spread(seconds[1:], 3))


async def _start_once(world: World, state: Path, parts: Mapping[str, str], number: int) -> float:
    jobs = [job(_WAITING * number + one) for one in range(_WAITING)]
    if world.parts is None:
        async with embedded_redis(state) as server:
            ids = await _put(server.settings, jobs)
    else:
        ids = await _put(world.redis_settings(state), jobs)
    began = time.time()
    with spawn(world, state=state, extra=parts) as child:
        running = Daemon(child, state, world.redis_settings(state))
        while not running.is_running(child):  # noqa: ASYNC110 (another process)
            await trio.sleep(0.05)
        async with producer(running.redis_settings) as (redis, _):
            await until_count(redis, "completed", _WAITING * (number + 1), 60)
            ended = [int(await redis.call("HGET", f"bull:sync-jobs:{one}", "finishedOn")) for one in ids]
    return min(ended) / 1000 - began


async def _put(settings: RedisSettings, jobs: Sequence[NewJob]) -> list[str]:
    async with producer(settings) as (_, queue):
        return list(await queue.add(jobs))
