"""Random interleavings of admissions, commits, endings and sweeps: a lower fence never writes."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moonxd.domain.errors import LeaseLost
from moonxd.domain.ledger import Admitted, AlreadyCommitted, Lease
from tests.conformance.conftest import Kind
from tests.conformance.ledger_data import WholeLedger, admission, change, ending, event, holding, lease_of, new_wallet

JOBS = 2
#: (what, which job, which of the job's attempts counted from the newest)
STEP = st.one_of(
    st.tuples(st.just("admit"), st.integers(0, JOBS - 1), st.sampled_from([0.0, 60.0])),
    st.tuples(st.just("commit"), st.integers(0, JOBS - 1), st.integers(0, 2)),
    st.tuples(
        st.sampled_from(["retrying", "failed", "cancelled", "released"]), st.integers(0, JOBS - 1), st.integers(0, 2)
    ),
    st.tuples(st.just("renew"), st.integers(0, JOBS - 1), st.integers(0, 2)),
    st.tuples(st.just("sweep"), st.just(0), st.just(0)),
)


class Play:
    """One wallet, a few jobs, and what must be true of them."""

    def __init__(self, ledger: WholeLedger) -> None:
        self.ledger = ledger
        self.wallet = new_wallet()
        self.attempts: dict[int, list[Lease]] = {job: [] for job in range(JOBS)}
        self.highest = 0
        self.committed: dict[int, int] = {}
        self.writes = 0
        self.last_raw: int | None = None

    def attempt(self, job: int, back: int) -> Lease | None:
        attempts = self.attempts[job]
        return attempts[-1 - back] if back < len(attempts) else None

    async def step(self, what: str, job: int, detail: Any) -> None:
        if what == "admit":
            await self.admit(job, detail)
        elif what == "sweep":
            await self.ledger.sweep(0.0)
        elif lease := self.attempt(job, detail):
            await self.use(what, job, lease)

    async def admit(self, job: int, lease_s: float) -> None:
        ask = admission(self.wallet, job=str(job), lease_s=lease_s)
        answer = await self.ledger.admit(ask)
        assert isinstance(answer, AlreadyCommitted) == (job in self.committed)
        if isinstance(answer, Admitted):
            assert answer.fence > self.highest
            self.highest = answer.fence
            # The rows as the last accepted commit left them, and nothing of a refused one.
            assert [row.raw for row in answer.previous] == ([] if self.last_raw is None else [self.last_raw])
            self.attempts[job].append(lease_of(ask, answer.fence))

    async def use(self, what: str, job: int, lease: Lease) -> None:
        is_repeated = self.committed.get(job) == lease.fence
        try:
            if what == "renew":
                lost = await self.ledger.renew([lease], 60.0)
                assert not lost or lost == (lease.operation,)
                assert lost or lease.fence == self.highest
                return
            if what != "commit":
                await self.ledger.close(ending(lease, what, events=(event(self.wallet, what),)))
                assert lease.fence == self.highest or job not in self.committed
                return
            self.writes += 1
            row = holding(1, raw=self.writes)
            await self.ledger.commit(change(lease, [row], events=(event(self.wallet),)))
        except LeaseLost:
            return
        if is_repeated:
            return
        assert lease.fence == self.highest, "a lower fence wrote"
        self.committed[job] = lease.fence
        self.last_raw = self.writes


@pytest.mark.slow
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEP, min_size=12, max_size=30))
def test_a_lower_fence_never_writes(ledger_kind: Kind, steps: list[tuple[str, int, Any]]) -> None:
    async def play() -> None:
        async with ledger_kind.open() as ledger:
            before = await ledger.backlog()
            scene = Play(ledger)
            for step in steps:
                await scene.step(*step)
            views = await ledger.portfolio(scene.wallet)
            raws = [row.raw for view in views for row in view.holdings]
            assert raws == ([] if scene.last_raw is None else [scene.last_raw])
            done = [op for op in await ledger.operations(wallet=scene.wallet) if op.status == "completed"]
            assert len(done) == len(scene.committed)
            assert await ledger.backlog() >= before + len(scene.committed)

    trio.run(play)
