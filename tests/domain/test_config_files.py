"""The example file, .env files, and the way from one to the other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from moonxd.config import Config, effective, example, import_env, load_config, parse_env
from moonxd.config.keys import specs_of
from moonxd.config.parse import parse
from moonxd.config.rules import UNUSED
from tests.services import ROOT

from .test_config_old_variables import EVERY_NAME

HOME = {"HOME": "/home/nobody"}


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in table.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return leaves


def test_the_example_file_is_up_to_date() -> None:
    assert (ROOT / "config.example.toml").read_text() == example(), "run: python -m moonxd.config > config.example.toml"


def test_the_example_as_it_is_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(example())
    assert load_config(file, HOME).config == load_config(None, HOME).config


def test_the_example_uncommented_has_every_key_with_its_default() -> None:
    leaves = flat(tomllib.loads(re.sub(r"(?m)^#(?=\w)", "", example())))
    specs = specs_of(Config)
    assert list(leaves) == list(specs)
    for key, spec in specs.items():
        if spec.default not in (None, ()):
            assert parse(spec, leaves[key], text=False, base=Path("/")) == spec.default


def test_an_env_file_in_all_its_forms() -> None:
    text = (
        "\ufeff# a comment\r\n"
        "PLAIN=value\r\n"
        "export EXPORTED = spaced out  # why\r\n"
        "CRON=0 */5 * * * *\r\n"
        'DOUBLE="a # b\\nc" # after\r\n'
        "SINGLE='a \\n \"b\"'\r\n"
        "BACK=`it's`\r\n"
        "EMPTY=\r\n"
        "URL=redis://u:p=w@h:1/0\r\n"
        'LINES="one\r\ntwo"\r\n'
        "YAML: yes\r\n"
        "LAST=1"
    )
    env = parse_env(text)
    assert env.variables == {
        "PLAIN": "value",
        "EXPORTED": "spaced out",
        "CRON": "0 */5 * * * *",
        "DOUBLE": "a # b\nc",
        "SINGLE": 'a \\n "b"',
        "BACK": "it's",
        "EMPTY": "",
        "URL": "redis://u:p=w@h:1/0",
        "LINES": "one\ntwo",
        "YAML": "yes",
        "LAST": "1",
    }
    assert env.doubts == []


def test_lines_that_may_not_mean_what_was_meant_are_doubted() -> None:
    env = parse_env("DB_PASSWORD=abc#def\nnonsense\nA=1\nA=2\n")
    assert env.variables == {"DB_PASSWORD": "abc", "A": "2"}
    assert env.doubts == [
        "DB_PASSWORD: the value ends before '#', which starts a comment; quote it if # belongs to it",
        "line 2 sets nothing",
        "A is set more than once: the last one counts",
    ]


def test_an_imported_file_means_what_the_variables_meant(tmp_path: Path) -> None:
    variables = parse_env("\n".join(EVERY_NAME)).variables
    imported = import_env(variables)
    file = tmp_path / "config.toml"
    file.write_text(imported.toml)
    assert load_config(file, HOME).config == load_config(None, HOME | variables).config
    assert imported.has_secrets


@pytest.mark.parametrize("variable", ["REDIS_LAZY_CONNECT=true", "KAFKA_PRODUCER_IDEMPOTENT=true", "DB_SSL=true"])
def test_a_part_that_became_external_stays_so_in_the_imported_file(tmp_path: Path, variable: str) -> None:
    variables = parse_env(variable).variables
    file = tmp_path / "config.toml"
    file.write_text(import_env(variables).toml)
    assert load_config(file, HOME).config == load_config(None, HOME | variables).config


def test_an_import_without_secrets_has_none_and_says_how_to_set_them() -> None:
    imported = import_env(
        {"REDIS_PASSWORD": "hunter22", "REDIS_HOST": "r", "DATABASE_URL": "postgres://u:hunter23@h/d"}, secrets=False
    )
    assert "hunter" not in imported.toml
    assert not imported.has_secrets
    assert 'host = "r"' in imported.toml
    assert "redis.password is left out: set MOONXD_REDIS__PASSWORD" in imported.remarks
    # The database is external although the one key that said so had to stay out.
    assert '[database]\nmode = "external"' in imported.toml


def test_an_import_names_what_has_no_effect() -> None:
    remarks = import_env({"NODE_ENV": "test", "JWT_SECRET": "x", "REDIS_PASSWORD": "", "BINANCE_API_KEY": "x"}).remarks
    assert [remark.split(":")[0] for remark in remarks] == [
        "NODE_ENV has no effect",
        "prices.binance.api_key (BINANCE_API_KEY)",
        "JWT_SECRET has no effect",
        "REDIS_PASSWORD has no effect",
    ]


def test_awkward_values_survive_the_way_through_toml(tmp_path: Path) -> None:
    password = 'q"uo\\te\n,    ]é'
    imported = import_env({"REDIS_PASSWORD": password, "KAFKA_BROKERS": "a:1,b:2"})
    file = tmp_path / "config.toml"
    file.write_text(imported.toml, "utf-8")
    config = load_config(file, HOME).config
    assert config.redis.password
    assert config.redis.password.reveal() == password
    assert config.kafka.brokers == ("a:1", "b:2")


def test_effective_values_are_masked_and_have_an_origin() -> None:
    rows = effective(load_config(None, HOME | {"REDIS_PASSWORD": "hunter22"}))
    assert rows["redis.password"] == {"value": "***", "origin": "REDIS_PASSWORD"}
    assert rows["worker.concurrency"] == {"value": 10, "origin": "default"}
    assert list(rows) == list(specs_of(Config))


def test_every_key_is_read_somewhere_or_said_to_have_no_effect() -> None:
    package = ROOT / "moonxd"
    rooms = [file for file in package.rglob("*.py") if file.parent.name != "config"]
    # Methods of the sections (to_url, backoff, alchemy_key) read keys on behalf of the rooms.
    sections = [package / "config" / f"{name}.py" for name in ("core", "outlets", "sources", "tree")]
    read = set(re.findall(r"\.([a-z_0-9]+)\b", "\n".join(file.read_text() for file in [*rooms, *sections])))
    unread = {key for key, spec in specs_of(Config).items() if spec.name not in read and key not in UNUSED}
    assert unread == set()
