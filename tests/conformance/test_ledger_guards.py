"""The user's rate limit and breaker, as every ledger derives them in the admission."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import trio

from moonxd.domain.guard import PROBE_S, Trip, Window
from moonxd.domain.ledger import Admission, Admitted, AlreadyCommitted, BreakerOpen, Busy, Lease, RateLimited
from tests.conformance.conftest import Look
from tests.conformance.ledger_data import (
    WholeLedger,
    admission,
    admitted,
    change,
    ending,
    event,
    holding,
    new_wallet,
)

WINDOW = Window(most=3, window_s=900.0)
TRIP = Trip(threshold=3, open_s=60.0)


def ask_for(wallet: str, user: str, **others: object) -> Admission:
    return admission(wallet, user=user, **{"counted": True, "window": WINDOW, **others})


@pytest.fixture
def user(wallet: str) -> str:
    """Somebody whom no other test knows."""
    return f"user-{wallet[-8:]}"


async def sync(ledger: WholeLedger, user: str, **others: object) -> Lease:
    wallet = new_wallet()
    lease = await admitted(ledger, ask_for(wallet, user, **others))
    await ledger.commit(change(lease, [holding(1)]))
    return lease


async def reached(moment: datetime) -> None:
    """Until the ledger's own clock has passed a moment that it named."""
    await trio.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()) + 0.005)


# ---- rate limit ----------------------------------------------------------------------------------------------------


async def test_a_full_window_names_the_moment_it_frees(ledger: WholeLedger, user: str) -> None:
    before = datetime.now(UTC)
    for _ in range(3):
        await sync(ledger, user)
    answer = await ledger.admit(ask_for(new_wallet(), user))
    assert isinstance(answer, RateLimited)
    assert before <= answer.retry_at - timedelta(seconds=900) <= datetime.now(UTC)
    # The one that asks without taking part sees the same.
    free = await ledger.window_frees_at(user, WINDOW)
    assert free == answer.retry_at
    assert await ledger.window_frees_at(f"{user}-other", WINDOW) is None


async def test_a_limited_admission_leaves_no_trace(ledger: WholeLedger, user: str) -> None:
    for _ in range(3):
        await sync(ledger, user)
    wallet, backlog = new_wallet(), await ledger.backlog()
    await ledger.admit(ask_for(wallet, user, events=(event(wallet),)))
    assert await ledger.operations(wallet=wallet) == ()
    assert await ledger.backlog() == backlog
    # Nor is the wallet held.
    assert isinstance(await ledger.admit(ask_for(wallet, user, job="2", counted=False)), Admitted)


async def test_the_window_slides(ledger: WholeLedger, user: str) -> None:
    short = Window(most=2, window_s=0.4)
    for _ in range(2):
        await sync(ledger, user, window=short)
    wallet = new_wallet()
    answer = await ledger.admit(ask_for(wallet, user, window=short))
    assert isinstance(answer, RateLimited)
    await reached(answer.retry_at)
    assert isinstance(await ledger.admit(ask_for(wallet, user, window=short)), Admitted)


async def test_retries_and_redeliveries_do_not_count_twice(ledger: WholeLedger, user: str) -> None:
    wallet = new_wallet()
    for attempt in range(1, 6):
        lease = await admitted(ledger, ask_for(wallet, user, attempt=attempt))
        await ledger.close(ending(lease, "retrying"))
    # Taken over without an ending in between, as after a crash.
    await admitted(ledger, ask_for(wallet, user))
    for _ in range(2):
        await sync(ledger, user)
    assert isinstance(await ledger.admit(ask_for(new_wallet(), user)), RateLimited)
    assert isinstance(await ledger.admit(ask_for(wallet, user)), Admitted), "the same operation is let in again"


async def test_periodic_and_bulk_work_neither_counts_nor_waits(ledger: WholeLedger, user: str) -> None:
    for _ in range(6):
        await sync(ledger, user, counted=False)
    for _ in range(3):
        await sync(ledger, user)
    assert isinstance(await ledger.admit(ask_for(new_wallet(), user)), RateLimited)
    await sync(ledger, user, counted=False)


async def test_what_waits_for_another_reason_does_not_count(ledger: WholeLedger, user: str) -> None:
    wallet = new_wallet()
    await admitted(ledger, ask_for(wallet, user, job="1"))
    for number in range(5):
        assert isinstance(await ledger.admit(ask_for(wallet, user, job=f"later-{number}")), Busy)
    await sync(ledger, user)
    await sync(ledger, user)
    assert isinstance(await ledger.admit(ask_for(new_wallet(), user)), RateLimited)


async def test_users_do_not_share_a_window(ledger: WholeLedger, user: str) -> None:
    for _ in range(3):
        await sync(ledger, user)
    await sync(ledger, f"{user}-other")


async def test_a_rejection_is_an_audit_row_and_an_event_and_counts_for_nothing(
    ledger: WholeLedger, user: str, look: Look
) -> None:
    strict = Window(most=2, window_s=900.0, reject=True)
    for _ in range(2):
        await sync(ledger, user, window=strict)
    wallet, backlog = new_wallet(), await ledger.backlog()
    ask = ask_for(wallet, user, window=strict, rejection=(event(wallet, "sync.rejected"),), rejection_reason="too many")
    for _ in range(2):
        assert isinstance(await ledger.admit(ask), RateLimited)
    (row,) = await ledger.operations(wallet=wallet)
    assert (row.status, row.error, row.id) == ("cancelled", "too many", ask.operation)
    assert row.completed_at is not None
    assert await ledger.backlog() == backlog + 1
    assert look(f"SELECT * FROM user_sync_status WHERE wallet_address = '{wallet}'") == []
    # Requeued when there is room: it runs, and counts from then on.
    roomy = Window(most=3, window_s=900.0, reject=True)
    lease = await admitted(ledger, msgspec.structs.replace(ask, window=roomy))
    await ledger.commit(change(lease))
    assert (await ledger.operations(wallet=wallet))[0].status == "completed"
    assert isinstance(await ledger.admit(ask_for(new_wallet(), user, window=roomy)), RateLimited)


async def test_two_hundred_at_once_admit_exactly_the_limit(ledger: WholeLedger, user: str) -> None:
    answers: list[object] = []

    async def one(wallet: str) -> None:
        answers.append(await ledger.admit(ask_for(wallet, user, window=Window(most=5))))

    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(one, new_wallet())
    assert sum(isinstance(answer, Admitted) for answer in answers) == 5
    assert sum(isinstance(answer, RateLimited) for answer in answers) == 195


async def test_an_answered_operation_is_answered_whatever_the_window(ledger: WholeLedger, user: str) -> None:
    wallet = new_wallet()
    ask = ask_for(wallet, user)
    await ledger.commit(change(await admitted(ledger, ask), result={"n": 1}))
    for _ in range(2):
        await sync(ledger, user)
    assert await ledger.admit(ask) == AlreadyCommitted({"n": 1})


# ---- breaker -------------------------------------------------------------------------------------------------------


async def fail(ledger: WholeLedger, user: str, wallet: str | None = None) -> None:
    wallet = wallet or new_wallet()
    lease = await admitted(ledger, admission(wallet, user=user, job=f"fail-{wallet}-{new_wallet()}"))
    await ledger.close(ending(lease, "failed", breaker=TRIP))


def guarded(wallet: str, user: str, trip: Trip = TRIP, **others: object) -> Admission:
    return admission(wallet, user=user, breaker=trip, **others)


async def test_failures_in_a_row_open_the_breaker_for_all_the_users_wallets(ledger: WholeLedger, user: str) -> None:
    for _ in range(2):
        await fail(ledger, user)
    await fail(ledger, user)
    answer = await ledger.admit(guarded(new_wallet(), user))
    assert isinstance(answer, BreakerOpen)
    assert 55 < (answer.retry_at - datetime.now(UTC)).total_seconds() <= 61
    assert isinstance(await ledger.admit(guarded(new_wallet(), f"{user}-other")), Admitted)


async def test_below_the_threshold_it_is_closed(ledger: WholeLedger, user: str) -> None:
    for _ in range(2):
        await fail(ledger, user)
    assert isinstance(await ledger.admit(guarded(new_wallet(), user)), Admitted)


async def test_who_brings_no_rule_passes(ledger: WholeLedger, user: str) -> None:
    """A forced refresh, or an operator."""
    for _ in range(5):
        await fail(ledger, user)
    assert isinstance(await ledger.admit(admission(new_wallet(), user=user)), Admitted)


async def test_one_wallet_that_never_works_does_not_shut_out_the_others(ledger: WholeLedger, user: str) -> None:
    broken = new_wallet()
    for _ in range(4):
        await fail(ledger, user, broken)
        await sync(ledger, user, window=None)
    assert isinstance(await ledger.admit(guarded(new_wallet(), user)), Admitted)


async def test_half_open_lets_one_through_and_its_success_closes(ledger: WholeLedger, user: str, look: Look) -> None:
    brief = Trip(threshold=3, open_s=0.2)
    wallet = new_wallet()
    for _ in range(3):
        await fail(ledger, user, wallet)
    closed = await ledger.admit(guarded(wallet, user, brief))
    if isinstance(closed, BreakerOpen):
        await reached(closed.retry_at)
    probe = closed if isinstance(closed, Admitted) else await ledger.admit(guarded(wallet, user, brief))
    assert isinstance(probe, Admitted)
    other = await ledger.admit(guarded(new_wallet(), user, brief))
    assert isinstance(other, BreakerOpen)
    assert 0 < (other.retry_at - datetime.now(UTC)).total_seconds() <= PROBE_S + 1
    ask = guarded(wallet, user, brief)
    lease = Lease(operation=ask.operation, user_id=user, wallet=wallet, fence=probe.fence)
    await ledger.commit(change(lease, breaker=brief))
    assert isinstance(await ledger.admit(guarded(new_wallet(), user, brief)), Admitted)
    (row,) = look(f"SELECT sync_metadata FROM user_sync_status WHERE wallet_address = '{wallet}'")
    assert view_of(row) == {"state": "closed", "failureCount": 0, "openUntil": None}


async def test_a_probe_that_fails_opens_it_again(ledger: WholeLedger, user: str) -> None:
    for _ in range(3):
        await fail(ledger, user)
    wallet = new_wallet()
    lease = await admitted(ledger, guarded(wallet, user, Trip(threshold=3, open_s=0.0)))
    await ledger.close(ending(lease, "failed"))
    assert isinstance(await ledger.admit(guarded(new_wallet(), user)), BreakerOpen)


async def test_a_probe_that_was_cancelled_frees_its_place(ledger: WholeLedger, user: str) -> None:
    gone = Trip(threshold=3, open_s=0.0)
    for _ in range(3):
        await fail(ledger, user)
    lease = await admitted(ledger, guarded(new_wallet(), user, gone))
    assert isinstance(await ledger.admit(guarded(new_wallet(), user, gone)), BreakerOpen)
    await ledger.close(ending(lease, "cancelled"))
    assert isinstance(await ledger.admit(guarded(new_wallet(), user, gone)), Admitted)


async def test_many_at_once_half_open_let_one_through(ledger: WholeLedger, user: str) -> None:
    for _ in range(3):
        await fail(ledger, user)
    answers: list[object] = []

    async def one(wallet: str) -> None:
        answers.append(await ledger.admit(guarded(wallet, user, Trip(threshold=3, open_s=0.0))))

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(one, new_wallet())
    assert sum(isinstance(answer, Admitted) for answer in answers) == 1


async def test_readers_see_the_breaker_in_the_status_row(ledger: WholeLedger, user: str, look: Look) -> None:
    wallet = new_wallet()
    for _ in range(2):
        await fail(ledger, user, wallet)
    (row,) = look(f"SELECT sync_metadata FROM user_sync_status WHERE wallet_address = '{wallet}'")
    assert view_of(row) == {"state": "closed", "failureCount": 2, "openUntil": None}
    await fail(ledger, user, wallet)
    (row,) = look(f"SELECT sync_metadata FROM user_sync_status WHERE wallet_address = '{wallet}'")
    view = view_of(row)
    assert (view["state"], view["failureCount"]) == ("open", 3)
    left = datetime.fromisoformat(str(view["openUntil"])) - datetime.now(UTC)
    assert 50 < left.total_seconds() <= 60


def view_of(row: dict[str, object]) -> dict[str, object]:
    stored = row["sync_metadata"]
    document = msgspec.json.decode(stored) if isinstance(stored, str) else stored
    assert isinstance(document, dict)
    view: dict[str, object] = document["circuitBreaker"]
    return view
