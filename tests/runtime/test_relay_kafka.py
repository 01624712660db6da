"""The relay on a real broker: a producer that has failed for good is replaced, and nothing of it is lost or doubled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
import trio

from moonxd.adapters.island.kafka.settings import KafkaSettings
from moonxd.adapters.island.kafka.sink import KafkaSink, open_kafka_sink
from moonxd.adapters.island.kafka.topic import open_kafka_topic
from moonxd.adapters.island.loop import Island, open_island
from moonxd.adapters.sqlite.ledger import open_sqlite_ledger
from moonxd.agents.relay import Relay
from tests.runtime.relay_world import PATIENCE, Meter, eventually, sync_event
from tests.services.kafka import KafkaServer

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


class Producers:
    """Each that was opened."""

    def __init__(self, island: Island, settings: KafkaSettings) -> None:
        self.opened: list[KafkaSink] = []
        self._island = island
        self._settings = settings

    @asynccontextmanager
    async def open(self) -> AsyncIterator[KafkaSink]:
        async with open_kafka_sink(self._island, self._settings) as sink:
            self.opened.append(sink)
            yield sink

    async def break_the_last(self) -> None:
        """The broker takes nothing from it any more: its numbers are not those that come next."""

        async def lose() -> None:
            numbers = self.opened[-1]._producer._txn_manager._sequence_numbers
            for where in numbers:
                numbers[where] += 7

        await self._island.call(lose)


async def test_a_producer_that_failed_for_good_is_replaced(kafka_server: KafkaServer, tmp_path: Path) -> None:
    topic, meter = f"relay-{uuid4()}", Meter()
    settings = KafkaSettings(brokers=(kafka_server.address(),), connect_timeout_s=5.0, request_timeout_s=10.0)
    async with (
        open_sqlite_ledger(tmp_path / "ledger.db") as ledger,
        open_island() as island,
        trio.open_nursery() as nursery,
    ):
        producers = Producers(island, settings)
        relay = Relay(
            ledger.publication(),
            topics={"sync.events": topic},
            patience=PATIENCE,
            notify=lambda *what: None,
            meter=meter,
        )
        nursery.start_soon(relay.run, lambda: None, producers.open)
        for lives in range(1, 4):
            first = 20 * (lives - 1)
            await ledger.tell([sync_event(f"u{n % 3}", f"w{n % 3}", n) for n in range(first, first + 20)])
            with trio.fail_after(60):
                await eventually(ledger.backlog, 0)
            assert len(producers.opened) == lives
            await producers.break_the_last()
        nursery.cancel_scope.cancel()
    assert meter.errors["broken"] == 2
    numbers: dict[str | None, list[int]] = {}
    async with open_island() as island, open_kafka_topic(island, settings, topic) as reader:
        while page := await reader.page():
            for one in page:
                numbers.setdefault(one.key, []).append(msgspec.json.decode(one.value or b"")["data"]["n"])
    assert numbers == {f"u{user}": list(range(user, 60, 3)) for user in range(3)}
