"""What the chaos tests share: many wallets into the queue, and the ledger's own account of what became of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

import msgspec

from moonxd.api import calls
from moonxd.api.client import ClientError
from moonxd.api.messages import EnqueueRequest, EventView
from moonxd.domain.verify import Report
from tests.services.daemon import DaemonProcess, until

#: A dead worker's jobs come back soon: lock and stalled check at their shortest.
QUICK = {
    "MOONXD_WORKER__LOCK_S": "2",
    "MOONXD_WORKER__STALLED_INTERVAL_S": "1",
    "MOONXD_WORKER__JANITOR_INTERVAL_S": "1",
    "MOONXD_QUEUE__BACKOFF_DELAY_S": "0.2",
    "MOONXD_ALCHEMY__RETRY_DELAY_S": "0.1",
    "MOONXD_DAEMON__DRAIN_S": "5",
    # Completed jobs stay, so that they can be counted.
    "MOONXD_QUEUE__REMOVE_ON_COMPLETE": "-1",
    "MOONXD_QUEUE__REMOVE_ON_FAIL": "-1",
}


def wallet(number: int) -> str:
    return "0x" + hashlib.sha256(f"chaos {number}".encode()).hexdigest()[:40]


def enqueue(daemon: DaemonProcess, count: int) -> list[str]:
    """`count` jobs, one wallet each; their ids."""
    with daemon.client() as client:
        asks = (
            EnqueueRequest(type="portfolio-sync", user_id=f"user-{number % 50}", wallet_address=wallet(number))
            for number in range(count)
        )
        return [client.call(calls.enqueue(ask)).job_id for ask in asks]


def events(daemon: DaemonProcess) -> list[EventView]:
    """The whole outbox."""
    found: list[EventView] = []
    with daemon.client() as client:
        while (page := client.call(calls.events(found[-1].position if found else 0, limit=1000))).events:
            found += page.events
    return found


def completed(daemon: DaemonProcess) -> Counter[str]:
    """Committed syncs per wallet, as the outbox tells."""
    return Counter(event.wallet for event in events(daemon) if event.type == "sync.completed")


def assert_verified(daemon: DaemonProcess, jobs: Iterable[str] = ()) -> Report:
    """`moonxd verify` finds no fault; `jobs`: lines that say which jobs must be accounted for."""
    listed = daemon.state / "jobs.list"
    listed.write_text("".join(f"{line}\n" for line in jobs), "utf-8")
    done = daemon.run("verify", "--json", "--jobs", str(listed))
    assert done.returncode == 0, done.stdout[:5000] + done.stderr[-5000:]
    return msgspec.json.decode(done.stdout, type=Report)


def await_all(daemon: DaemonProcess, count: int, within_s: float) -> None:
    """Until `count` jobs are completed in the queue and nothing is left to do."""

    def done() -> bool:
        snapshot = daemon.snapshot()
        if snapshot is None or not snapshot.queue.fresh:
            return False
        queue = snapshot.queue
        left = queue.waiting + queue.prioritized + queue.active + queue.delayed + queue.paused
        return left == 0 and queue.completed + queue.failed >= count

    until(done, f"{count} jobs are done", within_s, lambda: f"{daemon.snapshot()}\n{daemon.log()[-3000:]}")


def assert_each_once(daemon: DaemonProcess, count: int) -> None:
    """Every wallet was committed exactly once, nothing failed, no event id is told twice, no audit row is open."""
    told = events(daemon)
    assert completed(daemon) == Counter({wallet(number): 1 for number in range(count)})
    assert not [event.body for event in told if event.type == "sync.failed"]
    assert len({event.id for event in told}) == len(told)
    until(lambda: not open_operations(daemon), "audit rows are closed", 20)
    assert_verified(daemon)


def open_operations(daemon: DaemonProcess) -> list[str]:
    with daemon.client() as client:
        pages = (
            client.call(calls.operations(status=status, limit=1000)).operations for status in ("running", "pending")
        )
        return [str(operation.id) for page in pages for operation in page]


def ids_in(daemon: DaemonProcess, states: Iterable[str]) -> list[str]:
    try:
        with daemon.client() as client:
            return [job.job_id for state in states for job in client.call(calls.jobs(state, limit=1000)).jobs]
    except ClientError:
        return []
