"""One attempt at a job about many wallets: page by page, each wallet admitted, committed and failing by itself.

An attempt that did not get all of them done is retried as any other; the wallets that are done answer then with what
the ledger recorded of them, so that only the rest is worked on. The last attempt ends with what there is.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import trio

from ..domain import event
from ..domain.batch import WalletBatch, summary
from ..domain.errors import LeaseLost, Permanent, Transient, single
from ..domain.job import Completed, Failed, Job, Outcome, Retry
from ..domain.payload import WalletSync
from ..jobs import Env, ManyType
from ..ports import ManyReader
from .attempt import Attempts
from .gather import Gatherer

log = logging.getLogger("moonxd.many")

Progress = Callable[[Job, Any], Awaitable[None]]
#: How many reasons a failure names.
_REASONS = 3


class Many:
    """The state of one attempt. `page` wallets are begun together, `at_once` of them work unless they are shared."""

    def __init__(
        self, attempts: Attempts, job: Job, kind: ManyType, *, page: int, at_once: int, progress: Progress
    ) -> None:
        self._attempts = attempts
        self._job = job
        self._kind = kind
        self._page = page
        self._limit = trio.CapacityLimiter(at_once)
        self._progress = progress
        self._rows: dict[int, dict[str, Any]] = {}
        self._started = trio.current_time()

    async def run(self) -> Outcome:
        """Raises Permanent for the payload, Transient when there is something left to try, Away."""
        batch = self._kind.parse(self._job.data)
        self._attempts.step(self._job.id, f"0/{batch.total}", user=batch.wallets[0].user_id)
        for start in range(0, len(batch.wallets), self._page):
            await self._run_page(start, batch.wallets[start : start + self._page])
            await self._tell(batch)
        return self._outcome(batch)

    async def _run_page(self, start: int, wallets: Sequence[WalletSync]) -> None:
        env = self._attempts.env()
        gatherer = self._gatherer(env, wallets)
        if gatherer is not None:
            env = replace(env, readers={gatherer.chain.id: gatherer})
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:

            async def one(place: int, task: WalletSync) -> None:
                nonlocal failure
                try:
                    if gatherer is not None:
                        await self._sync(place, task, env)
                    else:
                        async with self._limit:
                            await self._sync(place, task, env)
                except Exception as error:
                    # The ledger is away for all of them alike.
                    failure = failure or single(error)
                    nursery.cancel_scope.cancel()
                finally:
                    if gatherer is not None:
                        gatherer.leave()

            if gatherer is not None:
                nursery.start_soon(gatherer.run)
            for place, task in enumerate(wallets, start):
                nursery.start_soon(one, place, task)
        if failure is not None:
            raise failure

    def _gatherer(self, env: Env, wallets: Sequence[WalletSync]) -> Gatherer | None:
        """None when the wallets are read one by one: by the type, or since the chain's source cannot share."""
        if not self._kind.is_shared:
            return None
        reader = env.readers.get(wallets[0].chain_ids[0])
        return Gatherer(reader, env.prices, len(wallets)) if isinstance(reader, ManyReader) else None

    async def _sync(self, place: int, task: WalletSync, env: Env) -> None:
        try:
            outcome = await self._attempts.member(self._job, self._kind.each, task, env)
        except LeaseLost:
            row = {"status": "pending", "error": "another job took the wallet over"}
        else:
            row = _row(outcome)
        self._rows[place] = {"userId": task.user_id, "walletAddress": task.wallet, **row}

    async def _tell(self, batch: WalletBatch) -> None:
        done = len(self._rows) + len(batch.unusable)
        self._attempts.step(self._job.id, f"{done}/{batch.total}")
        value = {
            "done": done,
            "total": batch.total,
            "failed": done - self._count("completed"),
            "percent": 100 * done // batch.total,
        }
        try:
            await self._progress(self._job, value)
        except Transient as error:
            log.warning("progress was not told: %s", error, extra={"job_id": self._job.id})

    # ---- the end ----------------------------------------------------------------------------------------------------

    def _count(self, status: str) -> int:
        return sum(row["status"] == status for row in self._rows.values())

    def _outcome(self, batch: WalletBatch) -> Outcome:
        rows = [self._rows[place] for place in sorted(self._rows)]
        pending, done = self._count("pending"), self._count("completed")
        if pending and not self._attempts.is_last(self._job):
            raise Transient(f"{pending} of {batch.total} wallets are not synced yet: {_reasons(rows)}")
        if not done:
            reason = f"none of {batch.total} wallets could be synced: {_reasons(rows)}"
            raise Transient(reason) if pending else Permanent(reason)
        took = round((trio.current_time() - self._started) * 1000)
        result = summary(self._job.id, batch, rows, took, self._count)
        log.info("%d of %d wallets synced", done, batch.total, extra={"job_id": self._job.id, "duration_ms": took})
        return Completed(event.JSON.encode(result))


def _row(outcome: Outcome) -> dict[str, Any]:
    """What the result says of one wallet. "pending": trying again can help."""
    match outcome:
        case Completed():
            value = msgspec.json.decode(outcome.value)
            told = ("tokensSync", "chainsSync", "totalValueUsd", "chainsFailed")
            return {"status": "completed", **{name: value[name] for name in told if name in value}}
        case Failed():
            return {"status": "failed", "error": outcome.reason}
        case Retry():
            return {"status": "pending", "error": outcome.reason}
        case _:
            return {"status": "pending", "error": "another job works on this wallet, or its user has to wait"}


def _reasons(rows: Sequence[dict[str, Any]]) -> str:
    reasons = list(dict.fromkeys(row["error"] for row in rows if "error" in row))
    return "; ".join(reasons[:_REASONS]) + (f"; and {len(reasons) - _REASONS} more" if len(reasons) > _REASONS else "")
