"""The table of events, their schemas, and that no address leaves with one."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest

from moonxd.domain import event, stats_event
from moonxd.domain.events import EVENT_TYPES
from moonxd.domain.events.schema import files
from moonxd.domain.ledger import Event
from moonxd.domain.portfolio_diff import Difference, difference, is_worth_telling
from moonxd.domain.stats import (
    BridgeStats,
    ChainStats,
    EndpointStats,
    Health,
    Overview,
    PartHealth,
    Probe,
    Round,
    ServiceHealth,
)
from moonxd.domain.token import Holding
from tests.conformance.ledger_data import holding
from tests.services import ROOT
from tests.services.event_schemas import assert_valid, validator

WALLET = "0x" + "ab" * 20
SECRETS = (
    "https://eth-mainnet.g.alchemy.com/v2/SECRET-KEY said 429",
    "wss://node.example/ws?token=SECRET-KEY.",
    "redis://user:SECRET-KEY/with/slash@cache.example:6379/0",
    'he said "https://rpc.example/SECRET-KEY"',
    "HTTPS://rpc.example/\nSECRET-KEY-of-next-line is another word",
)


def about() -> event.Subject:
    return event.Subject(operation=uuid4(), user_id="u", wallet=WALLET, version="1", at_ms=1_700_000_000_000)


def body(one: Event) -> Any:
    return json.loads(one.body)


def chain(**given: Any) -> ChainStats:
    fields: dict[str, Any] = {
        "chain_id": 1, "name": "Ethereum", "slug": "ethereum", "llama": "ethereum", "at_ms": 2000,
        "measured_at_ms": 1000, "status": Health.HEALTHY,
    }  # fmt: skip
    return ChainStats(**{**fields, **given})


def bridge(**given: Any) -> BridgeStats:
    fields: dict[str, Any] = {
        "provider": "LI.FI", "route": "ethereum-base", "from_chain": 1, "to_chain": 8453, "at_ms": 2000,
        "measured_at_ms": 1000, "status": Health.HEALTHY, "outcome": Probe.OK, "latency_s": 0.1234,
    }  # fmt: skip
    return BridgeStats(**{**fields, **given})


def test_the_published_schemas_are_those_of_the_structs() -> None:
    published = {file.name: file.read_text("utf-8") for file in (ROOT / "docs" / "events").iterdir()}
    assert published == files(), "run `make schemas`"


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_a_schema_is_one_and_refuses_what_is_something_else(name: str) -> None:
    assert list(validator(name).iter_errors({"type": name, "data": {}}))


def test_statistics_are_what_their_schemas_say() -> None:
    teller = stats_event.Teller("chain_performance", "1")
    rich = chain(
        endpoints=(EndpointStats(host="rpc.example", outcome=Probe.OK, p50_s=0.0123, head=7, lag=0),),
        volume_24h_usd=Decimal("1234567890.12"), block_time_s=12.07, block_time_change_pct=-1.234,
        gas_price_wei=2**70,
    )  # fmt: skip
    overview = Overview(at_ms=3000, status=Health.DEGRADED, chains=(rich, chain()), bridges=(bridge(),))
    away = PartHealth(name="redis", status=Health.UNHEALTHY, critical=True, reason="does not answer")
    service = ServiceHealth(at_ms=3000, status=Health.UNHEALTHY, parts=(away,))
    told = [
        teller.chains([rich, chain()], 3000),
        teller.bridges([bridge(), bridge(latency_s=None, outcome=Probe.TIMEOUT)], 3000),
        teller.overview(overview),
        teller.health(service),
        teller.started(3000),
        teller.completed(Round(chains=(rich,), failed=("base: away",)), duration_ms=5, at_ms=3000),
        teller.failed("nothing could be looked at", duration_ms=5, at_ms=3000),
    ]
    assert {one.type for one in told} == {name for name in EVENT_TYPES if name.startswith("stats.")}
    assert {(one.topic, one.key) for one in told} == {("stats.events", "system")}
    for one in told:
        assert_valid(body(one))
    shown = body(told[0])["data"]["chains"][0]
    assert (shown["volume24h"], shown["volumeUSD"], shown["gasPriceWei"]) == ("$1.2B", 1234567890.12, str(2**70))
    assert shown["blockTime"] == {"current": 12.07, "change": "-1.23%", "changePercent": -1.234, "timestamp": 1000}
    assert body(told[1])["data"]["bridges"][0]["latency"] == 123


def test_an_event_told_twice_has_one_id() -> None:
    teller = stats_event.Teller("bridges", "1")
    assert teller.started(1).id == teller.started(1).id != teller.started(2).id
    assert (
        event.viewed("u", WALLET, version="1", at_ms=61_000).id
        == event.viewed("u", WALLET, version="1", at_ms=99_000).id
    )
    assert (
        event.viewed("u", WALLET, version="1", at_ms=61_000).id
        != event.viewed("v", WALLET, version="1", at_ms=61_000).id
    )


@pytest.mark.parametrize("secret", SECRETS)
def test_no_address_leaves_with_an_event(secret: str) -> None:
    """A message that an adapter forgot to clean, planted wherever an event takes text from others."""
    subject = about()
    told = [
        event.failed(subject, fence=1, attempt=1, error=secret, duration_ms=1),
        event.retrying(subject, fence=1, attempt=1, error=secret, duration_ms=1, delay_ms=1),
        event.cancelled(subject, reason=secret, worker_id="w"),
        event.rejected(subject, reason=secret, worker_id="w"),
        event.alert(
            "kind", secret, severity="warning", service="s", worker="w", version="1", at_ms=1,
            metadata={"a": [secret], secret: 1},
        ),
        stats_event.Teller("c", "1").failed(secret, duration_ms=1, at_ms=1),
        stats_event.Teller("c", "1").chains([chain(error=secret, reason=secret)], 1),
        event.portfolio_updated(
            subject, holdings=[holding(1, symbol=secret)], total_value_usd=Decimal(1), difference=Difference(),
            previous_total_usd=None, duration_ms=1,
        ),
    ]  # fmt: skip
    for one in told:
        text = one.body.decode()
        assert "SECRET-KEY" not in text.replace("SECRET-KEY-of-next-line", ""), text
        assert "://" not in text
        assert_valid(body(one))


def test_a_text_that_no_store_takes_is_mended() -> None:
    one = event.failed(about(), fence=1, attempt=1, error="torn \ud800 and \0", duration_ms=1)
    assert body(one)["data"]["error"] == "torn  and "


# ---- what is worth telling -----------------------------------------------------------------------------------------

MOVE = Decimal("0.01")


def _told(before: list[Holding], after: list[Holding], told: str | None, move: Decimal = MOVE) -> bool:
    total = sum((row.value_usd or Decimal(0) for row in after if not row.is_spam), Decimal(0))
    return is_worth_telling(difference(before, after), total, None if told is None else Decimal(told), move)


def test_tokens_and_balances_are_always_worth_telling() -> None:
    one, more, other = holding(1), holding(1, raw=15 * 10**17 + 1), holding(2)
    assert _told([], [one], None)
    assert _told([one], [], "3")
    assert _told([one], [one, other], "3")
    assert _told([one], [more], "3")
    assert _told([one], [holding(1, symbol="NEW")], "3")
    assert not _told([one], [one], "3")


def test_spam_is_nobodys_business() -> None:
    one, spam = holding(1), holding(2, is_spam=True)
    assert not _told([one], [one, spam], "3")
    assert _told([one, holding(2)], [one, spam], "6"), "what turned out to be spam is gone from the portfolio"


def test_prices_alone_are_worth_telling_once_they_moved_far_enough() -> None:
    one = holding(1)  # 1.5 at 2 USD
    assert not _told([one], [holding(1, price=Decimal("2.01"))], "3")
    assert _told([one], [holding(1, price=Decimal("2.02"))], "3")
    assert _told([one], [holding(1, price=Decimal("1.98"))], "3")
    assert _told([one], [holding(1, price=Decimal("2.01"))], None), "nobody knows what was told before"
    assert _told([one], [holding(1, price=Decimal("2.0001"))], "3", Decimal(0))


def test_a_slow_drift_is_told_as_well() -> None:
    """Half a percent a sync: the second one is one percent from what was told."""
    prices = [Decimal(2) * (1 + Decimal(step) / 200) for step in range(5)]
    told, news = Decimal(3), []
    for before, after in pairwise(prices):
        rows = [holding(1, price=before)], [holding(1, price=after)]
        news.append(_told(*rows, str(told)))
        if news[-1]:
            told = Decimal("1.5") * after
    assert news == [False, True, False, False]


def test_the_event_says_what_changed() -> None:
    before = [holding(1), holding(2), holding(3, is_spam=True)]
    after = [holding(2, raw=10**18), holding(3), holding(4, raw=0)]
    one = event.portfolio_updated(
        about(), holdings=after, total_value_usd=Decimal(5), difference=difference(before, after),
        previous_total_usd=Decimal(6), duration_ms=7,
    )  # fmt: skip
    assert_valid(body(one))
    data = body(one)["data"]
    changes = data["changes"]
    addresses = {kind: [row["address"][-1] for row in changes[kind]] for kind in ("added", "removed", "changed")}
    assert addresses == {"added": ["3", "4"], "removed": ["1"], "changed": ["2"]}
    (changed,) = changes["changed"]
    assert (Decimal(changed["balance"]), Decimal(changed["previousBalance"])) == (1, Decimal("1.5"))
    assert changes["removed"][0]["balance"] is None
    assert changes["added"][0]["previousBalance"] is None
    assert changes["previousTotalValueUsd"] == 6
    assert {token["change24h"] for token in data["tokens"]} == {None}
