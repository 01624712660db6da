"""Which path leads where, and the faults on the way."""

from __future__ import annotations

import re
from collections.abc import Callable

import trio

from . import alchemy, bridges, llama, markets, swaps
from .admin import Admin
from .http import NoAnswer, Request
from .knobs import FINE, Fate, Upstream
from .reply import Reply, as_json
from .rpc import NODE_METHODS, Endpoint
from .world import World

Answer = Callable[[World, Request, "re.Match[str]", float], Reply]

#: (pattern of the path, upstream, answer). Version prefixes are optional where clients disagree about them.
ROUTES: tuple[tuple[str, str, Answer], ...] = (
    (r"/llama/coins/prices/current/(.*)", "llama", lambda w, _r, m, f: llama.prices(w, m[1], f)),
    (r"/llama/coins/block/([^/]+)/([^/]+)", "llama", lambda w, _r, m, _f: llama.block_at(w, m[1], m[2])),
    (r"/llama/api/v2/chains", "llama-stats", lambda w, _r, _m, _f: llama.chains(w)),
    (r"/llama/api/overview/dexs/([^/]+)", "llama-stats", lambda w, _r, m, _f: llama.dex_overview(w, m[1])),
    (
        r"/coingecko(?:/api/v3)?/simple/token_price/([^/]+)",
        "coingecko",
        lambda w, r, m, f: markets.coingecko(w, m[1], r.query, f),
    ),
    (
        r"/dexscreener(?:/latest)?/tokens/v1/([^/]+)/([^/]+)",
        "dexscreener",
        lambda w, _r, m, f: markets.dexscreener(w, m[1], m[2], f),
    ),
    (
        r"/dexscreener(?:/latest)?/dex/tokens/([^/]+)",
        "dexscreener",
        lambda w, _r, m, f: markets.dexscreener_anywhere(w, m[1], f),
    ),
    (r"/binance/api/v3/ticker/price", "binance", lambda w, r, _m, f: markets.binance(w, r.query, f)),
    (
        r"/prices/v1/([^/]+)/tokens/by-address",
        "alchemy-prices",
        lambda w, r, _m, f: markets.alchemy_prices(w, r.body, f),
    ),
    (r"/lifi(?:/v1)?/quote", "lifi", lambda w, r, _m, _f: bridges.lifi_quote(w, r.query)),
    (r"/lifi(?:/v1)?/chains", "lifi", lambda w, _r, _m, _f: bridges.lifi_chains(w)),
    (r"/relay/quote(?:/v2)?", "relay", lambda w, r, _m, _f: bridges.relay_quote(w, r.body)),
    (r"/relay/chains", "relay", lambda w, _r, _m, _f: bridges.relay_chains(w)),
    (
        r"/oneinch/fusion-plus/quoter/v1\.0/quote/receive",
        "oneinch",
        lambda w, r, _m, _f: swaps.oneinch_quote(w, r.query, r.authorization),
    ),
    (r"/across/api/suggested-fees", "across", lambda w, r, _m, _f: swaps.across_fees(w, r.query)),
    (r"/relay/chains/health", "relay", lambda w, r, _m, _f: bridges.relay_health(w, r.query)),
)


class Router:
    """Answers requests for the whole world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._admin = Admin(world)
        self._routes = [
            (re.compile(pattern + r"/?\Z"), world.upstreams[name], answer) for pattern, name, answer in ROUTES
        ]
        self._endpoints = {}
        for chain in world.chains.values():
            node = Endpoint(world, chain, chain.node, NODE_METHODS)
            token_api = Endpoint(world, chain, chain.alchemy, alchemy.ALCHEMY_METHODS)
            for name in (chain.chain.slug, str(chain.chain.id)):
                self._endpoints[f"/rpc/{name}"] = self._endpoints[f"/ws/{name}"] = node
                self._endpoints[f"alchemy:{name}"] = token_api
            self._endpoints[f"alchemy:{chain.chain.alchemy}"] = token_api
        self._known: dict[bytes, Endpoint] = {}

    async def handle(self, request: Request) -> Reply:
        """Answer one request. Raises NoAnswer when the dice say so."""
        endpoint = self._known.get(request.target) or self.endpoint(request)
        if endpoint is not None:
            return await self._json_rpc(endpoint, request)
        path = request.path
        if path == "/sim" or path.startswith("/sim/"):
            return self._admin.handle(request)
        key = _alchemy_key(path)
        refused = alchemy.refusal(key) if key else None
        if refused is not None:
            return refused
        return await self._vendor(path, request)

    def endpoint(self, request: Request) -> Endpoint | None:
        """The JSON-RPC endpoint that the request's path names."""
        path = request.path.rstrip("/")
        endpoint = self._endpoints.get(path) or self._alchemy_endpoint(path)
        if endpoint is not None and len(self._known) < 1000:
            self._known[request.target] = endpoint
        return endpoint

    def _alchemy_endpoint(self, path: str) -> Endpoint | None:
        key = _alchemy_key(path)
        if not key or alchemy.refusal(key):
            return None
        names = (part for part in path.split("/") if part)
        return next((found for name in names if (found := self._endpoints.get(f"alchemy:{name}"))), None)

    async def _json_rpc(self, endpoint: Endpoint, request: Request) -> Reply:
        if request.method != "POST":
            return as_json({"error": "JSON-RPC is asked by POST"}, 405)
        exchange = endpoint.exchange(request.body)
        if exchange.fate is FINE:
            return exchange.reply
        return await suffer(exchange.fate, endpoint.upstream, exchange.reply)

    async def _vendor(self, path: str, request: Request) -> Reply:
        for pattern, upstream, answer in self._routes:
            match = pattern.match(path)
            if match:
                fate = upstream.fate()
                reply = answer(self._world, request, match, upstream.knobs.price_factor)
                return await suffer(fate, upstream, reply)
        return as_json({"error": "nothing is simulated at this path"}, 404)


def _alchemy_key(path: str) -> str | None:
    """The API key in .../v2/{key}, as Alchemy's URLs end."""
    match = re.search(r"/v2/([^/]+)/?\Z", path)
    return match[1] if match and not path.startswith(("/llama", "/relay", "/sim")) else None


async def suffer(fate: Fate, upstream: Upstream, reply: Reply) -> Reply:
    """Wait as long as the dice say, then give `reply` or the fault instead of it."""
    if fate.delay:
        await trio.sleep(fate.delay)
    knobs = upstream.knobs
    match fate.fault:
        case "" | "rpc_error":
            return reply
        case "hang" | "drop":
            raise NoAnswer(hang=fate.fault == "hang")
        case "error":
            return as_json({"error": "service unavailable"}, knobs.error_status)
        case "rate_limit":
            wait = b"" if knobs.retry_after_s is None else b"Retry-After: %d\r\n" % knobs.retry_after_s
            body = {"jsonrpc": "2.0", "id": None, "error": {"code": 429, "message": "Too many requests"}}
            return as_json(body, 429)._replace(headers=wait)
        case "oversize":
            return Reply(b'{"jsonrpc":"2.0","id":1,"result":"%b"}' % (b"0" * knobs.oversize_bytes))
        case _:
            return Reply(_malformed(knobs.malformed_kind, reply.body))


def _malformed(kind: str, body: bytes) -> bytes:
    if kind == "truncated":
        return body[: len(body) // 2]
    if kind == "wrong-shape":
        return b'{"jsonrpc":"2.0","id":1,"result":{"surprise":[null,true]},"coins":[1,2,3]}'
    return b"" if kind == "empty" else b"<html><body><h1>502 Bad Gateway</h1></body></html>"
