"""The browsers of benchmarks.live, in a process of their own: each is one task that notes when what arrives."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import trio

_HEAD = (
    "GET /v1/ws HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
#: Handshakes at a time.
_AT_ONCE = 64


def masked(text: bytes) -> bytes:
    """A short text frame; the mask is zeros, which leaves it readable."""
    size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + text


class Browser:
    """Joins its user's room and the statistics."""

    def __init__(self, number: int) -> None:
        self.user = f"u{number}"
        self._stream: trio.SocketStream
        self._buffer = bytearray()

    async def connect(self, port: int, secret: str) -> None:
        self._stream = await trio.open_tcp_stream("127.0.0.1", port)
        await self._stream.send_all(_HEAD.encode())
        token = jwt.encode({"sub": self.user, "exp": time.time() + 3600}, secret, algorithm="HS256")
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += await self._more()
        assert self._buffer.startswith(b"HTTP/1.1 101"), bytes(self._buffer[:200])
        del self._buffer[: self._buffer.index(b"\r\n\r\n") + 4]
        for ask in ({"room": f"user:{self.user}", "token": token}, {"room": "stats"}):
            await self._stream.send_all(masked(json.dumps({"type": "join_room", **ask}).encode()))
        for _ in range(2):
            assert b'"joined"' in await self._message()

    async def listen(self, heard: dict[str, list[float]]) -> None:
        while True:
            message = await self._message()
            at = time.time()
            kind = message[message.index(b'"type":"') + 8 :].split(b'"', 1)[0].decode()
            start = message.index(b'"sentAt":') + 9
            heard[kind].append(at - float(message[start:].split(b",", 1)[0]))

    async def _message(self) -> bytes:
        """The next text; pings are answered."""
        while True:
            opcode, payload = await self._frame()
            if opcode == 0x9:
                await self._stream.send_all(b"\x8a" + bytes([0x80 | len(payload)]) + bytes(4) + payload)
            elif opcode == 0x1:
                return payload
            else:
                raise AssertionError(f"opcode {opcode}: {payload!r}")

    async def _frame(self) -> tuple[int, bytes]:
        await self._need(2)
        size, head = self._buffer[1], 2
        if size == 126:
            await self._need(4)
            size, head = int.from_bytes(self._buffer[2:4], "big"), 4
        await self._need(head + size)
        frame = self._buffer[0] & 0x0F, bytes(self._buffer[head : head + size])
        del self._buffer[: head + size]
        return frame

    async def _need(self, size: int) -> None:
        while len(self._buffer) < size:
            self._buffer += await self._more()

    async def _more(self) -> bytes:
        data = await self._stream.receive_some(65536)
        assert data, f"the connection of {self.user} ended"
        return bytes(data)


async def serve_orders() -> None:
    """Read orders from stdin: ["grow", port, secret, number] and ["heard"]; answer each on stdout by one line."""
    heard: dict[str, list[float]] = {"portfolio_update": [], "chain_stats_update": []}
    browsers = 0
    limit = trio.CapacityLimiter(_AT_ONCE)

    async def one(number: int, port: int, secret: str, nursery: trio.Nursery) -> None:
        async with limit:
            browser = Browser(number)
            await browser.connect(port, secret)
        nursery.start_soon(browser.listen, heard)

    async with trio.open_nursery() as listening:
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            order: list[Any] = json.loads(line)
            answer: Any = True
            if order[0] == "grow":
                async with trio.open_nursery() as connecting:
                    for number in range(browsers, order[3]):
                        connecting.start_soon(one, number, order[1], order[2], listening)
                browsers = order[3]
            else:
                answer = heard
            print(json.dumps(answer), flush=True)
        listening.cancel_scope.cancel()


class Crowd:
    """The process of the browsers, from the side of who orders it."""

    def __init__(self, process: trio.Process, port: int, secret: str) -> None:
        self._process = process
        self._port = port
        self._secret = secret
        self._rest = b""

    @staticmethod
    @asynccontextmanager
    async def started(port: int, secret: str) -> AsyncGenerator[Crowd]:
        command = [sys.executable, "-m", "benchmarks.live_clients"]
        process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            yield Crowd(process, port, secret)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                await stream.aclose()

    async def grow(self, clients: int) -> None:
        """Until so many are connected and in their rooms."""
        await self._order(["grow", self._port, self._secret, clients])

    async def heard(self) -> dict[str, list[float]]:
        """Seconds from commit to arrival, by kind of message."""
        answer: dict[str, list[float]] = await self._order(["heard"])
        return answer

    async def _order(self, order: list[Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        await self._process.stdin.send_all(json.dumps(order).encode() + b"\n")
        while b"\n" not in self._rest:
            piece = await self._process.stdout.receive_some()
            assert piece, "the clients died"
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)


if __name__ == "__main__":
    trio.run(serve_orders)
