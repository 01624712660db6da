"""The partition of a key: Kafka's own test vectors, and every key as another client has it."""

import pytest
from aiokafka import partitioner
from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain.partition import murmur2, partition_of

#: From the tests of Kafka's Java client, as its signed numbers.
JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("key", JAVA)
def test_javas_own_vectors(key: bytes) -> None:
    assert murmur2(key) == JAVA[key] & 0xFFFFFFFF


@given(st.binary(max_size=40))
def test_the_same_as_aiokafkas(key: bytes) -> None:
    assert murmur2(key) == partitioner.murmur2(key)


@given(st.text(max_size=60), st.integers(1, 64))
def test_always_one_of_the_partitions(key: str, count: int) -> None:
    assert 0 <= partition_of(key, count) < count
