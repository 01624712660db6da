"""New heads over real WebSockets: subscribed, subscribed again, silent sockets left, reorganisations counted."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trustme
from trio.testing import MockClock

from moonxd.adapters.chains.heads import SocketHeads
from moonxd.adapters.rpc import open_transport
from moonxd.agents.heads import HeadsWatch
from moonxd.domain.blocktime import Block
from moonxd.domain.chain import CHAINS
from moonxd.domain.errors import ConfigError, Permanent, Transient
from moonxd.domain.heads import HeadsSeen
from moonxd.ports import Heads, HeadStream
from moonxd.sim import SimSettings, open_simulator
from tests.services.anvil import AnvilChain
from tests.services.redis import until
from tests.services.tcp import Peer, http, serving

ETHEREUM, BASE = CHAINS[1], CHAINS[8453]
KEY = "0123456789abcdef0123"
WITHIN_S = 20.0


HeadsOf = Callable[..., SocketHeads]


@pytest.fixture
async def heads_of() -> AsyncIterator[HeadsOf]:
    """Makes the heads of an HTTP or a WebSocket URL."""
    async with open_transport() as transport:
        yield lambda url, **options: SocketHeads(transport, url.replace("http", "ws", 1), **options)


@asynccontextmanager
async def watching(feed: Heads, *, silent_s: float = 60.0) -> AsyncIterator[Callable[[], HeadsSeen]]:
    """A watch of one chain (base) at work; what it has seen."""
    watch = HeadsWatch({BASE.id: feed}, lambda _: BASE.block_time, rand=lambda: 0.0, silent_after=lambda _: silent_s)

    def seen() -> HeadsSeen:
        found = watch.seen(BASE.id)
        assert found is not None
        return found

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run, lambda: None)
        yield seen
        nursery.cancel_scope.cancel()


# ---- real nodes -----------------------------------------------------------------------------------------------------


@pytest.mark.anvil
@pytest.mark.slow
async def test_heads_come_by_themselves_and_again_after_the_node_restarted(
    start_anvil: Callable[..., AnvilChain], heads_of: HeadsOf
) -> None:
    node = start_anvil(BASE, "--block-time", "1")
    async with watching(heads_of(node.url)) as seen:
        await until(lambda: seen().heads >= 2)
        assert (seen().subscriptions, seen().is_connected, seen().error) == (1, True, None)
        port = node.port
        node.stop()
        await until(lambda: not seen().is_connected)
        assert "127.0.0.1" in str(seen().error)
        node.launch(port)
        await trio.to_thread.run_sync(node.await_ready)
        before = seen().heads
        await until(lambda: seen().heads >= before + 2)
        assert (seen().subscriptions, seen().is_connected, seen().error) == (2, True, None)


@pytest.mark.anvil
async def test_a_reorganisation_of_a_real_node_is_counted_with_its_depth(
    start_anvil: Callable[..., AnvilChain], heads_of: HeadsOf
) -> None:
    node = start_anvil(BASE)
    async with watching(heads_of(node.url)) as seen:
        await until(lambda: seen().is_connected)
        await trio.to_thread.run_sync(node.mine)
        await until(lambda: seen().heads == 1)
        kept = node.rpc("evm_snapshot")
        for _ in range(3):
            await trio.to_thread.run_sync(node.mine)
        await until(lambda: seen().heads == 4)
        assert seen().reorgs == 0
        node.rpc("evm_revert", kept)
        node.rpc("anvil_setCoinbase", "0x" + "11" * 20)
        node.rpc("evm_increaseTime", 5)
        await trio.to_thread.run_sync(node.mine)
        await until(lambda: seen().reorgs == 1)
        assert seen().deepest == 3
        newest = seen().newest
        assert newest is not None
        assert newest.number == node.height


@pytest.mark.anvil
@pytest.mark.slow
async def test_a_node_that_is_frozen_is_left_and_taken_up_again(
    start_anvil: Callable[..., AnvilChain], heads_of: HeadsOf
) -> None:
    node = start_anvil(BASE, "--block-time", "1")
    async with watching(heads_of(node.url, timeout_s=2.0), silent_s=3.0) as seen:
        await until(lambda: seen().heads >= 1)
        os.kill(node.pid, signal.SIGSTOP)
        await until(lambda: seen().silences == 1)
        os.kill(node.pid, signal.SIGCONT)
        before = seen().heads
        await until(lambda: seen().heads > before)
        assert seen().is_connected


# ---- simulated ones -------------------------------------------------------------------------------------------------


async def test_a_socket_that_says_nothing_is_left_though_it_stands(heads_of: HeadsOf) -> None:
    settings = SimSettings(chains=(BASE,), knobs={"base": {"block_time_s": 0.05, "mute_heads": True}})
    async with open_simulator(settings) as simulator:
        async with watching(heads_of(simulator.env()["BASE_WS_URL"]), silent_s=0.5) as seen:
            await until(lambda: "announced no head" in str(seen().error))
            assert seen().heads == 0
            simulator.world.turn({"base": {"mute_heads": False}})
            await until(lambda: seen().heads >= 3)
        assert seen().subscriptions >= 2
        assert simulator.world.upstreams["base"].methods["eth_subscribe"] >= seen().subscriptions
        assert seen().reorgs == 0


async def test_a_chain_that_stands_still_is_waited_for_with_growing_pauses(heads_of: HeadsOf) -> None:
    settings = SimSettings(chains=(BASE,), knobs={"base": {"block_time_s": 0.05, "halted": True}})
    async with (
        open_simulator(settings) as simulator,
        watching(heads_of(simulator.env()["BASE_WS_URL"]), silent_s=0.1) as seen,
    ):
        await until(lambda: seen().silences >= 2)
        simulator.world.turn({"base": {"halted": False}})
        await until(lambda: seen().heads >= 2)


# ---- what a subscription raises -------------------------------------------------------------------------------------


async def subscribed(feed: SocketHeads) -> None:
    with trio.fail_after(WITHIN_S):
        async with feed.subscribe():
            raise AssertionError("there is nothing to subscribe to")


@pytest.mark.parametrize(
    ("status", "kind"),
    [("401 Unauthorized", Permanent), ("404 Not Found", Permanent), ("503 Service Unavailable", Transient)],
)
async def test_a_handshake_that_is_refused(status: str, kind: type[Exception], heads_of: HeadsOf) -> None:
    async def refusing(peer: Peer) -> None:
        await peer.request()
        await peer.send(http(b"", status=status))

    async with serving(refusing) as server:
        with pytest.raises(kind) as caught:
            await subscribed(heads_of(f"{server.url}/v2/{KEY}"))
    assert status[:3] in str(caught.value)
    assert KEY not in str(caught.value)


async def test_wss_is_tls_that_is_verified() -> None:
    async def refusing(peer: Peer) -> None:
        await peer.request()
        await peer.send(http(b"", status="401 Unauthorized"))

    authority, ours = trustme.CA(), ssl.create_default_context()
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    async with serving(refusing, tls=theirs) as server:
        url = server.url.replace("https", "wss")
        async with open_transport(tls=ours) as transport:
            with pytest.raises(Transient, match="certificate is not valid"):
                await subscribed(SocketHeads(transport, url))
        authority.configure_trust(ours)
        async with open_transport(tls=ours) as transport:
            with pytest.raises(Permanent, match="HTTP 401"):
                await subscribed(SocketHeads(transport, url))


async def silent(peer: Peer) -> None:
    await peer.request()
    await trio.sleep_forever()


async def test_a_server_that_never_agrees_to_the_handshake(heads_of: HeadsOf) -> None:
    async with serving(silent) as server:
        with pytest.raises(Transient, match=r"127\.0\.0\.1: no subscription"):
            await subscribed(heads_of(f"{server.url}/v2/{KEY}", timeout_s=0.2))


async def test_nobody_there(heads_of: HeadsOf) -> None:
    async with serving(silent) as server:
        url = server.url
    with pytest.raises(Transient, match=r"127\.0\.0\.1"):
        await subscribed(heads_of(url))


async def test_an_endpoint_that_cannot_subscribe(heads_of: HeadsOf) -> None:
    settings = SimSettings(chains=(BASE,), knobs={"base": {"no_subscriptions": True}})
    async with open_simulator(settings) as simulator:
        with pytest.raises(Permanent, match="eth_subscribe"):
            await subscribed(heads_of(simulator.env()["BASE_WS_URL"]))


@pytest.mark.parametrize("url", ["", "ftp://a.example", "http://a.example", "ws://"])
async def test_a_url_that_cannot_be_used(url: str) -> None:
    async with open_transport() as transport:
        with pytest.raises(ConfigError):
            SocketHeads(transport, url)


# ---- the watch alone, in simulated time -----------------------------------------------------------------------------


class Script:
    """A feed whose subscriptions end as told: heads to announce, then an error, silence, or nothing but waiting."""

    def __init__(self, *turns: list[Block | Exception | None]) -> None:
        self._turns = list(turns)
        self.host = "a.example"
        self.at: list[float] = []

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[HeadStream]:
        self.at.append(trio.current_time())
        turn = self._turns.pop(0) if self._turns else [None]
        if turn and isinstance(turn[0], Permanent):
            raise turn[0]
        yield Stream(turn)


class Stream:
    def __init__(self, turn: list[Block | Exception | None]) -> None:
        self._turn = turn

    async def head(self) -> Block:
        said = self._turn.pop(0) if self._turn else None
        if said is None:
            await trio.sleep_forever()
        if isinstance(said, Exception):
            raise said
        assert isinstance(said, Block)
        return said


def block(number: int) -> Block:
    return Block(number=number, hash=f"a{number}", parent=f"a{number - 1}", at=2.0 * number)


async def test_pauses_grow_up_to_a_minute_and_start_afresh_after_a_head(autojump_clock: MockClock) -> None:
    gone = Transient("a.example: gone")
    feed = Script(*([gone] for _ in range(9)), [block(1), gone], [None])
    async with watching(feed, silent_s=1000.0) as seen:
        await trio.sleep(100)
        pauses = [round(later - at, 1) for at, later in zip(feed.at, feed.at[1:], strict=False)]
        assert pauses == [0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 0.2]
        assert seen().subscriptions == 11


async def test_a_refusal_is_not_pressed(autojump_clock: MockClock) -> None:
    feed = Script([Permanent("a.example refuses us")], [None])
    async with watching(feed) as seen:
        await trio.sleep(601)
        assert feed.at[1] - feed.at[0] == 600.0
        assert seen().error == "a.example refuses us"


async def test_one_chains_trouble_is_not_anothers(autojump_clock: MockClock) -> None:
    feeds: dict[int, Heads] = {1: Script(*([Transient("gone")] for _ in range(50))), 8453: Script([block(1), block(2)])}
    watch = HeadsWatch(feeds, lambda _: 2.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run, lambda: None)
        await trio.sleep(5)
        base, ethereum = watch.seen(8453), watch.seen(1)
        nursery.cancel_scope.cancel()
    assert base is not None
    assert ethereum is not None
    assert (base.heads, base.is_connected) == (2, True)
    assert (ethereum.heads, ethereum.is_connected) == (0, False)
    assert watch.seen(56) is None
