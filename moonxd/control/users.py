"""Registered users and the schedule of their periodic syncs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ..api import users as api
from ..domain.address import parse_address
from ..domain.errors import Permanent
from ..domain.plan import zone
from ..domain.schedule import Change, Figures, Scheduled
from .deps import Deps, Scheduling
from .errors import Refused, answer, conflict, invalid, not_found
from .request import DEADLINE_S, Handler, integer, read_body, read_optional_body

_NOTHING = api.Trigger()
_NO_REASON = api.PauseSchedule()


def user_routes(deps: Deps) -> list[tuple[str, str, Handler, float | None]]:
    """Served under /v1 only."""
    users = Users(deps)
    return [
        ("GET", "/users", users.page, DEADLINE_S),
        ("POST", "/users", users.add, DEADLINE_S),
        ("PATCH", "/users", users.change, DEADLINE_S),
        ("DELETE", "/users", users.remove, DEADLINE_S),
        ("POST", "/users/touch", users.touch, DEADLINE_S),
        ("GET", "/users/stats", users.stats, DEADLINE_S),
        ("GET", "/schedule", users.schedule, DEADLINE_S),
        ("POST", "/schedule/pause", users.pause, DEADLINE_S),
        ("POST", "/schedule/resume", users.resume, DEADLINE_S),
        ("POST", "/schedule/trigger", users.trigger, DEADLINE_S),
    ]


class Users:
    """The handlers of /users and /schedule."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def add(self, request: Request) -> Response:
        desk, now = self._desk(), self._deps.now()
        ask = await read_body(request, api.AddUsers)
        wallets = [
            desk.plan.register(
                entry.user_id,
                _wallet(entry.wallet_address, entry.user_id),
                now,
                interval_minutes=entry.interval_minutes,
                timezone=_timezone(entry.timezone),
                revive_s=0,
            )
            for entry in ask.users
        ]
        added = await desk.schedule.register(wallets)
        known = len({(one.user_id, one.wallet) for one in wallets}) - added
        return answer(api.Added(added=added, known=known))

    async def page(self, request: Request) -> Response:
        desk, params = self._desk(), request.query_params
        limit = integer(request, "limit", 50, low=1, high=1000)
        after = (params.get("afterUser", ""), params.get("afterWallet", "")) if "afterUser" in params else None
        found = await desk.schedule.page(user_id=params.get("user"), after=after, limit=limit)
        since = self._deps.now() - desk.plan.rules.active_s
        last = found[-1] if len(found) == limit else None
        return answer(
            api.UsersPage(
                users=tuple(_view(one, is_active=one.last_active_at >= since) for one in found),
                next=None if last is None else (last.user_id, last.wallet),
            )
        )

    async def change(self, request: Request) -> Response:
        ask = await read_body(request, api.ChangeUser)
        if ask.interval_minutes is None and ask.timezone is None and ask.enabled is None:
            raise invalid("nothing to change", "give intervalMinutes, timezone or enabled")
        change = Change(interval_minutes=ask.interval_minutes, timezone=_timezone(ask.timezone), is_enabled=ask.enabled)
        return await self._apply(ask.user_id, ask.wallet_address, change)

    async def touch(self, request: Request) -> Response:
        ask = await read_body(request, api.TouchUser)
        return await self._apply(ask.user_id, ask.wallet_address, Change(active_at=float(int(self._deps.now()))))

    async def remove(self, request: Request) -> Response:
        user = request.query_params.get("user")
        if not user:
            raise invalid("whose wallets?", "name the user: ?user=ID")
        wallet = request.query_params.get("wallet")
        removed = await self._desk().schedule.remove(user, wallet and _wallet(wallet, user))
        if not removed:
            raise _unknown(user, wallet)
        return answer(api.Affected(wallets=removed))

    async def stats(self, request: Request) -> Response:
        return answer(_stats(await self._desk().figures()))

    async def schedule(self, request: Request) -> Response:
        return answer(api.Schedule(scheduler=self._desk().view(), wallets=_stats(await self._desk().figures())))

    async def pause(self, request: Request) -> Response:
        ask = await read_optional_body(request, api.PauseSchedule, _NO_REASON)
        await self._desk().schedule.pause(True, ask.reason)
        return answer(api.SchedulePaused(is_paused=True))

    async def resume(self, request: Request) -> Response:
        await self._desk().schedule.pause(False)
        return answer(api.SchedulePaused(is_paused=False))

    async def trigger(self, request: Request) -> Response:
        desk = self._desk()
        ask = await read_optional_body(request, api.Trigger, _NOTHING)
        if ask.user_id is None and ask.wallet_address is not None:
            raise invalid("a wallet without its user", "give userId too: several users may have one wallet")
        wallets = 0
        if ask.user_id is not None:
            wallets = await self._change(ask.user_id, ask.wallet_address, Change(force_at=int(self._deps.now())))
        looks = desk.trigger()
        if not looks and ask.user_id is None:
            raise conflict("this daemon runs no scheduler", "scheduler.enabled is false here")
        return answer(api.Triggered(wallets=wallets, looks=looks))

    # ---- parts ---------------------------------------------------------------------------------------------------

    def _desk(self) -> Scheduling:
        if self._deps.scheduling is None:
            raise not_found("this daemon knows nothing of periodic syncs")
        return self._deps.scheduling

    async def _apply(self, user: str, wallet: str | None, change: Change) -> Response:
        return answer(api.Affected(wallets=await self._change(user, wallet, change)))

    async def _change(self, user: str, wallet: str | None, change: Change) -> int:
        address = None if wallet is None else _wallet(wallet, user)
        changed = await self._desk().schedule.change(user, address, change)
        if not changed:
            raise _unknown(user, wallet)
        return changed


def _unknown(user: str, wallet: str | None) -> Refused:
    what = f"wallet {wallet[:64]!r} of user {user!r}" if wallet else f"user {user!r}"
    return not_found(f"{what} is not registered", "register it with POST /v1/users, or by a sync")


def _wallet(text: str, user: str) -> str:
    try:
        return parse_address(text, what=f"the wallet of user {user[:80]!r}")
    except Permanent as error:
        raise invalid(str(error)) from error


def _timezone(name: str | None) -> str | None:
    try:
        return name and zone(name).key
    except Permanent as error:
        raise invalid(str(error)) from error


def _view(one: Scheduled, *, is_active: bool) -> api.UserView:
    return api.UserView(
        user_id=one.user_id,
        wallet_address=one.wallet,
        enabled=one.is_enabled,
        active=is_active,
        interval_minutes=one.interval_minutes,
        timezone=one.timezone,
        last_active_at=one.last_active_at,
        last_sync_at=one.last_sync_at,
        next_due_at=None if one.look_at is None else one.due_at,
        total_value_usd=one.total_value_usd,
    )


def _stats(figures: Figures) -> api.UserStats:
    return api.UserStats(
        at=figures.at,
        users=figures.users,
        active_users=figures.active_users,
        wallets=figures.wallets,
        active_wallets=figures.active_wallets,
        fresh=figures.fresh,
        stale=figures.stale,
        fresh_ratio=round(figures.fresh_ratio, 6),
        due=figures.due,
        next_due_at=figures.next_due_at,
        is_paused=figures.is_paused,
        paused_reason=figures.paused_reason,
    )
