"""Clients that misbehave, fall silent, read too slowly or come in crowds; and a stop that is bounded."""

from __future__ import annotations

import json
import random
import struct
from contextlib import suppress
from uuid import uuid4

import msgspec
import pytest
import trio

from moonxd.control.live.words import MAX_MESSAGE
from tests.control.live_harness import LiveBench, live, portfolio_event, stats_event, token
from tests.services.redis import until

ROOM = "user:u1"
_HANDSHAKE = (
    b"GET /v1/ws HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def frame(payload: bytes, opcode: int = 0x81) -> bytes:
    """As a client sends it; the mask is zeros."""
    if len(payload) < 126:
        size = bytes([0x80 | len(payload)])
    elif len(payload) < 65536:
        size = b"\xfe" + struct.pack(">H", len(payload))
    else:
        size = b"\xff" + struct.pack(">Q", len(payload))
    return bytes([opcode]) + size + bytes(4) + payload


async def closing_code(bench: LiveBench, sent: bytes) -> int | None:
    """What the server closes with when a client sends these bytes; None when it just ends the connection."""
    answer = (await _raw(bench, sent)).partition(b"\r\n\r\n")[2]
    while answer:
        size, head = answer[1], 2
        if size == 126:
            size, head = struct.unpack(">H", answer[2:4])[0], 4
        payload, opcode, answer = answer[head : head + size], answer[0] & 0xF, answer[head + size :]
        if opcode == 0x8:
            return int(struct.unpack(">H", payload[:2])[0]) if payload else 1005
    return None


async def _raw(bench: LiveBench, sent: bytes) -> bytes:
    answer = b""
    with trio.fail_after(10):
        async with await trio.open_tcp_stream("127.0.0.1", bench.port) as stream, trio.open_nursery() as nursery:
            await stream.send_all(_HANDSHAKE)
            while b"\r\n\r\n" not in answer:
                answer += await stream.receive_some()

            async def push() -> None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await stream.send_all(sent)

            nursery.start_soon(push)
            with suppress(trio.BrokenResourceError):
                async for piece in stream:
                    answer += piece
            nursery.cancel_scope.cancel()
    return answer


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(b"\0\1\2", 0x82), 1003),
        (frame(b"x" * (MAX_MESSAGE + 1)), 1009),
        (frame(b"y" * 5_000_000), 1009),
        (b"\x01" + frame(b"z" * 9000)[1:] + b"\x80" + frame(b"z" * 9000)[1:], 1009),
        (frame(b"\xff\xfe"), 1007),
        (b"\x81\x05hello", 1002),
        (b"\xf1" + frame(b"{}")[1:], 1002),
        (frame(b"x" * 126, 0x89), 1002),
        (frame(b"", 0x88), 1005),
        (frame(b'{"type":"ping"}') * 60, 1008),
    ],
    ids=["binary", "long", "huge", "fragments", "not-utf8", "unmasked", "reserved", "long-ping", "close", "flood"],
)
async def test_frames_that_end_the_connection(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, sent: bytes, code: int
) -> None:
    """By the server: this client does not say goodbye."""
    monkeypatch.setattr("moonxd.control.live.client.FAREWELL_S", 0.1)
    async with live(redis_url, ping_s=0.4) as bench:
        assert await closing_code(bench, sent) == code
        await until(lambda: bench.counts.clients == 0)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "{",
        "null",
        "42",
        "[]",
        "{}",
        '{"type":"nothing"}',
        '{"type":"join_room"}',
        '{"type":"join_room","room":5}',
        '{"type":"join_room","room":"stats","token":7}',
        "[" * 16000,
        '{"type":"ping","x":' + "[" * 8000 + "]" * 8000 + "}",
        '{"type":"join_room","room":"\\ud800"}',
    ],
)
async def test_messages_that_are_none_are_answered(redis_url: str, said: str) -> None:
    async with live(redis_url) as bench, bench.page() as page:
        await page.connection.send_message(said)
        assert (await page.hear())["code"] == "malformed"
        assert (await page.join(ROOM, token()))["type"] == "joined"


@pytest.mark.parametrize("room", ["", "user:", "user", "USER:u1", "admin", "user:" + "x" * 256, "x" * 15000])
async def test_rooms_that_are_none(redis_url: str, room: str) -> None:
    async with live(redis_url) as bench, bench.page() as page:
        said = await page.join(room, token())
        assert said["code"] == "unknown_room"
        assert len(json.dumps(said)) < 1000, "what a client sent is not sent back whole"


async def test_a_slow_reader_is_cut_off_and_the_others_hear_everything(redis_url: str) -> None:
    async with live(redis_url, backlog_bytes=65536) as bench, bench.page() as page:
        async with await trio.open_tcp_stream("127.0.0.1", bench.port) as slow:
            await slow.send_all(_HANDSHAKE)
            await slow.receive_some()
            await slow.send_all(frame(json.dumps({"type": "join_room", "room": "stats", "token": token()}).encode()))
            await page.join("stats", token("u2"))
            await until(lambda: len(bench.feed.hub._rooms.get("stats", ())) == 2)
            heard = 0
            while "slow" not in bench.counts.ended:
                await bench.tell(*(stats_event() for _ in range(200)))
                for _ in range(200):
                    await page.hear()
                heard += 200
                assert heard < 200_000, "it is never cut off"
                (client, *_) = [one for one in bench.feed.hub.clients if not one.is_open] or [None]
                if client is not None:
                    assert client.unsent <= 65536
                    break
            # Who reads on after all learns why.
            answer = b""
            with trio.fail_after(10):
                async for piece in slow:
                    answer = (answer + piece)[-200:]
                    if b"\x0f\xa8" in answer:
                        break
            assert b"too slow" in answer
        await until(lambda: "slow" in bench.counts.ended)


async def test_a_slow_reader_of_what_it_missed_is_waited_for(redis_url: str) -> None:
    """Ten times its backlog: it takes it at its own pace."""
    async with live(redis_url, backlog_bytes=131072) as bench:
        await bench.ledger.tell([portfolio_event("u1") for _ in range(9000)])
        async with bench.page() as page:
            await page.join(ROOM, token(), lastEventId=0)
            ids = []
            for number in range(9000):
                ids.append((await page.hear())["id"])
                if number % 1000 == 0:
                    await bench.tell(portfolio_event("u1"))
            assert ids == list(range(1, 9001))
            assert (await page.hear())["id"] == 9001


async def test_a_client_that_does_not_answer_pings_is_gone(redis_url: str) -> None:
    async with live(redis_url, ping_s=0.2) as bench, bench.page() as page:
        async with await trio.open_tcp_stream("127.0.0.1", bench.port) as dead:
            await dead.send_all(_HANDSHAKE)
            await page.join(ROOM, token())
            await until(lambda: "silent" in bench.counts.ended)
        await bench.tell(portfolio_event("u1"))
        assert (await page.hear())["id"] == 1, "who answers them stays"


async def test_who_joins_nothing_is_sent_away(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moonxd.control.live.server._JOIN_S", 0.2)
    async with live(redis_url, ping_s=0.4) as bench, bench.page() as page, bench.page() as member:
        await member.join(ROOM, token())
        assert await page.hear_code() == 4408
        await member.say(type="ping")
        assert (await member.hear())["type"] == "pong"


async def test_a_hundred_clients_come_and_go(redis_url: str) -> None:
    """With and without goodbye, in the middle of everything; nothing of them stays."""
    chance = random.Random(7)
    async with live(redis_url) as bench, bench.page() as steady:
        await steady.join(ROOM, token())

        async def come_and_go(number: int) -> None:
            for _ in range(3):
                if chance.random() < 0.5:
                    sent = _HANDSHAKE + frame(
                        json.dumps({"type": "join_room", "room": ROOM, "token": token()}).encode()
                    )
                    async with await trio.open_tcp_stream("127.0.0.1", bench.port) as stream:
                        await stream.send_all(sent[: chance.randrange(len(sent) * 2)])
                    continue
                async with bench.page() as page:
                    await page.join(f"user:u{number}", token(f"u{number}"), lastEventId=0)
                    await page.join("stats", token(f"u{number}"))
                await bench.tell(stats_event(), portfolio_event(f"u{number}"))

        async with trio.open_nursery() as crowd:
            for number in range(100):
                crowd.start_soon(come_and_go, number)
        await until(lambda: bench.counts.clients == 1)
        assert bench.feed.hub._rooms.keys() == {ROOM}
        await bench.tell(portfolio_event("u1"))
        while (await steady.hear())["data"]["totalValueUsd"] != 1:
            pass


# ---- stopping ----------------------------------------------------------------------------------------------------


async def test_a_stop_says_goodbye_to_everybody_at_once(redis_url: str) -> None:
    codes = []
    async with live(redis_url, grace=30) as bench, bench.pages(5) as pages, trio.open_nursery() as nursery:
        for page in pages:
            await page.join(ROOM, token())

        async def leave(number: int) -> None:
            codes.append(await pages[number].hear_code())

        for number in range(5):
            nursery.start_soon(leave, number)
        began = trio.current_time()
        bench.stop.set()
    assert codes == [1001] * 5
    assert trio.current_time() - began < 2
    assert bench.counts.ended == ["shutdown"] * 5


async def test_a_client_that_does_not_read_delays_the_stop_by_the_grace_only(redis_url: str) -> None:
    async with live(redis_url, grace=0.5) as bench:
        stream = await trio.open_tcp_stream("127.0.0.1", bench.port)
        await stream.send_all(_HANDSHAKE)
        await until(lambda: bench.counts.clients == 1)
        began = trio.current_time()
        bench.stop.set()
        await until(lambda: bench.counts.clients == 0)
        assert trio.current_time() - began < 2
        await stream.aclose()


@pytest.mark.parametrize("part", [0, 1, 5, 40, len(_HANDSHAKE) - 2])
async def test_half_a_handshake_delays_the_stop_by_the_grace_only(redis_url: str, part: int) -> None:
    async with live(redis_url, grace=0.5) as bench:
        stream = await trio.open_tcp_stream("127.0.0.1", bench.port)
        await stream.send_all(_HANDSHAKE[:part])
        async with bench.page() as page:
            await page.join(ROOM, token())
        bench.stop.set()
        await stream.aclose()


@pytest.mark.parametrize("body", [b"", b"[]", b'{"metadata": 1}', b"[" * 100_000], ids=["", "list", "other", "deep"])
async def test_a_row_by_another_hand_is_passed_by(redis_url: str, body: bytes) -> None:
    async with live(redis_url) as bench, bench.page() as page:
        assert (await page.join(ROOM, token("u1")))["type"] == "joined"
        good = portfolio_event("u1")
        if body.startswith(b"[["):
            body = good.body.replace(b'"data": {', b'"data": {"deep":' + body + b"]" * len(body) + b",")
        await bench.tell(msgspec.structs.replace(good, id=uuid4(), body=body), good)
        assert (await page.hear())["type"] == "portfolio_update"
