"""Which tokens exist on a chain, and how each of them behaves when it is asked."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from moonxd.domain.chain import Chain

from .entropy import Entropy
from .majors import ANCHORS, FAMILIES, MAJORS
from .settings import ListedToken

#: The native coin's place in every table that is keyed by token: twenty zero bytes.
COIN = bytes(20)
_UNLISTED_PER_CHAIN = 240
_SYLLABLES = ("ba", "ko", "mi", "ru", "ta", "lo", "ze", "ni", "po", "da", "su", "ga", "he", "vi", "ra", "mo")
_LURES = (
    ("Visit {word}.io to claim", "${WORD}.io"),
    ("{WORD} airdrop https://{word}.com", "{WORD}"),
    ("Claim reward at {word}.xyz", "{word}.xyz"),
)


class Trait(StrEnum):
    """How a contract answers."""

    PLAIN = "plain"
    #: symbol() and name() are bytes32, as the first tokens did it.
    BYTES32 = "bytes32"
    #: decimals() reverts.
    MUTE = "mute"
    #: decimals() answers a number far beyond uint8.
    ABSURD = "absurd"
    #: balanceOf() reverts.
    REVERTING = "reverting"
    #: balanceOf() hits INVALID and burns 63/64 of the gas that is left.
    POISON = "poison"


class SimToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token of the simulated world."""

    chain_id: int
    #: 20 bytes; COIN for the chain's own coin.
    key: bytes
    symbol: str
    name: str
    decimals: int
    trait: Trait = Trait.PLAIN
    #: Whether a reader with a token list sees it.
    listed: bool = False
    spam: bool = False
    #: Tokens of one family move together; empty for tokens without a price anywhere.
    family: str = ""
    #: The starting price is digits * 10**power USD.
    digits: int = 0
    power: int = 0
    #: What the price source thinks of its price, 0..1.
    confidence: float = 0.99

    @property
    def address(self) -> str:
        return "0x" + self.key.hex()

    @property
    def is_priced(self) -> bool:
        return self.digits > 0

    @property
    def known_decimals(self) -> int | None:
        """The scale as a careful reader sees it."""
        return None if self.trait in (Trait.MUTE, Trait.ABSURD) else self.decimals

    @property
    def unit(self) -> int:
        """Base units worth about one dollar; one whole token when there is no price. At least 1."""
        scale = self.decimals - self.power
        whole: int = 10 ** (scale if self.is_priced else self.decimals) if scale >= 0 else 1
        return max(1, whole // self.digits) if self.is_priced else whole


class Universe:
    """All tokens of one chain: the coin, the listed ones in the list's order, then the others."""

    def __init__(self, chain: Chain, entropy: Entropy, tokens: Iterable[ListedToken] = ()) -> None:
        self.chain = chain
        self.coin = _coin(chain, entropy)
        self.listed = [_listed(token, entropy) for token in _distinct(chain, tokens)]
        self.unlisted = [_unlisted(chain, i, entropy) for i in range(_UNLISTED_PER_CHAIN)]
        self._tokens: dict[bytes, SimToken] = {}
        self.reset()

    def get(self, key: bytes) -> SimToken | None:
        """The token at an address; None when there is no contract. COIN gives the coin."""
        return self.coin if key == COIN else self._tokens.get(key)

    def put(self, token: SimToken) -> None:
        """Deploy a token, or replace what stands at its address."""
        self._tokens[token.key] = token

    def reset(self) -> None:
        """Back to the tokens that the seed and the list give."""
        self._tokens = {token.key: token for token in (*self.unlisted, *self.listed)}


def _distinct(chain: Chain, tokens: Iterable[ListedToken]) -> list[ListedToken]:
    mine = {token.address.lower(): token for token in tokens if token.chain_id == chain.id}
    if not mine:
        mine = {token.address: token for token in MAJORS if token.chain_id == chain.id}
    mine.pop("0x" + COIN.hex(), None)
    return list(mine.values())


def _coin(chain: Chain, entropy: Entropy) -> SimToken:
    family, digits, power = starting_price(chain.symbol, entropy)
    return SimToken(
        chain_id=chain.id, key=COIN, symbol=chain.symbol, name=chain.coin_name, decimals=chain.coin_decimals,
        listed=True, family=family, digits=digits, power=power,
    )  # fmt: skip


def _listed(token: ListedToken, entropy: Entropy) -> SimToken:
    family, digits, power = starting_price(token.symbol, entropy)
    trait = Trait.BYTES32 if token.symbol == "MKR" else Trait.PLAIN
    return SimToken(
        chain_id=token.chain_id, key=bytes.fromhex(token.address[2:]), symbol=token.symbol,
        name=token.name or token.symbol, decimals=token.decimals, trait=trait, listed=True,
        family=family, digits=digits, power=power,
    )  # fmt: skip


def starting_price(symbol: str, entropy: Entropy) -> tuple[str, int, int]:
    """The family of a symbol, and its starting price as digits and power of ten: 0.000001 to 1000 USD by hash."""
    family = FAMILIES.get(symbol.upper(), symbol.upper())
    if family in ANCHORS:
        return (family, *ANCHORS[family])
    number = entropy.number(f"price/{family}")
    return family, 100_000 + number % 900_000, -11 + (number >> 32) % 9


def _unlisted(chain: Chain, index: int, entropy: Entropy) -> SimToken:
    noise = entropy.digest(b"token/%d/%d" % (chain.id, index))
    word = "".join(_SYLLABLES[byte & 15] for byte in noise[20:23])
    # By place and not by chance: every chain has some of every kind.
    lot = index * 256 // _UNLISTED_PER_CHAIN
    plain = SimToken(
        chain_id=chain.id, key=noise[:20], symbol=word.upper(), name=word.capitalize() + " Token",
        decimals=(18, 18, 18, 9, 8, 6, 0, 24)[noise[25] & 7],
    )  # fmt: skip
    if lot < 80:
        return _lure(plain, word, noise[26], entropy)
    if lot < 150:
        return plain
    if lot < 220:
        return _priced(plain, entropy, 0.99)
    if lot < 234:
        return _priced(plain, entropy, (0.6, 0.3, 0.1)[index % 3])
    traits = (Trait.BYTES32, Trait.BYTES32, Trait.BYTES32, Trait.MUTE, Trait.ABSURD, Trait.REVERTING, Trait.REVERTING)
    trait = Trait.POISON if lot >= 252 else traits[index % len(traits)]
    return msgspec.structs.replace(_priced(plain, entropy, 0.99), trait=trait)


def _lure(token: SimToken, word: str, lot: int, entropy: Entropy) -> SimToken:
    name, symbol = _LURES[lot % len(_LURES)]
    words = {"word": word, "WORD": word.upper()}
    spam = msgspec.structs.replace(token, name=name.format(**words), symbol=symbol.format(**words), spam=True)
    return _priced(spam, entropy, 0.15) if lot < 64 else spam


def _priced(token: SimToken, entropy: Entropy, confidence: float) -> SimToken:
    # The family is the address: two synthetic tokens that share a symbol are still strangers.
    family, digits, power = starting_price(token.address, entropy)
    return msgspec.structs.replace(token, family=family, digits=digits, power=power, confidence=confidence)
