"""What the existing WebSocket service finds on its topic."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from moonxd.domain import event, stats_event
from moonxd.domain.events import EVENT_TYPES
from moonxd.domain.ledger import Event, StoredEvent
from moonxd.domain.mirror import mirrored
from moonxd.domain.stats import Health, Overview, ServiceHealth
from tests.conformance import ledger_data
from tests.domain.test_events import about, bridge, chain

TOPIC = "moonx.ws.events"


def stored(one: Event) -> StoredEvent:
    return StoredEvent(position=7, event=one, created_at=datetime.now(UTC))


def test_syncs_and_portfolios_go_as_they_are() -> None:
    one = event.failed(about(), fence=1, attempt=1, error="away", duration_ms=1)
    (message,) = mirrored(stored(one), TOPIC)
    assert (message.topic, message.key, message.value) == (TOPIC, "u", one.body)
    assert dict(message.headers)["event-type"] == "sync.failed"
    assert dict(message.headers)["event-id"] == str(one.id)


def test_each_chain_is_a_message_of_its_own() -> None:
    told = stats_event.Teller("c", "1").chains([chain(), chain(chain_id=8453, name="Base", slug="base")], 5000)
    first, second = mirrored(stored(told), TOPIC)
    body = json.loads(second.value)
    assert set(body) == {"type", "chainId", "chainName", "stats", "timestamp"}
    assert (body["type"], body["chainId"], body["chainName"]) == ("moonx.ws.chain_stats", 8453, "Base")
    assert body["timestamp"] == 5000
    assert body["stats"]["chainSlug"] == "base"
    assert first.key != second.key, "each chain keeps its own order"


def test_each_provider_is_a_message_of_its_own() -> None:
    told = stats_event.Teller("b", "1").bridges([bridge()], 5000)
    (message,) = mirrored(stored(told), TOPIC)
    body = json.loads(message.value)
    assert set(body) == {"type", "provider", "stats", "timestamp"}
    assert (body["type"], body["provider"], body["stats"]["latency"]) == ("moonx.ws.bridge_stats", "LI.FI", 123)


def test_what_it_does_not_show_is_not_sent() -> None:
    teller = stats_event.Teller("c", "1")
    whole = Overview(at_ms=1, status=Health.HEALTHY, chains=(), bridges=())
    for one in (
        teller.started(1),
        teller.overview(whole),
        teller.health(ServiceHealth(at_ms=1, status=Health.HEALTHY, parts=())),
    ):
        assert mirrored(stored(one), TOPIC) == ()


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_a_body_that_somebody_else_wrote_breaks_nothing(name: str) -> None:
    one = ledger_data.event("0x" + "ab" * 20, name)
    assert all(message.topic == TOPIC for message in mirrored(stored(one), TOPIC))
