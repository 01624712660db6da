"""Reading wallets over plain JSON-RPC: listed tokens and those seen before, through Multicall3, pinned to one block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import trio

from ...domain.address import NATIVE
from ...domain.chain import Chain
from ...domain.text import NAME_MAX, SYMBOL_MAX, clean_text, is_disguised
from ...domain.token import ChainSnapshot, TokenBalance, TokenMeta, TokenRef
from ...ports import Cache
from ..rpc.errors import RpcError
from .abi import (
    BALANCE_OF,
    DECIMALS,
    GET_BLOCK_TIME,
    GET_ETH_BALANCE,
    MULTICALL3,
    NAME,
    SYMBOL,
    Call,
    Result,
    address_bytes,
    address_call,
    decode_decimals,
    decode_text,
    decode_uint,
)
from .aggregate import aggregate, is_lagging
from .metadata import MetadataBook
from .reading import Caller, Endpoints, Unpinned, parse_quantity, together
from .tokens import TokenList, coin_balance

_NO_CONTRACT = "no contract answers at this address"
BLOCK_TIME = Call(address_bytes(MULTICALL3), GET_BLOCK_TIME)
_METADATA_CALLS = (SYMBOL, NAME, DECIMALS)


class Head(msgspec.Struct, frozen=True):
    """The part of a block header we look at; numbers are 0x hex."""

    number: str
    timestamp: str | None = None


class _Block(NamedTuple):
    """The block a read is pinned to. `stamp`: its unix time, None when the endpoint did not say."""

    height: int
    stamp: int | None


class _Task(NamedTuple):
    """What one read is to do."""

    wallet: str
    tokens: tuple[str, ...]
    seen: frozenset[str]
    refresh: bool


class MulticallReader:
    """A `ports.ChainReader` for endpoints without an index of who holds what.

    `chunk` is the number of calls per eth_call. Tokens that cannot be read are left alone for `quarantine_s` seconds.
    """

    def __init__(
        self,
        chain: Chain,
        endpoints: Endpoints,
        tokens: TokenList,
        cache: Cache,
        *,
        chunk: int = 250,
        quarantine_s: float = 3600.0,
    ) -> None:
        self._chain = chain
        self._endpoints = endpoints
        self._listed = tokens.on(chain.id)
        self._book = MetadataBook(chain.id, cache)
        self._chunk = chunk
        self._quarantine_s = quarantine_s
        #: Address -> until when (trio time) and why.
        self._quarantine: dict[str, tuple[float, str]] = {}

    @property
    def chain(self) -> Chain:
        return self._chain

    async def read(self, wallet: str, seen: Sequence[str], *, refresh_metadata: bool = False) -> ChainSnapshot:
        """See ports.ChainReader. Two round trips when nothing is new: the head, then everything at that block."""
        tokens = tuple(dict.fromkeys((*self._listed, *(address for address in seen if address != NATIVE))))
        task = _Task(wallet, tokens, frozenset(seen), refresh_metadata)

        async def attempt(client: Caller) -> ChainSnapshot:
            try:
                return await self._read(client, task)
            except (RpcError, Unpinned) as error:
                # The head may also have been replaced by another block of its height.
                if isinstance(error, RpcError) and not is_lagging(error):
                    raise
                return await self._read(client, task)

        return await self._endpoints.run_hedged(attempt)

    async def _read(self, client: Caller, task: _Task) -> ChainSnapshot:
        block = await self._head(client)
        quarantined = self._quarantined(task.tokens)
        asked = [address for address in task.tokens if address not in quarantined]
        essential = Call(address_bytes(MULTICALL3), address_call(GET_ETH_BALANCE, task.wallet))
        balance_of = address_call(BALANCE_OF, task.wallet)
        calls = [BLOCK_TIME, *(Call(address_bytes(address), balance_of) for address in asked)]
        coin, (answered, *results) = await aggregate(client, essential, calls, hex(block.height), chunk=self._chunk)
        self._check_pin(client, block, answered)
        held = {}
        for address, result in zip(asked, results, strict=True):
            raw = decode_uint(result.data) if result.success else None
            if raw:
                held[address] = raw
            elif not result.success:
                quarantined[address] = self._set_aside(address, result)
            elif raw is None and address in task.seen:
                quarantined[address] = _NO_CONTRACT
        metas = await self._metadata(client, essential, list(held), hex(block.height), task.refresh)
        balances = [
            TokenBalance(TokenRef(self._chain.id, address), raw, metas[address], verified=address in self._listed)
            for address, raw in held.items()
        ]
        if raw := decode_uint(coin.data):
            balances.insert(0, coin_balance(self._chain, raw))
        return ChainSnapshot(
            chain_id=self._chain.id,
            block_low=block.height,
            block_high=block.height,
            balances=tuple(balances),
            source="multicall",
            discovers=False,
            quarantined=quarantined,
        )

    def _check_pin(self, client: Caller, block: _Block, answered: Result) -> None:
        """Balances of another block than the one we name would be a lie. Raises Unpinned."""
        stamp = decode_uint(answered.data) if answered.success else None
        if None not in (stamp, block.stamp) and stamp != block.stamp:
            self._endpoints.saw_pin_ignored(client, block.height)

    async def _head(self, client: Caller) -> _Block:
        head: Head | None = None

        async def ask() -> None:
            nonlocal head
            head = await client.call("eth_getBlockByNumber", ["latest", False], Head)

        if self._endpoints.needs_check(client):
            await together(ask, lambda: self._endpoints.verify(client))
        else:
            await ask()
        assert head is not None
        height = parse_quantity(client, "eth_getBlockByNumber", head.number)
        self._endpoints.saw_head(client, height)
        stamp = None if head.timestamp is None else parse_quantity(client, "eth_getBlockByNumber", head.timestamp)
        return _Block(height, stamp)

    # ---- tokens that cannot be read ----

    def _quarantined(self, tokens: Sequence[str]) -> dict[str, str]:
        now = trio.current_time()
        for address in [address for address, (until, _) in self._quarantine.items() if until <= now]:
            del self._quarantine[address]
        return {address: self._quarantine[address][1] for address in tokens if address in self._quarantine}

    def _set_aside(self, address: str, result: Result) -> str:
        reason = f"balanceOf fails: {result.data.decode('utf-8', 'replace')}"
        self._quarantine[address] = (trio.current_time() + self._quarantine_s, reason)
        return reason

    # ---- metadata ----

    async def _metadata(
        self, client: Caller, essential: Call, held: Sequence[str], block: str, refresh: bool
    ) -> Mapping[str, TokenMeta]:
        metas = {address: self._listed[address] for address in held if address in self._listed}
        unlisted = [address for address in held if address not in metas]
        if unlisted and not refresh:
            metas.update(await self._book.known(unlisted))
        missing = [address for address in unlisted if address not in metas]
        if missing:
            calls = [Call(address_bytes(address), selector) for address in missing for selector in _METADATA_CALLS]
            _, results = await aggregate(client, essential, calls, block, chunk=self._chunk)
            asked = {address: _described(results[3 * i : 3 * i + 3]) for i, address in enumerate(missing)}
            await self._book.learn(asked)
            metas.update(asked)
        return metas


def _described(results: Sequence[Result]) -> TokenMeta:
    symbol, name, decimals = (result.data if result.success else b"" for result in results)
    raw_symbol, raw_name = decode_text(symbol), decode_text(name)
    return TokenMeta(
        clean_text(raw_symbol, SYMBOL_MAX),
        clean_text(raw_name, NAME_MAX),
        decode_decimals(decimals),
        disguised=is_disguised(raw_symbol) or is_disguised(raw_name),
    )
