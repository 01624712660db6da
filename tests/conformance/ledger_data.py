"""What the ledger's tests put into it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import count
from typing import Any, Protocol
from uuid import UUID, uuid4

import msgspec

from moonxd.domain.ledger import Admission, Admitted, Commit, DeadLetter, Ending, Event, Lease
from moonxd.domain.money import amount, value
from moonxd.domain.operation import operation_id
from moonxd.domain.token import Holding, TokenRef
from moonxd.ports import DeadLetters, History, Ledger, LedgerUpkeep, Outbox, Publication

_NUMBERS = count(1)
LEASE_S = 60.0


class WholeLedger(Ledger, LedgerUpkeep, History, DeadLetters, Outbox, Protocol):
    """What each implementation offers."""

    async def ping(self) -> None: ...

    def publication(self) -> Publication: ...


def address(number: int) -> str:
    return f"0x{number:040x}"


def new_wallet() -> str:
    return address(0xABC000000 + next(_NUMBERS))


def holding(
    number: int = 1,
    *,
    chain: int = 1,
    raw: int = 15 * 10**17,
    decimals: int | None = 18,
    price: Decimal | None = Decimal(2),
    **others: Any,
) -> Holding:
    tokens = amount(raw, decimals) if decimals is not None else None
    worth = value(tokens, price) if tokens is not None and price is not None else None
    return Holding(
        **{  # type: ignore[arg-type]
            "chain_id": chain,
            "address": address(number),
            "symbol": f"T{number}",
            "name": f"Token {number}",
            "decimals": decimals,
            "raw": raw,
            "amount": tokens,
            "price_usd": price,
            "value_usd": worth,
            **others,
        }
    )


def event(wallet: str, type_: str = "sync.completed", topic: str = "sync.events", id_: UUID | None = None) -> Event:
    body = msgspec.json.encode({"type": type_, "walletAddress": wallet, "n": next(_NUMBERS)})
    return Event(id=id_ or uuid4(), type=type_, topic=topic, key="user-1", wallet=wallet, body=body)


def admission(wallet: str, *, job: str = "1", timestamp: int = 1000, user: str = "user-1", **others: Any) -> Admission:
    return Admission(
        **{  # type: ignore[arg-type]
            "operation": operation_id("sync-jobs", f"{wallet}-{job}", timestamp),
            "user_id": user,
            "wallet": wallet,
            "sync_type": "portfolio",
            "priority": "high",
            "queue": "sync-jobs",
            "job_id": job,
            "attempt": 1,
            "max_attempts": 3,
            "worker_id": "worker-1",
            "worker_version": "0.1.0",
            "lease_s": LEASE_S,
            **others,
        }
    )


def lease_of(ask: Admission, fence: int) -> Lease:
    return Lease(operation=ask.operation, user_id=ask.user_id, wallet=ask.wallet, fence=fence)


def change(lease: Lease, holdings: Sequence[Holding] = (), **others: Any) -> Commit:
    return Commit(
        **{  # type: ignore[arg-type]
            "lease": lease,
            "sync_type": "portfolio",
            "chains": tuple(sorted({row.chain_id for row in holdings})),
            "changed": tuple(holdings),
            "removed": (),
            "snapshot": None,
            "snapshot_type": "sync",
            "total_value_usd": Decimal("3.5"),
            "tokens_count": len(holdings),
            "chains_synced": 1,
            "duration_ms": 100,
            "result": {"success": True},
            **others,
        }
    )


def ending(lease: Lease, status: str, error: str | None = "the chain was away", **others: Any) -> Ending:
    return Ending(lease=lease, sync_type="portfolio", status=status, error=error, duration_ms=50, **others)


def letter(job_id: str, **others: Any) -> DeadLetter:
    return DeadLetter(
        **{  # type: ignore[arg-type]
            "queue": "sync-jobs",
            "job_id": job_id,
            "name": "portfolio-sync",
            "timestamp": 1000,
            "data": b'{"userId": "user-1"}',
            "options": {"attempts": 3, "backoff": {"type": "exponential"}},
            "reason": "the address is not hex",
            "stack": ("first line", "second line"),
            "attempts_made": 1,
            "failed_at": 2000,
            **others,
        }
    )


async def admitted(ledger: Ledger, ask: Admission) -> Lease:
    answer = await ledger.admit(ask)
    assert isinstance(answer, Admitted), answer
    return lease_of(ask, answer.fence)


async def synced(ledger: Ledger, wallet: str, holdings: Sequence[Holding] = (), **others: Any) -> Lease:
    """One whole sync under a job of its own."""
    lease = await admitted(ledger, admission(wallet, job=f"sync-{next(_NUMBERS)}"))
    await ledger.commit(change(lease, holdings, **others))
    return lease


def refs(holdings: Sequence[Holding]) -> set[TokenRef]:
    return {row.token for row in holdings}
