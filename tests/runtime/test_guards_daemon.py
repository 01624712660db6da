"""Guards of users and wallets on a whole daemon with a real Redis and a real PostgreSQL."""

from __future__ import annotations

import time

import pytest

from moonxd.api import calls
from moonxd.api.client import ApiError
from moonxd.api.messages import EnqueueRequest, WalletAsk
from moonxd.domain.job import JobState
from tests.runtime.test_daemon_breakers import metrics
from tests.runtime.test_users_daemon import LIMITED, events, jobs, wallet
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.simulator import SimulatorProcess

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.postgres]


@pytest.fixture
def stores(redis_url: str, postgres_dsn: str) -> dict[str, str]:
    return {"REDIS_URL": redis_url, "DATABASE_URL": postgres_dsn}


def started(daemon: DaemonProcess, whose: str) -> int:
    with daemon.client() as client:
        return sum(one["walletAddress"] == whose for one in events(client, "sync.started"))


def test_of_two_jobs_for_one_wallet_the_second_is_merged_unless_it_asks_for_more(
    start_daemon: StartDaemon, simulator: SimulatorProcess, stores: dict[str, str]
) -> None:
    simulator.turn({"*": {"latency_ms": 1500}})
    daemon = start_daemon({**simulator.env, **stores})
    mine = wallet(1)
    first = daemon.enqueue(mine)
    until(lambda: started(daemon, mine) == 1, "the first one runs")
    second, forced = daemon.enqueue(mine), daemon.enqueue(mine, force_refresh=True)
    with daemon.client() as client:
        until(lambda: {job.job_id for job in jobs(client, JobState.DELAYED)} == {second, forced}, "the others wait")
        assert len(client.call(calls.operations(wallet=mine, status="running")).operations) == 1
    simulator.reset()
    ended = [daemon.wait(job_id) for job_id in (first, second, forced)]
    assert {job.state for job in ended} == {JobState.COMPLETED}
    assert [job.result.get("merged", False) for job in ended] == [False, True, False]
    assert {job.attempts for job in ended} == {1}, "waiting is no attempt"
    with daemon.client() as client:
        operations = client.call(calls.operations(wallet=mine)).operations
        spans = sorted((one.started_at, one.completed_at) for one in operations if one.status == "completed")
    assert len(spans) == 2
    assert spans[0][1] is not None
    assert spans[1][0] is not None
    assert spans[0][1] <= spans[1][0], "never two at once"


def test_a_user_of_whom_nothing_succeeds_is_left_alone_and_a_forced_refresh_passes(
    start_daemon: StartDaemon, simulator: SimulatorProcess, stores: dict[str, str]
) -> None:
    daemon = start_daemon(
        {
            **simulator.env,
            **stores,
            "WORKER_CIRCUIT_BREAKER_THRESHOLD": "3",
            "WORKER_CIRCUIT_BREAKER_TIMEOUT": "600000",
            "MOONXD_QUEUE__ATTEMPTS": "1",
        }
    )
    for number in range(3):
        # What is not supported is nothing that a retry could mend.
        assert daemon.wait(daemon.enqueue(wallet(number), "eve", sync_type="trades")).state == JobState.FAILED
    asked = time.time()
    waiting = daemon.enqueue(wallet(9), "eve")
    with daemon.client() as client:
        (job,) = until(lambda: jobs(client, JobState.DELAYED), "it waits")
        assert (job.job_id, job.attempts) == (waiting, 0)
        assert job.timestamps.due is not None
        assert 500 < job.timestamps.due / 1000 - asked <= 601
        assert "moonxd_breaker_held_total 1.0" in metrics(daemon)
        assert daemon.wait(daemon.enqueue(wallet(10), "mallory")).state == JobState.COMPLETED, "others go on"
        assert daemon.wait(daemon.enqueue(wallet(11), "eve", force_refresh=True)).state == JobState.COMPLETED
        assert daemon.wait(daemon.enqueue(wallet(12), "eve")).state == JobState.COMPLETED, "its success closed it"
        assert client.call(calls.promote(waiting))
    assert daemon.wait(waiting).state == JobState.COMPLETED


def test_the_janitor_never_removes_what_the_rate_limit_counts(
    start_daemon: StartDaemon, simulator: SimulatorProcess, stores: dict[str, str]
) -> None:
    second = 1 / 86_400
    brief = {
        "WORKER_CLEANUP_INTERVAL": "200",
        "MOONXD_RETENTION__OPERATIONS_DAYS": f"{second:.9f}",
        "MOONXD_RETENTION__HISTORY_DAYS": f"{second:.9f}",
    }
    daemon = start_daemon({**simulator.env, **stores, **LIMITED, **brief})
    # The wallet's last operation is kept in any case: so all are of one wallet.
    for _ in range(5):
        assert daemon.wait(daemon.enqueue(wallet(1), "eve", force_refresh=True)).state == JobState.COMPLETED
    with daemon.client() as client:
        until(lambda: not client.call(calls.history(wallet(1))).snapshots, "the janitor was there")
        assert len(client.call(calls.operations(user="eve")).operations) == 5
    with pytest.raises(ApiError, match="has used up the syncs of this window"):
        daemon.enqueue(wallet(2), "eve")


def test_a_type_of_job_runs_on_its_own_terms(
    start_daemon: StartDaemon, simulator: SimulatorProcess, stores: dict[str, str]
) -> None:
    simulator.turn({"*": {"latency_ms": 8000}})
    terms = {"TIMEOUT_S": "1", "ATTEMPTS": "2", "BACKOFF_DELAY_S": "0.1", "SHARE": "0.2"}
    batched = {wallet(number) for number in range(4)}
    named = {f"MOONXD_JOBS__CHAIN_SYNC__{name}": value for name, value in terms.items()}
    daemon = start_daemon({**simulator.env, **stores, **named})
    single, busiest = daemon.enqueue(wallet(50)), 0
    with daemon.client() as client:
        ids = [client.call(calls.enqueue(chain_sync(wallet(number)))).job_id for number in range(4)]
        while client.call(calls.status()).queue.failed < 4:
            # By the audit rows: the live view also shows who is being put off, and whose end the queue is being told.
            at_work = client.call(calls.operations(status="running")).operations
            busiest = max(busiest, sum(row.wallet_address in batched for row in at_work))
        ended = [client.call(calls.job(job_id)) for job_id in ids]
        assert client.call(calls.job(single)).state in (JobState.ACTIVE, JobState.COMPLETED), "it has other terms"
    assert {(job.state, job.attempts) for job in ended} == {(JobState.FAILED, 2)}
    assert all("longer than 1 s" in (job.reason or "") for job in ended), ended
    assert 1 <= busiest <= 2, "a fifth of ten slots"


def chain_sync(whose: str) -> EnqueueRequest:
    entry = WalletAsk(user_id="u1", wallet_address=whose)
    return EnqueueRequest(type="chain-sync", wallets=(entry,), chain_ids=(8453,))
