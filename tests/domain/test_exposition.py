"""The joined page of metrics: whole families, one label more, and what is said once."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from moonxd.exposition import joined


def page(jobs: int, slots: int, active: int) -> bytes:
    registry = CollectorRegistry()
    Counter("sync_jobs_processed", "Jobs completed", ["type"], registry=registry).labels('a "b", {c} d').inc(jobs)
    Gauge("moonxd_slots", "Slots", registry=registry).set(slots)
    Gauge("sync_jobs_active", "Running", registry=registry).set(active)
    Histogram("moonxd_rpc_duration_seconds", "RPC", ["chain"], registry=registry).labels("base").observe(active)
    return generate_latest(registry)


def test_every_sample_is_there_once_with_its_worker() -> None:
    text = joined(page(0, 20, 0), {"1": page(3, 10, 1), "2": page(4, 10, 2)}).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    done = families["sync_jobs_processed"].samples
    totals = {s.labels.get("worker"): s.value for s in done if s.name == "sync_jobs_processed_total"}
    assert totals == {None: 0, "1": 3, "2": 4}
    assert {s.labels["type"] for s in done} == {'a "b", {c} d'}
    assert [(s.labels, s.value) for s in families["moonxd_slots"].samples] == [({}, 20)], "the whole daemon's"
    assert [s.value for s in families["sync_jobs_active"].samples] == [0, 1, 2]
    counts = [s for s in families["moonxd_rpc_duration_seconds"].samples if s.name.endswith("_count")]
    assert [(s.labels.get("worker"), s.value) for s in counts] == [(None, 1), ("1", 1), ("2", 1)]
    assert text.count("# TYPE sync_jobs_active gauge") == 1


def test_alone_it_is_the_same_page() -> None:
    own = page(1, 2, 3)
    assert joined(own, {}) == own
