"""The janitor closes what a dead worker left open, and outlives a ledger that is away."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import msgspec
import trio
from trio.testing import MockClock

from moonxd.adapters.memory.ledger import MemoryLedger
from moonxd.agents.janitor import Janitor
from moonxd.domain.errors import Transient
from moonxd.domain.ledger import Admission, Event, Orphan


class Clock:
    def now(self) -> float:
        return 1_700_000_000 + trio.current_time()


class Flaky(MemoryLedger):
    """Away for its first sweeps."""

    away = 3

    async def sweep(self, grace_s: float, told: Callable[[Orphan], Event] | None = None) -> int:
        if self.away:
            self.away -= 1
            raise Transient("the database is away")
        return await super().sweep(grace_s, told)


async def test_an_orphaned_operation_is_closed_once_its_lease_is_long_over(autojump_clock: MockClock) -> None:
    ledger = Flaky(Clock())
    ask = Admission(
        operation=uuid4(), user_id="u", wallet="0x" + "ab" * 20, sync_type="portfolio", priority="medium", queue="q",
        job_id="1", attempt=1, max_attempts=3, worker_id="dead", worker_version="0", lease_s=30,
    )  # fmt: skip
    await ledger.admit(ask)

    async def status() -> str:
        (operation,) = await ledger.operations(user_id="u")
        return operation.status

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Janitor(ledger, interval_s=10, grace_s=60, version="0", clock=Clock()).run, lambda: None)
        await trio.sleep(85)
        assert await status() == "running", "the lease ended 55 s ago: a redelivery may still reopen it"
        await trio.sleep(20)
        assert await status() == "failed"
        (told,) = [one.event for one in await ledger.read(0, 10)]
        assert told.type == "sync.failed"
        body = msgspec.json.decode(told.body)
        assert (body["data"]["abandoned"], body["metadata"]["correlationId"]) == (True, str(ask.operation))
        nursery.cancel_scope.cancel()
