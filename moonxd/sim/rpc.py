"""JSON-RPC of one chain: the plain node's methods, and Alchemy's on top at its endpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from . import blocks
from .knobs import Fate, Upstream
from .multicall import CallFailed, wallet_of
from .reply import Reply
from .world import SimChain, World

_MAX_BATCH = 1000


class RpcError(Exception):
    """A JSON-RPC error object; `status` is the HTTP status that Alchemy sends with it."""

    def __init__(self, code: int, message: str, *, data: str | None = None, status: int = 200) -> None:
        super().__init__(message)
        self.code = code
        self.data = data
        self.status = status

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"code": self.code, "message": str(self)}
        return body if self.data is None else {**body, "data": self.data}


class Call(msgspec.Struct):
    """One request object."""

    method: str
    id: msgspec.Raw = msgspec.Raw(b"null")
    params: Any = msgspec.field(default_factory=list)


class Exchange(NamedTuple):
    """A body answered: what the dice say, and the reply if they say nothing worse."""

    fate: Fate
    reply: Reply


_single = msgspec.json.Decoder(Call)
_batch = msgspec.json.Decoder(list[msgspec.Raw])
Method = Callable[["Endpoint", list[Any]], Any]


class Endpoint:
    """One URL. Methods return a msgspec.Raw of JSON, or something to encode."""

    def __init__(self, world: World, chain: SimChain, upstream: Upstream, methods: dict[str, Method]) -> None:
        self.world = world
        self.chain = chain
        self.upstream = upstream
        self.has_vendor_methods = upstream is chain.alchemy
        self._methods = methods

    def newest(self) -> int:
        """The newest block this node knows, which may be an old one."""
        knobs = self.chain.node.knobs
        height = self.chain.head.height(self.world.now())
        return height - knobs.lag_blocks if knobs.lag_blocks and self.chain.node.chance(knobs.lag_rate) else height

    def exchange(self, body: bytes) -> Exchange:
        """Answer one HTTP body, which may be a batch."""
        try:
            calls = [_single.decode(raw) for raw in _batch.decode(body)] if _is_batch(body) else [_single.decode(body)]
        except msgspec.ValidationError:
            return self._refused(RpcError(-32600, "invalid request", status=400))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._refused(RpcError(-32700, "parse error", status=400))
        methods = tuple(call.method for call in calls)
        self.upstream.methods.update(methods)
        fate = self.upstream.fate(methods)
        if fate.fault not in ("", "rpc_error", "malformed"):
            return Exchange(fate, Reply())
        broken = fate.fault == "rpc_error"
        if not _is_batch(body):
            text, status = self._answer(calls[0], broken=broken)
            return Exchange(fate, Reply(text, status))
        if not 0 < len(calls) <= _MAX_BATCH:
            return self._refused(RpcError(-32600, f"a batch holds 1 to {_MAX_BATCH} requests", status=400))
        answers = (self._answer(call, broken=broken, batched=True)[0] for call in calls)
        return Exchange(fate, Reply(b"[%b]" % b",".join(answers)))

    def _refused(self, error: RpcError) -> Exchange:
        return Exchange(self.upstream.fate(), Reply(*self._error(b"null", error)))

    def _answer(self, call: Call, *, broken: bool, batched: bool = False) -> tuple[bytes, int]:
        identity = bytes(call.id)
        try:
            if broken:
                knobs = self.upstream.knobs
                raise RpcError(knobs.rpc_error_code, knobs.rpc_error_message)
            result = self._result(call, batched)
        except RpcError as error:
            return self._error(identity, error)
        except (LookupError, TypeError, ValueError, AttributeError):
            # Parameters of a wrong shape trip over whatever reads them; a node says no more than this either.
            return self._error(identity, RpcError(-32602, "invalid params", status=400))
        encoded = result if isinstance(result, bytes) else msgspec.json.encode(result)
        return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (identity, encoded), 200

    def _result(self, call: Call, batched: bool) -> Any:
        method = self._methods.get(call.method)
        if method is None:
            raise RpcError(-32601, f"the method {call.method} does not exist/is not available", status=400)
        if batched and call.method.startswith("alchemy_"):
            raise RpcError(-32600, f"{call.method} is not supported in batch requests")
        if not isinstance(call.params, list):
            raise RpcError(-32602, "params must be an array", status=400)
        return method(self, call.params)

    def _error(self, identity: bytes, error: RpcError) -> tuple[bytes, int]:
        text = b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (identity, msgspec.json.encode(error.body()))
        # Plain nodes answer errors with 200; Alchemy with a status that fits.
        return text, error.status if self.has_vendor_methods else 200


def _is_batch(body: bytes) -> bool:
    return body[:1] == b"[" or body.lstrip()[:1] == b"["


def wallet_bytes(address: Any) -> bytes:
    """20 bytes of a 0x address. Raises RpcError as nodes do."""
    if not isinstance(address, str) or len(address) != 42 or address[:2] != "0x":
        raise RpcError(
            -32602, "invalid argument: hex string has a wrong length, want 40 for common.Address", status=400
        )
    return bytes.fromhex(address[2:])


def pinned(node: Endpoint, tag: object) -> int:
    """The height a request is about. Raises RpcError when this node has not seen it yet."""
    newest = node.newest()
    height = blocks.resolve(tag, newest)
    if height is None:
        raise RpcError(-32602, "invalid argument: not a block number or tag", status=400)
    if height > newest:
        raise RpcError(-32000, "header not found")
    return height


def chain_id(node: Endpoint, _params: list[Any]) -> str:
    wrong = node.chain.node.knobs.wrong_chain_id
    return hex(node.chain.chain.id if wrong is None else wrong)


def net_version(node: Endpoint, params: list[Any]) -> str:
    return str(int(chain_id(node, params), 16))


def block_number(node: Endpoint, _params: list[Any]) -> str:
    return hex(node.newest())


def get_block(node: Endpoint, params: list[Any]) -> Any:
    newest = node.newest()
    height = blocks.resolve(params[0], newest)
    if height is None:
        raise RpcError(-32602, "invalid argument: not a block number or tag", status=400)
    return blocks.block(node.chain, height) if 0 <= height <= newest else None


def get_balance(node: Endpoint, params: list[Any]) -> str:
    wallet = wallet_bytes(params[0])
    pinned(node, params[1] if len(params) > 1 else "latest")
    return hex(node.chain.wallets.get(wallet).raw.get(bytes(20), 0))


def get_code(node: Endpoint, params: list[Any]) -> str:
    return "0x60806040" if node.chain.contracts.has_code(wallet_bytes(params[0])) else "0x"


def eth_call(node: Endpoint, params: list[Any]) -> bytes:
    call = params[0]
    to = wallet_bytes(call["to"])
    data = bytes.fromhex((call.get("input") or call.get("data") or "0x")[2:])
    height = pinned(node, params[1] if len(params) > 1 else "latest")
    upstream = node.chain.node
    if upstream.chance(upstream.knobs.revert_rate):
        raise RpcError(3, "execution reverted", data="0x")
    wallet = wallet_of(data)
    try:
        plan = node.chain.contracts.compile(to, data, wallet)
    except CallFailed as error:
        if error.data:
            raise RpcError(3, str(error), data="0x" + error.data.hex()) from None
        raise RpcError(-32000, str(error)) from None
    answer = plan.render(node.chain.wallets, wallet, height, int(node.chain.head.timestamp(height)))
    return b'"%b"' % answer.encode()


def gas_price(node: Endpoint, _params: list[Any]) -> str:
    return hex(blocks.base_fee(node.chain, node.newest()) + 10**8)


def fee_history(node: Endpoint, params: list[Any]) -> dict[str, Any]:
    asked = params[0]
    count = max(1, min(1024, int(asked, 16) if isinstance(asked, str) else int(asked)))
    newest = pinned(node, params[1])
    percentiles = params[2] if len(params) > 2 and params[2] else []
    tip = 0 if node.chain.chain.id == 42161 else 10**8
    heights = range(newest - count + 1, newest + 2)
    history: dict[str, Any] = {
        "oldestBlock": hex(heights[0]),
        "baseFeePerGas": [hex(blocks.base_fee(node.chain, height)) for height in heights],
        "gasUsedRatio": [0.5] * count,
    }
    return {**history, "reward": [[hex(tip)] * len(percentiles)] * count} if percentiles else history


def client_version(_node: Endpoint, _params: list[Any]) -> str:
    return "moonxd-simulator/1.0"


def syncing(_node: Endpoint, _params: list[Any]) -> bool:
    return False


def subscription_over_http(_node: Endpoint, _params: list[Any]) -> Any:
    raise RpcError(-32000, "notifications not supported")


NODE_METHODS: dict[str, Method] = {
    "eth_chainId": chain_id,
    "net_version": net_version,
    "eth_blockNumber": block_number,
    "eth_getBlockByNumber": get_block,
    "eth_getBalance": get_balance,
    "eth_getCode": get_code,
    "eth_call": eth_call,
    "eth_gasPrice": gas_price,
    "eth_feeHistory": fee_history,
    "eth_syncing": syncing,
    "eth_subscribe": subscription_over_http,
    "eth_unsubscribe": subscription_over_http,
    "web3_clientVersion": client_version,
}
