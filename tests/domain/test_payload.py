"""What producers may send, and the sentence each bad payload gets."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain.errors import Permanent
from moonxd.domain.payload import MAX_PAYLOAD_BYTES, parse_wallet_sync

WALLET = "0x" + "ab" * 20


def parse(**fields: Any) -> Any:
    return parse_wallet_sync(json.dumps({"userId": "u1", "walletAddress": WALLET, **fields}).encode())


def test_the_least_a_producer_must_say() -> None:
    task = parse()
    assert (task.user_id, task.wallet) == ("u1", WALLET)
    assert (task.sync_type, task.priority, task.chain_ids, task.force_refresh) == ("portfolio", "medium", (), False)


def test_everything_the_existing_producers_say() -> None:
    task = parse(
        jobId="j", priority="high", syncType="full", forceRefresh=True, chainIds=["8453", 56, "ethereum", 56],
        triggeredAt="2025-01-06T00:00:00Z", metadata={"source": "web"}, requestId="r", responseQueue="q", colour="blue",
    )  # fmt: skip
    assert task.chain_ids == (8453, 56, 1), "strings, numbers and names, each once, in the given order"
    assert (task.priority, task.sync_type, task.force_refresh) == ("high", "full", True)
    assert (task.request_id, task.response_queue) == ("r", "q")
    assert task.extra == {
        "jobId": "j", "triggeredAt": "2025-01-06T00:00:00Z", "metadata": {"source": "web"}, "colour": "blue",
    }  # fmt: skip


def test_a_numeric_user_id_is_accepted_as_text() -> None:
    assert parse(userId=42).user_id == "42"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"userId": None}, "no userId"),
        ({"userId": ""}, "no userId"),
        ({"userId": True}, "userId must be text, not true/false"),
        ({"userId": "u" * 256}, "at most 255"),
        ({"walletAddress": None}, "no walletAddress"),
        ({"walletAddress": "0x1"}, "1 hex digits"),
        ({"syncType": "everything"}, "portfolio, trades, full, metadata"),
        ({"priority": "urgent"}, "high, medium, low"),
        ({"forceRefresh": "yes"}, "true or false"),
        ({"chainIds": "8453"}, "a list of chain ids, not text"),
        ({"chainIds": [7]}, r"unknown chain 7: use one of 1 \(ethereum\)"),
        ({"chainIds": [True]}, "unknown chain True"),
        ({"chainIds": [None]}, "unknown chain None"),
        ({"requestId": 5}, "requestId must be text"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(Permanent, match=says):
        parse(**fields)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"null", "not null"),
        (b"[]", "not an array"),
        (b'"x"', "not text"),
        (b"[" * 100_000, "nested too deeply|not JSON"),
        (b'{"a":"' + b"x" * MAX_PAYLOAD_BYTES + b'"}', "at most 1000000"),
    ],
)
def test_what_is_no_object_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(Permanent, match=says):
        parse_wallet_sync(data)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.binary(max_size=200) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_no_payload_does_anything_but_parse_or_be_refused(data: bytes) -> None:
    with pytest.raises(Permanent):
        parse_wallet_sync(data)
