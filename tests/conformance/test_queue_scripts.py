"""The official scripts are what our frames take them for, and every server that we run on accepts the result."""

from __future__ import annotations

import re

import pytest

from moonxd.adapters.bullmq import scripts
from moonxd.adapters.redis.script import Script
from moonxd.domain.errors import ConfigError
from tests.services.redis import RedisServer

DETOURED = (
    *("addStandardJob", "addDelayedJob", "addPrioritizedJob", "moveToDelayed", "retryJob", "reprocessJob", "promote"),
    *("removeJob", "cleanJobsInSet", "changePriority", "drain"),
)
PLAIN = ("addParentJob", "extendLocks", "updateProgress", "addLog", "getCounts", "getStateV2", "updateData")


def every_script() -> list[Script]:
    frames = [scripts.claim(), scripts.release(), scripts.pause(), scripts.stalled(), scripts.finish()]
    others = [scripts.detoured(name) for name in DETOURED] + [scripts.plain(name) for name in PLAIN]
    return [*frames, *others, scripts.own("priorities")]


def test_every_script_loads(redis_server: RedisServer, redis_url: str) -> None:
    for script in every_script():
        assert redis_server.command("SCRIPT", "LOAD", script.text) == script.sha.encode(), script.name


def test_the_embedded_server_takes_them_too(
    embedded_redis_binary: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = RedisServer(tmp_path_factory.mktemp("redis"), binary=embedded_redis_binary)
    try:
        for script in every_script():
            assert server.command("SCRIPT", "LOAD", script.text) == script.sha.encode(), script.name
    finally:
        server.stop()


def test_helpers_are_outside_of_what_runs_per_job() -> None:
    text = scripts.finish().text
    helpers, _, body = text.partition("local function finish(KEYS, ARGV)")
    assert "local function fetchNextJob" in helpers
    assert "local function" not in body.partition("local keys, argv")[0]


@pytest.mark.parametrize("name", [*DETOURED, "moveToActive", "moveToFinished", "moveStalledJobsToWait"])
def test_the_detour_sees_every_push(name: str) -> None:
    """It goes by the words LPUSH and RPUSH: no script may push by another word or fetch `redis.call` elsewhere."""
    text = scripts.official(name)
    assert not re.search(r"[\"'](lpush|rpush|LPUSHX|RPUSHX|LMOVE|LINSERT|lmove)[\"']", text)
    assert set(re.findall(r"redis\.(\w+)", text)) <= {"call", "pcall"}
    assert set(re.findall(r"redis\.pcall\('(\w+)'", text)) <= {"LPOS"}, "pcall goes past the detour"


def test_a_script_that_is_not_there_is_said_so() -> None:
    with pytest.raises(ConfigError, match="noSuchScript"):
        scripts.official("noSuchScript")
