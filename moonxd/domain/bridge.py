"""Which transfers bridges are asked to quote, and what came of asking. Quotes only: nothing is ever sent.

The amounts are small and fixed, so that answers can be compared over months.
"""

from __future__ import annotations

import re

import msgspec

from .address import NATIVE
from .chain import CHAINS, Chain, parse_chain
from .errors import Permanent
from .stats import Probe

#: Who asks: the address where people burn tokens. It is public, nobody's, and no quote is ever carried out.
ASKING_ADDRESS = "0x000000000000000000000000000000000000dead"

_FORM = re.compile(r"\s*([\w ]+?)\s*:\s*(\w+)\s*->\s*([\w ]+?)\s*:\s*(\w+)\s*")
#: Address and decimals by symbol and chain id; the chains' own coins are known from CHAINS.
_TOKENS: dict[str, dict[int, tuple[str, int]]] = {
    "USDC": {
        1: ("0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48", 6),
        137: ("0x3c499c542cef5e3811e1192ce70d8cc03d5c3359", 6),
        10: ("0x0b2c639c533813f4aa9d7837caf62653d097ff85", 6),
        42161: ("0xaf88d065e77c8cc2239327c5edb3a432268e5831", 6),
        8453: ("0x833589fcd6edb6e08f4c7c32d4f71b54bda02913", 6),
        56: ("0x8ac76a51cc950d9822d68b83fe1ad97b32cd580d", 18),
    },
    "WETH": {
        1: ("0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2", 18),
        137: ("0x7ceb23fd6bc0add59e62ac25578270cff1b9f619", 18),
        10: ("0x4200000000000000000000000000000000000006", 18),
        42161: ("0x82af49447d8a07e3bd95bd0d56f35241523fbab1", 18),
        8453: ("0x4200000000000000000000000000000000000006", 18),
    },
}
#: Thousandths of a token that a quote is asked for: about 100 USD each when this was written.
_THOUSANDTHS = {"USDC": 100_000, "WETH": 50, "ETH": 50, "BNB": 200, "POL": 200_000}


class BridgeToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token at one end of a route; the zero address is the chain's coin."""

    chain: Chain
    symbol: str
    address: str
    decimals: int


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer to ask a quote for: `amount` raw units of `sent`, to arrive as `received` on another chain."""

    sent: BridgeToken
    received: BridgeToken
    amount: int

    @property
    def name(self) -> str:
        """As in configuration, statistics and the archive."""
        return f"{_end(self.sent)}->{_end(self.received)}"


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """What came of asking for one quote. `outcome` None: it was left alone for its failures, `error` says how long."""

    outcome: Probe | None
    #: False: no request was made, `error` says why.
    asked: bool = True
    #: Seconds from the request to the whole answer, connecting included; of a quote that succeeded, else None.
    latency_s: float | None = None
    #: How long the provider says the transfer itself takes.
    quoted_s: float | None = None
    error: str | None = None


def parse_route(text: str) -> Route:
    """A route as `base:USDC->arbitrum:USDC`. Raises Permanent that says what is allowed."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise Permanent(f"{text!r} is no route: write it as base:USDC->arbitrum:USDC")
    sent, received = _token(found[1], found[2]), _token(found[3], found[4])
    if sent.chain.id == received.chain.id:
        raise Permanent(f"{text!r} stays on one chain: a bridge leads to another one")
    amount = _THOUSANDTHS[sent.symbol] * 10**sent.decimals // 1000
    return Route(sent=sent, received=received, amount=amount)


def _token(chain_name: str, symbol: str) -> BridgeToken:
    chain, symbol = parse_chain(chain_name), symbol.upper()
    if symbol == chain.symbol:
        return BridgeToken(chain=chain, symbol=symbol, address=NATIVE, decimals=chain.coin_decimals)
    place = _TOKENS.get(symbol, {}).get(chain.id)
    if place is None:
        known = [chain.symbol, *(name for name, places in _TOKENS.items() if chain.id in places)]
        raise Permanent(f"{symbol} on {chain.slug} is not known to bridge probes: use one of {', '.join(known)}")
    return BridgeToken(chain=chain, symbol=symbol, address=place[0], decimals=place[1])


def _end(token: BridgeToken) -> str:
    return f"{token.chain.slug}:{token.symbol}"


#: Every token that routes may name.
BRIDGE_TOKENS = tuple(
    _token(chain.slug, symbol)
    for chain in CHAINS.values()
    for symbol in (chain.symbol, *(name for name, places in _TOKENS.items() if chain.id in places))
)
