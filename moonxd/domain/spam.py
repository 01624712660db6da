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
#: Letters of other alphabets that look like Latin ones; capitals and small letters look different, so both are here.
_LOOK_ALIKES = str.maketrans(
    "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ" + "ανορτικυ" + "АВЕКМНОРСТУХЅІЈԌԚԜ" + "аеорсухіјѕԁһԛԝ" + "ɡɩ₮₿",
    "ABEZHIKMNOPTYX" + "avoptiku" + "ABEKMHOPCTYXSIJGQW" + "aeopcyxijsdhqw" + "giTB",
)
#: After case folding: the same stroke to the eye.
_STROKES = str.maketrans("l1|0", "iiio")


def skeleton(text: str) -> str:
    """`text` as the eye reads it: compatibility forms, accents, look-alike letters, case and spaces folded away."""
    parts = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in parts if not unicodedata.combining(c) and unicodedata.category(c) != "Cf")
    return "".join(plain.translate(_LOOK_ALIKES).casefold().translate(_STROKES).split())


#: Worn by fakes more than by unlisted originals: an unlisted token with such a symbol or name is spam.
_COINS = (
    *("ETH", "WETH", "stETH", "wstETH", "BNB", "WBNB", "POL", "WPOL", "MATIC", "WMATIC"),
    *("USDC", "USDT", "DAI", "BUSD", "BTC", "WBTC", "BTCB", "cbBTC"),
)
_COIN_NAMES = ("USD Coin", "Tether USD", "Tether", "Ether", "Ethereum", "Wrapped Ether", "Bitcoin", "Wrapped BTC")
#: Deployed on more chains than any list follows: spam only when written with look-alike characters.
_TOKENS = (
    *("USDT0", "FRAX", "GHO", "USDe", "USDS", "cbETH", "rETH", "weETH"),
    *("LINK", "UNI", "AAVE", "OP", "ARB", "CRV", "LDO", "MKR", "SHIB", "PEPE", "CAKE", "AERO"),
)
#: By what the eye sees: so UЅDС (Cyrillic) and LlNK are caught too.
_SEEN = {skeleton(text): text for text in (*_COINS, *_COIN_NAMES, *_TOKENS)}


def _imitated(text: str | None) -> str | None:
    """The well-known coin that `text` is taken for."""
    known = _SEEN.get(skeleton(text)) if text else None
    if known is None or text is None or (known in _TOKENS and known.casefold() == text.casefold()):
        return None
    return known


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
    imitated = _imitated(meta.symbol) or _imitated(meta.name)
    return f"poses as {imitated}" if imitated else None


def is_spam(balance: TokenBalance) -> bool:
    """Whether `balance` is to be flagged as spam."""
    return spam_reason(balance) is not None
