"""The core service's request lists as the daemon serves them. Used by parts.py only."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from .adapters.redis.client import Redis
from .adapters.redis.requests import RedisRequests
from .agents.core_answers import Access, Answers
from .agents.core_service import CoreService
from .cancelling import Canceller
from .config import Config
from .domain.core_service import sources
from .domain.job import NewJob
from .domain.plan import Plan
from .jobs import Terms
from .ports import Ledger, QueueAdmin, Schedule
from .supervisor import Child
from .telemetry import Telemetry


class CoreLists:
    """Nothing is opened while they are not enabled."""

    def __init__(
        self,
        config: Config,
        redis: Redis,
        *,
        worker: str,
        queue: QueueAdmin,
        ledger: Ledger,
        schedule: Schedule,
        plan: Plan,
        canceller: Canceller,
        frees_at: Callable[[str], Awaitable[datetime | None]],
        terms: Callable[[], Mapping[str, Terms]],
        telemetry: Telemetry,
        added: Callable[[NewJob, str], Awaitable[None]],
    ) -> None:
        section = config.core_service
        self._is_enabled = section.enabled
        answers = Answers(
            Access(
                queue_name=config.queue.name,
                queue=queue,
                ledger=ledger,
                schedule=schedule,
                plan=plan,
                canceller=canceller,
                frees_at=frees_at,
                terms=terms,
                prefixes=section.prefixes,
                queue_prefix=config.queue.prefix,
                now=time.time,
                added=added,
            )
        )
        requests = RedisRequests(
            redis,
            section.prefixes,
            # Never used before: a daemon that was killed left its own name behind.
            owner=f"{worker}-{secrets.token_hex(4)}",
            lease_s=section.lease_s,
            reply_ttl_s=section.reply_ttl_s,
            dead_max=section.dead_max,
        )
        self._agent = CoreService(
            requests,
            sources(section.prefixes),
            answers.answer,
            concurrency=section.at_once,
            lease_s=section.lease_s,
            told=telemetry.core_request,
        )

    def children(self) -> tuple[Child, ...]:
        return (Child(name="core-service", body=self._agent.run, critical=False),) if self._is_enabled else ()
