"""Sending committed events again."""

from __future__ import annotations

from .messages import Message, Request


class ReplayRequest(Request, frozen=True, kw_only=True):
    """Send published events again, with the ids they had; since <= written < until, in unix seconds.

    One request is one step: go on with `after` = the result's `next` while there is `more`.
    """

    since: float
    until: float
    after: int = 0
    topics: tuple[str, ...] = ()
    #: May hold patterns, "sync.*".
    types: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    dry_run: bool = False


class ReplayResult(Message, frozen=True, kw_only=True):
    """Of this step."""

    matched: int
    sent: int
    next: int
    more: bool
