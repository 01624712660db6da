"""`python -m benchmarks.relay`: how fast the relay empties the outbox into a real Kafka, and how late it is.

A PostgreSQL and a Kafka broker of its own, the jars from the tests' cache (`make kafka`). `drain`: a backlog, events a
second until all are acknowledged and marked. `lag`: a generator in a process of its own commits one event each at a
steady rate; the lag is from just before the commit until the broker's acknowledgement.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import trio

from moonxd.adapters.island.kafka.settings import KafkaSettings
from moonxd.adapters.island.kafka.sink import open_kafka_sink
from moonxd.adapters.island.loop import Island, open_island
from moonxd.adapters.postgres.ledger import open_postgres_ledger
from moonxd.adapters.postgres.migrate import migrate
from moonxd.adapters.sqlite.ledger import open_sqlite_ledger
from moonxd.agents.relay import Patience, Relay
from moonxd.domain.event import Subject, completed
from moonxd.domain.ledger import Event
from moonxd.domain.message import Message
from moonxd.domain.operation import operation_id
from moonxd.ports import Sink
from moonxd.telemetry import Telemetry
from tests.services.kafka import KafkaServer

from .postgres import postgres

BACKLOG = 50_000
RATE = 500
_USERS = 1000
_RESULT = {
    "success": True, "jobId": "1", "userId": "u", "walletAddress": "0x", "processingTime": 812, "tokensSync": 41,
    "chainsSync": 6, "totalValueUsd": 12345.67, "chainsFailed": [],
}  # fmt: skip

Opener = Callable[[], AbstractAsyncContextManager[Any]]


def event_of(number: int) -> Event:
    """A sync.completed as the worker writes it; its time is the moment of asking, in microseconds."""
    user = number % _USERS
    about = Subject(
        operation=operation_id("sync-jobs", f"{time.time_ns()}-{number}", number),
        user_id=f"6f9619ff-8b86-d011-b42d-{user:012x}",
        wallet=f"0x{user:040x}",
        version="0",
        at_ms=time.time_ns() // 1000,
    )
    return completed(about, result=_RESULT, total_value_usd=Decimal("1234.5"), tokens_total=12)


class _Stamped(msgspec.Struct):
    timestamp: int


class _Envelope(msgspec.Struct):
    metadata: _Stamped


_decode = msgspec.json.Decoder(_Envelope).decode


class TimedSink:
    """A sink that notes how old each event was when it was acknowledged."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.partition = sink.partition
        self.lags: list[float] = []

    async def send(self, messages: Sequence[Message]) -> None:
        await self._sink.send(messages)
        now = time.time_ns() // 1000
        self.lags += [(now - _decode(one.value).metadata.timestamp) / 1000 for one in messages]


class Line:
    """One relay from a ledger to the broker."""

    def __init__(self, ledger: Any, island: Island, settings: KafkaSettings, *, timed: bool) -> None:
        self.sinks: list[TimedSink] = []
        self._open = partial(open_kafka_sink, island, settings)
        self._timed = timed
        self.relay = Relay(
            ledger.publication(),
            topics={},
            patience=Patience(),
            notify=lambda *what: print(*what, file=sys.stderr),
            meter=Telemetry(),
        )

    @asynccontextmanager
    async def sink(self) -> AsyncIterator[Sink]:
        async with self._open() as sink:
            if self._timed:
                self.sinks.append(TimedSink(sink))
            yield self.sinks[-1] if self._timed else sink


async def _emptied(ledger: Any) -> None:
    while True:
        if not await ledger.backlog():
            return
        await trio.sleep(0.02)


async def _tell(ledger: Any, count: int) -> None:
    for first in range(0, count, 1000):
        await ledger.tell([event_of(number) for number in range(first, min(count, first + 1000))])


async def drain(opener: Opener, settings: KafkaSettings, count: int) -> dict[str, float]:
    """Events a second from a backlog, and the CPU seconds of this process per 1,000 of them."""
    async with opener() as ledger, open_island() as island:
        line = Line(ledger, island, settings, timed=False)
        await _tell(ledger, 1000)
        async with trio.open_nursery() as nursery:
            # The first thousand make the topic and the connections.
            nursery.start_soon(line.relay.run, lambda: None, line.sink)
            await _emptied(ledger)
            nursery.cancel_scope.cancel()
        await _tell(ledger, count)
        began, cpu = time.perf_counter(), time.process_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.relay.run, lambda: None, line.sink)
            await _emptied(ledger)
            took = time.perf_counter() - began
            nursery.cancel_scope.cancel()
        return {"events_per_s": count / took, "cpu_ms_per_1000": (time.process_time() - cpu) / count * 1e6}


async def _generate(ledger: Any, rate: int, seconds: float) -> None:
    """Commit one event each, `rate` a second, whatever a commit takes."""
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(int(rate * seconds)):
            await trio.sleep_until(began + number / rate)
            nursery.start_soon(ledger.tell, [event_of(number)])


async def _generate_in_process(dsn: str, rate: int, seconds: float) -> None:
    async with open_postgres_ledger(dsn, max_size=8) as ledger:
        await _generate(ledger, rate, seconds)


async def lag(
    opener: Opener, settings: KafkaSettings, generate: Callable[[Any], Any], rate: int, seconds: float
) -> dict[str, float]:
    """Milliseconds from before a commit to the broker's acknowledgement."""
    async with opener() as ledger, open_island() as island:
        line = Line(ledger, island, settings, timed=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.relay.run, lambda: None, line.sink)
            await _tell(ledger, 100)
            await _emptied(ledger)
            line.sinks[-1].lags.clear()
            cpu, began = time.process_time(), time.perf_counter()
            await generate(ledger)
            await _emptied(ledger)
            share = (time.process_time() - cpu) / (time.perf_counter() - began)
            nursery.cancel_scope.cancel()
        lags = sorted(line.sinks[-1].lags)
    assert len(lags) == int(rate * seconds), len(lags)
    return {
        "p50_ms": median(lags), "p99_ms": lags[int(len(lags) * 0.99)], "worst_ms": lags[-1], "cores": share,
    }  # fmt: skip


async def _other_process(dsn: str, rate: int, seconds: float, _ledger: Any) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.relay",
        "--generate",
        dsn,
        "--rate",
        str(rate),
        "--seconds",
        str(seconds),
    ]
    await trio.run_process(command)


@contextmanager
def _outside() -> Iterator[tuple[Callable[[], str], KafkaSettings, Path]]:
    with tempfile.TemporaryDirectory(prefix="moonxd-bench-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        broker = KafkaServer(place / "kafka")
        numbers = iter(range(1000))
        try:
            with postgres(place / "postgres") as server:

                def fresh() -> str:
                    dsn = server.create(f"bench{next(numbers)}")
                    trio.run(migrate, dsn)
                    return dsn

                yield fresh, KafkaSettings(brokers=(broker.address(),)), place
        finally:
            broker.kill()


def measure(only: str | None, rounds: int, count: int, rate: int, seconds: float) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {}

    def note(name: str, figures: dict[str, float]) -> None:
        found.setdefault(name, []).append({key: round(value, 3) for key, value in figures.items()})
        print(f"{name:<16} " + "  ".join(f"{key} {value:.1f}" for key, value in figures.items()), file=sys.stderr)

    with _outside() as (fresh, settings, place):
        for number in range(rounds):
            if only in (None, "drain"):
                note("drain postgres", trio.run(drain, partial(open_postgres_ledger, fresh()), settings, count))
                note(
                    "drain sqlite",
                    trio.run(drain, partial(open_sqlite_ledger, place / f"d{number}.db"), settings, count),
                )
            if only in (None, "lag"):
                dsn = fresh()
                generate: Callable[[Any], Any] = partial(_other_process, dsn, rate, seconds)
                note(
                    "lag postgres", trio.run(lag, partial(open_postgres_ledger, dsn), settings, generate, rate, seconds)
                )
                generate = partial(_generate, rate=rate, seconds=seconds)
                opener = partial(open_sqlite_ledger, place / f"l{number}.db")
                note("lag sqlite", trio.run(lag, opener, settings, generate, rate, seconds))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay", description=__doc__)
    parser.add_argument("--only", choices=("drain", "lag"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backlog", type=int, default=BACKLOG)
    parser.add_argument("--rate", type=int, default=RATE)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--generate", metavar="DSN", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate:
        trio.run(_generate_in_process, options.generate, options.rate, options.seconds)
        return
    found = measure(options.only, options.rounds, options.backlog, options.rate, options.seconds)
    if options.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
