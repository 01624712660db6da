"""LI.FI and Relay: quotes between the simulated chains, priced as the simulated sources price them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from moonxd.domain.money import WIDE

from .llama import token_at
from .reply import BadBody, Reply, as_json, from_json
from .universe import SimToken
from .world import SimChain, World

#: What arrives of what was sent.
_KEPT = Decimal("0.997")
_LEAST_USD = Decimal(1)
_ROUTER = "0x1231deb6f5749ef6ce6943a275a1d3e7486f4eae"
_LIFI_LIMITS = b"ratelimit-limit: 200\r\nratelimit-remaining: %d\r\nratelimit-reset: 7200\r\n"
_LIFI_REQUIRED = ("fromChain", "toChain", "fromToken", "toToken", "fromAmount", "fromAddress")


class BadQuestion(Exception):
    """The request cannot be quoted at all."""


class Transfer:
    """A transfer from one chain to another."""

    def __init__(self, world: World, chains: tuple[object, object], tokens: tuple[str, str], amount: str) -> None:
        self.source, self.target = (_chain(world, name) for name in chains)
        self.sent, self.received = _token(self.source, tokens[0]), _token(self.target, tokens[1])
        if not amount.isdecimal() or int(amount) == 0:
            raise BadQuestion("fromAmount must be a positive whole number")
        self.amount = int(amount)
        self.sent_usd = _usd(world, self.sent, self.amount)
        price = world.pricing.usd(self.received, world.now()) or Decimal(1)
        arriving = WIDE.divide(WIDE.multiply(self.sent_usd, _KEPT), price)
        self.received_amount = int(arriving.scaleb(self.received.decimals, context=WIDE))
        self.received_usd = _usd(world, self.received, self.received_amount)

    @property
    def is_worth_it(self) -> bool:
        return self.sent_usd >= _LEAST_USD and (self.source, self.sent) != (self.target, self.received)

    @property
    def seconds(self) -> int:
        """How long the transfer takes: the slower chain decides."""
        return max(2, int(4 * max(self.source.chain.block_time, self.target.chain.block_time)))


def _chain(world: World, name: object) -> SimChain:
    chain = world.find_chain(name)
    if chain is None:
        raise BadQuestion(f"unknown chain {name}")
    return chain


def _token(chain: SimChain, name: str) -> SimToken:
    token = token_at(chain, name)
    if token is None:
        listed = (chain.universe.coin, *chain.universe.listed)
        token = next((one for one in listed if one.symbol.upper() == name.upper()), None)
    if token is None:
        raise BadQuestion(f"unknown token {name}")
    return token


def _usd(world: World, token: SimToken, raw: int) -> Decimal:
    price = world.pricing.usd(token, world.now()) or Decimal(0)
    return WIDE.multiply(Decimal(raw).scaleb(-token.decimals, context=WIDE), price)


def lifi_quote(world: World, query: dict[str, str]) -> Reply:
    """GET /v1/quote."""
    knobs = world.upstreams["lifi"].knobs
    return _lifi_answer(world, query, no_route=knobs.no_route)._replace(headers=_LIFI_LIMITS % knobs.granted)


def _lifi_answer(world: World, query: dict[str, str], *, no_route: bool) -> Reply:
    lacking = [name for name in _LIFI_REQUIRED if not query.get(name)]
    if lacking:
        return _lifi_error(400, 1011, f"must have required property '{lacking[0]}'")
    try:
        chains, tokens = (query["fromChain"], query["toChain"]), (query["fromToken"], query["toToken"])
        route = Transfer(world, chains, tokens, query["fromAmount"])
        slippage = float(query.get("slippage", "0.005"))
    except (BadQuestion, ValueError) as error:
        return _lifi_error(400, 1011, str(error))
    if no_route or not route.is_worth_it:
        failed = {"errorType": "NO_QUOTE", "code": "AMOUNT_TOO_LOW", "tool": "across", "message": "amount too low"}
        return _lifi_error(404, 1002, "No available quotes for the requested transfer", [failed])
    return as_json(_lifi_step(route, query, slippage))


def _lifi_error(status: int, code: int, message: str, errors: list[dict[str, Any]] | None = None) -> Reply:
    body = (
        {"message": message, "code": code} if errors is None else {"message": message, "code": code, "errors": errors}
    )
    return as_json(body, status)


def _lifi_token(chain: SimChain, token: SimToken) -> dict[str, Any]:
    return {
        "address": token.address,
        "chainId": chain.chain.id,
        "symbol": token.symbol,
        "decimals": token.decimals,
        "name": token.name,
    }


def _lifi_step(route: Transfer, query: dict[str, str], slippage: float) -> dict[str, Any]:
    tool = {"key": "across", "name": "AcrossV4", "logoURI": "https://logos.example/across.svg"}
    sender = query["fromAddress"]
    action = {
        "fromToken": _lifi_token(route.source, route.sent),
        "fromAmount": str(route.amount),
        "toToken": _lifi_token(route.target, route.received),
        "fromChainId": route.source.chain.id,
        "toChainId": route.target.chain.id,
        "slippage": slippage,
        "fromAddress": sender,
        "toAddress": query.get("toAddress", sender),
    }
    estimate = {
        "tool": tool["key"],
        "approvalAddress": _ROUTER,
        "toAmountMin": str(route.received_amount * 995 // 1000),
        "toAmount": str(route.received_amount),
        "fromAmount": str(route.amount),
        "feeCosts": [],
        "gasCosts": [
            {
                "type": "SEND",
                "amount": "210000000000000",
                "token": _lifi_token(route.source, route.source.universe.coin),
            }
        ],
        "executionDuration": route.seconds,
        "fromAmountUSD": f"{route.sent_usd:.4f}",
        "toAmountUSD": f"{route.received_usd:.4f}",
    }
    step = {"id": "5f0c8a0e-0000-4000-8000-000000000001", "type": "lifi", "tool": tool["key"], "toolDetails": tool}
    request = {"to": _ROUTER, "from": sender, "chainId": route.source.chain.id, "data": "0x", "value": "0x0"}
    return {**step, "action": action, "estimate": estimate, "includedSteps": [], "transactionRequest": request}


def lifi_chains(world: World) -> Reply:
    """GET /v1/chains."""
    rows = [
        {
            "key": chain.chain.slug[:3],
            "chainType": "EVM",
            "name": chain.chain.name,
            "coin": chain.chain.symbol,
            "id": chain.chain.id,
            "mainnet": True,
            "nativeToken": _lifi_token(chain, chain.universe.coin),
        }
        for chain in world.chains.values()
    ]
    return as_json({"chains": rows})._replace(headers=_LIFI_LIMITS % world.upstreams["lifi"].knobs.granted)


class RelayQuestion(msgspec.Struct, rename="camel"):
    """Body of POST /quote/v2."""

    user: str
    origin_chain_id: int
    destination_chain_id: int
    origin_currency: str
    destination_currency: str
    amount: str
    trade_type: str


def relay_quote(world: World, body: bytes) -> Reply:
    """POST /quote/v2."""
    try:
        question = from_json(body, RelayQuestion)
        route = Transfer(
            world,
            (question.origin_chain_id, question.destination_chain_id),
            (question.origin_currency, question.destination_currency),
            question.amount,
        )
    except (BadBody, BadQuestion) as error:
        return as_json({"message": str(error), "errorCode": "INVALID_INPUT"}, 400)
    if world.upstreams["relay"].knobs.no_route:
        return as_json({"message": "no routes found", "errorCode": "NO_SWAP_ROUTES_FOUND"}, 400)
    if not route.is_worth_it:
        return as_json({"message": "Amount is too low", "errorCode": "AMOUNT_TOO_LOW"}, 400)
    return as_json(_relay_answer(route, question.user))


def _relay_answer(route: Transfer, user: str) -> dict[str, Any]:
    sent = _relay_amount(route.source, route.sent, route.amount, route.sent_usd)
    received = _relay_amount(route.target, route.received, route.received_amount, route.received_usd)
    lost = route.sent_usd - route.received_usd
    coin = route.source.universe.coin
    fee = _relay_amount(route.source, coin, 21 * 10**13, Decimal("0.42"))
    transaction = {"from": user, "to": _ROUTER, "data": "0x", "value": "0", "chainId": route.source.chain.id}
    step = {
        "id": "deposit",
        "action": "Confirm transaction in your wallet",
        "description": "Deposit funds for executing the calls",
        "kind": "transaction",
        "items": [{"status": "incomplete", "data": transaction}],
    }
    details = {
        "operation": "swap",
        "sender": user,
        "recipient": user,
        "currencyIn": sent,
        "currencyOut": received,
        "totalImpact": {"usd": f"-{lost:.6f}", "percent": "-0.30"},
        "rate": f"{WIDE.divide(Decimal(received['amountFormatted']), Decimal(sent['amountFormatted'])):.12f}",
        "timeEstimate": route.seconds,
    }
    return {"steps": [step], "fees": {"gas": fee, "relayer": fee}, "details": details}


def _relay_amount(chain: SimChain, token: SimToken, raw: int, usd: Decimal) -> dict[str, Any]:
    currency = {
        "chainId": chain.chain.id,
        "address": token.address,
        "symbol": token.symbol,
        "name": token.name,
        "decimals": token.decimals,
    }
    formatted = format(Decimal(raw).scaleb(-token.decimals, context=WIDE), "f")
    return {"currency": currency, "amount": str(raw), "amountFormatted": formatted, "amountUsd": f"{usd:.6f}"}


def relay_chains(world: World) -> Reply:
    """GET /chains: a chain that stands still shows as lagging."""
    rows = [
        {
            "id": chain.chain.id,
            "name": chain.chain.slug,
            "displayName": chain.chain.name,
            "disabled": False,
            "depositEnabled": True,
            "blockProductionLagging": chain.node.knobs.halted,
            "statusMessage": None,
            "currency": {"symbol": chain.chain.symbol, "decimals": chain.chain.coin_decimals},
        }
        for chain in world.chains.values()
    ]
    return as_json({"chains": rows})


def relay_health(world: World, query: dict[str, str]) -> Reply:
    """GET /chains/health?chainId=."""
    chain = world.find_chain(query.get("chainId", ""))
    if chain is None:
        return as_json({"message": "Invalid chain id", "errorCode": "INVALID_CHAIN"}, 400)
    return as_json({"healthy": not chain.node.knobs.halted})
