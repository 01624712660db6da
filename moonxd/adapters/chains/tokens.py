"""Listed tokens by chain: the list we ship, and those an operator added (domain/tokenlist.py reads them)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files

import msgspec

from ...domain.address import NATIVE
from ...domain.chain import Chain
from ...domain.token import TokenBalance, TokenMeta, TokenRef
from ...domain.tokenlist import ListedToken


class TokenList:
    """Listed tokens by chain. Of two entries for one token the first stands."""

    def __init__(self, tokens: Iterable[ListedToken]) -> None:
        self._by_chain: dict[int, dict[str, TokenMeta]] = {}
        for token in tokens:
            chain = self._by_chain.setdefault(token.chain_id, {})
            chain.setdefault(token.address, TokenMeta(token.symbol, token.name, token.decimals, token.logo))

    @classmethod
    def merged(cls, *lists: Iterable[ListedToken]) -> TokenList:
        """One list of several, ours first: an operator's list adds tokens, it does not rename the majors."""
        return cls(token for one in lists for token in one)

    def on(self, chain_id: int) -> dict[str, TokenMeta]:
        """What is listed on a chain, by lower-case address; not to be changed."""
        return self._by_chain.get(chain_id, {})

    def __len__(self) -> int:
        return sum(len(chain) for chain in self._by_chain.values())


def coin_balance(chain: Chain, raw: int) -> TokenBalance:
    """The balance of the chain's own coin."""
    meta = TokenMeta(chain.symbol, chain.coin_name, chain.coin_decimals)
    return TokenBalance(TokenRef(chain.id, NATIVE), raw, meta, verified=True)


@cache
def builtin_tokens() -> tuple[ListedToken, ...]:
    """The major tokens we ship for each chain."""
    data = files(__package__).joinpath("tokens.json").read_bytes()
    chains = msgspec.json.decode(data, type=dict[str, list[tuple[str, str, str, int]]])
    return tuple(
        ListedToken(int(chain_id), address, symbol, name, decimals)
        for chain_id, rows in chains.items()
        for address, symbol, name, decimals in rows
    )
