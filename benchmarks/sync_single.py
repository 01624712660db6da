"""One wallet at a time: a whole sync beside the same requests sent bare, on plain sockets, to the slowest chain."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import trio

from moonxd.adapters.chains import TokenList, build_reader, builtin_tokens
from moonxd.adapters.memory.cache import MemoryCache
from moonxd.adapters.redis.client import Redis
from moonxd.adapters.rpc import Endpoint, Transport
from moonxd.adapters.rpc.wire import Reply
from moonxd.domain.chain import CHAINS

from .stats import Spread, ratios, spread
from .sync_load import WARM_UP, Bench, address, job
from .sync_world import Simulator, World, daemon, producer

_EVENTS = "bull:sync-jobs:events"
_WARM: Mapping[str, str] = {}
#: With prices that live for no time at all every sync has to ask for them.
COLD: Mapping[str, str] = {"MOONXD_PRICES__TTL_S": "0"}


class Overhead(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds, and ratios of what was measured in one round.

    `bare_ms`: the two calls of the slowest chain, one after the other. `sync_ms`: from adding the job to hearing that
    it is completed. `job_ms`: the part of it that the job was in a slot, by the queue's stamps.
    """

    latency_ms: dict[str, float]
    bare_ms: Spread
    sync_ms: Spread
    job_ms: Spread
    ratio: Spread
    job_ratio: Spread


class _Recorder(Transport):
    """Keeps what a reader sends."""

    def __init__(self) -> None:
        super().__init__(connections=4, idle_s=30.0, connect_s=5.0, tls=None)
        self.sent: list[bytes] = []

    async def request(self, endpoint: Endpoint, request: bytes, **limits: Any) -> Reply:
        self.sent.append(request)
        return await super().request(endpoint, request, **limits)


async def recorded(sim: Simulator, wallet: str) -> dict[str, tuple[bytes, bytes]]:
    """By chain, the two requests of a read: for the head, and for everything at that block."""
    requests = {}
    for chain in CHAINS.values():
        transport = _Recorder()
        url = sim.environ[f"{chain.slug.upper()}_RPC_URL"]
        reader = build_reader(chain, transport, TokenList(builtin_tokens()), MemoryCache(), urls=[url])
        await reader.read(wallet, ())
        transport.sent.clear()
        await reader.read(wallet, ())
        head, call = transport.sent
        requests[chain.slug] = (head, call)
        await transport.aclose()
    return requests


class Bare:
    """Keep-alive connections to each chain, and nothing around the requests."""

    def __init__(self, sim: Simulator, requests: Mapping[str, tuple[bytes, bytes]]) -> None:
        host, _, port = sim.base.removeprefix("http://").partition(":")
        self._requests = requests
        self._sockets = {slug: socket.create_connection((host, int(port))) for slug in requests}
        for one in self._sockets.values():
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def slowest(self) -> float:
        """Seconds of the slowest chain's calls; the chains are asked one after the other, so none disturbs another."""
        return max(self._chain(slug) for slug in self._requests)

    def _chain(self, slug: str) -> float:
        head, call = self._requests[slug]
        began = time.perf_counter()
        _exchange(self._sockets[slug], head)
        _exchange(self._sockets[slug], call)
        return time.perf_counter() - began

    def close(self) -> None:
        for one in self._sockets.values():
            one.close()


def _exchange(stream: socket.socket, request: bytes) -> None:
    stream.sendall(request)
    data = stream.recv(1 << 16)
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += stream.recv(1 << 16)
    headers = data[:end].lower()
    at = headers.index(b"content-length:") + len(b"content-length:")
    missing = int(headers[at:].split(b"\r\n", 1)[0]) - (len(data) - end - 4)
    while missing > 0:
        missing -= len(stream.recv(1 << 16))


class Listener:
    """Hears of completed jobs from the queue's event stream, as any QueueEvents program does."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._last: bytes | str = "$"

    async def start(self) -> None:
        newest = await self._redis.call("XREVRANGE", _EVENTS, "+", "-", "COUNT", 1)
        self._last = newest[0][0] if newest else "0"

    async def completed(self, job_id: str) -> None:
        with trio.fail_after(60):
            while True:
                reply = await self._redis.block("XREAD", "BLOCK", 10_000, "STREAMS", _EVENTS, self._last, timeout=10.0)
                for entry, fields in reply[0][1] if reply else ():
                    self._last = entry
                    told = dict(zip(fields[::2], fields[1::2], strict=True))
                    if told.get(b"jobId") == job_id.encode() and told[b"event"] in (b"completed", b"failed"):
                        assert told[b"event"] == b"completed", told
                        return


async def overhead(
    world: World, *, latencies: Sequence[Mapping[str, float]], rounds: int, extra: Mapping[str, str] = _WARM
) -> list[Overhead]:
    """For each setting of latencies (`all`, and chains that differ): rounds of one bare read, then one sync."""
    world.sim.latency(0)
    with daemon(world, extra=extra) as running:
        async with producer(running.redis_settings) as (redis, queue):
            bench = Bench(world, running, redis, queue)
            await bench.sync(range(WARM_UP))
            return [await _measure(world, bench, setting, rounds) for setting in latencies]


async def _measure(world: World, bench: Bench, setting: Mapping[str, float], rounds: int) -> Overhead:
    world.sim.latency(0)
    wallets = range(50, 50 + rounds)
    bares = [Bare(world.sim, await recorded(world.sim, address(number))) for number in wallets]
    world.sim.latency(setting["all"], **{slug: ms for slug, ms in setting.items() if slug != "all"})
    listener = Listener(bench.redis)
    await listener.start()
    bare_s, sync_s, job_s = [], [], []
    for number, bare in zip(wallets, bares, strict=True):
        bare_s.append(await trio.to_thread.run_sync(bare.slowest))
        began = time.perf_counter()
        [one] = await bench.queue.add([job(number)])
        await listener.completed(one)
        sync_s.append(time.perf_counter() - began)
        start, end = await bench.redis.call("HMGET", f"bull:sync-jobs:{one}", "processedOn", "finishedOn")
        job_s.append((int(end) - int(start)) / 1000)
        bare.close()
    return Overhead(
        latency_ms=dict(setting),
        bare_ms=spread((s * 1000 for s in bare_s), 2),
        sync_ms=spread((s * 1000 for s in sync_s), 2),
        job_ms=spread((s * 1000 for s in job_s), 2),
        ratio=ratios(sync_s, bare_s),
        job_ratio=ratios(job_s, bare_s),
    )


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Slots that mostly wait for the chains. `allowed` is Little's law: slots over the bare time of a sync."""

    slots: int
    latency_ms: float
    bare_ms: Spread
    wallets_per_s: Spread
    allowed: Spread
    share: Spread


async def waiting(world: World, *, slots: int, latency_ms: float, wallets: int, rounds: int) -> Waiting:
    """Rounds of a bare read of the slowest chain, then many wallets."""
    world.sim.latency(0)
    rates, allowed, bare_s = [], [], []
    with daemon(world, slots=slots) as running:
        async with producer(running.redis_settings) as (redis, queue):
            bench = Bench(world, running, redis, queue)
            await bench.sync(range(WARM_UP))
            for number in range(rounds):
                world.sim.latency(0)
                bare = Bare(world.sim, await recorded(world.sim, address(50 + number)))
                world.sim.latency(latency_ms)
                bare_s.append(await trio.to_thread.run_sync(bare.slowest))
                bare.close()
                load = await bench.measure(range(1000 + number * wallets, 1000 + (number + 1) * wallets))
                rates.append(load.wallets_per_s)
                allowed.append(slots / bare_s[-1])
    return Waiting(
        slots=slots,
        latency_ms=latency_ms,
        bare_ms=spread((s * 1000 for s in bare_s), 2),
        wallets_per_s=spread(rates, 1),
        allowed=spread(allowed, 1),
        share=ratios(rates, allowed),
    )
