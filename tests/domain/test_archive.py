"""What every archive does alike: the latest, steps, and which samples give way."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain.archive import chain_sample, downsampled, latest_of, merged, thinned
from moonxd.domain.stats import ChainStats, EndpointStats, Health, Probe
from tests.conformance.archive_data import MINUTE_MS, START_MS, chain, failed

#: (series, number): numbers count up through all of them.
samples = st.lists(st.integers(0, 6), max_size=300).map(lambda names: [(name, n) for n, name in enumerate(names)])


def series(sample: tuple[int, int]) -> int:
    return sample[0]


@given(samples=samples, most=st.integers(1, 100))
def test_thinning_bounds_keeps_order_and_every_latest(samples: list[tuple[int, int]], most: int) -> None:
    kept = thinned(samples, series, most)
    latest = {series(sample): sample for sample in samples}
    assert len(kept) <= max(most, len(latest))
    assert kept == sorted(set(kept), key=lambda sample: sample[1])
    assert set(kept) <= set(samples)
    assert set(latest.values()) <= set(kept)
    if len(samples) <= most:
        assert kept == samples


@given(samples=samples)
def test_once_full_at_least_the_newer_half_stays_whole(samples: list[tuple[int, int]]) -> None:
    most = len(samples) - 1
    if most < 2 * (1 + max((series(sample) for sample in samples), default=0)) * 2:
        return
    kept = thinned(samples, series, most)
    assert kept[-(len(samples) // 2) :] == samples[len(samples) // 2 + len(samples) % 2 :]


def test_no_series_is_thinned_more_than_another() -> None:
    """Chains are put in the same order every minute: every second sample of all would be always the same chains."""
    rounds = [(name, minute) for minute in range(100) for name in range(6)]
    kept = Counter(series(sample) for sample in thinned(rounds, series, 500))
    assert set(kept.values()) == {75}


def test_thinning_again_and_again_keeps_the_shape_of_an_outage() -> None:
    waiting: list[tuple[int, int]] = []
    for number in range(10_000):
        waiting.append((0, number))
        waiting = thinned(waiting, series, 100) if len(waiting) > 100 else waiting
    assert len(waiting) <= 100
    assert waiting[-50:] == [(0, number) for number in range(9_950, 10_000)]


looks = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=12)


def look(minute: int, is_good: bool) -> ChainStats:
    row = chain(START_MS + minute * MINUTE_MS, head=minute)
    return row if is_good else failed(row, row.at_ms)


@given(looks=looks)
def test_in_the_order_of_time_the_last_look_and_the_last_good_values_stand(looks: list[tuple[int, bool]]) -> None:
    rows = [look(minute, is_good) for minute, is_good in sorted(dict(looks).items())]
    (latest,) = latest_of(rows, lambda row: row.chain_id)
    assert (latest.at_ms, latest.status, latest.error) == (rows[-1].at_ms, rows[-1].status, rows[-1].error)
    good = [row for row in rows if row.measured_at_ms is not None]
    if good:
        assert (latest.head, latest.measured_at_ms) == (good[-1].head, good[-1].at_ms)


def test_a_failed_look_may_bring_newer_values_along() -> None:
    """Its collector knows of a good look that never arrived here."""
    old, good = chain(START_MS, head=1), chain(START_MS + MINUTE_MS, head=2)
    bad = msgspec.structs.replace(good, at_ms=START_MS + 2 * MINUTE_MS, status=Health.UNHEALTHY)
    assert merged(old, bad) == bad


def test_only_what_was_measured_in_this_look_is_a_sample() -> None:
    good = chain()
    stale = msgspec.structs.replace(good, at_ms=START_MS + MINUTE_MS, status=Health.UNHEALTHY)
    assert chain_sample(stale).values == {}
    assert chain_sample(stale).status == Health.UNHEALTHY
    assert chain_sample(good).values["block_time_s"] == 2.0


def test_the_rpc_latency_of_a_chain_is_its_best_endpoints() -> None:
    slow = EndpointStats(host="a", outcome=Probe.OK, p50_s=0.9, p95_s=1.0)
    quick = EndpointStats(host="b", outcome=Probe.OK, p50_s=0.1, p95_s=2.0)
    down = EndpointStats(host="c", outcome=Probe.TIMEOUT)
    values = chain_sample(chain(endpoints=(slow, quick, down))).values
    assert (values["rpc_p50_s"], values["rpc_p95_s"]) == (0.1, 2.0)
    values = chain_sample(chain(endpoints=(down,))).values
    assert "rpc_p50_s" not in values


@pytest.mark.parametrize("step_s", [0.0, 0.0001])
def test_a_step_is_a_millisecond_at_least(step_s: float) -> None:
    found = [chain_sample(chain(START_MS + n)) for n in range(3)]
    points = downsampled(found, since_ms=START_MS, until_ms=START_MS + 10, step_s=step_s)
    assert [point.samples for point in points] == [1, 1, 1]
