"""The live view: one sampler for all viewers, running only while somebody watches.

Viewers share one short ring of encoded deltas and each only remembers how far it got. One that fell off the ring's end
(it did not read for seconds) continues with a fresh snapshot, so a slow viewer costs no memory.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec
import trio

from ..api.schema import SECTIONS, Snapshot, difference

log = logging.getLogger("moonxd.control.feed")

#: Deltas a viewer may fall behind; at 4 Hz eight seconds.
_RING = 32
_HEARTBEAT = b": still here\n\n"


def frame(event: str, seq: int, body: object) -> bytes:
    """A server-sent event; JSON never contains a raw newline."""
    return b"event: %s\nid: %d\ndata: %s\n\n" % (event.encode(), seq, msgspec.json.encode(body))


class Feed:
    """`sample` builds a whole snapshot (its seq is ignored); times are in seconds."""

    def __init__(
        self,
        sample: Callable[[], Awaitable[Snapshot]],
        *,
        period: float = 0.25,
        heartbeat: float = 10.0,
        sample_deadline: float = 5.0,
    ) -> None:
        self._sample = sample
        self._period = period
        self._heartbeat = heartbeat
        self._sample_deadline = sample_deadline
        self._seq = 0
        #: None while nobody watches: an old picture must never be shown as the present.
        self._snapshot: Snapshot | None = None
        self._deltas: deque[tuple[int, bytes]] = deque(maxlen=_RING)
        self._news = trio.Event()
        self._watched = trio.Event()
        self._watchers = 0
        self._closed = False
        self._failing = False

    @property
    def watchers(self) -> int:
        return self._watchers

    def open(self) -> None:
        """Serve viewers (again)."""
        self._closed = False
        self._forget()

    def close(self) -> None:
        """End every viewer's stream now."""
        self._closed = True
        self._announce()

    async def run(self) -> None:
        """Sample while there are viewers, until cancelled."""
        while True:
            await self._watched.wait()
            while self._watchers:
                due = trio.current_time() + self._period
                await self._take()
                await trio.sleep_until(due)
            self._forget()

    async def frames(self) -> AsyncGenerator[bytes]:
        """One viewer's stream: a snapshot, then deltas, a comment when there was nothing to say for a while."""
        self._watchers += 1
        self._watched.set()
        try:
            seen: int | None = None
            while not self._closed:
                news = self._news
                pending, seen = self._pending(seen)
                if pending:
                    yield pending
                    continue
                with trio.move_on_after(self._heartbeat) as quiet:
                    await news.wait()
                if quiet.cancelled_caught:
                    yield _HEARTBEAT
        finally:
            self._watchers -= 1

    def _pending(self, seen: int | None) -> tuple[bytes, int | None]:
        """What a viewer that has `seen` that far still needs, and how far that gets it."""
        if self._snapshot is None or seen == self._seq:
            return b"", seen
        if seen is None or not self._deltas or seen + 1 < self._deltas[0][0]:
            return frame("snapshot", self._seq, self._snapshot), self._seq
        return b"".join(encoded for seq, encoded in self._deltas if seq > seen), self._seq

    async def _take(self) -> None:
        """One sample, if it can be had: else viewers keep the last picture and its time, and the next round tries."""
        try:
            with trio.fail_after(self._sample_deadline):
                sampled = await self._sample()
        except Exception:
            # Said once, not four times a second.
            if not self._failing:
                log.warning("could not take a sample for the live view", exc_info=True)
            self._failing = True
            return
        self._failing = False
        self._publish(sampled)

    def _publish(self, sampled: Snapshot) -> None:
        if self._snapshot is None:
            self._seq += 1
        else:
            delta = difference(self._snapshot, sampled)
            if all(getattr(delta, name) is msgspec.UNSET for name in SECTIONS):
                return
            self._seq = delta.seq
            self._deltas.append((delta.seq, frame("delta", delta.seq, delta)))
        self._snapshot = msgspec.structs.replace(sampled, seq=self._seq)
        self._announce()

    def _forget(self) -> None:
        self._snapshot = None
        self._deltas.clear()
        self._watched = trio.Event()
        if self._watchers:
            self._watched.set()

    def _announce(self) -> None:
        self._news.set()
        self._news = trio.Event()
