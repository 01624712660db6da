"""What stands between a user's job and its sync: the rate limit and the breaker, both derived from the ledger's rows.

The counting itself is the ledgers' (under the user's lock, in the admission's own transaction); here are the rules'
values, whom they concern, and when a job may stand in for another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

#: Who asks, as `metadata.trigger` of the payload says it: these syncs do not count against their user.
UNCOUNTED_TRIGGERS = frozenset({"periodic", "bulk"})
#: Key of the audit row's metadata that says a row counts against its user.
COUNTED = "countsForUser"
#: Key of `user_sync_status.sync_metadata` under which readers find the breaker.
BREAKER_VIEW = "circuitBreaker"
#: Seconds until a job looks again while another one is the half-open breaker's single probe.
PROBE_S = 5.0

#: What the reason of a job begins with that was declined on purpose: no fault that an operator has to look at.
REJECTED = "Rejected: "


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """At most `most` counted syncs of one user are admitted within any `window_s` seconds."""

    most: int = 5
    window_s: float = 900.0
    #: What is over the limit ends at once instead of waiting until the window frees.
    reject: bool = False


class Trip(msgspec.Struct, frozen=True, kw_only=True):
    """`threshold` failed syncs of one user in a row stop the user's syncs for `open_s` seconds, then one at a time."""

    threshold: int = 5
    open_s: float = 60.0


class Guards(msgspec.Struct, frozen=True, kw_only=True):
    """What an admission asks for. None: no such guard."""

    window: Window | None = None
    breaker: Trip | None = None


def counts_for_user(extra: Mapping[str, Any], *, is_child: bool = False) -> bool:
    """Whether a wallet sync was asked for by its user: not by the scheduler, not as part of a bulk job."""
    metadata = extra.get("metadata")
    trigger = metadata.get("trigger") if isinstance(metadata, Mapping) else None
    return not is_child and not (isinstance(trigger, str) and trigger in UNCOUNTED_TRIGGERS)


def window_frees_at(admitted: Iterable[datetime], window: Window, now: datetime) -> datetime | None:
    """When the next sync may be admitted; None: now. `admitted` are the user's counted admissions, in any order."""
    length = timedelta(seconds=window.window_s)
    inside = sorted((at for at in admitted if at > now - length), reverse=True)
    if len(inside) < window.most:
        return None
    # A row of the future (the clock was set back) must not shut its user out for longer than a window.
    return min(inside[window.most - 1], now) + length


def breaker_closes_at(
    trip: Trip,
    *,
    failures: int,
    latest: Iterable[str],
    failed_at: datetime | None,
    probing: bool,
    now: datetime,
) -> datetime | None:
    """When the user's breaker may let this sync through; None: now.

    `failures` are the failures in a row summed over the user's wallets, `latest` how the user's last `threshold`
    operations ended, `failed_at` the user's last error, `probing` whether another sync of the user runs.
    """
    # Wallets count their own failures, and a success of one does not reset another's: the user is only shut out when
    # nothing of the user's succeeds.
    if failures < trip.threshold or "completed" in latest:
        return None
    if failed_at is not None:
        until = min(failed_at, now) + timedelta(seconds=trip.open_s)
        if until > now:
            return until
    return now + timedelta(seconds=PROBE_S) if probing else None


def breaker_view(trip: Trip, failures: int, failed_at: datetime | None) -> dict[str, Any]:
    """What readers see in `sync_metadata`: as of the wallet's last ending."""
    is_open = failures >= trip.threshold and failed_at is not None
    until = failed_at + timedelta(seconds=trip.open_s) if is_open and failed_at is not None else None
    return {
        "state": "open" if is_open else "closed",
        "failureCount": failures,
        "openUntil": until.isoformat() if until else None,
    }


# ---- standing in for another job -----------------------------------------------------------------------------------

#: What a finished sync of a type has refreshed.
_INCLUDES = {"full": {"full", "portfolio", "metadata"}, "portfolio": {"portfolio"}, "metadata": {"metadata"}}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a waiting job asks for. `chains` are those it would read; `at` is when it was due, in epoch ms."""

    sync_type: str
    chains: frozenset[int]
    force_refresh: bool
    at: int


def stands_in(sync_type: str, completed_at: datetime | None, metadata: Mapping[str, Any], asked: Asked) -> bool:
    """Whether a completed operation gave what `asked` wants: it ended after the asking and refreshed all of it.

    A forced refresh is never answered by another one, and a chain that failed was not refreshed.
    """
    if asked.force_refresh or completed_at is None or completed_at.timestamp() * 1000 <= asked.at:
        return False
    if asked.sync_type not in _INCLUDES.get(sync_type, set()):
        return False
    result = metadata.get("result")
    if not isinstance(result, Mapping) or result.get("success") is not True:
        return False
    return asked.chains <= _ids(metadata.get("chainIds")) - _ids(
        [one.get("chainId") for one in result.get("chainsFailed") or () if isinstance(one, Mapping)]
    )


def _ids(values: Any) -> frozenset[int]:
    return frozenset(value for value in values if isinstance(value, int)) if isinstance(values, list) else frozenset()
