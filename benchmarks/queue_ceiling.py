"""What Redis itself can do: the official scripts as one prebuilt pipelined stream, no client work in between."""

from __future__ import annotations

import socket
import time

import hiredis

from moonxd.adapters.bullmq.codec import PackedOptions
from moonxd.adapters.bullmq.keys import Keys
from moonxd.adapters.bullmq.scripts import official

_WINDOW = 100


class Stream:
    """A blocking connection that keeps a window of commands on their way."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader(notEnoughData=...)

    def close(self) -> None:
        self._socket.close()

    def _replies(self, at_least: int) -> list[object]:
        got: list[object] = []
        while len(got) < at_least:
            self._reader.feed(self._socket.recv(1 << 18))
            while (reply := self._reader.gets()) is not ...:
                if isinstance(reply, hiredis.ReplyError):
                    raise reply
                got.append(reply)
        return got

    def ask(self, *args: str | bytes | int) -> object:
        self._socket.sendall(hiredis.pack_command(args))  # type: ignore[arg-type]  # its stub says 1-tuple
        return self._replies(1)[0]

    def run(self, commands: list[bytes], window: int = _WINDOW) -> list[object]:
        """Send all, never more than `window` unanswered; their replies."""
        replies: list[object] = []
        sent = 0
        while len(replies) < len(commands):
            until = min(len(commands), len(replies) + window)
            # In halves, so that Redis always has the next half at hand.
            if until - sent >= window // 2 or until == len(commands):
                self._socket.sendall(b"".join(commands[sent:until]))
                sent = until
            replies += self._replies(1)
        return replies


def drain(port: int, queue: str, first_id: int, jobs: int, window: int = _WINDOW) -> float:
    """Seconds that Redis takes to finish `jobs` waiting jobs with ids from `first_id`, each call fetching the next."""
    k = Keys("bull", queue)
    stream = Stream(port)
    options = PackedOptions(worker_name="ceiling", lock_ms=30_000, limiter=None)
    shared = (k.wait, k.active, k.prioritized, k.events, k.stalled, k.limiter, k.delayed, k.paused, k.meta, k.counter)
    token, now = "ceiling", int(time.time() * 1000)
    claim_sha, finish_sha = (
        stream.ask("SCRIPT", "LOAD", official(name)) for name in ("moveToActive", "moveToFinished")
    )
    assert isinstance(claim_sha, bytes)
    assert isinstance(finish_sha, bytes)
    claims = [_pack("EVALSHA", claim_sha, 11, *shared, k.marker, k.base, now, options.claim(token))] * window
    packed = options.finish(token, None, 1)
    ends = (k.base + "metrics:completed", k.marker)
    finishes = [
        _pack(
            *("EVALSHA", finish_sha, 14, *shared, k.completed, k.job(str(n)), *ends),
            *(str(n), now, "returnvalue", "null", "completed", "1", k.base, packed),
        )
        for n in range(first_id, first_id + jobs)
    ]
    stream.run(claims, window)
    began = time.perf_counter()
    replies = stream.run(finishes, window)
    seconds = time.perf_counter() - began
    assert not any(isinstance(reply, int) and reply < 0 for reply in replies), "the stream lost step with the queue"
    stream.close()
    return seconds


def _pack(*args: str | bytes | int) -> bytes:
    packed: bytes = hiredis.pack_command(args)  # type: ignore[arg-type]  # its stub says 1-tuple
    return packed
