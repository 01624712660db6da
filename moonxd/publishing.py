"""Publishing as the daemon runs and shows it: the relay and the look at the outbox. Used by parts.py only."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from .agents.alarm import Notice
from .agents.outbox import OutboxWatch, Rule
from .agents.relay import Mirror, Patience, Relay
from .api.schema import Outbox
from .config.outlets import Kafka
from .domain.errors import single
from .domain.ledger import Backlog, StoredEvent
from .domain.message import message_of
from .ports import Publication, Sink
from .supervisor import FOR_EVER, Child
from .telemetry import Telemetry

#: Seconds that a stop waits for the last events to leave. What stays is published by the next daemon.
FLUSH_S = 5.0

OpenSink = Callable[[], AbstractAsyncContextManager[Sink]]
#: Runs work that needs producers, and ends it when they cannot be had any more.
WithSinks = Callable[[Callable[[OpenSink], Awaitable[None]]], Awaitable[None]]


def topics_of(section: Kafka) -> dict[str, str]:
    """An event's topic -> the broker's."""
    topics = section.topics
    return {
        "portfolio.updates": topics.portfolio_updates,
        "sync.events": topics.sync_events,
        "system.alerts": topics.system_alerts,
        "user.activities": topics.user_activities,
        "stats.events": topics.stats_events,
    }


class Publishing:
    """Nothing runs without Kafka (`with_sinks` None), nor where `kafka.publish` leaves it to others."""

    def __init__(
        self,
        section: Kafka,
        publication: Publication,
        with_sinks: WithSinks | None,
        telemetry: Telemetry,
        notices: deque[Notice],
        mirror: Mirror = lambda _: (),
    ) -> None:
        self._is_on = with_sinks is not None and section.publish
        self._with_sinks = with_sinks
        self._topics = topics_of(section)
        self._telemetry = telemetry
        self._notices = notices
        self._relay = Relay(
            publication,
            topics=self._topics,
            patience=Patience(first_s=section.retry_min_s, longest_s=section.retry_max_s, failures=section.retries),
            notify=self._notify,
            meter=telemetry,
            mirror=mirror if section.websocket_topic else lambda _: (),
        )
        self._watch = OutboxWatch(
            publication,
            Rule(lag_s=section.lag_alert_s, transaction_s=section.transaction_alert_s),
            # A relay that cannot even stand by leaves nobody else to tell of it.
            is_ours=lambda: self._relay.state != "standby",
            notify=self._notify,
            show=self._show,
        )

    def children(self) -> tuple[Child, ...]:
        if not self._is_on:
            return ()
        return (
            Child(name="outbox", body=self._watch.run, critical=False),
            Child(name="publisher", body=self._run, critical=False, restarts=FOR_EVER, trouble=self._relay.trouble),
        )

    @property
    def resend(self) -> Callable[[Sequence[StoredEvent]], Awaitable[None]] | None:
        """Sends events again that were published before; None where there is no Kafka."""
        return self._resend if self._with_sinks is not None else None

    async def _resend(self, events: Sequence[StoredEvent]) -> None:
        """In the order given, through a producer of its own; the mirror is for what is new."""

        async def work(open_sink: OpenSink) -> None:
            async with open_sink() as sink:
                messages = []
                for stored in events:
                    topic = self._topics.get(stored.event.topic, stored.event.topic)
                    messages.append(message_of(stored, topic, await sink.partition(topic, stored.event.key)))
                await sink.send(messages)

        assert self._with_sinks is not None, "asked of a daemon without Kafka"
        try:
            await self._with_sinks(work)
        except ExceptionGroup as group:
            raise single(group) from group

    async def flush(self) -> None:
        """Let what is committed leave before the daemon does; bounded, and at once when nothing leaves anyway."""
        if self._is_on:
            await self._relay.flush(FLUSH_S)

    def view(self) -> Outbox | None:
        """For operators; None where nothing is published."""
        standing = self._watch.standing
        if not self._is_on or standing is None:
            return None
        return Outbox(
            unpublished=standing.count,
            lag=round(standing.age_s, 1),
            relay=self._relay.state,
            trouble=self._relay.trouble(),
        )

    async def _run(self, ready: Callable[[], None]) -> None:
        assert self._with_sinks is not None
        await self._with_sinks(lambda open_sink: self._relay.run(ready, open_sink))

    def _notify(self, kind: str, message: str, severity: str, metadata: dict[str, Any]) -> None:
        self._notices.append(Notice(kind=kind, message=message, severity=severity, metadata=metadata))

    def _show(self, standing: Backlog) -> None:
        is_holding = self._relay.state == "holding"
        self._telemetry.outbox(count=standing.count, lag_s=standing.age_s, is_holding=is_holding)
