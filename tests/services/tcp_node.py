"""A JSON-RPC node on a real socket whose answers are Python functions: for nodes that lag, lie or refuse."""

from __future__ import annotations

from typing import Any

import msgspec
from eth_abi import decode, encode

from tests.services.tcp import Peer, http

#: What a method answers: a value, a function of its parameters, or a whole HTTP answer as bytes.
Answer = Any
BALANCE_OF = bytes.fromhex("70a08231")


class RpcFault(Exception):
    """Raised by an answer's function: a JSON-RPC error object."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class FakeNode:
    """`answers` by method; `asked` collects (method, parameters)."""

    def __init__(self, chain_id: int, **answers: Answer) -> None:
        self.height = 100
        self.balances: dict[str, int] = {}
        self.asked: list[tuple[str, list[Any]]] = []
        self.answers: dict[str, Answer] = {
            "eth_chainId": hex(chain_id),
            "eth_blockNumber": lambda _: hex(self.height),
            "eth_getBlockByNumber": lambda _: {"number": hex(self.height), "hash": "0x00", "transactions": []},
            "eth_getBalance": "0x1",
            "eth_call": self.aggregate3,
            **answers,
        }

    def methods(self) -> list[str]:
        return [method for method, _ in self.asked]

    def aggregate3(self, params: list[Any]) -> str:
        """Multicall3 with the coin's balance 1 and the tokens of `balances`."""
        (calls,) = decode(["(address,bool,bytes)[]"], bytes.fromhex(params[0]["data"][10:]))
        rows = [(True, self._inner(to, data)) for to, _, data in calls]
        return "0x" + encode(["(bool,bytes)[]"], [rows]).hex()

    def _inner(self, to: str, data: bytes) -> bytes:
        if data[:4] == BALANCE_OF:
            return self.balances[to].to_bytes(32, "big") if to in self.balances else b""
        return (1).to_bytes(32, "big")

    async def __call__(self, peer: Peer) -> None:
        while True:
            question = await peer.question()
            method, params = question["method"], question["params"]
            self.asked.append((method, params))
            answer = self.answers[method]
            try:
                value = answer(params) if callable(answer) else answer
            except RpcFault as fault:
                error = {"code": fault.code, "message": str(fault)}
                await peer.send(http(msgspec.json.encode({"id": question["id"], "error": error})))
                continue
            if isinstance(value, bytes):
                await peer.send(value)
            else:
                await peer.answer(value, number=question["id"])
