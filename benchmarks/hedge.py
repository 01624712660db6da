"""The tail of reads with and without a second request, interleaved in one run.

    python -m benchmarks.hedge [--reads 1500] [--rounds 5] [--concurrency 8] [--latency-ms 10] [--json]

Two endpoints in processes of their own: the first answers 5 % of its calls 20 times as slowly as the others. Printed
per round and as medians: the p50 and p99 of whole reads (head, then balances pinned to it) in ms with and without
hedging, their ratio, and how many more requests the endpoints saw.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from random import Random
from typing import Any, NamedTuple

import trio

from benchmarks.stats import nearest_rank, ratios, spread
from moonxd.adapters.chains import Guards, TokenList, build_reader
from moonxd.adapters.rpc import Transport, open_transport
from moonxd.domain.breakers import Breakers
from moonxd.domain.chain import CHAINS
from moonxd.ports import ChainReader

SLOW_SHARE, SLOW_FACTOR = 0.05, 20
BASE = CHAINS[8453]
WALLET = "0x" + "5a" * 20
#: Reads before anything is measured: connections are opened and latencies learnt.
_WARM_UP = 100
_HEADERS = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_ID = re.compile(rb'"id": ?(\d+)')
_METHOD = re.compile(rb'"method": ?"(\w+)"')


def _word(number: int) -> str:
    return f"{number:064x}"


#: Two results of aggregate3: the coin's balance and the block's time.
_RESULT = _word(1) + _word(64) + _word(32) + _word(1)
_ANSWERS = {
    b"eth_chainId": f'"{BASE.id:#x}"',
    b"eth_blockNumber": '"0x64"',
    b"eth_getBlockByNumber": '{"number":"0x64"}',
    b"eth_call": f'"0x{_word(32)}{_word(2)}{_word(64)}{_word(192)}{_RESULT}{_RESULT}"',
}


class NoCache:
    """Nothing is remembered: there are no tokens to describe."""

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        return {}

    async def put_many(self, entries: Mapping[str, bytes], ttl_s: float) -> None:
        return None


# ---- an endpoint -------------------------------------------------------------------------------------------------


def serve(ready: Any, count: Any, latency_s: float, slow_share: float) -> None:
    """Answer until killed; `count` is shared memory."""
    trio.run(_serve, ready, count, latency_s, Random(1), slow_share)


async def _serve(ready: Any, count: Any, latency_s: float, dice: Random, slow_share: float) -> None:
    async def converse(stream: trio.SocketStream) -> None:
        buffer = b""
        while data := await stream.receive_some(65536):
            buffer += data
            head, mark, rest = buffer.partition(b"\r\n\r\n")
            found = _HEADERS.search(head)
            if not mark or found is None or len(rest) < int(found[1]):
                continue
            buffer = b""
            count.value += 1
            slow = dice.random() < slow_share
            await trio.sleep(latency_s * (SLOW_FACTOR if slow else 1) * dice.uniform(0.9, 1.1))
            await stream.send_all(_answer(rest))

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    ready.send(listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, _forgiving(converse), listeners)


def _forgiving(converse: Any) -> Any:
    async def handler(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await converse(stream)
        except trio.BrokenResourceError:
            return  # a cancelled request closes its connection

    return handler


def _answer(question: bytes) -> bytes:
    number, method = _ID.search(question), _METHOD.search(question)
    assert number is not None
    assert method is not None
    body = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (number[1], _ANSWERS[method[1]].encode())
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


# ---- the reads ---------------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """One round of one contender; milliseconds."""

    p50: float
    p99: float
    requests: int


async def measure(reader: ChainReader, counts: Sequence[Any], reads: int, concurrency: int) -> Sample:
    """Read `reads` times, `concurrency` at a time."""
    durations: list[float] = []
    left = reads
    before = sum(count.value for count in counts)

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            started = time.perf_counter()
            await reader.read(WALLET, ())
            durations.append((time.perf_counter() - started) * 1000)

    async with trio.open_nursery() as nursery:
        for _ in range(concurrency):
            nursery.start_soon(worker)
    requests = sum(count.value for count in counts) - before
    return Sample(statistics.median(durations), nearest_rank(durations, 0.99), requests)


def contender(transport: Transport, urls: Sequence[str], share: float) -> ChainReader:
    guards = Guards(breakers=Breakers(trio.current_time), hedge_share=share)
    return build_reader(BASE, transport, TokenList([]), NoCache(), urls=urls, guards=guards)


async def run(args: argparse.Namespace, urls: Sequence[str], counts: Sequence[Any]) -> list[tuple[Sample, Sample]]:
    """(without, with) per round, one right after the other."""
    rounds: list[tuple[Sample, Sample]] = []
    async with open_transport() as transport:
        plain, hedged = (contender(transport, urls, share) for share in (0.0, 0.1))
        for reader in (plain, hedged):
            await measure(reader, counts, _WARM_UP, args.concurrency)
        for _ in range(args.rounds):
            without = await measure(plain, counts, args.reads, args.concurrency)
            rounds.append((without, await measure(hedged, counts, args.reads, args.concurrency)))
    return rounds


def report(rounds: Sequence[tuple[Sample, Sample]]) -> dict[str, Any]:
    without, with_hedges = [a for a, _ in rounds], [b for _, b in rounds]
    return {
        "p50_ms": {"without": spread(s.p50 for s in without), "with": spread(s.p50 for s in with_hedges)},
        "p99_ms": {"without": spread(s.p99 for s in without), "with": spread(s.p99 for s in with_hedges)},
        "p99_ratio": ratios([s.p99 for s in without], [s.p99 for s in with_hedges]),
        "extra_load": spread(b.requests / a.requests - 1 for a, b in rounds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The tail of reads with and without a second request.")
    parser.add_argument("--reads", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--latency-ms", type=float, default=10.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    urls, counts = [], []
    with ExitStack() as stack:
        for slow_share in (SLOW_SHARE, 0.0):
            ours, theirs = spawn.Pipe()
            count = spawn.Value("q", 0)
            process = spawn.Process(target=serve, args=(theirs, count, args.latency_ms / 1000, slow_share), daemon=True)
            process.start()
            stack.callback(process.kill)
            urls.append(f"http://127.0.0.1:{ours.recv()}")
            counts.append(count)
        result = report(trio.run(run, args, urls, counts))
    if args.json:
        print(json.dumps({name: _plain(value) for name, value in result.items()}))
        return
    for name, value in result.items():
        shown = ", ".join(f"{kind} {one}" for kind, one in value.items()) if isinstance(value, dict) else value
        print(f"{name:12} {shown}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {kind: _plain(one) for kind, one in value.items()}
    return {"median": value.median, "low": value.low, "high": value.high, "n": value.n}


if __name__ == "__main__":
    main()
