"""Budgets over a rolling window, in whatever unit the provider counts: requests, compute units."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

#: A window is counted in so many slices; what lies in the oldest one counts until all of it has left the window.
SLICES = 20


class Charge(NamedTuple):
    """`cost` units of the budget `key`, of which `limit` may be spent within any `window_s` seconds."""

    key: str
    cost: int
    limit: int
    window_s: float


class RollingWindow:
    """What was spent of one budget."""

    __slots__ = ("_spent", "_width", "window_s")

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._width = window_s / SLICES
        #: (slice, units), oldest first.
        self._spent: deque[tuple[int, int]] = deque()

    def wait_s(self, cost: int, limit: int, now: float) -> float:
        """Seconds until `cost` fits; 0 when it does. What is over the limit as a whole waits for an empty window."""
        self._forget(now)
        over = sum(units for _, units in self._spent) + min(cost, limit) - limit
        if over <= 0:
            return 0.0
        for number, units in self._spent:
            over -= units
            if over <= 0:
                return max(1e-3, (number + 1) * self._width + self.window_s - now)
        return self.window_s

    def spend(self, cost: int, now: float) -> None:
        """Note that `cost` is spent now."""
        current = int(now / self._width)
        if self._spent and self._spent[-1][0] == current:
            self._spent[-1] = (current, self._spent[-1][1] + cost)
        else:
            self._spent.append((current, cost))

    def _forget(self, now: float) -> None:
        spent = self._spent
        while spent and (spent[0][0] + 1) * self._width + self.window_s <= now:
            spent.popleft()


class Windows:
    """Budgets by key on a clock that does not go back: all charges of a request are taken, or none."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._windows: dict[str, RollingWindow] = {}

    def take(self, charges: Sequence[Charge]) -> float:
        """0 when the charges were taken, else the seconds until they may fit."""
        now = self._now()
        windows = [(self._window(charge), charge) for charge in charges]
        wait = max((window.wait_s(charge.cost, charge.limit, now) for window, charge in windows), default=0.0)
        if wait <= 0:
            for window, charge in windows:
                window.spend(charge.cost, now)
        return wait

    def _window(self, charge: Charge) -> RollingWindow:
        known = self._windows.get(charge.key)
        if known is None or known.window_s != charge.window_s:
            known = self._windows[charge.key] = RollingWindow(charge.window_s)
        return known
