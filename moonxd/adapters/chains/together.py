"""One chain's balances of many wallets in shared requests, and the descriptions of many tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...domain.address import NATIVE
from ...domain.token import ChainSnapshot, TokenBalance, TokenMeta, TokenRef
from ..rpc.errors import Garbage, RpcError
from .abi import BALANCE_OF, GET_ETH_BALANCE, MULTICALL3, Call, Result, address_bytes, address_call, decode_uint
from .aggregate import aggregate, is_lagging
from .multicall import BLOCK_TIME, MulticallReader
from .reading import Caller, Unpinned
from .tokens import coin_balance

_MULTICALL = address_bytes(MULTICALL3)
#: Calls in one request, as a multiple of a single wallet's: about 25 million gas, half of what nodes allow. Where that
#: is too much after all, the request is split.
_WIDER = 6
_NO_CONTRACT = "no contract answers at this address"
_COIN_FAILED = "the coin's balance is missing from the answer"


class _Wallet(NamedTuple):
    address: str
    tokens: tuple[str, ...]
    seen: frozenset[str]


class SharingReader(MulticallReader):
    """A MulticallReader that is also a `ports.ManyReader` and a `ports.TokenReader`."""

    async def read_many(
        self, wallets: Sequence[tuple[str, Sequence[str]]], *, refresh_metadata: bool = False
    ) -> tuple[ChainSnapshot, ...]:
        """See ports.ManyReader. Two round trips when nothing is new, whatever the number of wallets."""
        asked = [
            _Wallet(wallet, tuple(dict.fromkeys((*self._listed, *(token for token in seen if token != NATIVE)))),
                    frozenset(seen))
            for wallet, seen in wallets
        ]  # fmt: skip
        if not asked:
            return ()

        async def attempt(client: Caller) -> tuple[ChainSnapshot, ...]:
            try:
                return await self._read_all(client, asked, refresh_metadata)
            except (RpcError, Unpinned) as error:
                if isinstance(error, RpcError) and not is_lagging(error):
                    raise
                return await self._read_all(client, asked, refresh_metadata)

        return await self._endpoints.run_hedged(attempt)

    async def describe(self, tokens: Sequence[str]) -> Mapping[str, TokenMeta]:
        """See ports.TokenReader. Listed tokens keep what their list says."""

        async def attempt(client: Caller) -> Mapping[str, TokenMeta]:
            block = hex((await self._head(client)).height)
            essential = Call(_MULTICALL, address_call(GET_ETH_BALANCE, NATIVE))
            return await self._metadata(client, essential, tokens, block, True)

        return await self._endpoints.run(attempt)

    async def _read_all(self, client: Caller, wallets: Sequence[_Wallet], refresh: bool) -> tuple[ChainSnapshot, ...]:
        block = await self._head(client)
        aside = self._quarantined(sorted({token for wallet in wallets for token in wallet.tokens}))
        plan = [tuple(token for token in wallet.tokens if token not in aside) for wallet in wallets]
        calls = [BLOCK_TIME]
        for wallet, tokens in zip(wallets, plan, strict=True):
            balance_of = address_call(BALANCE_OF, wallet.address)
            calls.append(Call(_MULTICALL, address_call(GET_ETH_BALANCE, wallet.address)))
            calls += [Call(address_bytes(token), balance_of) for token in tokens]
        # The first wallet's coin is what cannot fail on a sound endpoint.
        essential = calls[1]
        coin, (answered, *results) = await aggregate(
            client, essential, [calls[0], *calls[2:]], hex(block.height), chunk=self._chunk * _WIDER
        )
        self._check_pin(client, block, answered)
        answers = iter((coin, *results))
        read = [
            self._sorted_out(client, wallet, next(answers), {token: next(answers) for token in tokens}, aside)
            for wallet, tokens in zip(wallets, plan, strict=True)
        ]
        held = sorted({token for _, balances, _ in read for token in balances})
        metas = await self._metadata(client, essential, held, hex(block.height), refresh)
        return tuple(
            self._snapshot(block.height, coin_raw, balances, metas, quarantined)
            for coin_raw, balances, quarantined in read
        )

    def _sorted_out(
        self,
        client: Caller,
        wallet: _Wallet,
        coin: Result,
        results: Mapping[str, Result],
        aside: Mapping[str, str],
    ) -> tuple[int, dict[str, int], dict[str, str]]:
        """One wallet's coin, its balances by token, and what could not be read with the reason."""
        raw_coin = decode_uint(coin.data) if coin.success else None
        if raw_coin is None:
            raise Garbage(f"{client.host}: answered garbage to eth_call: {_COIN_FAILED}")
        held: dict[str, int] = {}
        quarantined = {token: aside[token] for token in wallet.tokens if token in aside}
        for token, result in results.items():
            raw = decode_uint(result.data) if result.success else None
            if raw:
                held[token] = raw
            elif not result.success:
                quarantined[token] = self._set_aside(token, result)
            elif raw is None and token in wallet.seen:
                quarantined[token] = _NO_CONTRACT
        return raw_coin, held, quarantined

    def _snapshot(
        self, block: int, coin: int, held: Mapping[str, int], metas: Mapping[str, TokenMeta], aside: dict[str, str]
    ) -> ChainSnapshot:
        balances = [
            TokenBalance(TokenRef(self._chain.id, token), raw, metas[token], verified=token in self._listed)
            for token, raw in held.items()
        ]
        if coin:
            balances.insert(0, coin_balance(self._chain, coin))
        return ChainSnapshot(
            chain_id=self._chain.id,
            block_low=block,
            block_high=block,
            balances=tuple(balances),
            source="multicall",
            discovers=False,
            quarantined=aside,
        )
