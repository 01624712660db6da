"""Many contract reads in few requests: aggregate3 chunks that halve around whatever breaks them.

One contract that burns its gas can make a whole eth_call fail, and can starve the healthy ones called after it. So a
failure is believed only of a call made alone: chunks that fail, and the failed calls of chunks that do not, are split
until each call has either answered or failed by itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from ..rpc.errors import Garbage, RpcError, TooLarge
from .abi import MULTICALL3, AbiError, Call, Result, decode_aggregate3, encode_aggregate3
from .reading import Caller, together

#: Node texts for "this block is not known here": a load-balanced neighbour that lags behind the one asked before.
_LAGGING = re.compile(
    r"header not found|block not found|unknown block|missing trie node|not processed yet|block height is"
    r"|blockoutofrange|block is not available|(cannot|could not) find block|resource not found|header for hash"
    r"|block number is in the future|after last accepted",
    re.IGNORECASE,
)
#: Node texts for "this call is too much": split it.
_TOO_HEAVY = re.compile(
    r"out ?of ?gas|gas limit|gas required|gas cap|execution aborted|execution timeout|revert|opcode"
    r"|too large|too big|exceeds? (the )?(max|limit)|response size",
    re.IGNORECASE,
)
_FAILED_ALONE = "it reverts or burns its gas"


def is_lagging(error: RpcError) -> bool:
    """The node does not know the block that another one told us."""
    return bool(_LAGGING.search(error.text))


def is_too_heavy(error: Exception) -> bool:
    """A smaller request may succeed."""
    if isinstance(error, RpcError):
        return error.code == 3 or bool(_TOO_HEAVY.search(error.text))
    return isinstance(error, TooLarge)


async def aggregate(client: Caller, essential: Call, calls: Sequence[Call], block: str, *, chunk: int) -> Reading:
    """The results of `calls`, in order, read at `block` (0x hex) in requests of at most `chunk` calls, all at once.

    A call that fails even alone has success False and, as data, the reason in plain words. `essential` is a call that
    cannot fail on a sound endpoint: when it does, the endpoint is to blame, and no contract. Raises what the client
    raises when the endpoint fails.
    """
    everything = [essential, *calls]
    results: list[Result | None] = [None] * len(everything)
    reader = _Reader(client, everything, block, results)
    await reader.read_all(_split(range(len(everything)), max(chunk, 1)))
    first, *rest = (result or Result(False, _FAILED_ALONE.encode()) for result in results)
    if not first.success or len(first.data) < 32:
        raise Garbage(f"{client.host}: answered garbage to eth_call: a call that cannot fail did")
    return Reading(first, rest)


class Reading(NamedTuple):
    """The essential call's result, and the others'."""

    essential: Result
    results: list[Result]


def _split(indices: Sequence[int], size: int) -> list[Sequence[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


class _Reader:
    """One aggregate's work: index 0 is the essential call."""

    def __init__(self, client: Caller, calls: Sequence[Call], block: str, results: list[Result | None]) -> None:
        self._client = client
        self._calls = calls
        self._block = block
        self._results = results

    async def read_all(self, parts: Sequence[Sequence[int]]) -> None:
        """Every part at once; the first failure of the endpoint cancels the others and is raised by itself."""
        await together(*(partial(self._read, part) for part in parts))

    async def _read(self, part: Sequence[int]) -> None:
        try:
            answers = await self._request(part)
        except (RpcError, TooLarge) as error:
            if not is_too_heavy(error) or tuple(part) == (0,):
                raise
            if len(part) == 1:
                reason = error.text if isinstance(error, RpcError) else "its answer is too large"
                self._results[part[0]] = Result(False, reason.encode())
            else:
                await self._read_smaller(part, (len(part) + 1) // 2)
            return
        failed = [index for index, answer in zip(part, answers, strict=True) if not answer.success]
        for index, answer in zip(part, answers, strict=True):
            if answer.success:
                self._results[index] = answer
        if failed and len(part) > 1:
            # With fewer neighbours the innocent ones among them get their gas. All failed: only halves can tell.
            await self._read_smaller(failed, len(failed) if len(failed) < len(part) else (len(failed) + 1) // 2)

    async def _read_smaller(self, part: Sequence[int], size: int) -> None:
        # One after the other and the essential call's side first: an endpoint that fails at any size is found out
        # after a handful of requests, not after one for every token.
        for smaller in _split(part, size):
            await self._read(smaller)

    def _params(self, part: Sequence[int]) -> list[Any]:
        data = encode_aggregate3([self._calls[index] for index in part])
        return [{"to": MULTICALL3, "data": data}, self._block]

    async def _request(self, part: Sequence[int]) -> list[Result]:
        host = self._client.host
        answer = await self._client.call("eth_call", self._params(part), str)
        try:
            data = bytes.fromhex(answer.removeprefix("0x"))
        except ValueError as error:
            raise Garbage(f"{host}: answered garbage to eth_call: not hex") from error
        if not data:
            raise Garbage(f"{host}: nothing at {MULTICALL3} on this chain: the endpoint serves no Multicall3")
        try:
            return decode_aggregate3(data, len(part))
        except AbiError as error:
            raise Garbage(f"{host}: answered garbage to eth_call: {error}") from error
