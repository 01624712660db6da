"""Wallets on six real EVM nodes: what was put there is what is read, whatever the tokens around it do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import pytest
import trio

from moonxd.adapters.chains import TokenList, build_reader
from moonxd.adapters.rpc import Transport, open_transport
from moonxd.domain.address import NATIVE
from moonxd.domain.chain import CHAINS
from moonxd.domain.errors import Transient
from moonxd.domain.token import ChainSnapshot, TokenMeta
from moonxd.domain.tokenlist import ListedToken
from moonxd.ports import ChainReader
from tests.services.anvil import (
    EMPTY_ANSWER,
    ENDLESS,
    INVALID,
    MULTICALL3,
    REVERTING,
    AnvilChain,
    answering,
    answering_long,
    balance_only,
    new_wallet,
)

pytestmark = pytest.mark.anvil

ETHEREUM, BSC = CHAINS[1], CHAINS[56]


class DictCache:
    """A cache that forgets nothing and counts what it was asked."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}
        self.puts = 0

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        return {key: self.entries[key] for key in keys if key in self.entries}

    async def put_many(self, entries: Mapping[str, bytes], ttl_s: float) -> None:
        assert ttl_s > 0
        self.puts += 1
        self.entries.update(entries)


class AbsentCache:
    """A cache that is away."""

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        raise Transient("the cache is away")

    async def put_many(self, entries: Mapping[str, bytes], ttl_s: float) -> None:
        raise Transient("the cache is away")


Calls = list[tuple[str, str, str, float]]


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with open_transport() as opened:
        yield opened


@pytest.fixture
def calls() -> Calls:
    return []


@pytest.fixture
def reader_of(transport: Transport, calls: Calls) -> Callable[..., ChainReader]:
    def build(
        node: AnvilChain,
        *,
        tokens: TokenList | None = None,
        cache: DictCache | AbsentCache | None = None,
        chunk: int = 250,
    ) -> ChainReader:
        return build_reader(
            node.chain,
            transport,
            tokens or TokenList([]),
            cache or DictCache(),
            urls=[node.url],
            chunk=chunk,
            retries=0,
            on_call=lambda *call: calls.append(call),
        )

    return build


def raws(snapshot: ChainSnapshot) -> dict[str, int]:
    return {balance.token.address: balance.raw for balance in snapshot.balances}


async def test_six_chains_hold_what_was_put_there(
    anvil_chains: dict[int, AnvilChain], reader_of: Callable[..., ChainReader]
) -> None:
    wallet, owner = new_wallet(), new_wallet()
    expected: dict[int, dict[str, int]] = {}
    for index, (chain_id, node) in enumerate(anvil_chains.items()):
        coin, amount = 10**18 + index, 10**30 * (index + 1) + 7
        node.fund(wallet, coin)
        token = node.deploy_erc20(f"TOK{index}", f"Token number {index}", 2**200, owner)
        node.transfer(token, owner, wallet, amount)
        expected[chain_id] = {NATIVE: coin, token: amount}
    snapshots: dict[int, ChainSnapshot] = {}

    async def read(node: AnvilChain) -> None:
        seen = list(expected[node.chain.id])
        snapshots[node.chain.id] = await reader_of(node).read(wallet, seen)

    async with trio.open_nursery() as nursery:
        for node in anvil_chains.values():
            nursery.start_soon(read, node)
    assert {chain_id: raws(snapshot) for chain_id, snapshot in snapshots.items()} == expected
    for index, (chain_id, node) in enumerate(anvil_chains.items()):
        snapshot = snapshots[chain_id]
        coin_row, token_row = snapshot.balances
        assert (coin_row.meta.symbol, coin_row.meta.decimals, coin_row.verified) == (node.chain.symbol, 18, True)
        assert token_row.meta == TokenMeta(f"TOK{index}", f"Token number {index}", 18)
        assert not token_row.verified
        assert snapshot.block_low == snapshot.block_high == node.height
        assert (snapshot.source, snapshot.discovers, snapshot.quarantined) == ("multicall", False, {})


async def test_two_round_trips_when_nothing_is_new(
    anvil_chains: dict[int, AnvilChain], reader_of: Callable[..., ChainReader], calls: Calls
) -> None:
    node = anvil_chains[1]
    wallet = new_wallet()
    token = node.set_code(answering((5).to_bytes(32, "big")))
    reader = reader_of(node)
    await reader.read(wallet, [token])
    assert [call[1] for call in calls].count("eth_chainId") == 1
    calls.clear()
    await reader.read(wallet, [token])
    assert [call[1] for call in calls] == ["eth_getBlockByNumber", "eth_call"]
    assert all(host == "127.0.0.1" and outcome == "ok" and seconds > 0 for host, _, outcome, seconds in calls)


async def test_a_list_makes_tokens_verified_and_needs_no_metadata(
    anvil_chains: dict[int, AnvilChain], reader_of: Callable[..., ChainReader], calls: Calls
) -> None:
    node = anvil_chains[10]
    token = node.set_code(answering((77).to_bytes(32, "big")))
    absent = new_wallet()
    tokens = TokenList([ListedToken(10, token, "LST", "Listed", 6), ListedToken(10, absent, "NIX", "Absent", 6)])
    snapshot = await reader_of(node, tokens=tokens).read(new_wallet(), [])
    (row,) = snapshot.balances
    assert (row.raw, row.meta, row.verified) == (77, TokenMeta("LST", "Listed", 6), True)
    # A listed token that is not on this chain was never held: nothing to report.
    assert snapshot.quarantined == {}
    assert [call[1] for call in calls].count("eth_call") == 1


async def test_poisonous_tokens_are_isolated_and_remembered(
    anvil_chains: dict[int, AnvilChain], reader_of: Callable[..., ChainReader], calls: Calls
) -> None:
    node = anvil_chains[137]
    good = [node.set_code(answering(number.to_bytes(32, "big"))) for number in range(1, 61)]
    # Seven gas burners in one request starve every healthy token behind them.
    bad = {node.set_code(code): code for code in [*[INVALID] * 7, ENDLESS, REVERTING]}
    tokens = [address for group in zip(bad, *[iter(good)] * 6, strict=False) for address in group]
    assert len(tokens) == 63
    reader = reader_of(node)
    snapshot = await reader.read(new_wallet(), tokens)
    held = raws(snapshot)
    assert held == {address: good.index(address) + 1 for address in tokens if address in good}
    assert set(snapshot.quarantined) == set(bad)
    assert all(reason.startswith("balanceOf fails") for reason in snapshot.quarantined.values())
    calls.clear()
    again = await reader.read(new_wallet(), tokens)
    assert (raws(again), again.quarantined) == (held, snapshot.quarantined)
    assert len(calls) == 2


async def test_odd_contracts(anvil_chains: dict[int, AnvilChain], reader_of: Callable[..., ChainReader]) -> None:
    node = anvil_chains[42161]
    nothing_there, empty = new_wallet(), node.set_code(EMPTY_ANSWER)
    short = node.set_code(answering_long(b"\x01" * 31))
    zero = node.set_code(answering(bytes(32)))
    # One word for every question: as a symbol it is the bytes32 of the early tokens, as decimals it is absurd.
    maker = node.set_code(answering(b"MKR".ljust(32, b"\0")))
    huge = node.set_code(answering(b"\xff" * 32))
    snapshot = await reader_of(node).read(new_wallet(), [nothing_there, empty, short, zero, maker, huge])
    assert set(snapshot.quarantined) == {nothing_there, empty, short}
    rows = {row.token.address: row for row in snapshot.balances}
    assert set(rows) == {maker, huge}
    assert rows[maker].meta == TokenMeta("MKR", "MKR", None)
    assert rows[huge].raw == 2**256 - 1
    assert rows[huge].meta.decimals is None


async def test_many_tokens_go_in_several_requests_at_one_block(
    anvil_chains: dict[int, AnvilChain], reader_of: Callable[..., ChainReader], calls: Calls
) -> None:
    node = anvil_chains[8453]
    tokens = [node.set_code(answering(number.to_bytes(32, "big"))) for number in range(1, 26)]
    snapshot = await reader_of(node, chunk=10).read(new_wallet(), tokens)
    assert list(raws(snapshot).values()) == list(range(1, 26))
    assert snapshot.block_low == snapshot.block_high


async def test_a_token_with_a_giant_answer_is_isolated(
    start_anvil: Callable[..., AnvilChain], transport: Transport
) -> None:
    node = start_anvil(BSC, "--gas-limit", "3000000000", "--disable-code-size-limit")
    # Returns 3 MB of zeros: 6 MB as hex, over the limit of an answer.
    giant = node.set_code("0x622dc6c06000f3")
    good = node.set_code(answering((9).to_bytes(32, "big")))
    reader = build_reader(BSC, transport, TokenList([]), DictCache(), urls=[node.url], retries=0)
    snapshot = await reader.read(new_wallet(), [giant, good])
    assert raws(snapshot) == {good: 9}
    assert set(snapshot.quarantined) == {giant}


async def test_metadata_is_asked_once_and_again_on_request(
    anvil_chains: dict[int, AnvilChain], reader_of: Callable[..., ChainReader], calls: Calls
) -> None:
    node = anvil_chains[56]
    cache, owner = DictCache(), new_wallet()
    token = node.deploy_erc20("ONE", "First name", 1000, owner)
    assert (await reader_of(node, cache=cache).read(owner, [token])).balances[-1].meta.symbol == "ONE"
    other = node.deploy_erc20("TWO", "Second name", 1000, owner)
    node.set_code(node.rpc("eth_getCode", other, "latest"), token)
    for slot in range(8):
        node.rpc("anvil_setStorageAt", token, hex(slot), node.rpc("eth_getStorageAt", other, hex(slot), "latest"))
    # Another reader on the same cache (another worker) does not ask the chain.
    reader = reader_of(node, cache=cache)
    calls.clear()
    assert (await reader.read(owner, [token])).balances[-1].meta.symbol == "ONE"
    assert [call[1] for call in calls].count("eth_call") == 1
    fresh = await reader.read(owner, [token], refresh_metadata=True)
    assert fresh.balances[-1].meta == TokenMeta("TWO", "Second name", 18)
    assert (await reader.read(owner, [token])).balances[-1].meta.symbol == "TWO"


async def test_an_absent_cache_costs_time_only(
    anvil_chains: dict[int, AnvilChain], reader_of: Callable[..., ChainReader]
) -> None:
    node, owner = anvil_chains[1], new_wallet()
    token = node.deploy_erc20("ABS", "Absent minded", 1000, owner)
    reader = reader_of(node, cache=AbsentCache())
    for _ in range(2):
        assert (await reader.read(owner, [token])).balances[-1].meta.symbol == "ABS"


async def test_tokens_that_say_nothing_or_too_much(
    anvil_chains: dict[int, AnvilChain], reader_of: Callable[..., ChainReader]
) -> None:
    node = anvil_chains[1]

    def text(words: str) -> str:
        raw = words.encode()
        padded = raw.ljust(-(-len(raw) // 32) * 32, b"\0")
        return answering_long((32).to_bytes(32, "big") + len(raw).to_bytes(32, "big") + padded)

    long, hidden = node.set_code(text("x" * 500)), node.set_code(text("US\u200bDC\u202e\n"))
    lying = node.set_code(answering_long((32).to_bytes(32, "big") + (2**255).to_bytes(32, "big")))
    rows = {
        row.token.address: row.meta
        for row in (await reader_of(node).read(new_wallet(), [long, hidden, lying])).balances
    }
    assert (rows[long].symbol, rows[long].name, rows[long].disguised) == ("x" * 32, "x" * 128, False)
    assert rows[hidden] == TokenMeta("USDC", "USDC", 32, None, True)
    assert rows[lying] == TokenMeta(None, None, 32)


async def test_tokens_whose_description_is_poison_keep_their_balance(
    anvil_chains: dict[int, AnvilChain], reader_of: Callable[..., ChainReader], calls: Calls
) -> None:
    node, owner = anvil_chains[56], new_wallet()
    mute = [node.set_code(balance_only(number)) for number in range(1, 9)]
    plain = node.deploy_erc20("FINE", "Fine token", 1000, owner)
    reader = reader_of(node)
    snapshot = await reader.read(owner, [*mute, plain])
    rows = {row.token.address: row for row in snapshot.balances}
    assert [rows[address].raw for address in mute] == list(range(1, 9))
    assert {rows[address].meta for address in mute} == {TokenMeta(None, None, None)}
    assert rows[plain].meta == TokenMeta("FINE", "Fine token", 18)
    assert snapshot.quarantined == {}
    calls.clear()
    await reader.read(owner, [*mute, plain])
    assert len(calls) == 2


async def test_a_reorganised_chain_is_read_as_it_is_now(
    start_anvil: Callable[..., AnvilChain], reader_of: Callable[..., ChainReader]
) -> None:
    node, wallet = start_anvil(ETHEREUM), new_wallet()
    owner = new_wallet()
    token = node.deploy_erc20("REO", "Reorganised", 10**6, owner)
    node.mine(5)
    node.transfer(token, owner, wallet, 1234)
    reader = reader_of(node)
    before = await reader.read(wallet, [token])
    assert raws(before)[token] == 1234
    node.rpc("anvil_reorg", 2, [])
    after = await reader.read(wallet, [token])
    assert token not in raws(after)
    assert after.quarantined == {}


async def test_a_halted_chain_is_still_readable(
    start_anvil: Callable[..., AnvilChain], reader_of: Callable[..., ChainReader]
) -> None:
    node, wallet = start_anvil(ETHEREUM, "--no-mining"), new_wallet()
    node.fund(wallet, 5)
    reader = reader_of(node)
    first, second = await reader.read(wallet, []), await reader.read(wallet, [])
    assert raws(first) == raws(second) == {NATIVE: 5}
    assert first.block_low == second.block_low


async def test_a_chain_without_multicall3_fails_and_is_no_empty_wallet(
    start_anvil: Callable[..., AnvilChain], reader_of: Callable[..., ChainReader]
) -> None:
    node = start_anvil(BSC)
    node.set_code("0x", MULTICALL3)
    with pytest.raises(Transient, match="serves no Multicall3"):
        await reader_of(node).read(new_wallet(), [])


async def test_a_dead_first_endpoint_is_passed_over(
    anvil_chains: dict[int, AnvilChain], transport: Transport, calls: Calls
) -> None:
    node, wallet = anvil_chains[1], new_wallet()
    node.fund(wallet, 3)
    urls = ["http://127.0.0.1:1/", node.url]
    reader = build_reader(
        node.chain, transport, TokenList([]), DictCache(), urls=urls, on_call=lambda *call: calls.append(call)
    )
    assert raws(await reader.read(wallet, [])) == {NATIVE: 3}
    assert "unreachable" in [call[2] for call in calls]
    calls.clear()
    # For a while it is not even asked first.
    assert raws(await reader.read(wallet, [])) == {NATIVE: 3}
    assert {call[2] for call in calls} == {"ok"}
