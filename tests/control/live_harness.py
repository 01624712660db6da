"""The live feed on a real TCP port and a real client; events are committed into an in-memory ledger."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from moonxd.adapters.memory.ledger import MemoryLedger
from moonxd.control.live.server import LiveFeed, Terms
from moonxd.control.live.tokens import Tokens
from moonxd.control.server import ControlPlane, serve_control
from moonxd.control.socket import tcp_listeners, unix_listener
from moonxd.domain.ledger import Event
from tests.control.harness import Bench, WallClock, queue_on

SECRET = "a secret of sixty-four bytes or more, so that every kind of HMAC takes it"
ED25519 = Ed25519PrivateKey.generate()
PUBLIC_PEM = ED25519.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
PATIENCE_S = 10.0
_moments = count(1)


def token(user: str = "u1", *, key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    return jwt.encode({"sub": user, "exp": time.time() + 60, **claims}, key, algorithm=algorithm)


def made_event(kind: str, user: str, **data: Any) -> Event:
    """An event as the outbox holds it."""
    identity = uuid4()
    body = {
        "metadata": {"eventId": str(identity), "eventType": kind, "timestamp": next(_moments), "userId": user},
        "userId": user,
        "walletAddress": "" if user == "system" else "0x" + "ab" * 20,
        "type": kind,
        "data": data,
    }
    return Event(id=identity, type=kind, topic="t", key=user, wallet="", body=json.dumps(body).encode())


def portfolio_event(user: str, total: int = 1) -> Event:
    """A committed change of this user's wallet."""
    return made_event("portfolio.updated", user, totalValueUsd=total)


def stats_event(kind: str = "stats.chain_performance_updated") -> Event:
    return made_event(kind, "system", chains=[])


def alert_event() -> Event:
    return made_event("system.alert", "system", alertType="test", message="something is wrong", severity="warning")


class Counts:
    """A meter."""

    def __init__(self) -> None:
        self.clients = 0
        self.sent: dict[str, int] = {}
        self.ended: list[str] = []
        self.lags: list[float] = []

    def live_clients(self, number: int) -> None:
        self.clients = number

    def live_sent(self, kind: str, number: int, lag_s: float) -> None:
        self.sent[kind] = self.sent.get(kind, 0) + number
        self.lags.append(lag_s)

    def live_ended(self, why: str) -> None:
        self.ended.append(why)


class Page:
    """A browser's side of one connection."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection

    async def say(self, **message: Any) -> None:
        await self.connection.send_message(json.dumps(message))

    async def hear(self) -> Any:
        with trio.fail_after(PATIENCE_S):
            return json.loads(await self.connection.get_message())

    async def join(self, room: str, token: str | None = None, **more: Any) -> Any:
        """The answer."""
        await self.say(type="join_room", room=room, **({"token": token} if token else {}), **more)
        return await self.hear()

    async def hear_code(self) -> int:
        """The code by which the connection is closed."""
        with trio.fail_after(PATIENCE_S), suppress(ConnectionClosed):
            while True:
                await self.connection.get_message()
        assert self.connection.closed is not None
        return int(self.connection.closed.code)


class LiveBench:
    def __init__(self, feed: LiveFeed, ledger: MemoryLedger, counts: Counts) -> None:
        self.feed = feed
        self.ledger = ledger
        self.counts = counts
        self.stop = trio.Event()
        self.port = 0
        #: Pages connect here instead, when it is set.
        self.socket: Path | None = None

    async def tell(self, *events: Event) -> None:
        """Commit events as a job of this process does."""
        await self.ledger.tell(events)
        self.feed.nudge()

    @asynccontextmanager
    async def page(self, *, path: str = "/v1/ws", **options: Any) -> AsyncGenerator[Page]:
        """The client's library leaves its socket open when the server ends the conversation, so the socket is ours."""
        if self.socket is not None:
            stream = await trio.open_unix_socket(str(self.socket))
        else:
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream, trio.open_nursery() as nursery:
            connection = await wrap_client_stream(nursery, stream, "localhost", path, **options)
            async with connection:
                yield Page(connection)

    @asynccontextmanager
    async def pages(self, number: int, **options: Any) -> AsyncGenerator[list[Page]]:
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.page(**options)) for _ in range(number)]

    async def refusal(self, *headers: str) -> tuple[int, str]:
        """Status and body of the answer to a handshake that is not accepted."""
        lines = ["GET /v1/ws HTTP/1.1", "host: localhost", "upgrade: websocket", "connection: upgrade"]
        lines += ["sec-websocket-version: 13", "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==", *headers, "", ""]
        answer = await self.raw("\r\n".join(lines).encode())
        return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2].decode()

    async def raw(self, request: bytes, *, bytewise: bool = False) -> bytes:
        """Everything that is answered, until the server ends the connection."""
        with trio.fail_after(PATIENCE_S):
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                for piece in [request[n : n + 1] for n in range(len(request))] if bytewise else [request]:
                    await stream.send_all(piece)
                return b"".join([bytes(piece) async for piece in stream])


def feed_on(ledger: MemoryLedger, counts: Counts, check: Callable[..., Any] | None, **terms: Any) -> LiveFeed:
    return LiveFeed(check, ledger, counts, Terms(**terms))


@asynccontextmanager
async def live(
    redis_url: str,
    *,
    tokens: Tokens | None = None,
    is_off: bool = False,
    grace: float = 1.0,
    socket: Path | None = None,
    **terms: Any,
) -> AsyncGenerator[LiveBench]:
    """A control plane whose feed accepts tokens signed with SECRET; it must end within its grace."""
    async with queue_on(redis_url) as queue:
        ledger, counts = MemoryLedger(WallClock()), Counts()
        check = None if is_off else (tokens or Tokens(hs256_secret=SECRET)).check
        bench = LiveBench(feed_on(ledger, counts, check, **terms), ledger, counts)
        plane = ControlPlane(Bench(queue).deps(), live=bench.feed)
        listeners = await tcp_listeners("127.0.0.1:0")
        bench.socket = socket
        bench.port = listeners[0].socket.getsockname()[1]
        with unix_listener(socket) if socket else nullcontext() as local, trio.CancelScope() as patience:
            listeners += [local] if local else []
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(serve_control, plane, listeners, bench.stop, grace=grace))
                yield bench
                bench.stop.set()
                patience.deadline = trio.current_time() + grace + 3
        assert not patience.cancelled_caught, "the server did not end within its grace"
