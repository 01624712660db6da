"""From the domain's types to what the wire carries. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from ..api.messages import EventView, JobDetail, Timestamps, WorkerView
from ..api.schema import Snapshot
from ..api.wallets import HoldingView, OperationView, PastView, PortfolioView
from ..domain.chain import CHAINS
from ..domain.job import JobState, JobView
from ..domain.ledger import DeadLetter, Operation, PastPortfolio, Portfolio, StoredEvent
from ..domain.token import Holding


def job_detail(view: JobView) -> JobDetail:
    job = view.job
    return JobDetail(
        job_id=job.id,
        name=job.name,
        queue=job.queue,
        state=view.state.value,
        attempts=job.attempts_made,
        max_attempts=job.options.attempts,
        priority=job.options.priority,
        timestamps=Timestamps(
            created=job.timestamp, due=view.due_at, processed=view.processed_on, finished=view.finished_on
        ),
        progress=view.progress,
        reason=view.failed_reason,
        stack=view.stack,
        result=view.return_value,
        data=payload(job.data),
        processed_by=view.processed_by,
    )


def letter_detail(letter: DeadLetter) -> JobDetail:
    attempts = letter.options.get("attempts")
    priority = letter.options.get("priority")
    return JobDetail(
        job_id=letter.job_id,
        name=letter.name,
        queue=letter.queue,
        state=JobState.FAILED.value,
        attempts=letter.attempts_made,
        max_attempts=attempts if isinstance(attempts, int) else None,
        priority=priority if isinstance(priority, int) else 0,
        timestamps=Timestamps(created=letter.timestamp, finished=letter.failed_at),
        reason=letter.reason,
        stack=letter.stack,
        data=payload(letter.data),
        source="dead-letter",
    )


def payload(data: bytes) -> Any:
    """A producer's payload; one that is not JSON is shown as text, since that is what an operator has to see."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return data[:4096].decode("utf-8", "replace")


def portfolio_view(portfolio: Portfolio) -> PortfolioView:
    return PortfolioView(
        user_id=portfolio.user_id,
        wallet=portfolio.wallet,
        total_value_usd=portfolio.total_value_usd,
        last_sync_at=portfolio.last_sync_at,
        sync_status=portfolio.sync_status,
        last_error=portfolio.last_error,
        holdings=tuple(_holding_view(holding) for holding in portfolio.holdings),
    )


def past_view(past: PastPortfolio) -> PastView:
    return PastView(
        user_id=past.user_id,
        taken_at=past.taken_at,
        type=past.type,
        operation=past.operation,
        total_value_usd=past.total_value_usd,
        holdings=tuple(_holding_view(holding) for holding in past.holdings),
    )


def _holding_view(holding: Holding) -> HoldingView:
    chain = CHAINS.get(holding.chain_id)
    return HoldingView(
        chain_id=holding.chain_id,
        chain=chain.slug if chain else str(holding.chain_id),
        address=holding.address,
        symbol=holding.symbol,
        name=holding.name,
        decimals=holding.decimals,
        balance=str(holding.raw),
        amount=holding.amount,
        price_usd=holding.price_usd,
        value_usd=holding.value_usd,
        is_spam=holding.is_spam,
        is_verified=holding.is_verified,
    )


def operation_view(row: Operation) -> OperationView:
    return OperationView(
        id=row.id,
        user_id=row.user_id,
        wallet_address=row.wallet,
        type=row.type,
        status=row.status,
        priority=row.priority,
        started_at=row.started_at,
        completed_at=row.completed_at,
        duration=row.duration_ms,
        tokens_sync=row.tokens_synced,
        chains_sync=row.chains_synced,
        total_value_usd=row.total_value_usd,
        error=row.error,
        retry_count=row.retry_count,
        worker_id=row.worker_id,
        metadata=row.metadata,
    )


def event_view(stored: StoredEvent) -> EventView:
    event = stored.event
    return EventView(
        position=stored.position,
        id=event.id,
        type=event.type,
        topic=event.topic,
        key=event.key,
        wallet=event.wallet,
        body=msgspec.Raw(event.body),
        created_at=stored.created_at,
        published_at=stored.published_at,
    )


def worker_view(snapshot: Snapshot) -> WorkerView:
    """This worker as its own sample shows it."""
    daemon = snapshot.daemon
    return WorkerView(
        worker=daemon.worker,
        queue=snapshot.queue.name,
        host=daemon.host,
        pid=daemon.pid,
        version=daemon.version,
        state=daemon.state,
        slots=daemon.slots,
        slots_busy=daemon.slots_busy,
        is_paused=daemon.is_paused,
        started_at=daemon.started_at,
        seen_at=snapshot.at,
    )
