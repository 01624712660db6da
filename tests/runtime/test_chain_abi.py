"""The hand-written ABI against a full codec, and against bytes that are no ABI at all."""

from __future__ import annotations

import contextlib

import pytest
from eth_abi import decode, encode
from hypothesis import given
from hypothesis import strategies as st

from moonxd.adapters.chains.abi import (
    AbiError,
    Call,
    Result,
    address_call,
    decode_aggregate3,
    decode_decimals,
    decode_text,
    decode_uint,
    encode_aggregate3,
)
from moonxd.domain.keccak import keccak256
from moonxd.domain.text import clean_text, is_disguised

RESULTS = ["(bool,bytes)[]"]
calls = st.lists(st.tuples(st.binary(min_size=20, max_size=20), st.binary(max_size=100)), max_size=20)
results = st.lists(st.tuples(st.booleans(), st.binary(max_size=100)), max_size=20)


@given(calls)
def test_encoding_is_the_codecs(asked: list[tuple[bytes, bytes]]) -> None:
    theirs = encode(["(address,bool,bytes)[]"], [[("0x" + to.hex(), True, data) for to, data in asked]])
    assert encode_aggregate3([Call(to, data) for to, data in asked]) == "0x82ad56cb" + theirs.hex()


@given(results)
def test_decoding_undoes_the_codec(answers: list[tuple[bool, bytes]]) -> None:
    assert decode_aggregate3(encode(RESULTS, [answers]), len(answers)) == [Result(*answer) for answer in answers]


@given(results, st.data())
def test_mangled_answers_never_mislead(answers: list[tuple[bool, bytes]], data: st.DataObject) -> None:
    """What we accept, the codec reads the same way; everything else is an AbiError and nothing worse."""
    mangled = bytearray(encode(RESULTS, [answers]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mangled) - 1))
        mangled[at] = data.draw(st.integers(0, 255))
    del mangled[data.draw(st.integers(0, len(mangled))) :]
    try:
        ours = decode_aggregate3(bytes(mangled), len(answers))
    except AbiError:
        return
    with contextlib.suppress(Exception):
        # The codec also minds the padding, which carries nothing: only its answers count, not its refusals.
        (theirs,) = decode(RESULTS, bytes(mangled))
        assert ours == [Result(*answer) for answer in theirs]


@given(st.binary(max_size=300), st.integers(0, 10))
def test_noise_is_refused_or_bounded(noise: bytes, expected: int) -> None:
    with contextlib.suppress(AbiError):
        assert sum(len(one.data) for one in decode_aggregate3(noise, expected)) <= len(noise) * max(expected, 1)


def test_another_number_of_results_is_refused() -> None:
    answer = encode(RESULTS, [[(True, b"a")]])
    for expected in (0, 2):
        with pytest.raises(AbiError):
            decode_aggregate3(answer, expected)


@pytest.mark.parametrize(
    ("signature", "selector"),
    [
        ("aggregate3((address,bool,bytes)[])", "82ad56cb"),
        ("getEthBalance(address)", "4d2301cc"),
        ("balanceOf(address)", "70a08231"),
        ("symbol()", "95d89b41"),
        ("name()", "06fdde03"),
        ("decimals()", "313ce567"),
    ],
)
def test_selectors_are_their_hashes(signature: str, selector: str) -> None:
    from moonxd.adapters.chains import abi

    assert keccak256(signature.encode())[:4].hex() == selector
    known = {abi.AGGREGATE3, abi.GET_ETH_BALANCE, abi.BALANCE_OF, abi.SYMBOL, abi.NAME, abi.DECIMALS}
    assert bytes.fromhex(selector) in known


def test_an_address_argument() -> None:
    address = "0x" + "ab" * 20
    assert address_call(b"1234", address) == b"1234" + encode(["address"], [address])


@given(st.text(max_size=200))
def test_strings(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    assert (decode_text(encode(["string"], [text])) or "") == text


@given(st.binary(max_size=200))
def test_noise_as_text_is_text_or_nothing(noise: bytes) -> None:
    text = decode_text(noise)
    assert text is None or len(text) <= len(noise)
    cleaned = clean_text(text, 32)
    assert cleaned is None or (0 < len(cleaned) <= 32 and cleaned.isprintable())


def test_text_forms() -> None:
    assert decode_text(b"MKR".ljust(32, b"\0")) == "MKR"
    assert decode_text(bytes(32)) is None
    assert decode_text(b"") is None
    assert decode_text(encode(["string"], [""])) is None
    assert decode_text(encode(["bytes"], [b"\xff\xfe"])) == "\ufffd\ufffd"
    assert decode_text(b"\xff" * 64) is None


def test_numbers() -> None:
    assert decode_uint(b"\xff" * 32) == 2**256 - 1
    assert decode_uint(b"\xff" * 31) is None
    assert decode_uint((7).to_bytes(32, "big") + b"more") == 7
    assert decode_decimals((0).to_bytes(32, "big")) == 0
    assert decode_decimals((255).to_bytes(32, "big")) == 255
    assert decode_decimals((256).to_bytes(32, "big")) is None
    assert decode_decimals(b"") is None


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("USDC", "USDC"),
        (" U S\tD\n", "U S D"),
        ("US\u200bDC", "USDC"),
        ("\u202eCDSU", "CDSU"),
        ("a\x00b\x1b[31m", "ab[31m"),
        ("\u2060\ufeff", None),
        ("", None),
        (None, None),
        ("x" * 50, "x" * 32),
        ("é\u0301 漢字 🚀", "é\u0301 漢字 🚀"),
    ],
)
def test_cleaning(given_text: str | None, shown: str | None) -> None:
    assert clean_text(given_text, 32) == shown


def test_disguise() -> None:
    assert is_disguised("US\u200bDC")
    assert is_disguised("\u202eCDSU")
    assert not is_disguised("Ünï ¢öde 漢字 🚀")
    assert not is_disguised("MKR\0\0")
    assert not is_disguised(None)
