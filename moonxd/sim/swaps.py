"""1inch and Across: what a transfer between the simulated chains would cost and how long it would take."""

from __future__ import annotations

from typing import Any

from moonxd.domain.address import NATIVE

from .bridges import BadQuestion, Transfer
from .reply import Reply, as_json
from .world import World

_ONEINCH_NEEDED = ("srcChain", "dstChain", "srcTokenAddress", "dstTokenAddress", "amount", "walletAddress")
_ACROSS_NEEDED = ("inputToken", "outputToken", "originChainId", "destinationChainId", "amount")
_FACTORY = "0xa7bcb4eac8964306f9e3764f67db6a7af6ddf99a"
#: Across serves no BNB Smart Chain.
_NOT_ACROSS = 56


def oneinch_quote(world: World, query: dict[str, str], authorization: bytes) -> Reply:
    """GET /fusion-plus/quoter/v1.0/quote/receive. Nobody is answered without a bearer key."""
    if not authorization.startswith(b"Bearer ") or len(authorization) < 10:
        return as_json({"error": "Unauthorized", "description": "Unauthorized", "statusCode": 401}, 401)
    try:
        _need(query, _ONEINCH_NEEDED)
        chains, tokens = (query["srcChain"], query["dstChain"]), (query["srcTokenAddress"], query["dstTokenAddress"])
        transfer = Transfer(world, chains, tokens, query["amount"])
    except BadQuestion as error:
        return _oneinch_refusal(str(error))
    if world.upstreams["oneinch"].knobs.no_route or not transfer.is_worth_it:
        return _oneinch_refusal("cannot find any routes")
    return as_json(_oneinch_answer(transfer))


def _need(query: dict[str, str], names: tuple[str, ...]) -> None:
    lacking = [name for name in names if not query.get(name)]
    if lacking:
        raise BadQuestion(f"{lacking[0]} is missing")


def _oneinch_refusal(why: str) -> Reply:
    return as_json({"error": "Bad Request", "description": why, "statusCode": 400, "meta": []}, 400)


def _oneinch_answer(transfer: Transfer) -> dict[str, Any]:
    amount = str(transfer.received_amount)
    preset = {
        "auctionDuration": 3 * transfer.seconds,
        "startAuctionIn": 24,
        "initialRateBump": 0,
        "auctionStartAmount": amount,
        "startAmount": amount,
        "auctionEndAmount": amount,
        "costInDstToken": "0",
        "points": [],
        "allowPartialFills": False,
        "allowMultipleFills": False,
        "gasCost": {"gasBumpEstimate": 0, "gasPriceEstimate": "0"},
        "exclusiveResolver": None,
        "secretsCount": 1,
    }
    usd = {"usd": {"srcToken": f"{transfer.sent_usd:.4f}", "dstToken": f"{transfer.received_usd:.4f}"}}
    return {
        "quoteId": None,
        "srcTokenAmount": str(transfer.amount),
        "dstTokenAmount": amount,
        "presets": {"fast": {**preset, "auctionDuration": transfer.seconds}, "medium": preset, "slow": preset},
        "srcEscrowFactory": _FACTORY,
        "dstEscrowFactory": _FACTORY,
        "recommendedPreset": "fast",
        "prices": usd,
        "volume": usd,
        "whitelist": [],
        "timeLocks": {},
        "srcSafetyDeposit": "0",
        "dstSafetyDeposit": "0",
        "autoK": 1,
    }


def across_fees(world: World, query: dict[str, str]) -> Reply:
    """GET /api/suggested-fees."""
    try:
        _need(query, _ACROSS_NEEDED)
        chains = (query["originChainId"], query["destinationChainId"])
        tokens = (query["inputToken"], query["outputToken"])
        if str(_NOT_ACROSS) in chains or NATIVE in tokens:
            raise BadQuestion("unsupported token or chain")
        transfer = Transfer(world, chains, tokens, query["amount"])
    except BadQuestion as error:
        return _across_refusal("INVALID_PARAM", str(error))
    if world.upstreams["across"].knobs.no_route:
        return _across_refusal("ROUTE_NOT_ENABLED", "Route is not enabled.")
    lost = {"pct": "3000000000000000", "total": str(transfer.amount - transfer.amount * 997 // 1000)}
    nothing = {"pct": "0", "total": "0"}
    return as_json(
        {
            "estimatedFillTimeSec": transfer.seconds,
            "totalRelayFee": lost,
            "relayerCapitalFee": nothing,
            "relayerGasFee": lost,
            "lpFee": nothing,
            "timestamp": str(int(world.now())),
            "isAmountTooLow": not transfer.is_worth_it,
            "quoteBlock": "1",
            "limits": {"minDeposit": "1000000", "maxDeposit": "1000000000000", "maxDepositInstant": "1000000000000"},
        }
    )


def _across_refusal(code: str, message: str) -> Reply:
    return as_json({"type": "AcrossApiError", "code": code, "status": 400, "message": message}, 400)
