"""The order of one wallet's events on one topic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

from .facts import Record
from .findings import Finding


def judge_wallet(key: str, records: Sequence[Record], begins: Mapping[tuple[str, int], int]) -> Iterator[Finding]:
    """Per partition, events that are new there have growing sequences.

    `begins`: the sequence of the oldest record of each partition that has lost its beginning. What is older and stands
    behind newer ones was replayed.
    """
    by_partition: dict[int, list[Record]] = {}
    for record in records:
        by_partition.setdefault(record.partition, []).append(record)
    for partition, found in by_partition.items():
        seen: set[UUID] = set()
        highest: Record | None = None
        for record in sorted(found, key=lambda one: one.offset):
            is_repeated = record.id in seen or record.sequence < begins.get((record.topic, partition), 0)
            seen.add(record.id)
            if is_repeated:
                continue
            if highest is not None and record.sequence <= highest.sequence:
                yield Finding("wrong-order", str(record.id), _said(record, highest), key)
            else:
                highest = record


def _said(record: Record, highest: Record) -> str:
    return (
        f"{record.type} with sequence {record.sequence} is at offset {record.offset} of {record.topic}/"
        f"{record.partition}, behind {highest.type} with sequence {highest.sequence} of the same wallet"
    )
