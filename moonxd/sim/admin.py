"""The simulator's own paths under /sim: knobs, counters, and the truth about wallets. No faults happen here."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from moonxd.domain.address import parse_address
from moonxd.domain.errors import ConfigError, Permanent
from moonxd.domain.money import UINT256_MAX

from . import truth
from .http import Request
from .reply import BadBody, Reply, as_json, from_json
from .universe import COIN, SimToken, Trait
from .world import SimChain, World


class WalletOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /sim/wallets/{address}: {chain: {token address or "native": raw balance as number or text}}."""

    balances: dict[str, dict[str, int | str]]
    #: Forget what else the wallet holds on the chains named.
    replace: bool = False


class TokenOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /sim/tokens. `price_usd` None: nobody knows a price."""

    chain: str | int
    address: str
    symbol: str
    decimals: int
    name: str = ""
    price_usd: Decimal | None = None
    confidence: float = 0.99
    trait: Trait = Trait.PLAIN
    spam: bool = False
    listed: bool = False


class Admin:
    """Answers /sim."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._started = time.monotonic()
        self._cpu = time.process_time()
        self._routes: dict[tuple[str, str], Callable[[Request, str], Reply]] = {
            ("GET", "knobs"): self._knobs,
            ("PATCH", "knobs"): self._turn,
            ("GET", "stats"): self._stats,
            ("POST", "reset"): self._reset,
            ("GET", "wallets"): self._wallet,
            ("POST", "wallets"): self._set_wallet,
            ("POST", "tokens"): self._deploy,
        }

    def handle(self, request: Request) -> Reply:
        """One request; a mistake in it is answered with 400 and a sentence."""
        _, _, what, *rest = [*request.path.split("/"), ""]
        route = self._routes.get((request.method, what))
        if route is None:
            paths = [f"{method} /sim/{name}" for method, name in self._routes]
            return as_json({"error": "no such path", "paths": paths}, 404)
        try:
            return route(request, rest[0] if rest else "")
        except (BadBody, ConfigError, Permanent, msgspec.ValidationError) as error:
            return as_json({"error": str(error)}, 400)

    def _knobs(self, _request: Request, _rest: str) -> Reply:
        return as_json({name: upstream.knobs for name, upstream in self._world.upstreams.items()})

    def _turn(self, request: Request, rest: str) -> Reply:
        self._world.turn(from_json(request.body, dict[str, dict[str, Any]]))
        return self._knobs(request, rest)

    def _reset(self, _request: Request, _rest: str) -> Reply:
        self._world.reset()
        return as_json({"reset": True})

    def _stats(self, _request: Request, _rest: str) -> Reply:
        upstreams = self._world.upstreams
        requests = sum(upstream.requests for upstream in upstreams.values())
        rows = {
            name: {"requests": upstream.requests, "methods": upstream.methods, "faults": upstream.faults}
            for name, upstream in upstreams.items()
        }
        heads = {slug: chain.head.height(self._world.now()) for slug, chain in self._world.chains.items()}
        times = {"uptime_s": time.monotonic() - self._started, "cpu_s": time.process_time() - self._cpu}
        return as_json(
            {"seed": self._world.settings.seed, "requests": requests, **times, "heads": heads, "upstreams": rows}
        )

    def _wallet(self, request: Request, address: str) -> Reply:
        query = request.query
        counted = truth.Filter(
            listed_only=query.get("listed", "") in ("1", "true"),
            min_confidence=msgspec.convert(query.get("min_confidence", "0.5"), float, strict=False),
        )
        return as_json(truth.wallet(self._world, parse_address(address), counted))

    def _set_wallet(self, request: Request, address: str) -> Reply:
        wallet = bytes.fromhex(parse_address(address)[2:])
        order = from_json(request.body, WalletOrder)
        changes = [
            (chain, {_token(chain, token): _amount(raw) for token, raw in balances.items()})
            for chain, balances in ((self._chain(name), balances) for name, balances in order.balances.items())
        ]
        for chain, balances in changes:
            chain.wallets.put(wallet, balances, replace=order.replace)
        return self._wallet(request, address)

    def _deploy(self, request: Request, _rest: str) -> Reply:
        order = from_json(request.body, TokenOrder)
        key = bytes.fromhex(parse_address(order.address, what="address")[2:])
        if key == COIN or not 0 <= order.decimals <= 255:
            raise ConfigError("a token needs an address of its own and 0 to 255 decimals")
        token = SimToken(
            chain_id=self._chain(order.chain).chain.id, key=key, symbol=order.symbol, name=order.name or order.symbol,
            decimals=order.decimals, trait=order.trait, listed=order.listed, spam=order.spam,
            confidence=order.confidence,
        )  # fmt: skip
        if order.price_usd is not None:
            token = _with_price(token, order.price_usd)
        self._world.deploy(token)
        return as_json({"address": token.address, "chainId": token.chain_id}, 201)

    def _chain(self, name: object) -> SimChain:
        chain = self._world.find_chain(name)
        if chain is None:
            raise ConfigError(f"chain {name!r} is not simulated: use one of {', '.join(self._world.chains)}")
        return chain


def _with_price(token: SimToken, price: Decimal) -> SimToken:
    parts = price.as_tuple()
    if not price.is_finite() or price <= 0 or not isinstance(parts.exponent, int):
        raise ConfigError(f"price_usd must be a positive number, not {price}")
    digits = int("".join(map(str, parts.digits)))
    return msgspec.structs.replace(token, family=token.address, digits=digits, power=parts.exponent)


def _token(chain: SimChain, name: str) -> bytes:
    key = COIN if name == "native" else bytes.fromhex(parse_address(name, what="token")[2:])
    if chain.universe.get(key) is None:
        raise ConfigError(f"{name} is no token on {chain.chain.slug}: put it there with POST /sim/tokens first")
    return key


def _amount(raw: int | str) -> int:
    try:
        value = int(raw, 0) if isinstance(raw, str) else raw
    except ValueError:
        value = -1
    if not 0 <= value <= UINT256_MAX:
        raise ConfigError(f"balance {raw!r} is not a uint256")
    return value
