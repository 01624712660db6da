"""How the daemon's own health and the overview follow from their parts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain.overview import overview, verdict
from moonxd.domain.service_health import PartTrack, follow, of_age, of_answer, of_lag, of_state, summed, worst
from moonxd.domain.stats import BridgeStats, ChainStats, Health, PartHealth, Probe

STATUSES = st.sampled_from(list(Health))


def part(status: Health, *, name: str = "redis", critical: bool = True) -> PartHealth:
    return PartHealth(name=name, status=status, critical=critical)


def shown(*seen: Health) -> Health:
    tracks: dict[str, PartTrack] = {}
    for status in seen:
        tracks = follow(tracks, [part(status)])
    return summed(tracks, 1).status


def test_one_odd_look_changes_nothing_two_do() -> None:
    assert shown(Health.HEALTHY, Health.UNHEALTHY) is Health.HEALTHY
    assert shown(Health.HEALTHY, Health.UNHEALTHY, Health.HEALTHY, Health.UNHEALTHY) is Health.HEALTHY
    assert shown(Health.HEALTHY, Health.UNHEALTHY, Health.UNHEALTHY) is Health.UNHEALTHY
    assert shown(Health.HEALTHY, Health.UNHEALTHY, Health.DEGRADED, Health.DEGRADED) is Health.DEGRADED
    assert shown(Health.UNKNOWN, Health.HEALTHY) is Health.HEALTHY


@given(st.lists(STATUSES, min_size=1, max_size=30), STATUSES)
def test_two_looks_that_agree_are_always_shown(seen: list[Health], last: Health) -> None:
    assert shown(*seen, last, last) is last


def test_parts_come_and_go() -> None:
    tracks = follow({}, [part(Health.UNHEALTHY, name="a"), part(Health.HEALTHY, name="b")])
    assert summed(tracks, 5).status is Health.UNHEALTHY
    tracks = follow(tracks, [part(Health.HEALTHY, name="b")])
    assert [one.name for one in summed(tracks, 6).parts] == ["b"]
    assert summed({}, 7).status is Health.HEALTHY


def test_an_optional_part_degrades_at_most() -> None:
    tracks = follow({}, [part(Health.UNHEALTHY, critical=False), part(Health.HEALTHY, name="queue")])
    assert summed(tracks, 1).status is Health.DEGRADED


def test_parts_from_what_is_known() -> None:
    failed = of_state("relay", "failed", critical=False, error="no broker")
    assert (failed.status, failed.reason) == (Health.UNHEALTHY, "failed: no broker")
    assert of_state("relay", "running", critical=True, error="old").reason is None
    assert of_state("relay", "backing-off", critical=True).status is Health.DEGRADED
    assert of_state("relay", "starting", critical=True).status is Health.UNKNOWN
    assert of_answer("ledger", None, critical=True).status is Health.UNKNOWN
    assert of_answer("ledger", False, critical=True, detail="no route").reason == "no route"
    assert of_answer("ledger", True, critical=True).status is Health.HEALTHY
    ages = [
        of_age("bridges", age, expected_s=120, critical=False, what="the last success")
        for age in (None, 300, 600, 2000)
    ]
    assert [one.status for one in ages] == [Health.UNKNOWN, Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY]
    assert ages[2].reason == "the last success: 600 s ago, expected every 120 s"
    lags = [
        of_lag("outbox", lag, slow_s=30, bad_s=300, critical=False, what="oldest event") for lag in (None, 1, 31, 301)
    ]
    assert [one.status for one in lags] == [Health.UNKNOWN, Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY]


@given(st.lists(STATUSES))
def test_the_worst_is_one_of_them(statuses: list[Health]) -> None:
    assert worst(statuses) in (statuses or [Health.HEALTHY])
    if Health.UNHEALTHY in statuses:
        assert worst(statuses) is Health.UNHEALTHY


@given(st.lists(STATUSES, max_size=12))
def test_the_verdict_ignores_what_is_not_known(statuses: list[Health]) -> None:
    known = [one for one in statuses if one is not Health.UNKNOWN]
    assert verdict(statuses) is verdict(known)
    assert (verdict(statuses) is Health.UNKNOWN) == (not known)
    assert (verdict(statuses) is Health.HEALTHY) == (set(known) == {Health.HEALTHY})


def test_what_nobody_looked_at_is_unknown_in_the_overview() -> None:
    chain = ChainStats(
        chain_id=1,
        name="Ethereum",
        slug="ethereum",
        llama="ethereum",
        at_ms=1_000_000,
        measured_at_ms=1,
        status=Health.HEALTHY,
        block_time_s=12.0,
    )
    bridge = BridgeStats(
        provider="LI.FI",
        route="r",
        from_chain=1,
        to_chain=2,
        at_ms=90_000,
        measured_at_ms=1,
        status=Health.UNHEALTHY,
        outcome=Probe.TIMEOUT,
    )
    whole = overview([chain], [bridge], at_ms=1_000_100, stale_s=900)
    assert whole.status is Health.HEALTHY
    assert whole.chains == (chain,)
    assert whole.bridges[0].status is Health.UNKNOWN
    assert whole.bridges[0].reason == "nobody has looked for 910 s"
    assert overview([], [], at_ms=1, stale_s=1).status is Health.UNKNOWN
