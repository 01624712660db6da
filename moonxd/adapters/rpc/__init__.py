"""How endpoints are spoken to: a keep-alive HTTP transport on trio streams and JSON-RPC on top of it."""

from .endpoint import Endpoint
from .jsonrpc import Call, Observer, RpcClient
from .transport import Transport, open_transport

__all__ = ["Call", "Endpoint", "Observer", "RpcClient", "Transport", "open_transport"]
