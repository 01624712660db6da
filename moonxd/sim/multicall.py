"""Multicall3 and the tokens, as an eth_call sees them.

A reader sends the same calldata for every wallet but for the wallet itself. So a call is compiled once, with the
wallet cut out, into hex fragments and the balances to put between them; the next wallet costs one join.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from . import abi
from .abi import BadCalldata, Calldata
from .holdings import ZERO_WORD, Wallets
from .universe import COIN, SimToken, Trait, Universe

MULTICALL3 = bytes.fromhex("ca11bde05977b3631167028862be2a173976ca11")

#: Gas of one inner call; what is left of the cap decides whether a batch survives a poisonous token.
_CALL_GAS = 3_000
_MAX_PLANS = 512
#: Fragments of a plan that are not balances but facts of the block.
HEIGHT, TIMESTAMP = b"height", b"timestamp"
_Slot = bytes
#: How a call that asks for somebody's balance begins, up to the wallet.
_BALANCE_CALLS = (abi.BALANCE_OF + bytes(12), abi.GET_ETH_BALANCE + bytes(12))


class CallFailed(Exception):
    """The whole eth_call failed; the words and codes are geth's. `data` is what the contract said when it reverted."""

    def __init__(self, message: str, data: bytes = b"") -> None:
        super().__init__(message)
        self.data = data


class Plan(NamedTuple):
    """The answer with holes: hex, slot, hex, slot, ..., hex.

    A slot is a token's key (the balance of the call's wallet), a wallet and a key (somebody else's balance), HEIGHT or
    TIMESTAMP. `plain` says that only the first kind occurs.
    """

    fragments: list[str]
    slots: list[_Slot]
    plain: bool

    def render(self, wallets: Wallets, wallet: bytes, height: int, timestamp: int) -> str:
        """The return data as 0x hex."""
        words = wallets.get(wallet).words
        if not self.plain:
            others = {
                slot: wallets.get(slot[:20]).words.get(slot[20:], ZERO_WORD) for slot in self.slots if len(slot) == 40
            }
            words = {**words, **others, HEIGHT: format(height, "064x"), TIMESTAMP: format(timestamp, "064x")}
        parts = self.fragments.copy()
        parts[1::2] = [words.get(slot, ZERO_WORD) for slot in self.slots]
        return "".join(parts)


class _Answer(NamedTuple):
    """One inner call's outcome: return data (whole words), or a slot that holds one word of it."""

    success: bool
    data: bytes = b""
    slot: _Slot | None = None


_FAILED = _Answer(success=False)


class Contracts:
    """The contracts of one chain. `gas_cap`, `poison` and `reverting` are knobs (token keys); call `reset` after."""

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self._plans: dict[tuple[bytes, bytes], Plan] = {}
        self.gas_cap = 50_000_000
        self.poison: Collection[bytes] = ()
        self.reverting: Collection[bytes] = ()

    def reset(self) -> None:
        """Forget compiled calls, because a contract or a limit changed."""
        self._plans.clear()

    def has_code(self, address: bytes) -> bool:
        return address == MULTICALL3 or (address != COIN and self._universe.get(address) is not None)

    def compile(self, to: bytes, data: bytes, wallet: bytes) -> Plan:
        """The plan of a call for `wallet` (see `wallet_of`). Raises CallFailed."""
        shape = data
        for ask in _BALANCE_CALLS:
            shape = shape.replace(ask + wallet, ask + abi.ANYONE)
        plan = self._plans.get((to, shape))
        if plan is None:
            plan = self._compile(to, shape)
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            self._plans[to, shape] = plan
        return plan

    def _compile(self, to: bytes, data: bytes) -> Plan:
        if to != MULTICALL3:
            if data[:4] == abi.BALANCE_OF and self._is_poison(to):
                raise CallFailed("invalid opcode: INVALID")
            return _single(self._token_call(to, data, self.gas_cap)[0])
        try:
            return self._multicall(data[:4], Calldata(data[4:]))
        except BadCalldata:
            raise CallFailed("execution reverted") from None

    def _multicall(self, selector: bytes, args: Calldata) -> Plan:
        if selector == abi.AGGREGATE3:
            calls = [
                (args.address(at), args.number(at + 32) != 0, args.blob(at + args.number(at + 64)))
                for at in args.places(args.number(0))
            ]
            return _results(self._run(calls), [abi.word(32)])
        if selector in (abi.TRY_AGGREGATE, abi.TRY_BLOCK_AND_AGGREGATE):
            lenient = args.number(0) == 0
            pairs = [(target, lenient, data) for target, data in _pairs(args, args.number(32))]
            head: list[bytes] = [abi.word(32)]
            if selector == abi.TRY_BLOCK_AND_AGGREGATE:
                head = [HEIGHT, abi.word(0), abi.word(96)]
            return _results(self._run(pairs), head)
        if selector == abi.AGGREGATE:
            return _data_only(self._run([(target, False, data) for target, data in _pairs(args, args.number(0))]))
        return _single(self._own_function(selector, args))

    def _own_function(self, selector: bytes, args: Calldata) -> _Answer:
        if selector == abi.GET_ETH_BALANCE:
            return _balance(COIN, args.address(0))
        if selector == abi.GET_BLOCK_NUMBER:
            return _Answer(True, slot=HEIGHT)
        if selector == abi.GET_TIMESTAMP:
            return _Answer(True, slot=TIMESTAMP)
        if selector == abi.GET_CHAIN_ID:
            return _Answer(True, abi.word(self._universe.chain.id))
        if selector == abi.GET_BASEFEE:
            return _Answer(True, abi.word(10**9))
        return _FAILED

    def _run(self, calls: list[tuple[bytes, bool, bytes]]) -> list[_Answer]:
        gas, answers = self.gas_cap, []
        for target, may_fail, data in calls:
            answer, gas = self._inner_call(target, data, gas)
            if not answer.success and not may_fail:
                raise CallFailed("execution reverted", abi.revert("Multicall3: call failed"))
            answers.append(answer)
        return answers

    def _inner_call(self, target: bytes, data: bytes, gas: int) -> tuple[_Answer, int]:
        if target != MULTICALL3:
            return self._token_call(target, data, gas)
        try:
            return self._own_function(data[:4], Calldata(data[4:])), _spend(gas, _CALL_GAS)
        except BadCalldata:
            return _FAILED, _spend(gas, _CALL_GAS)

    def _token_call(self, target: bytes, data: bytes, gas: int) -> tuple[_Answer, int]:
        if data[:4] == abi.BALANCE_OF and self._is_poison(target):
            # INVALID takes all the gas it was given, and a contract can give at most 63/64 of its own.
            return _FAILED, _spend(gas, gas - gas // 64)
        gas = _spend(gas, _CALL_GAS)
        token = None if target == COIN else self._universe.get(target)
        if token is None:
            return _Answer(True), gas
        if data[:4] == abi.BALANCE_OF:
            if target in self.reverting or token.trait is Trait.REVERTING or len(data) < 36:
                return _FAILED, gas
            return _balance(target, data[16:36]), gas
        return _metadata(token, data[:4]), gas

    def _is_poison(self, target: bytes) -> bool:
        token = self._universe.get(target)
        return target in self.poison or (token is not None and token.trait is Trait.POISON)


def _pairs(args: Calldata, at: int) -> list[tuple[bytes, bytes]]:
    """The (address target, bytes callData) tuples of the array at `at`."""
    return [(args.address(place), args.blob(place + args.number(place + 32))) for place in args.places(at)]


def _balance(token: bytes, wallet: bytes) -> _Answer:
    return _Answer(True, slot=token if wallet == abi.ANYONE else wallet + token)


def _spend(gas: int, amount: int) -> int:
    if amount > gas or gas <= 0:
        raise CallFailed("out of gas")
    return gas - amount


def _metadata(token: SimToken, selector: bytes) -> _Answer:
    if selector == abi.DECIMALS:
        if token.trait is Trait.MUTE:
            return _FAILED
        return _Answer(True, abi.word(2**255 if token.trait is Trait.ABSURD else token.decimals))
    as_text = abi.bytes32 if token.trait is Trait.BYTES32 else abi.text
    if selector == abi.SYMBOL:
        return _Answer(True, as_text(token.symbol))
    if selector == abi.NAME:
        return _Answer(True, as_text(token.name))
    if selector == abi.TOTAL_SUPPLY:
        return _Answer(True, abi.word(token.unit * 10**9))
    return _FAILED


def wallet_of(data: bytes) -> bytes:
    """The wallet that a call is about: the argument of its first balance function; ANYONE when it has none."""
    for ask in _BALANCE_CALLS:
        at = data.find(ask)
        if at >= 0 and len(data) >= at + 36:
            return data[at + 16 : at + 36]
    return abi.ANYONE


def _single(answer: _Answer) -> Plan:
    if not answer.success:
        raise CallFailed("execution reverted")
    return _assemble([answer.data if answer.slot is None else answer.slot])


def _results(answers: list[_Answer], head: list[bytes]) -> Plan:
    """`head`, then an array of (bool success, bytes returnData)."""
    pieces = [*head, abi.word(len(answers))]
    sizes = [96 + (32 if a.slot is not None else len(abi.padded(a.data))) for a in answers]
    pieces += _offsets(sizes)
    for answer in answers:
        pieces += [abi.word(answer.success) + abi.word(64), *_blob(answer)]
    return _assemble(pieces)


def _data_only(answers: list[_Answer]) -> Plan:
    """(uint256 blockNumber, bytes[] returnData), as the oldest aggregate function answers."""
    pieces = [HEIGHT, abi.word(64), abi.word(len(answers))]
    pieces += _offsets([32 + (32 if a.slot is not None else len(abi.padded(a.data))) for a in answers])
    for answer in answers:
        pieces += _blob(answer)
    return _assemble(pieces)


def _offsets(sizes: list[int]) -> list[bytes]:
    place, offsets = 32 * len(sizes), []
    for size in sizes:
        offsets.append(abi.word(place))
        place += size
    return offsets


def _blob(answer: _Answer) -> list[bytes]:
    if answer.slot is not None:
        return [abi.word(32), answer.slot]
    return [abi.word(len(answer.data)) + abi.padded(answer.data)]


def _assemble(pieces: list[bytes]) -> Plan:
    fragments: list[str] = []
    slots: list[_Slot] = []
    constant = b""
    for piece in pieces:
        # Everything but a slot is whole words, so the length tells which it is.
        if len(piece) % 32 == 0:
            constant += piece
        else:
            fragments += [constant.hex(), ""]
            slots.append(piece)
            constant = b""
    fragments.append(constant.hex())
    fragments[0] = "0x" + fragments[0]
    return Plan(fragments, slots, all(len(slot) == 20 for slot in slots))
