"""What a token costs at a moment: its starting price and a slow drift that follows from the seed."""

from __future__ import annotations

from decimal import Decimal

from .entropy import Entropy
from .universe import SimToken

_MILLION = 1_000_000
#: How far a price strays from its start, in millionths, and in how many buckets it comes back.
_SWING = 30_000
_STABLE_SWING = 800
_PERIOD = 48


class Pricing:
    """Prices by time bucket. `bucket_s` seconds a bucket; 0 freezes every price at its start."""

    def __init__(self, entropy: Entropy, bucket_s: float) -> None:
        self._entropy = entropy
        self.bucket_s = bucket_s
        self._phase: dict[str, int] = {}

    def bucket(self, now: float) -> int:
        """The number of the bucket that `now` (unix seconds) lies in."""
        return int(now // self.bucket_s) if self.bucket_s > 0 else 0

    def usd(self, token: SimToken, now: float) -> Decimal | None:
        """USD for one whole token, None when nobody knows. At most 12 significant digits."""
        if not token.is_priced:
            return None
        drift = self._drift(token.family, now)
        return Decimal(token.digits * (_MILLION + drift)).scaleb(token.power - 6).normalize()

    def _drift(self, family: str, now: float) -> int:
        if self.bucket_s <= 0:
            return 0
        phase = self._phase.get(family)
        if phase is None:
            phase = self._phase[family] = self._entropy.number(f"phase/{family}") % (4 * _PERIOD)
        swing = _STABLE_SWING if family == "USD" else _SWING
        # A triangle wave: integers only, so that two machines agree to the last digit.
        step = (self.bucket(now) + phase) % (4 * _PERIOD)
        height = step if step < _PERIOD else 2 * _PERIOD - step if step < 3 * _PERIOD else step - 4 * _PERIOD
        return height * swing // _PERIOD


def plain(price: Decimal) -> str:
    """A price as a JSON number without an exponent."""
    return format(price, "f")
