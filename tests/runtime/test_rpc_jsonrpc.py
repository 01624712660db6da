"""JSON-RPC: ids matched, errors told apart by what can be done about them, nothing secret in any message."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import trio

from moonxd.adapters.rpc import Call, Endpoint, RpcClient, Transport, open_transport
from moonxd.adapters.rpc.errors import (
    EndpointError,
    Garbage,
    HttpFailure,
    RateLimited,
    Refused,
    RpcError,
    TimedOut,
    TooLarge,
)
from moonxd.domain.errors import Permanent, Transient
from tests.services.tcp import Handler, Peer, http, serving

KEY = "0123456789abcdefSECRET"
Calls = list[tuple[str, str, str, float]]


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with open_transport() as opened:
        yield opened


@pytest.fixture
def calls() -> Calls:
    return []


@pytest.fixture
def client(transport: Transport, calls: Calls) -> Callable[..., RpcClient]:
    def build(url: str, **options: Any) -> RpcClient:
        endpoint = Endpoint(f"{url}/v2/{KEY}")
        return RpcClient(transport, endpoint, on_call=lambda *call: calls.append(call), **options)

    return build


def raw(answer: bytes) -> Handler:
    """Answers every request with these bytes."""

    async def handle(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answer)

    return handle


def echoing(build: Callable[[Any], Any], **how: Any) -> Handler:
    """Answers every JSON-RPC request with the JSON that `build` makes of it."""

    async def handle(peer: Peer) -> None:
        while True:
            await peer.send(http(msgspec.json.encode(build(await peer.question())), **how))

    return handle


def failing(code: int, message: str, **how: Any) -> Handler:
    return echoing(lambda q: {"jsonrpc": "2.0", "id": q["id"], "error": {"code": code, "message": message}}, **how)


async def test_a_call(client: Callable[..., RpcClient], calls: Calls) -> None:
    async with serving(echoing(lambda q: {"id": q["id"], "result": q["params"]})) as server:
        one = client(server.url)
        assert await one.call("eth_x", ["a", 1], list) == ["a", 1]
        assert await one.call("eth_y", [], list[str]) == []
    asked = [msgspec.json.decode(body) for _, body in server.requests]
    assert [question["jsonrpc"] for question in asked] == ["2.0", "2.0"]
    assert asked[0]["id"] != asked[1]["id"]
    assert [call[:3] for call in calls] == [("127.0.0.1", "eth_x", "ok"), ("127.0.0.1", "eth_y", "ok")]
    assert one.host == "127.0.0.1"


async def test_batches_are_matched_by_id(client: Callable[..., RpcClient], calls: Calls) -> None:
    def shuffled(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        answers = [{"id": q["id"], "result": q["method"]} for q in questions]
        answers[1] = {"id": questions[1]["id"], "error": {"code": -32000, "message": "header not found"}}
        del answers[2]
        return answers[::-1]

    async with serving(echoing(shuffled)) as server:
        asked = [Call(name, []) for name in ("a", "b", "c", "d")] + [Call("e", [], int)]
        a, b, c, d, e = await client(server.url).batch(asked)
        assert await client(server.url).batch([]) == []
    assert (a, d) == ("a", "d")
    assert isinstance(b, RpcError)
    assert (b.code, b.text) == (-32000, "header not found")
    assert isinstance(c, Garbage)
    assert isinstance(e, Garbage)
    assert [call[1:3] for call in calls] == [("batch", "ok")]


async def test_a_batch_refused_as_a_whole(client: Callable[..., RpcClient]) -> None:
    async with serving(raw(http(b'{"id":null,"error":{"code":-32600,"message":"batch too large"}}'))) as server:
        with pytest.raises(RpcError, match="eth_x with error -32600: batch too large"):
            await client(server.url).batch([Call("eth_x", []), Call("eth_x", [])])


TRANSIENT: list[tuple[str, Handler, type[EndpointError], str]] = [
    ("-32603", failing(-32603, "Block not processed yet"), RpcError, "rpc_error"),
    ("-32000", failing(-32000, "header not found"), RpcError, "rpc_error"),
    ("-32005", failing(-32005, "daily request count exceeded"), RateLimited, "rate_limited"),
    ("429 inside", failing(429, "Your app has exceeded its compute units per second"), RateLimited, "rate_limited"),
    ("words", failing(-32000, "Too Many Requests"), RateLimited, "rate_limited"),
    ("execution", failing(3, "execution reverted"), RpcError, "rpc_error"),
    ("HTTP 400 with error", failing(-32602, "invalid params", status="400 Bad"), RpcError, "rpc_error"),
    ("HTTP 500", raw(http(b"oops", status="500 Oops")), HttpFailure, "http_error"),
    ("HTTP 503 html", raw(http(b"<html>", status="503 Busy")), HttpFailure, "http_error"),
    ("HTTP 404", raw(http(b"", status="404 Not Found")), HttpFailure, "http_error"),
    ("HTTP 413", raw(http(b"", status="413 Too Large")), TooLarge, "too_large"),
    ("redirect", raw(http(b"", status="302 Found", headers="Location: http://x/\r\n")), HttpFailure, "http_error"),
    ("html", raw(http(b"<html>hello</html>")), Garbage, "garbage"),
    ("empty", raw(http(b"")), Garbage, "garbage"),
    ("not utf-8", raw(http(b'{"id":1,"result":"\xff\xfe"}')), Garbage, "garbage"),
    ("deep", raw(http(b"[" * 100_000)), Garbage, "garbage"),
    ("deep result", raw(http(b'{"id":1,"result":' + b"[" * 100_000 + b"}")), Garbage, "garbage"),
    ("list", raw(http(b"[]")), Garbage, "garbage"),
    ("no result", echoing(lambda q: {"id": q["id"]}), Garbage, "garbage"),
    ("wrong type", echoing(lambda q: {"id": q["id"], "result": {"a": 1}}), Garbage, "garbage"),
    ("wrong id", echoing(lambda q: {"id": q["id"] + 1, "result": "0x1"}), Garbage, "garbage"),
    ("error a string", raw(http(b'{"id":1,"error":"no"}')), Garbage, "garbage"),
]


@pytest.mark.parametrize(
    ("handler", "error", "outcome"), [row[1:] for row in TRANSIENT], ids=[row[0] for row in TRANSIENT]
)
async def test_what_can_be_tried_again(
    client: Callable[..., RpcClient], calls: Calls, handler: Handler, error: type[EndpointError], outcome: str
) -> None:
    async with serving(handler) as server:
        with pytest.raises(error) as caught:
            await client(server.url).call("eth_call", [], str)
    assert isinstance(caught.value, Transient)
    assert "127.0.0.1" in str(caught.value)
    assert "eth_call" in str(caught.value)
    assert [call[2] for call in calls] == [outcome]


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (failing(-32600, "Must be authenticated!", status="401 Unauthorized"), "Must be authenticated"),
        (raw(http(b"", status="403 Forbidden")), "HTTP 403"),
        (failing(-32600, "Monthly capacity limit exceeded.", status="403 Forbidden"), "Monthly capacity"),
        (
            failing(-32000, "Unauthorized: You must authenticate your request with an API key"),
            "check the endpoint's key",
        ),
        (failing(-32601, "the method eth_call does not exist"), "configure another"),
    ],
)
async def test_what_an_operator_must_mend(
    client: Callable[..., RpcClient], calls: Calls, handler: Handler, words: str
) -> None:
    async with serving(handler) as server:
        with pytest.raises(Refused, match=words) as caught:
            await client(server.url).call("eth_call", [], str)
    assert isinstance(caught.value, Permanent)
    assert [call[2] for call in calls] == ["refused"]


async def test_rate_limits_say_for_how_long(client: Callable[..., RpcClient]) -> None:
    async with serving(raw(http(b"{}", status="429 Slow down", headers="Retry-After: 17\r\n"))) as server:
        with pytest.raises(RateLimited) as caught:
            await client(server.url).call("eth_call", [], str)
    assert caught.value.retry_after == 17.0
    async with serving(failing(-32005, "limit", headers="Retry-After: 3\r\n")) as server:
        with pytest.raises(RateLimited) as caught:
            await client(server.url).call("eth_call", [], str)
    assert caught.value.retry_after == 3.0


async def test_their_words_are_cleaned_cut_and_scrubbed(client: Callable[..., RpcClient]) -> None:
    words = f"bad\x1b[31m key /v2/{KEY}\u202e\n" + "x" * 10_000
    async with serving(failing(-32000, words)) as server:
        with pytest.raises(RpcError) as caught:
            await client(server.url).call("eth_call", [], str)
    text = str(caught.value)
    assert KEY not in text
    assert text.isprintable()
    assert len(text) < 300


async def test_a_timeout_is_ours(client: Callable[..., RpcClient], calls: Calls) -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        await trio.sleep_forever()

    async with serving(silent) as server:
        with pytest.raises(TimedOut):
            await client(server.url, timeout_s=0.05).call("eth_call", [], str)
        assert [call[2] for call in calls] == ["timeout"]
        with trio.move_on_after(0.05):
            await client(server.url).call("eth_call", [], str)
        assert len(calls) == 1, "a cancelled call says nothing about the endpoint"


async def test_the_answer_limit_is_the_clients(client: Callable[..., RpcClient]) -> None:
    async with serving(echoing(lambda q: {"id": q["id"], "result": "x" * 5000})) as server:
        assert len(await client(server.url).call("eth_call", [], str)) == 5000
        with pytest.raises(TooLarge):
            await client(server.url, max_body=1000).call("eth_call", [], str)
