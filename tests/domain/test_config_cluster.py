"""How many workers there are, and what one of them is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from moonxd.config import load_config
from moonxd.config.cluster import worker_config
from moonxd.config.outlets import Cluster
from moonxd.domain.errors import ConfigError

HOME = {"HOME": "/home/x", "MOONXD_STATE_DIR": "/var/lib/moonxd"}


@pytest.mark.parametrize(
    ("cluster", "count"),
    [(Cluster(), 1), (Cluster(mode="auto"), 6), (Cluster(mode="manual", workers=3), 3), (Cluster(workers=3), 1)],
)
def test_the_number_of_workers(cluster: Cluster, count: int) -> None:
    assert cluster.count(cores=6) == count


def test_a_worker_shares_the_embedded_parts_and_has_places_of_its_own() -> None:
    config = load_config(
        None, HOME | {"PORT": "3001", "CLUSTER_MODE": "true", "MOONXD_CORE_SERVICE__ENABLED": "true"}
    ).config
    assert config.core_service.enabled
    worker = worker_config(config, 2, Path("/run/redis.sock"))
    assert worker.redis.is_external
    assert worker.redis.to_url().reveal() == "unix:///run/redis.sock?db=0"
    assert worker.sqlite_path == config.sqlite_path == Path("/var/lib/moonxd/moonxd.db")
    assert worker.state_dir == Path("/var/lib/moonxd/workers/2")
    assert worker.socket == Path("/var/lib/moonxd/workers/2.sock")
    assert (worker.http.listen, worker.cluster.count(8), worker.scheduler.enabled) == (None, 1, False)
    assert not worker.core_service.enabled


def test_a_worker_of_a_daemon_with_external_parts_uses_them() -> None:
    environ = HOME | {"REDIS_URL": "redis://:secret@r:1/2", "DATABASE_URL": "postgresql://u:p@h/d"}
    config = load_config(None, environ).config
    worker = worker_config(config, 1, None)
    assert (worker.redis, worker.database) == (config.redis, config.database)


def test_a_state_directory_that_is_too_long_for_the_workers_sockets_is_refused() -> None:
    config = load_config(None, HOME | {"MOONXD_STATE_DIR": "/" + "d" * 94}).config
    with pytest.raises(ConfigError, match="choose a shorter one to run several workers"):
        worker_config(config, 1, None)
