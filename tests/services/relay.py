"""A relay as a process of its own, without the rest of a daemon: `python -m tests.services.relay DSN BROKER`.

It prints "holding" once it publishes. `RelayProcess` starts, kills and freezes one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import trio

from tests.services import ROOT
from tests.services.daemon import until
from tests.services.redis import die_with_parent


class RelayProcess:
    def __init__(self, dsn: str, broker: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.services.relay", dsn, broker],
            cwd=ROOT, stdout=subprocess.PIPE, preexec_fn=die_with_parent,
        )  # fmt: skip
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        #: Monotonic time at which it was seen to publish, None before.
        self.held_at: float | None = None

    def is_holding(self) -> bool:
        assert self._process.stdout is not None
        if self.held_at is None and b"holding" in (self._process.stdout.read() or b""):
            self.held_at = time.monotonic()
        return self.held_at is not None

    def await_holding(self, within_s: float = 30.0) -> None:
        until(self.is_holding, "the relay publishes", within_s)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()


StartRelay = Callable[[str, str], RelayProcess]


@pytest.fixture
def start_relay() -> Iterator[StartRelay]:
    started: list[RelayProcess] = []

    def start(dsn: str, broker: str) -> RelayProcess:
        started.append(RelayProcess(dsn, broker))
        return started[-1]

    yield start
    for one in started:
        one.end()


async def _run(dsn: str, broker: str) -> None:
    from moonxd.adapters.island.kafka.settings import KafkaSettings
    from moonxd.adapters.island.kafka.sink import open_kafka_sink
    from moonxd.adapters.island.loop import open_island
    from moonxd.adapters.postgres.ledger import open_postgres_ledger
    from moonxd.agents.relay import Patience, Relay
    from moonxd.telemetry import Telemetry

    def notify(*_: Any) -> None: ...

    async with open_postgres_ledger(dsn, min_size=1) as ledger, open_island() as island:
        relay = Relay(ledger.publication(), topics={}, patience=Patience(), notify=notify, meter=Telemetry())
        async with trio.open_nursery() as nursery:
            sink = partial(open_kafka_sink, island, KafkaSettings(brokers=(broker,)))
            nursery.start_soon(relay.run, lambda: None, sink)
            while True:
                if relay.state == "holding":
                    sys.stdout.write("holding\n")
                    sys.stdout.flush()
                    return await trio.sleep_forever()
                await trio.sleep(0.01)


if __name__ == "__main__":
    trio.run(_run, *sys.argv[1:])
