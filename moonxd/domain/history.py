"""When a sync leaves a snapshot in its wallet's history: on a change, not too often, and no change is forgotten."""

from __future__ import annotations

from .ledger import Admitted


def snapshot(admitted: Admitted, *, has_changed: bool, now: float, every_s: float) -> tuple[bool, bool | None]:
    """Whether to take one, and whether one is owed from then on (None: as it stands).

    What changed too soon after the last one is owed: else a wallet that lost a token within the hour, and never
    changes again, would stand in its history as it was before. `now` is unix seconds.
    """
    wanted = has_changed or admitted.snapshot_owed
    is_due = admitted.snapshot_at is None or now - admitted.snapshot_at.timestamp() >= every_s
    is_owed = wanted and not is_due
    return wanted and is_due, None if is_owed is admitted.snapshot_owed else is_owed
