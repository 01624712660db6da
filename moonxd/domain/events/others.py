"""Users who do something, and calls for help."""

from __future__ import annotations

from typing import Any, Literal

from .envelope import Data

Activity = Literal["sync_triggered", "portfolio_viewed", "manual_sync"]


class UserActivity(Data, frozen=True, kw_only=True):
    """A user is there. Periodic and bulk syncs never say so: every user would stay active for ever."""

    #: sync_triggered: by another program's job; manual_sync: through our API; portfolio_viewed: it was read.
    activity_type: Activity
    #: Null when the activity was about no sync.
    job_id: str | None
    at: int


class SystemAlert(Data, frozen=True, kw_only=True):
    """Somebody has to look."""

    alert_type: str
    message: str
    severity: Literal["info", "warning", "critical"]
    #: The worker that says so.
    service: str
    metadata: dict[str, Any]
