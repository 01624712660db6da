"""Many wallets of one chain in shared requests: the same holdings as one by one, for a fraction of the calls."""

from __future__ import annotations

import pytest
import trio

from moonxd.adapters.chains import build_reader
from moonxd.adapters.chains.tokens import TokenList, builtin_tokens
from moonxd.adapters.memory.cache import MemoryCache
from moonxd.adapters.rpc import Transport, open_transport
from moonxd.domain.chain import CHAINS
from moonxd.ports import ChainReader, ManyReader, TokenReader
from tests.services import have
from tests.services.simulator import SimulatorProcess

ETHEREUM = CHAINS[1]
WALLETS = [f"0x{number * 104_729:040x}" for number in range(1, 101)]


def reader(kind: str, simulator: SimulatorProcess, transport: Transport, tokens: TokenList) -> ChainReader:
    if kind == "alchemy":
        url = f"{simulator.env['ALCHEMY_BASE_URL']}/{ETHEREUM.alchemy}/v2/key"
        return build_reader(ETHEREUM, transport, tokens, MemoryCache(), alchemy_url=url)
    return build_reader(ETHEREUM, transport, tokens, MemoryCache(), urls=[simulator.env["ETHEREUM_RPC_URL"]])


def calls(simulator: SimulatorProcess, method: str) -> int:
    count: int = simulator.stats()["upstreams"]["ethereum"]["methods"].get(method, 0)
    return count


async def test_a_hundred_wallets_cost_a_fifth_of_the_calls_at_most_and_read_the_same(
    simulator: SimulatorProcess,
) -> None:
    simulator.turn({"ethereum": {"halted": True}})
    tokens = TokenList(builtin_tokens())
    async with open_transport() as transport:
        sharing = reader("plain", simulator, transport, tokens)
        assert isinstance(sharing, ManyReader)
        with trio.fail_after(60):
            alone = [await sharing.read(wallet, ()) for wallet in WALLETS]
            alone_calls, alone_heads = (calls(simulator, name) for name in ("eth_call", "eth_getBlockByNumber"))
            together = await sharing.read_many([(wallet, ()) for wallet in WALLETS])
        shared_calls = calls(simulator, "eth_call") - alone_calls
        shared_heads = calls(simulator, "eth_getBlockByNumber") - alone_heads
    assert [snapshot.balances for snapshot in together] == [snapshot.balances for snapshot in alone]
    assert [snapshot.quarantined for snapshot in together] == [snapshot.quarantined for snapshot in alone]
    assert sum(len(snapshot.balances) for snapshot in together) > 500
    have("shared reads", f"{shared_calls} eth_call for 100 wallets together, {alone_calls} one by one")
    assert shared_calls * 5 <= alone_calls, f"{shared_calls} eth_call instead of {alone_calls}"
    assert shared_heads == 1


async def test_an_index_of_single_wallets_is_gone_round_for_many(simulator: SimulatorProcess) -> None:
    """Listed tokens and those seen before, in a few calls; only a wallet's own read looks for new ones."""
    simulator.turn({"ethereum": {"halted": True}})
    tokens = TokenList(builtin_tokens())
    async with open_transport() as transport:
        indexed, plain = (reader(kind, simulator, transport, tokens) for kind in ("alchemy", "plain"))
        assert isinstance(indexed, ManyReader)
        assert isinstance(plain, ManyReader)
        with trio.fail_after(60):
            asked = [(wallet, ()) for wallet in WALLETS]
            assert await indexed.read_many(asked) == await plain.read_many(asked)
            (alone,) = [await indexed.read(wallet, ()) for wallet in WALLETS[:1]]
            seen = [balance.token.address for balance in alone.balances]
            (again,) = await indexed.read_many([(WALLETS[0], seen)])
    assert {one.token: one.raw for one in again.balances} == {one.token: one.raw for one in alone.balances}
    assert (alone.discovers, again.discovers) == (True, False)


@pytest.mark.parametrize("kind", ["plain", "alchemy"])
async def test_tokens_describe_themselves_anew(simulator: SimulatorProcess, kind: str) -> None:
    token = simulator.deploy(chain="ethereum", address="0x" + "d7" * 20, symbol="OWN", name="My own", decimals=7)
    async with open_transport() as transport:
        describing = reader(kind, simulator, transport, TokenList(()))
        assert isinstance(describing, TokenReader)
        with trio.fail_after(20):
            metas = await describing.describe([token, "0x" + "ee" * 20])
    assert (metas[token].symbol, metas[token].name, metas[token].decimals) == ("OWN", "My own", 7)
    assert metas["0x" + "ee" * 20].decimals is None
