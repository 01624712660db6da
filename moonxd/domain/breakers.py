"""All breakers of a process by name, over the functions of breaker.py. No I/O: who keeps them asks what changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from . import breaker
from .breaker import Policy, State, Ticket, Verdict

#: Told the name and the reason whenever a breaker opens or is cordoned.
OnOpen = Callable[[str, str], None]


class View(NamedTuple):
    """One breaker for people. `opened_at` is unix seconds; `mode`: closed | open | half-open | cordoned."""

    name: str
    mode: str
    failures: int
    opened_at: float | None
    reason: str | None


class Word(msgspec.Struct, frozen=True):
    """What an operator last said about a breaker, to whichever daemon. Times are unix seconds."""

    act: Literal["cordon", "uncordon", "reset"]
    at: float
    reason: str = ""
    #: When a cordon ends; None: when it is lifted.
    until: float | None = None


class Breakers:
    """`now` gives unix seconds that do not jump while the process lives. Not for several threads."""

    def __init__(self, now: Callable[[], float], *, on_open: OnOpen = lambda name, reason: None) -> None:
        self._now = now
        self._on_open = on_open
        self._policies: dict[str, Policy] = {}
        self._states: dict[str, State] = {}
        self._shown: set[str] = set()
        #: The last word of an operator by name, for the other daemons to hear.
        self.words: dict[str, Word] = {}
        #: Names whose state changed since they were last kept; whoever keeps them empties it.
        self.dirty: set[str] = set()
        #: Names that an operator spoke about here since then. Words that were only heard are not for us to keep: they
        #: may have been overtaken.
        self.spoken: set[str] = set()
        self.on_dirty: Callable[[], None] = lambda: None

    def register(self, name: str, policy: Policy, subject: str = "") -> None:
        """Have a breaker of this name; one that exists keeps its state, as long as it is about the same `subject`."""
        self._policies[name] = policy
        self._shown.add(name)
        known = self._states.get(name)
        if known is None or known.subject != subject:
            self._states[name] = State(subject=subject)
        self._remember(name)

    def _remember(self, name: str) -> None:
        """Apply what an operator said before the breaker was there: another daemon may have kept its own state since.

        A reset had its effect then, and is no reason to forget what happened after it.
        """
        word, cordon = self.words.get(name), self._states[name].cordon
        is_ours = cordon is not None and cordon.by == "operator"
        if word is not None and ((word.act == "cordon" and not is_ours) or (word.act == "uncordon" and is_ours)):
            self._obey(name, word)

    def hide(self, names: Iterable[str]) -> None:
        """Stop showing breakers that belong to nothing any more; their states stay for when they come back."""
        self._shown.difference_update(names)

    def mark_all(self) -> None:
        """Have everything kept, changed or not."""
        self.dirty.update(self._policies)

    def restore(self, states: Mapping[str, State]) -> None:
        """Take over what was kept, for breakers that are registered or will be."""
        self._states.update(states)

    def __contains__(self, name: str) -> bool:
        return name in self._shown

    # ---- requests ------------------------------------------------------------------------------------------------

    def admit(self, name: str) -> Ticket | None:
        """A ticket for one request, to be given to `settle`; None when it must not be sent."""
        state, ticket = breaker.admit(self._states[name], self._policies[name], self._now())
        self._put(name, state)
        return ticket

    def settle(self, name: str, ticket: Ticket, verdict: Verdict, reason: str | None = None) -> None:
        state = breaker.settle(self._states[name], self._policies[name], self._now(), ticket, verdict, reason)
        self._put(name, state)

    def mode(self, name: str) -> str:
        """closed | open | half-open | cordoned, as of now."""
        state = breaker.tick(self._states[name], self._policies[name], self._now())
        self._put(name, state)
        return breaker.shown_mode(state)

    def wait_s(self, name: str) -> float | None:
        """See breaker.wait_s."""
        return breaker.wait_s(self._states[name], self._now())

    # ---- what is noticed, and what operators do ------------------------------------------------------------------

    def trip(self, name: str, reason: str, for_s: float | None = None) -> None:
        self._put(name, breaker.trip(self._states[name], self._policies[name], self._now(), reason, for_s))

    def quarantine(self, name: str, reason: str) -> None:
        self._put(name, breaker.quarantine(self._states[name], self._policies[name], self._now(), reason))

    def cordon(self, name: str, reason: str, ttl_s: float | None = None) -> None:
        """By an operator. Raises KeyError for an unknown name, like the next two."""
        now = self._now()
        self._say(name, Word("cordon", now, reason, None if ttl_s is None else now + ttl_s))

    def uncordon(self, name: str) -> None:
        self._say(name, Word("uncordon", self._now()))

    def reset(self, name: str) -> None:
        self._say(name, Word("reset", self._now()))

    def hear(self, name: str, word: Word) -> None:
        """What an operator said to another daemon, or to this one before it started; the latest word counts."""
        known = self.words.get(name)
        if known is None or word.at > known.at:
            self.words[name] = word
            if name in self._policies:
                self._obey(name, word)

    def _say(self, name: str, word: Word) -> None:
        self._obey(name, word)
        self.words[name] = word
        self.spoken.add(name)
        self.dirty.add(name)
        self.on_dirty()

    def _obey(self, name: str, word: Word) -> None:
        state, policy, now = self._states[name], self._policies[name], self._now()
        if word.act == "reset":
            self._put(name, breaker.reset(state, policy, now))
        elif word.act == "uncordon":
            self._put(name, breaker.uncordon(state, policy, now))
        elif word.until is None or word.until > now:
            ttl_s = None if word.until is None else word.until - now
            self._put(name, breaker.cordon(state, policy, now, word.reason, ttl_s=ttl_s, by="operator"))

    # ---- looking -------------------------------------------------------------------------------------------------

    def view(self, name: str) -> View:
        """Raises KeyError for a name that is not registered."""
        mode, state = self.mode(name), self._states[name]
        reason = state.cordon.reason if state.cordon is not None else state.reason
        return View(name, mode, breaker.failures(state), state.opened_at, reason)

    def views(self) -> tuple[View, ...]:
        return tuple(self.view(name) for name in sorted(self._shown))

    def dumps(self, names: set[str]) -> dict[str, str]:
        """The states to keep, as text."""
        return {name: breaker.dump(self._states[name]) for name in names}

    def _put(self, name: str, state: State) -> None:
        before = self._states[name]
        self._states[name] = state
        if state.epoch == before.epoch and state.cordon == before.cordon:
            return
        self.dirty.add(name)
        self.on_dirty()
        shut, was_shut = _is_shut(state), _is_shut(before)
        if shut and not was_shut:
            self._on_open(name, (state.cordon.reason if state.cordon else state.reason) or "no reason given")


def _is_shut(state: State) -> bool:
    return state.cordon is not None or state.mode == "open"
