"""The list we ship is sound, and lists of others are taken apart without trust."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from moonxd.adapters.chains import TokenList, builtin_tokens
from moonxd.domain.address import checksum
from moonxd.domain.chain import CHAINS
from moonxd.domain.errors import Permanent
from moonxd.domain.token import TokenMeta
from moonxd.domain.tokenlist import ListedToken, dump_token_list, parse_token_list

USDC = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"


def test_the_shipped_list() -> None:
    tokens = builtin_tokens()
    assert len({token.token for token in tokens}) == len(tokens)
    for chain_id in CHAINS:
        ours = [token for token in tokens if token.chain_id == chain_id]
        assert 25 <= len(ours) <= 60
        assert len({token.symbol for token in ours}) == len(ours)
        assert {"USDC", "USDT", "DAI"} <= {token.symbol for token in ours}
    for token in tokens:
        assert re.fullmatch(r"0x[0-9a-f]{40}", token.address)
        assert 2 <= token.decimals <= 18
        assert token.symbol.isprintable()
        assert token.name.isprintable()


@pytest.mark.parametrize(
    ("chain_id", "address", "symbol", "decimals"),
    [
        (1, USDC, "USDC", 6),
        (1, "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", "WETH", 18),
        (1, "0x2260FAC5E5542a773Aa44fBCfeDf7C193bc2C599", "WBTC", 8),
        (137, "0x0d500B1d8E8eF31E21C99d1Db9A6444d3ADf1270", "WPOL", 18),
        (10, "0x4200000000000000000000000000000000000042", "OP", 18),
        (42161, "0x912CE59144191C1204E64559FE8253a0e49E6548", "ARB", 18),
        (8453, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USDC", 6),
        (56, "0x55d398326f99059fF775485246999027B3197955", "USDT", 18),
    ],
)
def test_well_known_addresses(chain_id: int, address: str, symbol: str, decimals: int) -> None:
    assert checksum(address.lower()) == address
    meta = TokenList(builtin_tokens()).on(chain_id)[address.lower()]
    assert (meta.symbol, meta.decimals) == (symbol, decimals)


def entry(**changes: Any) -> dict[str, Any]:
    return {"chainId": 1, "address": USDC, "symbol": "USDC", "name": "USD Coin", "decimals": 6} | changes


def listing(*entries: Any) -> bytes:
    return json.dumps({"name": "A list", "version": {"major": 1, "minor": 2, "patch": 3}, "tokens": entries}).encode()


def test_a_standard_list() -> None:
    parsed = parse_token_list(listing(entry(logoURI="https://x.example/a.png", extensions={"a": 1})))
    assert (parsed.name, parsed.version, parsed.skipped, parsed.bad) == ("A list", "1.2.3", 0, ())
    assert parsed.tokens == (ListedToken(1, USDC.lower(), "USDC", "USD Coin", 6, "https://x.example/a.png"),)


def test_other_chains_and_other_worlds_are_skipped() -> None:
    solana = entry(chainId=501000101, address="EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v")
    parsed = parse_token_list(listing(solana, entry(chainId=43114), entry(chainId="1"), "text", None, entry()))
    assert (len(parsed.tokens), parsed.skipped, parsed.bad) == (1, 5, ())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"address": USDC[:-1]}, "39 hex digits"),
        ({"address": USDC.replace("A0b8", "a0b8")}, "checksum"),
        ({"address": "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"}, "does not start with 0x"),
        ({"address": None}, "must be text"),
        ({"decimals": 256}, "decimals"),
        ({"decimals": -1}, "decimals"),
        ({"decimals": "6"}, "decimals"),
        ({"decimals": True}, "decimals"),
        ({"symbol": None}, "symbol"),
        ({"symbol": "\u200b"}, "symbol"),
    ],
)
def test_bad_entries_are_named_and_the_rest_stands(changes: dict[str, Any], words: str) -> None:
    good = entry(address="0x" + "11" * 20)
    parsed = parse_token_list(listing(good, entry(**changes)))
    assert [token.address for token in parsed.tokens] == ["0x" + "11" * 20]
    (bad,) = parsed.bad
    assert bad.startswith("tokens[1]: ")
    assert words in bad


def test_many_bad_entries_are_summed_up() -> None:
    parsed = parse_token_list(listing(*[entry(decimals=None)] * 50))
    assert len(parsed.bad) == 21
    assert parsed.bad[-1] == "and 30 more"


def test_texts_are_cleaned_and_logos_minded() -> None:
    odd = entry(symbol="US\u202eDC\n", name=None, logoURI="javascript:alert(1)")
    (token,) = parse_token_list(listing(odd)).tokens
    assert (token.symbol, token.name, token.logo) == ("USDC", "USDC", None)


@pytest.mark.parametrize(
    "document",
    [b"", b"no json", b"[]", b"{}", b'{"tokens": {}}', b"\xff\xfe", b"[" * 100_000, b'"' + b"x" * (17 << 20)],
)
def test_what_is_no_list_is_refused(document: bytes) -> None:
    with pytest.raises(Permanent, match="token list"):
        parse_token_list(document)


def test_what_is_written_reads_the_same() -> None:
    parsed = parse_token_list(listing(entry(), entry(address="0x" + "22" * 20, logoURI="https://x.example/l.svg")))
    assert parse_token_list(dump_token_list(parsed)) == parsed


def test_merging_adds_and_never_renames() -> None:
    fake = ListedToken(1, USDC.lower(), "FAKE", "Fake", 18)
    more = ListedToken(1, "0x" + "33" * 20, "MORE", "More", 9)
    tokens = TokenList.merged(builtin_tokens(), [fake, more])
    assert len(tokens) == len(builtin_tokens()) + 1
    assert tokens.on(1)[USDC.lower()].symbol == "USDC"
    assert tokens.on(1)[more.address] == TokenMeta("MORE", "More", 9)
    assert tokens.on(999) == {}
