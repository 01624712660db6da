"""Spam is told by what a token says of itself, unless somebody we trust vouches for it."""

from __future__ import annotations

import pytest

from moonxd.domain.spam import is_spam, skeleton, spam_reason
from moonxd.domain.token import TokenBalance, TokenMeta, TokenRef


def token(
    symbol: str | None, name: str | None = "Some Token", *, verified: bool = False, disguised: bool = False
) -> TokenBalance:
    meta = TokenMeta(symbol, name, 18, disguised=disguised)
    return TokenBalance(TokenRef(1, "0x" + "12" * 20), 10**18, meta, verified=verified)


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("GIFT", "Visit https://gift.example to claim"),
        ("$ aave-v3.com", "aave"),
        ("ETHG", "ethgift.org"),
        ("Claim", "Rewards"),
        ("X", "You are invited"),
        ("$5.000", "x"),
        ("$USDCgift.com", "USDC gift"),
        ("ZEPE", "Zepe.io"),
        ("T", "t.me/airdrops_here"),
        ("W", "www.scam"),
        ("USDC", "USD Coin"),
        ("usdc", "x"),
        ("ETH", "Ethereum"),
        ("BNB", "x"),
        ("UЅDС", "Cyrillic S and C"),
        ("ＵＳＤＴ", "full width"),
        ("U S D T", "spaced"),
        ("ÚSDT", "accented"),
        ("WBТC", "Cyrillic T"),
        ("ΕΤΗ", "Greek"),
        ("LlNK", "small L"),
        ("0P", "zero"),
        ("ABC", "Tether USD"),
        ("ABC", "Wrapped Ether"),
    ],
)
def test_spam(symbol: str, name: str) -> None:
    assert is_spam(token(symbol, name))
    assert not is_spam(token(symbol, name, verified=True))


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("UNIBOT", "Unibot"),
        ("USDC.e", "Bridged USDC"),
        ("aUSDC", "Aave interest bearing USDC"),
        ("yvDAI", "Yearn DAI vault"),
        ("UNI-V2", "Uniswap V2"),
        ("1INCH", "1inch Network"),
        ("Cake-LP", "Pancake LPs"),
        ("ACME", "Acme Inc. Token"),
        ("REWARD", "Reward token of a farm"),
        ("VISITOR", "Visitor centre"),
        ("PROCLAIM", "Proclaim"),
        ("ΩMEGA", "Ωmega"),
        ("$WIF", "dogwifhat"),
        ("LINK", "ChainLink on a chain that no list follows"),
        ("cake", "Cake"),
        ("A.B", "v1.2"),
        (None, None),
        ("🚀", "Rocket"),
    ],
)
def test_not_spam(symbol: str | None, name: str | None) -> None:
    assert spam_reason(token(symbol, name)) is None


def test_hidden_characters_are_spam() -> None:
    assert spam_reason(token("FOO", disguised=True)) == "hides characters in its name"
    assert spam_reason(token("FOO", disguised=True, verified=True)) is None


def test_reasons_name_what_is_imitated() -> None:
    assert spam_reason(token("UЅDС", "x")) == "poses as USDC"
    assert spam_reason(token("A", "b.com")) == "advertises an address"
    assert spam_reason(token("A", "claim it")) == "promises something"


@pytest.mark.parametrize(
    ("text", "seen"), [("UЅDС", "usdc"), ("ΕΤΗ", "eth"), ("ＢＮＢ", "bnb"), ("w\u200bETH", "weth"), ("Däi", "dai")]
)
def test_skeletons(text: str, seen: str) -> None:
    assert skeleton(text) == seen
