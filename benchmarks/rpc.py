"""CPU per JSON-RPC request: our transport beside httpx, interleaved in one run against a server in its own process.

    python -m benchmarks.rpc [--requests 5000] [--concurrency 10,50] [--rounds 5] [--json]

Both ask the same small question on kept connections and decode the answer to the same type. Printed per contender and
concurrency: microseconds of this process's CPU per request and requests per second (median, lowest, highest round),
and the ratio of httpx's CPU to ours, round by round.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import re
import selectors
import socket
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import httpx
import msgspec
import trio

from moonxd.adapters.rpc import Endpoint, RpcClient, open_transport

_ID = re.compile(rb'"id":(\d+)')
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
Ask = Callable[[], Awaitable[None]]
Contender = Callable[[str, int, Callable[[Ask], Awaitable[None]]], Awaitable[None]]


class Sample(NamedTuple):
    """One round of one contender."""

    cpu_us: float
    per_second: float


# ---- the server: answers every request with the block number, as fast as it can ----


def serve(ready: Any) -> None:
    """Run until killed. Sends its port through `ready`."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener, selectors.DefaultSelector() as selector:
        ready.send(listener.getsockname()[1])
        selector.register(listener, selectors.EVENT_READ, None)
        buffers: dict[int, bytes] = {}
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    connection, _address = listener.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(connection, selectors.EVENT_READ, connection)
                elif not _serve_one(key.data, buffers):
                    selector.unregister(key.data)
                    key.data.close()


def _serve_one(connection: socket.socket, buffers: dict[int, bytes]) -> bool:
    """Answer what has arrived whole; False at the end of the connection."""
    try:
        data = connection.recv(65536)
    except ConnectionError:
        data = b""
    if not data:
        buffers.pop(connection.fileno(), None)
        return False
    buffer = buffers.pop(connection.fileno(), b"") + data
    head, mark, body = buffer.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    number = _ID.search(body)
    if not mark or length is None or number is None or len(body) < int(length[1]):
        buffers[connection.fileno()] = buffer
        return True
    answer = b'{"jsonrpc":"2.0","id":%b,"result":"0x1234567"}' % number[1]
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer)
    )
    return True


# ---- the contenders ----


async def moonxd(url: str, concurrency: int, run: Callable[[Ask], Awaitable[None]]) -> None:
    async with open_transport(connections=concurrency) as transport:
        client = RpcClient(transport, Endpoint(url))

        async def ask() -> None:
            assert await client.call("eth_blockNumber", [], str) == "0x1234567"

        await run(ask)


class _Answer(msgspec.Struct):
    id: int
    result: str


async def with_httpx(url: str, concurrency: int, run: Callable[[Ask], Awaitable[None]]) -> None:
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    decoder = msgspec.json.Decoder(_Answer)
    async with httpx.AsyncClient(limits=limits, timeout=30) as client:

        async def ask() -> None:
            body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []})
            reply = await client.post(url, content=body, headers={"content-type": "application/json"})
            assert decoder.decode(reply.content).result == "0x1234567"

        await run(ask)


CONTENDERS: dict[str, Contender] = {"moonxd": moonxd, "httpx": with_httpx}


async def measure(contender: Contender, url: str, requests: int, concurrency: int) -> Sample:
    """`requests` requests by `concurrency` tasks, on connections that are warm."""
    samples: list[Sample] = []

    async def run(ask: Ask) -> None:
        await _spread(ask, concurrency * 2, concurrency)
        gc.collect()
        started, cpu = time.perf_counter(), time.process_time()
        await _spread(ask, requests, concurrency)
        cpu, elapsed = time.process_time() - cpu, time.perf_counter() - started
        samples.append(Sample(cpu / requests * 1e6, requests / elapsed))

    await contender(url, concurrency, run)
    return samples[0]


async def _spread(ask: Ask, requests: int, concurrency: int) -> None:
    remaining = iter(range(requests))

    async def work() -> None:
        for _ in remaining:
            await ask()

    async with trio.open_nursery() as nursery:
        for _ in range(concurrency):
            nursery.start_soon(work)


# ---- the report ----


def summary(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "low": round(min(values), 2),
        "high": round(max(values), 2),
    }


def report(samples: dict[str, list[Sample]]) -> dict[str, Any]:
    ours, theirs = samples["moonxd"], samples["httpx"]
    return {
        **{
            name: {
                "cpu_us_per_request": summary([one.cpu_us for one in rounds]),
                "requests_per_s": summary([one.per_second for one in rounds]),
            }
            for name, rounds in samples.items()
        },
        "cpu_ratio_httpx_to_moonxd": summary([b.cpu_us / a.cpu_us for a, b in zip(ours, theirs, strict=True)]),
    }


def compare(url: str, requests: int, concurrency: int, rounds: int) -> dict[str, Any]:
    """Interleaved rounds; httpx makes a fifth of the requests, it takes long enough."""
    samples: dict[str, list[Sample]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name, contender in CONTENDERS.items():
            share = requests if name == "moonxd" else max(requests // 5, 1)
            samples[name].append(trio.run(measure, contender, url, share, concurrency))
    return report(samples)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rpc", description="CPU per JSON-RPC request")
    parser.add_argument("--requests", type=int, default=5000, help="requests per round")
    parser.add_argument("--concurrency", default="10,50", help="numbers of tasks, with commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    options = parser.parse_args()
    receiver, sender = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(sender,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{receiver.recv()}/"
    try:
        results = {
            number: compare(url, options.requests, int(number), options.rounds)
            for number in options.concurrency.split(",")
        }
    finally:
        server.kill()
        server.join(5)
    if options.json:
        print(json.dumps({"benchmark": "rpc", "rounds": options.rounds, "concurrency": results}, indent=1))
        return
    for number, result in results.items():
        for name in CONTENDERS:
            cpu, rate = result[name]["cpu_us_per_request"], result[name]["requests_per_s"]
            print(
                f"concurrency {number:>4}  {name:<8} {cpu['median']:8.1f} us CPU a request"
                f" ({cpu['low']}-{cpu['high']}), {rate['median']:9.0f} requests/s"
            )
        ratio = result["cpu_ratio_httpx_to_moonxd"]
        print(f"concurrency {number:>4}  httpx / moonxd {ratio['median']:.1f}x ({ratio['low']}-{ratio['high']})")


if __name__ == "__main__":
    main()
