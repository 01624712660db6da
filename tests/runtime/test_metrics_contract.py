"""Every metric that dashboards were promised, by its exact name, from a daemon that does all of its work."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.kafka import KafkaServer
from tests.services.simulator import SimulatorProcess

pytestmark = [pytest.mark.slow, pytest.mark.kafka]

WALLET = "0x" + "ab" * 20

#: Names of the earlier workers, and what they are.
PROMISED = {
    "sync_jobs_processed_total": "counter",
    "sync_jobs_failed_total": "counter",
    "sync_job_duration_seconds": "histogram",
    "circuit_breaker_open_total": "counter",
    "rate_limit_exceeded_total": "counter",
    "state_recovery_duration_seconds": "gauge",
    "kafka_events_published_total": "counter",
    "kafka_publish_duration_seconds": "histogram",
    "kafka_publish_errors_total": "counter",
    "sync_jobs_active": "gauge",
}
#: Ours beside them: a sample of each, with labels, once a job was done and its events have left.
OURS = (
    'moonxd_queue_jobs{queue="sync-jobs",state="completed"}',
    'moonxd_queue_oldest_waiting_seconds{queue="sync-jobs"}',
    "moonxd_claim_latency_seconds_count",
    "moonxd_slots",
    "moonxd_slots_busy",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    'moonxd_stats_collections_total{job="service_health",outcome="ok"}',
    'moonxd_rpc_duration_seconds_count{chain="base",outcome="ok",provider="127.0.0.1"}',
    "moonxd_outbox_lag",
    "moonxd_outbox_unpublished",
    "moonxd_publisher_holding",
    "moonxd_wallets_fresh_ratio",
    "moonxd_loop_lag_seconds",
    'moonxd_child_up{child="publisher"}',
    'kafka_events_published_total{topic="syncs.metrics"}',
    'sync_jobs_processed_total{type="portfolio-sync"}',
    'sync_jobs_failed_total{type="portfolio-sync"}',
)


def scrape(daemon: DaemonProcess) -> str:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(daemon.socket)), base_url="http://moonxd") as client:
        return client.get("/metrics").text


def test_every_promised_metric_is_there(
    start_daemon: StartDaemon, simulator: SimulatorProcess, kafka_server: KafkaServer
) -> None:
    environ = {"KAFKA_BROKERS": kafka_server.address(), "KAFKA_TOPIC_SYNC_EVENTS": "syncs.metrics"}
    daemon = start_daemon({**simulator.env, **environ})
    assert daemon.wait(daemon.enqueue(WALLET)).state == "completed"
    assert daemon.wait(daemon.enqueue(WALLET, sync_type="trades")).state == "failed"
    page = ""

    def complete() -> bool:
        nonlocal page
        page = scrape(daemon)
        return all(re.search(rf"^{re.escape(sample)} ", page, re.MULTILINE) for sample in OURS)

    def missing() -> str:
        absent = [one for one in OURS if not re.search(rf"^{re.escape(one)} ", page, re.MULTILINE)]
        return f"missing: {absent}\n{page}"

    until(complete, "every sample is there", 60, missing)
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    assert {name: kinds.get(name) for name in PROMISED} == PROMISED
    assert "moonxd_child_restarts_total" in kinds
    assert re.search(r"^moonxd_claim_latency_seconds_count 2\.0$", page, re.MULTILINE)
    for told in ("u1", WALLET, "://", kafka_server.address()):
        assert told not in page, "no user, wallet or address in a label"
