"""What a wallet holds, derived from the seed when somebody first looks, unless a test said otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd

from .entropy import Entropy
from .universe import COIN, SimToken, Universe

#: How many wallets are kept (about 5 kB each) before all are forgotten; deriving one again costs 50 us.
_REMEMBERED = 2_000
_MOST_TOKENS = 40
ZERO_WORD = "0" * 64


class Holdings:
    """One wallet on one chain. `raw` is in base units, without zeros, the coin first; `words` are the same in hex."""

    __slots__ = ("raw", "words", "zeros")

    def __init__(self, raw: Mapping[bytes, int], zeros: tuple[bytes, ...] = ()) -> None:
        self.raw = dict(raw)
        self.words = {key: format(value, "064x") for key, value in raw.items()}
        #: Tokens that were here once: Alchemy lists them with a balance of zero.
        self.zeros = zeros


class Wallets:
    """Every wallet on one chain."""

    def __init__(self, universe: Universe, entropy: Entropy) -> None:
        self._universe = universe
        self._entropy = entropy
        self._derived: dict[bytes, Holdings] = {}
        self._fixed: dict[bytes, Holdings] = {}

    def get(self, wallet: bytes) -> Holdings:
        """The contents of a wallet, given as 20 bytes."""
        found = self._fixed.get(wallet) or self._derived.get(wallet)
        if found is None:
            if len(self._derived) >= _REMEMBERED:
                self._derived.clear()
            found = self._derived[wallet] = self._derive(wallet)
        return found

    def put(self, wallet: bytes, balances: Mapping[bytes, int], *, replace: bool) -> None:
        """Set balances (0 removes one); `replace` forgets what else the wallet holds."""
        before = {} if replace else self.get(wallet).raw
        after = {key: value for key, value in {**before, **balances}.items() if value}
        gone = tuple(key for key in balances if not balances[key] and key != COIN)
        self._fixed[wallet] = Holdings(after, gone)

    def reset(self) -> None:
        """Back to what the seed says."""
        self._fixed.clear()

    def _derive(self, wallet: bytes) -> Holdings:
        noise = self._entropy.stream(b"wallet/%d/%b" % (self._universe.chain.id, wallet), 16 + 8 * _MOST_TOKENS)
        if noise[0] < 26:  # a tenth of the wallets never used this chain
            return Holdings({})
        count = 1 + noise[1] * _MOST_TOKENS // 256
        raw = {} if noise[2] < 10 else {COIN: _amount(self._universe.coin, noise[8:16])}
        tokens = self._pick(count - len(raw), noise[3:8])
        for place, token in enumerate(tokens):
            raw[token.key] = _amount(token, noise[16 + 8 * place : 24 + 8 * place])
        return Holdings(raw, self._zeros(noise, raw))

    def _pick(self, count: int, noise: bytes) -> list[SimToken]:
        """About two thirds from the list, the rest not on any."""
        listed, unlisted = self._universe.listed, self._universe.unlisted
        from_list = min(len(listed), -(-count * 2 // 3))
        return _walk(listed, from_list, noise[0], noise[1]) + _walk(unlisted, count - from_list, noise[2], noise[3])

    def _zeros(self, noise: bytes, raw: Mapping[bytes, int]) -> tuple[bytes, ...]:
        # Few wallets were showered with enough tokens to need a second page at Alchemy.
        count = 120 + noise[7] % 80 if noise[6] < 6 else noise[6] % 5
        tokens = _walk(self._universe.unlisted, count, noise[5], noise[4])
        return tuple(token.key for token in tokens if token.key not in raw)


def _walk(tokens: list[SimToken], count: int, start: int, stride: int) -> list[SimToken]:
    """`count` different tokens, as a walk whose stride has no common divisor with the list's length."""
    size = len(tokens)
    if size == 0:
        return []
    step = stride % size or 1
    while gcd(step, size) != 1:
        step += 1
    return [tokens[(start + i * step) % size] for i in range(min(count, size))]


def _amount(token: SimToken, noise: bytes) -> int:
    """Base units worth between a fraction of a dollar and some ten thousands, never round."""
    unit = token.unit
    dollars = unit * (int.from_bytes(noise[:2], "big") + 1) * 10 ** (noise[2] % 5) >> 14
    amount: int = dollars + int.from_bytes(noise[3:], "big") % unit
    return max(1, amount)
