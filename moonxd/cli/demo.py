"""`moonxd demo`: the whole thing on one machine, with nothing installed or configured: watch wallets being synced."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from ..api import calls
from ..api.client import Client, ClientError
from ..api.messages import EnqueueRequest, EventView
from . import exits
from .output import Json, note, print_json, table

#: Wallets that the live demo goes round and round through.
LIVE_WALLETS = 200
#: Seconds between two new jobs in the live demo: a little less than ten slots can do, so that a queue builds up.
LIVE_PAUSE_S = 0.06
#: The live demo lets this many jobs wait at most.
LIVE_BACKLOG = 40
#: Seconds without any progress after which the demo gives up.
STUCK_S = 60.0
_POLL_S = 0.2


class Summary(msgspec.Struct, kw_only=True):
    """What a demo run did. `failures` are final ones; a fault that a retry mended is in `retries`."""

    wallets: int
    jobs: int
    chains: int
    sync_seconds_p50: float | None
    sync_seconds_p95: float | None
    tokens: int
    events: int
    retries: int
    failures: int
    seconds: float


def demo(
    once: Annotated[bool, typer.Option("--once", help="Sync the wallets, print a summary and exit.")] = False,
    wallets: Annotated[int, typer.Option(min=1, max=100_000, help="How many wallets --once syncs.")] = 60,
    json: Json = False,
    state_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the demo's state here instead of throwing it away.")
    ] = None,
    seed: Annotated[str, typer.Option(help="Another seed is another world.")] = "1",
    latency_ms: Annotated[float, typer.Option(min=0, help="Median answer time of the simulated chains.")] = 80.0,
    error_rate: Annotated[float, typer.Option(min=0, max=1, help="Share of simulated requests that fail.")] = 0.01,
) -> None:
    """Run the daemon on a private Redis, SQLite and six simulated chains.

    On a terminal this opens the live view until q; else, or with --once, it syncs some wallets and says how it went.
    A real daemon's state (MOONXD_STATE_DIR) is never touched.
    """
    from tui.run import can_show

    from .demo_world import world

    live = can_show(os.environ) and not once and not json
    with world(state_dir, seed=seed, latency_ms=latency_ms, error_rate=error_rate) as socket:
        if live:
            raise typer.Exit(_watch(socket))
        summary = _sync_all(socket, wallets, quiet=json)
    if json:
        print_json(summary)
    else:
        _show(summary)
    raise typer.Exit(exits.OK if summary.failures == 0 else exits.BAD)


# ---- once --------------------------------------------------------------------------------------------------------


def _sync_all(socket: Path, wallets: int, *, quiet: bool) -> Summary:
    began = time.monotonic()
    with Client(socket) as daemon:
        seen = _Told(_last_position(daemon))
        for number in range(wallets):
            daemon.call(calls.enqueue(_job(number)))
        note(f"{wallets} wallets are queued: six chains each, the chains are simulated")
        progress, moved, done = _Progress(wallets), time.monotonic(), 0
        while len(seen.ended) < wallets:
            time.sleep(_POLL_S)
            seen.read(daemon)
            if len(seen.ended) > done:
                done, moved = len(seen.ended), time.monotonic()
                progress.show(done)
            elif time.monotonic() - moved > STUCK_S:
                raise ClientError(f"nothing was synced for {STUCK_S:g} s: {done} of {wallets} wallets are done")
        progress.end()
    return seen.summary(wallets, time.monotonic() - began)


def _job(number: int) -> EnqueueRequest:
    wallet = "0x" + hashlib.sha256(f"moonxd demo {number}".encode()).hexdigest()[:40]
    priority = ("high", "medium", "low")[number % 3]
    return EnqueueRequest(
        type="portfolio-sync",
        user_id=f"demo-{number // 3}",
        wallet_address=wallet,
        priority=priority,  # type: ignore[arg-type]
        metadata={"source": "demo"},
    )


def _last_position(daemon: Client) -> int:
    """Events of an earlier run in the same state directory are not ours to count."""
    position = 0
    while (page := daemon.call(calls.events(position, limit=1000))).events:
        position = page.next
    return position


class _Told:
    """What the daemon's committed events say of this run."""

    def __init__(self, position: int) -> None:
        self._position = position
        self._durations: list[int] = []
        self._tokens = self._events = self._retries = self._failures = self._chains = 0
        self.ended: set[str] = set()

    def read(self, daemon: Client) -> None:
        while (page := daemon.call(calls.events(self._position, limit=1000))).events:
            self._position = page.next
            for event in page.events:
                self._note(event)

    def _note(self, event: EventView) -> None:
        self._events += 1
        if event.type == "sync.retrying":
            self._retries += 1
        elif event.type == "sync.failed":
            self._failures += 1
            self.ended.add(event.wallet)
        elif event.type == "sync.completed":
            data: dict[str, Any] = msgspec.json.decode(event.body)["data"]
            self._durations.append(data["processingTime"])
            self._tokens += data["tokensSync"]
            self._chains = max(self._chains, data["chainsSync"])
            self.ended.add(event.wallet)

    def summary(self, wallets: int, seconds: float) -> Summary:
        ordered = sorted(self._durations)

        def share(part: float) -> float | None:
            return ordered[min(len(ordered) - 1, int(part * len(ordered)))] / 1000 if ordered else None

        return Summary(
            wallets=wallets,
            jobs=len(ordered) + self._failures,
            chains=self._chains,
            sync_seconds_p50=share(0.50),
            sync_seconds_p95=share(0.95),
            tokens=self._tokens,
            events=self._events,
            retries=self._retries,
            failures=self._failures,
            seconds=round(seconds, 2),
        )


class _Progress:
    """On a terminal one line that is written over, elsewhere a line per quarter."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._tty = sys.stderr.isatty()
        self._told = 0

    def show(self, done: int) -> None:
        if self._tty:
            filled = 30 * done // self._total
            sys.stderr.write(f"\r[{'#' * filled}{'.' * (30 - filled)}] {done}/{self._total} wallets")
            sys.stderr.flush()
        elif 4 * done // self._total > self._told:
            self._told = 4 * done // self._total
            note(f"synced {done} of {self._total} wallets")

    def end(self) -> None:
        if self._tty:
            sys.stderr.write("\n")


def _show(summary: Summary) -> None:
    def seconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f} s"

    table(
        ("WHAT", "HOW MUCH"),
        (
            ("wallets synced", f"{summary.jobs - summary.failures} of {summary.wallets}"),
            ("chains per wallet", summary.chains),
            ("one sync, median", seconds(summary.sync_seconds_p50)),
            ("one sync, 95th percentile", seconds(summary.sync_seconds_p95)),
            ("token balances", summary.tokens),
            ("events committed", summary.events),
            ("attempts retried", summary.retries),
            ("failed for good", summary.failures),
            ("altogether", seconds(summary.seconds)),
        ),
        right=("HOW MUCH",),
    )


# ---- live --------------------------------------------------------------------------------------------------------


def _watch(socket: Path) -> int:
    """The live view, fed until it is left."""
    from tui.run import run_top

    leave = threading.Event()
    feeder = threading.Thread(target=_feed, args=(socket, leave), name="demo-feeder", daemon=True)
    feeder.start()
    try:
        return run_top(socket)
    finally:
        leave.set()
        feeder.join(timeout=5)


def _feed(socket: Path, leave: threading.Event) -> None:
    """Keep wallets coming: each of LIVE_WALLETS again and again."""
    number = 0
    with Client(socket) as daemon:
        while not leave.wait(LIVE_PAUSE_S):
            try:
                if number % 10 == 0 and _waiting(daemon) > LIVE_BACKLOG:
                    leave.wait(1)
                    continue
                daemon.call(calls.enqueue(_job(number % LIVE_WALLETS)))
            except ClientError:
                # The view shows that the daemon is gone; here there is nothing better to do than to try again.
                leave.wait(1)
            number += 1


def _waiting(daemon: Client) -> int:
    queue = daemon.call(calls.status()).queue
    return queue.waiting + queue.prioritized
