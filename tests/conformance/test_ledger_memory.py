"""The memory ledger lives on the loop and on the clock it is given: simulated time works with it."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from moonxd.adapters.memory.ledger import MemoryLedger
from moonxd.domain.ledger import Admitted, Busy
from tests.conformance.ledger_data import admission, admitted, new_wallet


class LoopClock:
    def now(self) -> float:
        return 1_700_000_000 + trio.current_time()


async def test_a_lease_runs_out_in_simulated_time(autojump_clock: MockClock) -> None:
    ledger, wallet = MemoryLedger(LoopClock()), new_wallet()
    await admitted(ledger, admission(wallet, job="1", lease_s=3600.0))
    assert isinstance(await ledger.admit(admission(wallet, job="2")), Busy)
    await trio.sleep(3601)
    assert isinstance(await ledger.admit(admission(wallet, job="2")), Admitted)
    await trio.sleep(10)
    assert await ledger.sweep(5.0) == 1
