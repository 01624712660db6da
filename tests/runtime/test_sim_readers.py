"""Our own readers in the simulated world: they find what is there, and the totals agree to the last digit."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
import trio

import moonxd.adapters.chains
from moonxd.adapters.chains.alchemy import AlchemyReader
from moonxd.adapters.chains.multicall import MulticallReader
from moonxd.adapters.chains.reading import Endpoints
from moonxd.adapters.chains.together import SharingReader
from moonxd.adapters.chains.tokens import TokenList, builtin_tokens
from moonxd.adapters.memory.cache import MemoryCache
from moonxd.adapters.prices.llama import LlamaPrices
from moonxd.adapters.rpc import Endpoint, RpcClient, Transport, open_transport
from moonxd.domain.chain import CHAINS, Chain
from moonxd.domain.portfolio import PriceLookup, assemble, unpriced
from moonxd.ports import ChainReader
from tests.services.simulator import SimulatorProcess

LIST = Path(moonxd.adapters.chains.__file__).with_name("tokens.json")
WALLETS = [f"0x{number * 104_729:040x}" for number in range(1, 13)]
Start = Callable[..., SimulatorProcess]


def reader(kind: str, running: SimulatorProcess, transport: Transport, chain: Chain) -> ChainReader:
    tokens, cache = TokenList(builtin_tokens()), MemoryCache()
    if kind == "alchemy":
        client = RpcClient(transport, Endpoint(f"{running.env['ALCHEMY_BASE_URL']}/{chain.alchemy}/v2/key"))
        endpoints = Endpoints(chain, [client])
        return AlchemyReader(chain, endpoints, tokens, cache, shared=SharingReader(chain, endpoints, tokens, cache))
    client = RpcClient(transport, Endpoint(running.env[f"{chain.slug.upper()}_RPC_URL"]))
    return MulticallReader(chain, Endpoints(chain, [client]), tokens, cache)


@pytest.mark.parametrize("kind", ["multicall", "alchemy"])
async def test_a_wallet_is_read_and_priced_as_it_is(start_simulator: Start, kind: str) -> None:
    running = start_simulator("--tokens", str(LIST), "--price-bucket-s", "0")
    async with open_transport() as transport, httpx.AsyncClient(base_url=running.url) as http:
        prices = LlamaPrices(transport, base_url=running.env["DEFILLAMA_COINS_URL"], min_confidence=0.5)
        readers = [reader(kind, running, transport, chain) for chain in CHAINS.values()]
        for wallet in WALLETS:
            query = {"listed": "1"} if kind == "multicall" else {}
            truth = (await http.get(f"/sim/wallets/{wallet}", params=query)).json()
            with trio.fail_after(20):
                snapshots = [await one.read(wallet, ()) for one in readers]
                found = PriceLookup(await prices.prices(unpriced(snapshots)))
            for snapshot in snapshots:
                rows = truth["chains"][CHAINS[snapshot.chain_id].slug]["tokens"]
                there = {row["address"]: row for row in rows if row["listed"] or kind == "alchemy"}
                broken = {address for address, row in there.items() if not row["readable"]}
                held = {balance.token.address: balance.raw for balance in snapshot.balances}
                assert held == {address: int(row["raw"]) for address, row in there.items() if address not in broken}
                assert broken <= set(snapshot.quarantined)
            change = assemble((), snapshots, found)
            assert change.total_value_usd == Decimal(truth["totalValueUsd"])
