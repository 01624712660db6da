"""Layers, types, rules between keys, and what an error says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moonxd.config import Config, InvalidConfig, Listen, diff_reloadable, load_config, secrets_in
from moonxd.config.keys import Section, specs_of
from moonxd.domain.chain import CHAINS
from moonxd.domain.errors import ConfigError
from moonxd.domain.job import Backoff, Keep

HOME = {"HOME": "/home/nobody"}


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(text)
    file.chmod(0o600)
    return file


def problems(file: Path | None, environ: dict[str, str] | None = None, **flags: Any) -> tuple[str, ...]:
    with pytest.raises(InvalidConfig) as caught:
        load_config(file, HOME | (environ or {}), flags)
    assert isinstance(caught.value, ConfigError)
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return caught.value.problems


# ---- layers ------------------------------------------------------------------------------------------------------


def test_each_layer_wins_over_the_one_before(tmp_path: Path) -> None:
    file = write(tmp_path, "[worker]\nconcurrency = 2\nmax_jobs = 2\ntimeout_s = 2\nlock_s = 2\n")
    environ = {"WORKER_CONCURRENCY": "3", "WORKER_MAX_JOBS": "3", "WORKER_TIMEOUT": "3000"}
    own = {"MOONXD_WORKER__CONCURRENCY": "4", "MOONXD_WORKER__MAX_JOBS": "4"}
    loaded = load_config(file, HOME | environ | own, {"worker.concurrency": 5, "worker.max_jobs": None})
    worker = loaded.config.worker
    assert (worker.max_stalled, worker.lock_s, worker.timeout_s, worker.max_jobs, worker.concurrency) == (1, 2, 3, 4, 5)
    keys = ("worker.max_stalled", "worker.lock_s", "worker.timeout_s", "worker.max_jobs", "worker.concurrency")
    assert [loaded.origins[key] for key in keys] == [
        "default", str(file), "WORKER_TIMEOUT", "MOONXD_WORKER__MAX_JOBS", "flag",
    ]  # fmt: skip
    assert worker.slots == 4


def test_the_file_is_named_or_found(tmp_path: Path) -> None:
    file = write(tmp_path, '[log]\nlevel = "debug"\n')
    assert load_config(None, HOME | {"MOONXD_CONFIG": str(file)}).path == file
    home = tmp_path / "xdg"
    (home / "moonxd").mkdir(parents=True)
    file.rename(home / "moonxd" / "config.toml")
    loaded = load_config(None, {"XDG_CONFIG_HOME": str(home), "HOME": "/home/nobody"})
    assert loaded.path == home / "moonxd" / "config.toml"
    assert loaded.config.log.level == "debug"


def test_short_forms_and_paths(tmp_path: Path) -> None:
    environ = {"MOONXD_STATE_DIR": str(tmp_path), "MOONXD_SOCKET": "/run/x.sock"}
    config = load_config(None, HOME | environ).config
    assert (config.state_dir, config.socket, config.sqlite_path) == (
        tmp_path,
        Path("/run/x.sock"),
        tmp_path / "moonxd.db",
    )
    assert load_config(None, {"MOONXD_STATE_DIR": str(tmp_path)}).config.socket == tmp_path / "moonxd.sock"
    both = {"MOONXD_STATE_DIR": "/short", "MOONXD_DAEMON__STATE_DIR": "/long"}
    assert load_config(None, both).config.state_dir == Path("/short")
    assert load_config(None, {"XDG_STATE_HOME": "/state"}).config.state_dir == Path("/state/moonxd")


def test_relative_paths_in_a_file_start_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("{}")
    file = write(tmp_path, '[daemon]\nstate_dir = "state"\n[tokens]\nlist_files = ["list.json"]\n')
    config = load_config(file, HOME).config
    assert config.state_dir == tmp_path / "state"
    assert config.tokens.list_files == (tmp_path / "list.json",)


def test_lists_in_variables_are_written_with_commas_or_as_toml() -> None:
    for text in ("base, bsc", '["base", "bsc"]'):
        assert load_config(None, HOME | {"MOONXD_CHAINS__ENABLED": text}).config.chains.enabled == ("base", "bsc")


# ---- errors ------------------------------------------------------------------------------------------------------


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
        colour = 1
        redis = 5
        [worker]
        concurrency = 0
        timeout_s = "fast"
        concurency = 3
        lock_s = nan
        [log]
        level = "inof"
        format = true
        [chains]
        enabled = "base"
        [chains.solana]
        rpc_urls = ["https://s.example"]
        [queue]
        name = "a:b"
        concurrency = 5
        remove_on_fail = 1.5
        [daemon]
        socket_mode = 660
        """,
    )
    found = problems(file, {"MOONXD_WROKER__LOCK_S": "1", "DB_PORT": "0"})
    assert [problem.removeprefix(f"{file}: ") for problem in found] == [
        "there is no key colour",
        "redis is a table: write [redis] and its keys below",
        "worker.concurrency = 0: must be a whole number from 1 to 10000",
        "worker.timeout_s = 'fast': must be a number of seconds, at least 0.001",
        "there is no key worker.concurency (did you mean concurrency?)",
        "worker.lock_s = nan: must be a number of seconds, at least 1",
        "log.level = 'inof': must be one of debug, info, warning, error, critical (did you mean info?)",
        "log.format = true: must be text: put it in quotes",
        'chains.enabled = \'base\': must be a list like ["one", "two"]',
        "there is no table [chains.solana]",
        "queue.name = 'a:b': must not contain ':': BullMQ separates the parts of its keys with it",
        "there is no key queue.concurrency (did you mean worker.concurrency?)",
        "queue.remove_on_fail = 1.5: must be a whole number, at least -1",
        "daemon.socket_mode = 660: must be an octal file mode like 0o660",
        "DB_PORT = '0': must be a whole number from 1 to 65535",
        "MOONXD_WROKER__LOCK_S: there is no such variable (did you mean MOONXD_WORKER__LOCK_S?)",
    ]


def test_an_old_variable_in_the_file_is_told_its_new_name(tmp_path: Path) -> None:
    file = write(tmp_path, 'REDIS_HOST = "x"\n')
    assert problems(file) == (f"{file}: there is no key REDIS_HOST (did you mean redis.host?)",)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"[log\n", "is not valid TOML: Expected ']'"), (b"\xff", "is not UTF-8 text (byte 0)"), (None, "does not exist")],
)
def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "config.toml"
    if content is not None:
        file.write_bytes(content)
    assert says in problems(file)[0]


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    assert "cannot be read: Is a directory" in problems(tmp_path)[0]


def test_no_error_shows_a_secret(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        '[redis]\npassword = ["hunter22"]\nurl = "http://u:hunter22@h"\n[database]\nurl = "postgres://u:hunter/22@h:x/d"\n'
        '[chains.base]\nrpc_urls = ["htps://h/v2/hunter2222222"]\n[prices.defillama]\nbase_url = "https://u:hunter22@h"\n',
    )
    text = "\n".join(problems(file, {"MOONXD_KAFKA__PASSWORD": "hunter22\0"}))
    assert "hunter" not in text
    assert "redis.url = 'http://***@h': must be a URL starting with redis://" in text
    assert "MOONXD_KAFKA__PASSWORD = ***: must not contain NUL" in text
    assert "prices.defillama.base_url = 'https://***@h': must not contain credentials" in text


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"database.pool_min": 9, "database.pool_max": 8}, "database.pool_min = 9 is above database.pool_max = 8"),
        ({"kafka.retry_min_s": 9}, "kafka.retry_min_s is above kafka.retry_max_s = 1"),
        ({"redis.sentinels": "a:1,b:2"}, "redis.sentinels is set without redis.service"),
        ({"redis.service": "m"}, "redis.service is set without redis.sentinels"),
        ({"redis.tls_cert": __file__}, "redis.tls_cert and redis.tls_key belong together"),
        ({"kafka.username": "u"}, "kafka.username and kafka.password belong together"),
        ({"mongodb.uri": "mongodb://u:p@h1,h2/?w=1"}, "mongodb.uri names no database: add /NAME"),
        ({"core_service.prefixes": ["a:", ""]}, "core_service.prefixes = ['a:', '']: must not be empty"),
        ({"core_service.enabled": True, "core_service.prefixes": []}, "core_service.prefixes is empty"),
        ({"chains.base.source": "alchemy"}, "needs chains.base.alchemy_key or alchemy.api_key"),
        ({"chains.bsc.rpc_urls": []}, "chains.bsc.rpc_urls is empty and there is no Alchemy key"),
        ({"chains.enabled": []}, "chains.enabled is empty: name at least one of ethereum,"),
        ({"redis.tls_ca": "/nowhere/ca.pem"}, "must be an existing file"),
        ({"daemon.state_dir": "/" + "d" * 120}, "the path of a unix socket may have 107 bytes, this one has 133"),
        ({"http.listen": "0.0.0.0:3001"}, "must be a loopback address"),
        ({"http.token": "short"}, "must have at least 16 characters"),
        ({"http.listen": "localhost"}, "must be host:port like 127.0.0.1:3001"),
        ({"no.such": 1}, "flag no.such: there is no such key"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], says: str) -> None:
    assert says in problems(None, **settings)[0]


# ---- parts and notes ---------------------------------------------------------------------------------------------


def test_a_key_of_the_file_makes_its_part_external_but_one_of_the_embedded_server_does_not(tmp_path: Path) -> None:
    loaded = load_config(write(tmp_path, '[redis]\nappendfsync = "always"\n[database]\nhost = "db"\n'), HOME)
    assert (loaded.config.redis.is_external, loaded.config.database.is_external) == (False, True)
    assert loaded.origins["database.mode"] == "database.host is set"


def test_a_mode_that_was_chosen_wins_and_says_what_it_silences() -> None:
    loaded = load_config(None, HOME | {"MOONXD_REDIS__MODE": "embedded", "REDIS_HOST": "r"})
    assert not loaded.config.redis.is_external
    assert "redis.mode = 'embedded': what is set for an external one has no effect" in loaded.notes


def test_notes_say_what_wins() -> None:
    environ = {"REDIS_URL": "redis://r", "REDIS_HOST": "q", "WORKER_CONCURRENCY": "200"}
    notes = load_config(None, HOME | environ).notes
    assert "redis.url is set and wins over redis.host" in notes
    assert "worker.max_jobs = 100 bounds worker.concurrency = 200" in notes


def test_a_file_with_secrets_that_others_may_read_is_noted(tmp_path: Path) -> None:
    file = write(tmp_path, '[redis]\npassword = "hunter22"\n')
    assert load_config(file, HOME).notes == []
    file.chmod(0o644)
    assert load_config(file, HOME).notes == [f"{file} holds secrets and others may read it: chmod 600"]


def test_every_price_source_is_built() -> None:
    names = ("defillama", "alchemy", "coingecko", "dexscreener", "binance")
    loaded = load_config(None, HOME | {"MOONXD_PRICES__SOURCES": ",".join(names)})
    assert loaded.config.prices.sources == names == Config().prices.sources
    assert loaded.notes == []


# ---- what the tree offers ----------------------------------------------------------------------------------------


def test_urls_are_made_of_their_parts() -> None:
    environ = {"REDIS_HOST": "::1", "REDIS_PASSWORD": "p@ss/w", "DB_PASSWORD": "a b", "DB_HOST": "db", "DB_SSL": "true"}
    config = load_config(None, HOME | environ).config
    assert config.redis.to_url().reveal() == "redis://:p%40ss%2Fw@[::1]:6379/0"
    assert config.database.to_url().reveal() == "postgresql://postgres:a%20b@db:5432/moonx_farm?sslmode=require"
    assert "ss" not in repr(config.redis.to_url()).replace("redis", "")
    by_socket = load_config(
        None, HOME, {"redis.socket": "/run/r.sock", "redis.db": 2, "database.host": "/run/pg"}
    ).config
    assert by_socket.redis.to_url().reveal() == "unix:///run/r.sock?db=2"
    assert by_socket.database.to_url().reveal() == "postgresql://postgres@/moonx_farm?host=/run/pg&port=5432"


def test_queue_defaults_in_the_words_of_the_domain() -> None:
    settings = {"queue.backoff_delay_s": 2.5, "queue.backoff_multiplier": 3, "queue.remove_on_complete": -1,
                "queue.remove_on_fail": 0, "queue.remove_on_fail_age_s": 60}  # fmt: skip
    queue = load_config(None, HOME, settings).config.queue
    assert queue.backoff == Backoff("exponential", 2500, 0.0, 3.0)
    assert (queue.keep_completed, queue.keep_failed) == (Keep(), Keep(count=0, age_s=60))


def test_every_chain_has_endpoints_and_alchemy_when_it_has_a_key() -> None:
    config = load_config(None, HOME | {"ALCHEMY_API_KEY": "all", "ALCHEMY_API_KEY_BASE": "own"}).config
    assert {chain.slug for chain in CHAINS.values() if config.chains.endpoints(chain.slug).rpc_urls} == {
        chain.slug for chain in config.enabled_chains
    }
    keys = {slug: key.reveal() for slug in ("base", "bsc") if (key := config.alchemy_key(slug))}
    assert keys == {"base": "own", "bsc": "all"}
    assert load_config(None, HOME).config.alchemy_key("base") is None
    forced = {"chains.base.source": "rpc"}
    assert load_config(None, HOME | {"ALCHEMY_API_KEY": "all"}, forced).config.alchemy_key("base") is None


def test_alchemy_urls_at_the_vendor_and_at_a_stand_in() -> None:
    config = load_config(None, HOME | {"ALCHEMY_API_KEY": "k" * 20}).config
    key = config.alchemy_key("base")
    assert key
    assert config.alchemy.url("base-mainnet", key).reveal() == f"https://base-mainnet.g.alchemy.com/v2/{'k' * 20}"
    local = load_config(None, HOME | {"ALCHEMY_BASE_URL": "http://127.0.0.1:1/a"}).config.alchemy
    assert local.url("base-mainnet", key).reveal() == f"http://127.0.0.1:1/a/base-mainnet/v2/{'k' * 20}"


def test_listen_addresses() -> None:
    assert load_config(None, HOME | {"MOONXD_HTTP__LISTEN": "[::1]:3001"}).config.http.listen == Listen("::1", 3001)
    assert str(Listen("::1", 3001)) == "[::1]:3001"
    assert not Listen("example.org", 1).is_loopback


def test_a_reload_tells_apart_what_it_can_apply() -> None:
    old = load_config(None, HOME).config
    changed = {"LOG_LEVEL": "debug", "BASE_RPC_URL": "https://b", "REDIS_HOST": "r", "MONGODB_MIN_POOL_SIZE": "9"}
    new = load_config(None, HOME | changed).config
    assert diff_reloadable(old, new) == (
        ["log.level", "chains.base.rpc_urls"],
        ["redis.mode", "redis.host", "mongodb.mode", "mongodb.pool_min"],
    )
    assert diff_reloadable(old, old) == ([], [])


def test_secrets_for_the_log() -> None:
    environ = {"REDIS_PASSWORD": "hunter22", "DATABASE_URL": "postgres://u:hunter%2023@h/d"}
    found = secrets_in(
        load_config(None, HOME | environ | {"BASE_RPC_URL": "https://n.example/v2/0123456789abcdef"}).config
    )
    assert {"hunter22", "hunter%2023", "hunter 23", "0123456789abcdef"} <= set(found)


def test_the_configuration_is_frozen_and_prints_no_secret() -> None:
    config = load_config(None, HOME | {"REDIS_PASSWORD": "hunter22"}).config
    assert "hunter22" not in repr(config)
    with pytest.raises(AttributeError):
        config.redis.host = "x"  # type: ignore[misc]


def test_every_key_has_a_meaning_and_a_parser() -> None:
    def leaves(section: Section) -> int:
        values = [getattr(section, name) for name in section.__struct_fields__]
        return sum(leaves(value) if isinstance(value, Section) else 1 for value in values)

    specs = specs_of(Config)
    # A field without a Key would be taken for a table: every leaf must be in the catalogue.
    assert len(specs) == leaves(Config())
    assert all(spec.key.doc and not spec.key.doc.endswith(".") for spec in specs.values())


def test_importing_the_configuration_loads_nothing_heavy() -> None:
    code = "import sys, moonxd.config; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=30, text=True).stdout
    heavy = {"trio", "asyncio", "httpx", "psycopg", "hiredis", "typer", "rich", "starlette", "prometheus_client"}
    assert not heavy & set(loaded.split())
