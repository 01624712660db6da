"""What the ledger knows: portfolios and sync operations."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ..api.wallets import HistoryReply, Operations, PortfolioReply
from ..domain.address import parse_address
from ..domain.errors import Permanent
from .deps import Deps
from .errors import answer, invalid, not_found
from .request import integer, moment
from .story import Story
from .views import operation_view, past_view, portfolio_view

_STATUSES = ("pending", "running", "completed", "failed", "cancelled")


class Wallets:
    """The handlers that read the ledger."""

    def __init__(self, deps: Deps, story: Story) -> None:
        self._deps = deps
        self._story = story

    async def portfolio(self, request: Request) -> Response:
        wallet = _address(request.path_params["wallet"])
        user = request.query_params.get("user")
        found = await self._deps.ledger.portfolio(wallet, user)
        if not found:
            whose = f" for user {user[:255]!r}" if user else ""
            raise not_found(f"wallet {wallet} was never synced{whose}", "enqueue a portfolio-sync for it")
        # An operator's look says nothing of the user.
        if user and request.query_params.get("activity") != "false":
            self._story.viewed(user, wallet)
        return answer(PortfolioReply(wallet=wallet, portfolios=tuple(portfolio_view(one) for one in found)))

    async def history(self, request: Request) -> Response:
        if self._deps.history is None:
            raise not_found("this daemon keeps no history")
        wallet = _address(request.path_params["wallet"])
        found = await self._deps.history.history(
            wallet,
            user_id=request.query_params.get("user"),
            since=moment(request, "since"),
            until=moment(request, "until"),
            limit=integer(request, "limit", 50, low=1, high=1000),
        )
        return answer(HistoryReply(wallet=wallet, snapshots=tuple(past_view(one) for one in found)))

    async def operations(self, request: Request) -> Response:
        wallet = request.query_params.get("wallet")
        status = request.query_params.get("status")
        if status is not None and status not in _STATUSES:
            raise invalid(f"there is no operation status {status[:40]!r}", f"use one of: {', '.join(_STATUSES)}")
        rows = await self._deps.ledger.operations(
            user_id=request.query_params.get("user"),
            wallet=None if wallet is None else _address(wallet),
            status=status,
            limit=integer(request, "limit", 50, low=1, high=1000),
        )
        return answer(Operations(operations=tuple(operation_view(row) for row in rows)))


def _address(text: str) -> str:
    try:
        return parse_address(text, what="wallet")
    except Permanent as error:
        raise invalid(str(error)) from error
