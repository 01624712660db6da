"""The transport against servers that behave, misbehave and lie. Everything here is real sockets on loopback."""

from __future__ import annotations

import gzip
import random
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate

import pytest
import trio
import trustme

from moonxd.adapters.rpc import Endpoint, Transport, open_transport
from moonxd.adapters.rpc.errors import EndpointError, Garbage, TimedOut, TooLarge, Unreachable
from moonxd.adapters.rpc.transport import default_tls
from moonxd.adapters.rpc.wire import Reply, parse_retry_after
from moonxd.domain.errors import ConfigError
from moonxd.version import VERSION
from tests.services.tcp import Handler, Peer, http, serving

LIMIT = 10_000


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with open_transport(connect_s=2.0) as opened:
        yield opened


async def post(
    transport: Transport, url: str, body: bytes = b"{}", *, within: float = 5.0, limit: int = LIMIT
) -> Reply:
    endpoint = Endpoint(url)
    deadline = trio.current_time() + within
    return await transport.request(endpoint, endpoint.post(body), deadline=deadline, max_body=limit)


def saying(*answers: bytes) -> Handler:
    """One answer per request, the last one again and again, on connections that stay open."""

    async def handle(peer: Peer) -> None:
        for index in range(1000):
            await peer.request()
            await peer.send(answers[min(index, len(answers) - 1)])

    return handle


def once(answer: bytes) -> Handler:
    """One answer, then the connection ends."""

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)

    return handle


async def silence(peer: Peer) -> None:
    await peer.request()
    await trio.sleep_forever()


# ---- the ordinary ----


async def test_one_connection_serves_many_requests(transport: Transport) -> None:
    async with serving(saying(http(b"answer"))) as server:
        for _ in range(5):
            assert await post(transport, server.url + "/v2?x=1", b"question") == Reply(200, b"answer", None)
    assert server.connections == 1
    head, body = server.requests[0]
    assert head.startswith(b"POST /v2?x=1 HTTP/1.1\r\n")
    assert f"User-Agent: moonxd/{VERSION}".encode() in head
    assert f"Host: 127.0.0.1:{server.port}".encode() in head
    assert body == b"question"


async def test_get_appends_to_the_base(transport: Transport) -> None:
    async with serving(saying(http(b"{}"))) as server:
        for base in ("", "/", "/base", "/base/", "/base?key=1"):
            endpoint = Endpoint(server.url + base)
            await transport.request(endpoint, endpoint.get("/prices?w=4h"), deadline=trio.current_time() + 5)
    targets = [head.split(b" ")[1] for head, _ in server.requests]
    assert targets == [b"/prices?w=4h"] * 2 + [b"/base/prices?w=4h"] * 2 + [b"/base/prices?w=4h&key=1"]


async def test_credentials_of_the_url_become_a_header(transport: Transport) -> None:
    async with serving(saying(http(b""))) as server:
        await post(transport, f"http://user:p%40ss@127.0.0.1:{server.port}/")
    assert b"Authorization: Basic dXNlcjpwQHNz" in server.requests[0][0]


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(b"x" * 5000)),
        ("x-gzip", gzip.compress(b"x" * 5000)),
        ("deflate", zlib.compress(b"x" * 5000)),
        ("deflate", zlib.compress(b"x" * 5000, wbits=-15)),
        ("identity", b"x" * 5000),
    ],
    # The bytes hold the time of packing: names made of them would differ between the workers.
    ids=["gzip", "x-gzip", "zlib", "raw deflate", "identity"],
)
async def test_packed_bodies(transport: Transport, encoding: str, packed: bytes) -> None:
    async with serving(saying(http(packed, headers=f"Content-Encoding: {encoding}\r\n"))) as server:
        for _ in range(2):
            assert (await post(transport, server.url)).body == b"x" * 5000
        assert (await post(transport, server.url, limit=5000)).body == b"x" * 5000


async def test_chunked_and_unframed_bodies(transport: Transport) -> None:
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nTrailer: 1\r\n\r\n"
    )
    async with serving(saying(chunked)) as server:
        assert [(await post(transport, server.url)).body for _ in range(2)] == [b"abcde"] * 2
    assert server.connections == 1
    async with serving(once(b"HTTP/1.1 200 OK\r\n\r\nto the end")) as server:
        assert (await post(transport, server.url)).body == b"to the end"


async def test_an_interim_answer_is_skipped(transport: Transport) -> None:
    async with serving(saying(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + http(b"real"))) as server:
        assert (await post(transport, server.url)).body == b"real"


async def test_statuses_are_answers(transport: Transport) -> None:
    async with serving(saying(http(b"gone", status="503 Busy", headers="Retry-After: 7\r\n"))) as server:
        assert await post(transport, server.url) == Reply(503, b"gone", 7.0)


def test_retry_after_in_both_forms() -> None:
    now = time.time()
    assert parse_retry_after("12", now) == 12.0
    assert parse_retry_after(formatdate(int(now) + 90, usegmt=True), now) == pytest.approx(90, abs=1.1)
    assert parse_retry_after(formatdate(int(now) - 90, usegmt=True), now) == 0.0
    assert parse_retry_after("99999999999", now) == 24 * 3600
    for nonsense in ("", "soon", "-5", "1e9", "12.5", "٣", "²"):
        assert parse_retry_after(nonsense, now) is None or parse_retry_after(nonsense, now) == 3.0


# ---- connections ----


async def test_connection_close_is_obeyed(transport: Transport) -> None:
    async with serving(once(http(b"bye", headers="Connection: close\r\n"))) as server:
        for _ in range(3):
            assert (await post(transport, server.url)).body == b"bye"
    assert server.connections == 3


async def test_a_connection_that_died_idle_is_replaced_once(transport: Transport) -> None:
    ended = trio.Event()

    async def one_answer(peer: Peer) -> None:
        await peer.request()
        await peer.send(http(b"answer"))
        if peer.server.connections > 1:
            await trio.sleep_forever()
        await trio.aclose_forcefully(peer.stream)
        ended.set()

    async with serving(one_answer) as server:
        await post(transport, server.url)
        await ended.wait()
        assert (await post(transport, server.url)).body == b"answer"
    assert server.connections == 2
    assert len(server.requests) == 2


async def test_a_fresh_connection_that_breaks_is_no_stale_one(transport: Transport) -> None:
    async def hang_up(peer: Peer) -> None:
        await peer.request()

    async with serving(hang_up) as server:
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1: the connection broke before the answer"):
            await post(transport, server.url)
    assert server.connections == 1


async def test_the_connection_limit_holds_and_the_wait_is_inside_the_deadline() -> None:
    free = trio.Event()

    async def slow(peer: Peer) -> None:
        while True:
            await peer.request()
            await free.wait()
            await peer.send(http(b"ok"))

    async with open_transport(connections=2) as transport, serving(slow) as server:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(post, transport, server.url)
            await trio.testing.wait_all_tasks_blocked(0.05)
            with pytest.raises(TimedOut):
                await post(transport, server.url, within=0.05)
            free.set()
        assert server.connections == 2
        assert len(server.requests) == 5


async def test_idle_connections_are_closed_by_the_janitor() -> None:
    closed = trio.Event()

    async def watch(peer: Peer) -> None:
        try:
            await saying(http(b"ok"))(peer)
        finally:
            closed.set()

    async with open_transport(idle_s=0.05) as transport, serving(watch) as server:
        await post(transport, server.url)
        with trio.fail_after(5):
            await closed.wait()
        await post(transport, server.url)
        assert server.connections == 2


async def test_closing_closes_idle_connections_and_refuses_new_requests() -> None:
    async with serving(saying(http(b"ok"))) as server:
        async with open_transport() as transport:
            await post(transport, server.url)
        with pytest.raises(Unreachable, match="closed"):
            await post(transport, server.url)


async def test_an_error_inside_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with open_transport():
            raise KeyError("mine")


async def test_a_cancelled_request_gives_its_slot_back() -> None:
    async with open_transport(connections=1) as transport, serving(silence) as server:
        for _ in range(3):
            with trio.move_on_after(0.02):
                await post(transport, server.url)
        assert server.connections == 3


async def test_answers_never_get_mixed_up_under_cancellation() -> None:
    """Requests given up at random moments leave neither a stuck slot nor an answer for the next question."""
    dice = random.Random(7)

    async def echo(peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            await trio.lowlevel.checkpoint()
            half = len(answer := http(body * 50)) // 2
            await peer.send(answer[:half])
            await trio.lowlevel.checkpoint()
            await peer.send(answer[half:])

    answered = 0
    async with open_transport(connections=5) as transport, serving(echo) as server:

        async def ask(number: int) -> None:
            nonlocal answered
            # Some at once, some never, the rest somewhere in between: on any machine there are both kinds.
            patience = (0.0, 30.0, *[dice.random() * 0.02] * 4)[number % 6]
            with trio.move_on_after(patience):
                body = b"question %d;" % number
                assert (await post(transport, server.url, body)).body == body * 50
                answered += 1

        for round_ in range(20):
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(ask, round_ * 100 + number)
        assert 0 < answered < 400
        for number in range(10):
            body = b"after %d" % number
            assert (await post(transport, server.url, body)).body == body * 50


# ---- hostile ----


async def trickle(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        await peer.send(b".")
        await trio.sleep_until(trio.current_time() + 0.005)


async def endless_headers(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        await peer.send(b"y" * 4096)


async def endless_chunks(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await peer.send(b"400\r\n" + b"z" * 1024 + b"\r\n")


async def endless_interim(peer: Peer) -> None:
    await peer.request()
    while True:
        await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)


async def reset(peer: Peer) -> None:
    await peer.request()
    assert isinstance(peer.stream, trio.SocketStream)
    peer.stream.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0: closing sends a reset


HOSTILE: list[tuple[str, Handler, type[EndpointError], str]] = [
    ("hang", silence, TimedOut, "no complete answer within"),
    ("trickle", trickle, TooLarge, "announces 100000 bytes"),
    ("announced", once(http(b"", length=10**9)), TooLarge, "announces 1000000000 bytes, the limit is 10000"),
    ("streamed", once(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 20_000), TooLarge, "over 10000 bytes"),
    ("chunks", endless_chunks, TooLarge, "over 10000 bytes"),
    ("headers", endless_headers, TooLarge, "headers"),
    ("interim", endless_interim, Garbage, "interim"),
    ("bomb", once(http(gzip.compress(b"0" * 5_000_000), headers="Content-Encoding: gzip\r\n")), TooLarge, "unpacks to"),
    ("bad gzip", once(http(b"not gzip", headers="Content-Encoding: gzip\r\n")), Garbage, "does not unpack"),
    ("cut gzip", once(http(gzip.compress(b"abc")[:-6], headers="Content-Encoding: gzip\r\n")), Garbage, "cut short"),
    ("brotli", once(http(b"xx", headers="Content-Encoding: br\r\n")), Garbage, "encoding"),
    ("not http", once(b"\x16\x03\x01 hello this is no HTTP at all\r\n\r\n"), Garbage, "not HTTP"),
    ("cut body", once(http(b"abc", length=10)), Unreachable, "broke in the answer"),
    ("long body", once(http(b"abcdef", length=3)), Garbage, "garbage"),
    ("two answers", once(http(b"a") + http(b"b")), Garbage, "more bytes"),
    ("bad length", once(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), Garbage, "garbage"),
    ("two lengths", once(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), Garbage, "garbage"),
    ("upgrade", once(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), Garbage, "not HTTP"),
    ("reset", reset, Unreachable, "broke before the answer"),
]


@pytest.mark.parametrize(("handler", "error", "words"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
async def test_hostile_endpoints(handler: Handler, error: type[EndpointError], words: str) -> None:
    async with open_transport() as transport, serving(handler) as server:
        started = trio.current_time()
        with pytest.raises(error, match=words) as caught:
            await post(transport, server.url + "/v2/secretsecretsecret", within=0.5)
        assert trio.current_time() - started < 2
        assert str(caught.value).startswith("127.0.0.1: ")
        assert "secretsecret" not in str(caught.value)


async def test_a_slow_trickle_ends_with_the_deadline(transport: Transport) -> None:
    async with serving(trickle) as server:
        with pytest.raises(TimedOut):
            await post(transport, server.url, within=0.1, limit=10**6)


async def test_after_garbage_the_next_request_has_a_new_connection(transport: Transport) -> None:
    answers = [http(b"ok"), b"garbage\r\n\r\n", http(b"ok")]

    async def handle(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answers[len(peer.server.requests) - 1])

    async with serving(handle) as server:
        await post(transport, server.url)
        with pytest.raises(Garbage):
            await post(transport, server.url)
        assert (await post(transport, server.url)).body == b"ok"
    assert server.connections == 2


async def test_refused_and_unresolvable(transport: Transport) -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1: cannot connect to port 1: "):
        await post(transport, "http://127.0.0.1:1/")
    with pytest.raises(Unreachable, match="cannot connect"):
        await post(transport, "http://no-such-host.invalid/")


async def test_an_early_refusal_of_a_large_request_is_read(transport: Transport) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.stream.receive_some(10)
        await peer.send(http(b"", status="413 Too Large", headers="Connection: close\r\n"))
        with trio.move_on_after(1):
            while await peer.stream.receive_some(65536):
                pass

    async with serving(refuse) as server:
        assert (await post(transport, server.url, b"x" * 3_000_000)).status == 413


# ---- TLS ----


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> Callable[[str], ssl.SSLContext]:
    def build(name: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(context)
        return context

    return build


async def test_tls_is_verified(authority: trustme.CA, server_tls: Callable[[str], ssl.SSLContext]) -> None:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with serving(saying(http(b"ok")), tls=server_tls("127.0.0.1")) as server:
        async with open_transport(tls=trusting) as transport:
            for _ in range(3):
                assert (await post(transport, server.url)).body == b"ok"
            assert transport.opened == 1
        async with open_transport() as transport:
            with pytest.raises(Unreachable, match="certificate is not valid"):
                await post(transport, server.url)
    async with (
        serving(saying(http(b"ok")), tls=server_tls("other.example")) as server,
        open_transport(tls=trusting) as transport,
    ):
        with pytest.raises(Unreachable, match="certificate is not valid"):
            await post(transport, server.url)


async def test_tls_to_a_server_that_speaks_none(authority: trustme.CA) -> None:
    async with serving(once(b"HTTP/1.1 400 no\r\n\r\n")) as server, open_transport(connect_s=0.5) as transport:
        with pytest.raises(Unreachable, match=r"cannot connect|no connection"):
            await post(transport, server.url.replace("http", "https"))


def test_a_machine_without_authorities_gets_certifis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    monkeypatch.setenv("SSL_CERT_DIR", "/nonexistent")
    assert len(default_tls().get_ca_certs()) > 50


# ---- endpoints ----


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8545", "ftp://host/keykeykeykeykey", "http://", "https://host:99999/keykeykeykeykey", "http://a b/",
     "ws://host/keykeykeykeykey", "http://[::1/keykeykeykeykey", "http://host/\nkeykeykeykeykey"],
)  # fmt: skip
def test_unusable_urls_are_refused_without_showing_them(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint(url)
    assert "keykey" not in str(caught.value)


def test_an_endpoint_shows_its_host_only() -> None:
    endpoint = Endpoint("https://me:hunter2hunter2@eth.example:8443/v2/abcdefabcdefabcdef?token=0123456789abcdef")
    assert repr(endpoint) == "Endpoint(eth.example)"
    scrubbed = endpoint.scrub("no access to /v2/abcdefabcdefabcdef with 0123456789abcdef as me:hunter2hunter2 at v2")
    assert scrubbed == "no access to /v2/*** with *** as me:*** at v2"


def test_headers_cannot_be_smuggled() -> None:
    with pytest.raises(ConfigError):
        Endpoint("http://host/", headers={"X-Key": "a\r\nEvil: 1"})
