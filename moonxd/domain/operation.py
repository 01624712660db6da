"""Identity of a sync operation: the same job delivered twice is the same operation, a re-added id is a new one."""

from __future__ import annotations

from uuid import UUID, uuid5

#: Fixed for ever: operation and event ids derive from it.
NAMESPACE = UUID("5d1f5f2a-7a52-5f0e-9d34-8c0f9f2f6a11")


def operation_id(queue: str, job_id: str, timestamp_ms: int) -> UUID:
    """Ids alone come back (a trimmed custom id may be added again, automatic ids restart on a new Redis), so the
    job's creation time is part of the name."""
    return uuid5(NAMESPACE, f"{queue}\0{job_id}\0{timestamp_ms}")


def member_id(job_id: str, user_id: str, wallet: str) -> str:
    """The id under which one wallet of a job about many is an operation of its own."""
    return f"{job_id}/{user_id}/{wallet}"


def event_id(operation: UUID, event_type: str, discriminator: str = "") -> UUID:
    """Stable across redelivery; `discriminator` tells apart events that one operation may emit more than once."""
    return uuid5(operation, f"{event_type}\0{discriminator}")
