"""A client of the core service's request lists, and the service behind them on memory parts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any

import trio

from moonxd.adapters.memory.requests import MemoryLists, MemoryRequests
from moonxd.agents.core_answers import Access, Answers
from moonxd.agents.core_service import CoreService
from moonxd.cancelling import Canceller
from moonxd.domain.core_service import Source, Taken, Verdict, sources
from moonxd.domain.job import NewJob
from moonxd.domain.plan import Plan, Rules
from tests.fundamentals.house import ALICE, House

PREFIXES = ("proxy:", "worker:")
PATIENCE_S = 600.0
_numbers = count(1)


class Desk:
    """A client of the lists, and the service on the other side of them."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.lists = MemoryLists()
        self.told: Counter[tuple[str, str]] = Counter()
        self.frees_at: datetime | None = None
        self.asked_workers: list[tuple[str, str, str]] = []
        self.added: list[str] = []
        self.plan = Plan(Rules())
        self.answers = Answers(self.access())
        self.answer: Callable[[Taken], Awaitable[Verdict]] = self.answers.answer

    def access(self, **other: Any) -> Access:
        house = self.house
        parts = {
            "queue_name": "sync-jobs",
            "queue": house.queue,
            "ledger": house.ledger,
            "schedule": house.ledger.schedule,
            "plan": self.plan,
            "canceller": Canceller(
                house.queue, worker="house", cancel_running=house.consumer.cancel, ask=self._ask_worker
            ),
            "frees_at": self._frees_at,
            "terms": dict,
            "prefixes": PREFIXES,
            "queue_prefix": "bull",
            "now": house.queue.now,
            "added": self._note_added,
        }
        return Access(**(parts | other))

    async def _note_added(self, job: NewJob, job_id: str) -> None:
        self.added.append(job_id)

    async def _frees_at(self, user: str) -> datetime | None:
        return self.frees_at

    async def _ask_worker(self, worker: str, verb: str, about: str) -> None:
        self.asked_workers.append((worker, verb, about))

    async def serve(self, *, requests: MemoryRequests | None = None, concurrency: int = 8) -> None:
        service = CoreService(
            requests or self.lists.owner(),
            sources(PREFIXES),
            lambda taken: self.answer(taken),
            concurrency=concurrency,
            lease_s=15,
            told=lambda kind, outcome: self.told.update([(kind, outcome)]),
        )
        await service.run(lambda: None)

    def send(self, body: Any, name: str = "requests", prefix: str = PREFIXES[0]) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.lists.push(Source(prefix, name).key, raw)

    async def reply(self, name: str, prefix: str = PREFIXES[0]) -> Any:
        """The oldest reply of a list, as BRPOP gives it."""
        waiting = self.lists.lists[prefix + name]
        with trio.fail_after(PATIENCE_S):
            while not waiting:
                await self.lists.news.wait()
        return json.loads(waiting.pop())

    async def ask(self, kind: str, prefix: str = PREFIXES[0], **data: Any) -> Any:
        names = {"sync_request": "requests", "sync_status": "status", "sync_operations": "operations"}
        queue = f"sync:responses:{next(_numbers)}"
        self.send(self.message(kind, queue, **data), names.get(kind, "cancel"), prefix)
        return await self.reply(queue, prefix)

    def message(self, kind: str, response_queue: str | None, **data: Any) -> dict[str, Any]:
        at = datetime.fromtimestamp(self.house.queue.now(), UTC).isoformat()
        message = {"type": kind, "data": data, "timestamp": at, "requestId": "r-1"}
        return message if response_queue is None else message | {"responseQueue": response_queue}

    def parked(self, prefix: str = PREFIXES[0]) -> list[dict[str, Any]]:
        return [json.loads(entry) for entry in self.lists.lists[f"{prefix}sync:dead"]]


def request(job_id: str = "0b5c-1", wallet: str = ALICE, user: str = "alice", **more: Any) -> dict[str, Any]:
    return {"jobId": job_id, "userId": user, "walletAddress": wallet, "priority": "high", **more}
