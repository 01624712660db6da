"""Breakers over the API and on the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moonxd.api import calls
from moonxd.api.client import ApiError
from moonxd.api.messages import BreakerRequest
from moonxd.domain.breaker import Policy
from moonxd.domain.breakers import Breakers
from tests.cli.test_cli import on
from tests.control.harness import Served, serving

NAME = "base/rpc.example"


@pytest.fixture
def breakers() -> Breakers:
    made = Breakers(lambda: 1_000.0)
    made.register(NAME, Policy())
    made.register("base/rpc.example:8545", Policy())
    return made


@pytest.fixture
async def served(redis_url: str, socket_path: Path, breakers: Breakers) -> AsyncIterator[Served]:
    async with serving(redis_url, socket_path, breakers=breakers) as bench:
        yield bench


async def test_an_operator_overrules_a_breaker(served: Served, breakers: Breakers) -> None:
    found = await served.call(calls.breakers())
    assert [(one.name, one.state) for one in found.breakers] == [(NAME, "closed"), (f"{NAME}:8545", "closed")]
    view = await served.call(calls.change_breaker(NAME, "cordon", BreakerRequest(reason="maintenance", ttl_s=60)))
    assert (view.state, view.reason) == ("cordoned", "maintenance")
    assert breakers.admit(NAME) is None
    assert breakers.wait_s(NAME) == 60
    view = await served.call(calls.change_breaker(NAME, "uncordon", BreakerRequest()))
    assert view.state == "closed"
    breakers.trip(NAME, "HTTP 401", 900.0)
    opened = (await served.call(calls.breakers())).breakers[0]
    assert (opened.state, opened.reason, opened.opened_at) == ("open", "HTTP 401", 1000.0)
    view = await served.call(calls.change_breaker(NAME, "reset", BreakerRequest(reason="new key")))
    assert (view.state, view.opened_at) == ("closed", None)


async def test_an_unknown_breaker_is_404_and_names_those_there_are(served: Served) -> None:
    with pytest.raises(ApiError) as caught:
        await served.call(calls.change_breaker("base/other.example", "reset", BreakerRequest()))
    assert caught.value.status == 404
    assert NAME in str(caught.value.hint)


@pytest.mark.parametrize("ttl_s", [0.0, -1.0])
async def test_a_ttl_must_be_a_time(served: Served, ttl_s: float) -> None:
    with pytest.raises(ApiError) as caught:
        await served.call(calls.change_breaker(NAME, "cordon", BreakerRequest(ttl_s=ttl_s)))
    assert caught.value.status == 400


async def test_without_breakers_there_are_none(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        assert (await bench.call(calls.breakers())).breakers == ()
        with pytest.raises(ApiError, match="there is no breaker"):
            await bench.call(calls.change_breaker(NAME, "reset", BreakerRequest()))


@pytest.mark.slow
async def test_on_the_command_line(served: Served, breakers: Breakers) -> None:
    ran = await on(served, "breakers", "cordon", NAME, "--reason", "maintenance", "--ttl", "30m")
    assert (ran.code, ran.out) == (0, f"breaker {NAME} is cordoned\n")
    assert breakers.wait_s(NAME) == 1800
    listed = (await on(served, "breakers", "list")).out.splitlines()
    assert listed[0].split()[:2] == ["BREAKER", "STATE"]
    assert listed[1].split() == [NAME, "cordoned", "0", "-", "maintenance"]
    ran = await on(served, "breakers", "uncordon", NAME, "--json")
    assert (ran.json["name"], ran.json["state"]) == (NAME, "closed")
    assert (await on(served, "breakers", "reset", NAME)).code == 0
    assert (await on(served, "breakers", "reset", "nonsense")).code == 1
    assert (await on(served, "breakers", "cordon", NAME, "--ttl", "soon")).code == 2
