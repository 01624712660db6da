"""Addresses: lower case inside, EIP-55 outside, and every refusal says what is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain.address import checksum, parse_address
from moonxd.domain.errors import Permanent
from moonxd.domain.keccak import keccak256

# The test vectors of EIP-55 itself.
EIP55 = (
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
)


def test_keccak_is_the_original_not_sha3() -> None:
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak256(b"abc").hex() == "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"
    # One full block and one byte more: the padding's two borders.
    assert keccak256(b"a" * 135).hex() == "34367dc248bbd832f4e3e69dfaac2f92638bd0bbd18f2912ba4ef454919cf446"
    assert keccak256(b"a" * 136).hex() == "a6c4d403279fe3e0af03729caada8374b5ca54d8065329a3ebcaeb4b60aa386e"


@pytest.mark.parametrize("address", EIP55)
def test_a_checksummed_address_is_accepted_and_restored(address: str) -> None:
    assert parse_address(address) == address.lower()
    assert checksum(address.lower()) == address
    assert parse_address("0x" + address[2:].upper()) == address.lower()


@given(st.binary(min_size=20, max_size=20))
def test_checksum_round_trips(raw: bytes) -> None:
    lower = "0x" + raw.hex()
    assert parse_address(checksum(lower)) == parse_address(lower) == lower


@pytest.mark.parametrize(
    ("given_value", "says"),
    [
        (None, "must be text"),
        (7, "must be text"),
        ("", "does not start with 0x"),
        ("vitalik.eth", "does not start with 0x"),
        ("0x12", "has 2 hex digits"),
        ("0x" + "g" * 40, "is not hex"),
        ("0x" + "1" * 41, "has 41 hex digits"),
        ("0x" + "\u0661" * 40, "is not hex"),
        ("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Beaed", "checksum"),
        ("0x" + "1" * 40 + "\n", "is not hex"),
    ],
)
def test_a_refusal_says_what_is_wrong(given_value: object, says: str) -> None:
    with pytest.raises(Permanent, match=says):
        parse_address(given_value)
