"""Which tokens are spam: flagged and kept, left out of totals. Pure judgement of what a token says of itself.

A token on a list we trust is never spam. Among the rest the names tell: advertisements and lures, links, look-alikes
of coins that everybody knows. A false alarm costs a hidden row, so the patterns may be broad.
"""

from __future__ import annotations

import re
import unicodedata

from .token import TokenBalance

_LURE = re.compile(
    r"\b(claim(s|ed|ing)?|visit|invited|eligible|voucher|reward(s)? at|free mint|bonus at|giveaway|airdrop at)\b",
    re.IGNORECASE,
)
_LINK = re.compile(
    r"https?:|www\.|(^|[^\w])t\.me\b|telegram|discord\.gg"
    r"|[\w-][.․。．,](com|io|site|xyz|li|org|cc|net|pm|app|finance|gift|events?|top|vip|fun|lol|pro|cash|live|info|co|me|ru)\b",
    re.IGNORECASE,
)
_DOLLAR_LINK = re.compile(r"^\$.+\..+")
#: Symbols that fakes wear. Compared after folding look-alike letters, so that UЅDC and USDС are caught too.
_MAJORS = frozenset(
    {"eth", "weth", "steth", "wsteth", "bnb", "wbnb", "pol", "wpol", "matic", "wmatic"}
    | {"usdc", "usdt", "usdt0", "dai", "busd", "frax", "wbtc", "btc", "btcb", "cbbtc", "cbeth"}
    | {"link", "uni", "aave", "op", "arb", "crv", "ldo", "mkr", "shib", "pepe", "cake", "aero"}
)
_FULL_NAMES = frozenset(("usd coin", "tether usd", "tether", "ether", "ethereum", "wrapped ether", "bitcoin", "bnb"))
#: Cyrillic and Greek letters that look like Latin ones (after case folding), and digits used as letters.
_LOOK_ALIKES = str.maketrans(
    "аеорсухіјѕԁһкмтвнпԛԝѵɡոτενικορυαβχμηɩ₮₿",
    "aeopcyxijsdhkmtbhnqwvgntevikopyabxmnitb",
)


def skeleton(text: str) -> str:
    """`text` as the eye reads it: compatibility forms, look-alike letters, accents and case folded away."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    plain = "".join(c for c in folded if not unicodedata.combining(c) and unicodedata.category(c) != "Cf")
    return "".join(plain.translate(_LOOK_ALIKES).split())


def spam_reason(balance: TokenBalance) -> str | None:
    """Why `balance` is of a spam token, in a few words, or None when it is not."""
    if balance.verified:
        return None
    meta = balance.meta
    if meta.disguised:
        return "hides characters in its name"
    for text in (meta.symbol, meta.name):
        if text and (_LINK.search(text) or _DOLLAR_LINK.search(text)):
            return "advertises an address"
        if text and _LURE.search(text):
            return "promises something"
    if meta.symbol and skeleton(meta.symbol) in _MAJORS:
        return f"poses as {skeleton(meta.symbol).upper()}"
    if meta.name and skeleton(meta.name) in _SQUEEZED_NAMES:
        return f"poses as {meta.name}"
    return None


def is_spam(balance: TokenBalance) -> bool:
    """Whether `balance` is to be flagged as spam."""
    return spam_reason(balance) is not None


_SQUEEZED_NAMES = frozenset(skeleton(name) for name in _FULL_NAMES)
