"""What providers grant, in their own unit, and how many requests at a time an endpoint takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
import trio
from trio.testing import MockClock

from moonxd.adapters.chains import PUBLIC_ENDPOINTS, Guards, TokenList, build_reader
from moonxd.adapters.chains.limits import alchemy_limits, request_limits
from moonxd.adapters.chains.provider import Limits, Provider, Throttled
from moonxd.adapters.memory.quota import MemoryQuota
from moonxd.adapters.rpc import Endpoint, RpcClient, Transport, open_transport
from moonxd.adapters.rpc.errors import HttpFailure, RateLimited, RpcError, TimedOut
from moonxd.domain.breakers import Breakers
from moonxd.domain.chain import CHAINS
from moonxd.domain.quota import Charge
from tests.runtime.test_chain_failover import BASE, NoCache

KEY = "an-alchemy-key-0123456789"


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with open_transport() as opened:
        yield opened


@pytest.fixture
def provider(transport: Transport) -> Provider:
    made = Provider("base/a.example")
    return made.serve_by(RpcClient(transport, Endpoint("https://a.example/key-0123456789"), gate=made.gate))


def test_alchemy_counts_compute_units_and_requests_per_key() -> None:
    limits = alchemy_limits(MemoryQuota(lambda: 0.0), KEY, units_per_s=300, rpm=200)
    units, requests = limits.charges(["alchemy_getTokenBalances", "eth_call", "eth_chainId"])
    assert (units.cost, units.limit, units.window_s) == (46, 3000, 10.0)
    assert (requests.cost, requests.limit, requests.window_s) == (3, 200, 60.0)
    assert KEY not in units.key + requests.key
    other = alchemy_limits(MemoryQuota(lambda: 0.0), "another-key", units_per_s=300, rpm=200)
    assert other.charges(["eth_call"])[0].key != units.key


def test_keyless_endpoints_count_requests() -> None:
    (charge,) = request_limits(MemoryQuota(lambda: 0.0), "base/a.example", 300).charges(["eth_call", "eth_call"])
    assert charge == Charge("requests:base/a.example", 2, 300, 60.0)


@pytest.mark.parametrize(
    ("urls", "rpm", "limited"),
    [
        (PUBLIC_ENDPOINTS[8453][:1], None, 300),
        (["https://own.example"], None, None),
        (["https://own.example"], 50, 50),
        (PUBLIC_ENDPOINTS[8453][:1], 50, 50),
    ],
)
async def test_who_is_limited(transport: Transport, urls: Sequence[str], rpm: int | None, limited: int | None) -> None:
    guards = Guards(breakers=Breakers(lambda: 0.0), quota=MemoryQuota(), rpm=rpm, public_rpm=300)
    reader = build_reader(BASE, transport, TokenList([]), NoCache(), urls=urls, guards=guards)
    limits: Limits | None = reader._endpoints.providers[0]._limits  # type: ignore[attr-defined]
    assert (None if limits is None else limits.charges(["eth_call"])[0].limit) == limited


async def test_one_key_is_one_budget_for_all_chains(transport: Transport, autojump_clock: MockClock) -> None:
    guards = Guards(breakers=Breakers(trio.current_time), quota=MemoryQuota(), alchemy_rpm=3, alchemy_units_per_s=9999)
    providers: list[Provider] = []
    for chain in (CHAINS[1], CHAINS[8453]):
        url = f"https://{chain.alchemy}.g.alchemy.com/v2/{KEY}"
        reader = build_reader(chain, transport, TokenList([]), NoCache(), alchemy_url=url, guards=guards)
        providers += reader._endpoints.providers  # type: ignore[attr-defined]
    for provider in (*providers, providers[0]):
        async with provider.gate(["eth_blockNumber"]):
            pass
    with pytest.raises(Throttled, match="its limit is used up"):
        async with providers[1].gate(["eth_blockNumber"]):
            pass
    autojump_clock.jump(64)
    async with providers[1].gate(["eth_blockNumber"]):
        pass


async def test_short_waits_are_waited_long_ones_are_the_queues(transport: Transport, autojump_clock: MockClock) -> None:
    quota = MemoryQuota()
    limits = Limits(quota, lambda methods: (Charge("k", 1, 1, 4.0),))
    provider = Provider("base/a.example", limits=limits)
    provider.serve_by(RpcClient(transport, Endpoint("https://a.example")))
    async with provider.gate(["eth_call"]):
        pass
    before = trio.current_time()
    async with provider.gate(["eth_call"]):
        assert 4.0 <= trio.current_time() - before <= 4.5
    with trio.move_on_after(2.0), pytest.raises(Throttled):
        async with provider.gate(["eth_call"]):
            pass


@pytest.mark.parametrize(
    ("error", "slots"),
    [
        (RateLimited("429"), 8),
        (TimedOut("late"), 8),
        (HttpFailure("503", status=503), 8),
        (HttpFailure("500", status=500), 16),
        (RpcError("oops", code=-32000, text="oops"), 16),
    ],
)
async def test_overload_halves_what_is_sent_at_a_time(
    provider: Provider, autojump_clock: MockClock, error: Exception, slots: int
) -> None:
    assert provider.slots == 16
    with pytest.raises(type(error)):
        async with provider.gate(["eth_call"]):
            raise error
    assert provider.slots == slots


async def test_it_never_falls_below_one_and_grows_when_it_is_filled(
    provider: Provider, autojump_clock: MockClock
) -> None:
    for _ in range(20):
        with pytest.raises(TimedOut):
            async with provider.gate(["eth_call"]):
                raise TimedOut("late")
        autojump_clock.jump(2)
    assert provider.slots == 1
    for _ in range(3):
        async with provider.gate(["eth_call"]):
            pass
    assert provider.slots == 2


async def test_no_more_than_its_slots_are_under_way(provider: Provider, autojump_clock: MockClock) -> None:
    busy = most = 0

    async def request() -> None:
        nonlocal busy, most
        async with provider.gate(["eth_call"]):
            busy += 1
            most = max(most, busy)
            await trio.sleep(1)
            busy -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(request)
    assert 16 <= most <= 20


async def test_a_cancelled_request_frees_its_slot(provider: Provider, autojump_clock: MockClock) -> None:
    for _ in range(40):
        with trio.move_on_after(0.1):
            async with provider.gate(["eth_call"]):
                await trio.sleep_forever()
    with trio.fail_after(1):
        async with provider.gate(["eth_call"]):
            pass
