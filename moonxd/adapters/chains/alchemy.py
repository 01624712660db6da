"""Reading wallets through Alchemy's token index: it finds every token by itself, but cannot be pinned to a block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import trio

from ...domain.address import NATIVE, parse_address
from ...domain.chain import Chain
from ...domain.errors import Permanent
from ...domain.text import NAME_MAX, SYMBOL_MAX, clean_text, is_disguised
from ...domain.token import ChainSnapshot, TokenBalance, TokenMeta, TokenRef
from ...domain.tokenlist import safe_logo
from ...ports import Cache, ManyReader
from ..rpc import RpcClient
from ..rpc.errors import Garbage, RpcError
from .metadata import UNKNOWN, MetadataBook
from .reading import Endpoints, Unreadable, parse_quantity, together
from .tokens import TokenList, coin_balance

#: At 100 tokens a page this is more than any wallet that is not an attack.
_PAGES_MAX = 200
#: Metadata calls at a time, and in one read: the rest is asked by the next syncs and stays unnamed until then.
_METADATA_AT_ONCE = 8
_METADATA_MAX = 400


class _Listed(msgspec.Struct, rename="camel"):
    contract_address: str
    token_balance: str | None = None
    error: Any = None


class _Page(msgspec.Struct, rename="camel"):
    token_balances: list[_Listed]
    page_key: str | None = None


class _Metadata(msgspec.Struct):
    name: str | None = None
    symbol: str | None = None
    decimals: int | None = None
    logo: str | None = None


class AlchemyReader:
    """A `ports.ChainReader`, `ManyReader` and `TokenReader` for endpoints with Alchemy's token methods.

    Two round trips in a row when nothing is new: heights and tokens, then the coin and the height once more. The
    snapshot's blocks are the lowest and highest height seen meanwhile.

    The index answers for one wallet at a time, so many wallets are read by `shared` over the same endpoints: listed
    tokens and those seen before. What is new in a wallet is found by its next read alone.
    """

    def __init__(
        self, chain: Chain, endpoints: Endpoints, tokens: TokenList, cache: Cache, *, shared: ManyReader
    ) -> None:
        self._chain = chain
        self._endpoints = endpoints
        self._listed = tokens.on(chain.id)
        self._book = MetadataBook(chain.id, cache)
        self._shared = shared

    @property
    def chain(self) -> Chain:
        return self._chain

    async def read(self, wallet: str, seen: Sequence[str], *, refresh_metadata: bool = False) -> ChainSnapshot:
        """See ports.ChainReader. `seen` is not needed: the index knows every token the wallet ever held."""
        return await self._endpoints.run(partial(self._read, wallet, refresh_metadata))

    async def read_many(
        self, wallets: Sequence[tuple[str, Sequence[str]]], *, refresh_metadata: bool = False
    ) -> tuple[ChainSnapshot, ...]:
        """See ports.ManyReader."""
        return await self._shared.read_many(wallets, refresh_metadata=refresh_metadata)

    async def describe(self, tokens: Sequence[str]) -> Mapping[str, TokenMeta]:
        """See ports.TokenReader. Listed tokens keep what their list says."""
        listed = {address: self._listed[address] for address in tokens if address in self._listed}
        others = [address for address in dict.fromkeys(tokens) if address not in listed]

        async def attempt(client: RpcClient) -> dict[str, TokenMeta]:
            await self._endpoints.verify(client)
            return await self._ask(client, others)

        return listed | await self._endpoints.run(attempt)

    async def _read(self, wallet: str, refresh: bool, client: RpcClient) -> ChainSnapshot:
        heights: list[int] = []
        listed: list[_Listed] = []
        coin: list[int] = []

        async def height() -> None:
            heights.append(await _quantity(client, "eth_blockNumber", []))

        async def tokens() -> None:
            listed.extend(await self._pages(client, wallet))

        async def native() -> None:
            coin.append(await _quantity(client, "eth_getBalance", [wallet, "latest"]))

        first = [height, tokens]
        if self._endpoints.needs_check(client):
            first.append(partial(self._endpoints.verify, client))
        await together(*first)
        self._endpoints.saw_head(client, heights[0])
        held, quarantined = _sorted_out(client, listed)
        metas: dict[str, TokenMeta] = {}

        async def metadata() -> None:
            metas.update(await self._metadata(client, list(held), refresh))

        await together(height, native, metadata)
        balances = [self._balance(address, raw, said, metas[address]) for address, (raw, said) in held.items()]
        if coin[0]:
            balances.insert(0, coin_balance(self._chain, coin[0]))
        return ChainSnapshot(
            chain_id=self._chain.id,
            block_low=min(heights),
            block_high=max(heights),
            balances=tuple(balances),
            source="alchemy",
            discovers=True,
            quarantined=quarantined,
        )

    def _balance(self, address: str, raw: int, said: _Listed, meta: TokenMeta) -> TokenBalance:
        # The column these words go to is read by others, who know Alchemy's names; a logo's URL stays out of it.
        kept = {
            "contractAddress": said.contract_address,
            "tokenBalance": said.token_balance,
            "symbol": meta.symbol,
            "name": meta.name,
            "decimals": meta.decimals,
        }
        return TokenBalance(TokenRef(self._chain.id, address), raw, meta, verified=address in self._listed, said=kept)

    async def _pages(self, client: RpcClient, wallet: str) -> list[_Listed]:
        """Every page: a list cut short would read as tokens sold."""
        method = "alchemy_getTokenBalances"
        found: list[_Listed] = []
        keys: set[str] = set()
        params: list[Any] = [wallet, "erc20"]
        for _ in range(_PAGES_MAX):
            page = await client.call(method, params, _Page)
            found += page.token_balances
            if not page.page_key:
                return found
            if page.page_key in keys:
                raise Garbage(f"{client.host}: answered garbage to {method}: the same page again")
            keys.add(page.page_key)
            params = [wallet, "erc20", {"pageKey": page.page_key}]
        raise Unreadable(
            f"{client.host}: the wallet holds more than {_PAGES_MAX} pages of tokens on {self._chain.slug}: "
            "give this chain a plain RPC URL, which reads listed tokens only"
        )

    # ---- metadata ----

    async def _metadata(self, client: RpcClient, held: Sequence[str], refresh: bool) -> Mapping[str, TokenMeta]:
        metas = {address: self._listed[address] for address in held if address in self._listed}
        unlisted = [address for address in held if address not in metas]
        if unlisted and not refresh:
            metas.update(await self._book.known(unlisted))
        missing = [address for address in unlisted if address not in metas]
        metas.update(dict.fromkeys(missing, UNKNOWN))
        if missing:
            metas.update(await self._ask(client, missing[:_METADATA_MAX]))
        return metas

    async def _ask(self, client: RpcClient, addresses: Sequence[str]) -> dict[str, TokenMeta]:
        asked: dict[str, TokenMeta] = {}
        slots = trio.CapacityLimiter(_METADATA_AT_ONCE)

        async def one(address: str) -> None:
            async with slots:
                try:
                    answer = await client.call("alchemy_getTokenMetadata", [address], _Metadata)
                except RpcError:
                    # About this token, not about the endpoint.
                    asked[address] = UNKNOWN
                else:
                    asked[address] = _described(answer)

        try:
            await together(*(partial(one, address) for address in addresses))
        finally:
            # What was learnt before a failure shortens the next attempt.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
                await self._book.learn(asked)
        return asked


async def _quantity(client: RpcClient, method: str, params: Sequence[Any]) -> int:
    return parse_quantity(client, method, await client.call(method, params, str))


def _sorted_out(client: RpcClient, listed: Sequence[_Listed]) -> tuple[dict[str, tuple[int, _Listed]], dict[str, str]]:
    """Tokens with a balance, and tokens whose balance Alchemy could not tell with the reason."""
    held: dict[str, tuple[int, _Listed]] = {}
    quarantined: dict[str, str] = {}
    for one in listed:
        try:
            address = parse_address(one.contract_address.lower(), what="contractAddress")
        except Permanent as error:
            raise Garbage(f"{client.host}: answered garbage to alchemy_getTokenBalances: {error}") from error
        if address == NATIVE:
            continue
        if one.error or one.token_balance is None:
            reason = one.error if isinstance(one.error, str) else "no balance was given"
            quarantined[address] = f"Alchemy: {clean_text(reason, NAME_MAX)}"
            continue
        # An empty answer of the contract is passed on as a bare 0x.
        hexadecimal = one.token_balance if one.token_balance != "0x" else "0x0"
        raw = parse_quantity(client, "alchemy_getTokenBalances", hexadecimal)
        if raw:
            held[address] = (raw, one)
    return held, quarantined


def _described(answer: _Metadata) -> TokenMeta:
    decimals = answer.decimals
    return TokenMeta(
        clean_text(answer.symbol, SYMBOL_MAX),
        clean_text(answer.name, NAME_MAX),
        decimals if decimals is not None and 0 <= decimals <= 255 else None,
        safe_logo(answer.logo),
        is_disguised(answer.symbol) or is_disguised(answer.name),
    )
