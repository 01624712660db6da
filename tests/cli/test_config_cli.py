"""`moonxd config` as a user meets it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moonxd.cli.config import app

RUN = CliRunner()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_show_masks_secrets_and_names_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "hunter22")
    result = RUN.invoke(app, ["show", "--json"])
    rows = json.loads(result.stdout)
    assert result.exit_code == 0
    assert rows["redis.password"] == {"value": "***", "origin": "REDIS_PASSWORD"}
    assert rows["worker.concurrency"] == {"value": 10, "origin": "default"}
    text = RUN.invoke(app, ["show", "--changed"]).stdout
    assert '"***"  (REDIS_PASSWORD)' in text
    assert "worker.concurrency" not in text
    assert "hunter" not in text


def test_check_accepts_and_says_what_has_no_effect(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[prices.binance]\napi_key = "x"\n')
    result = RUN.invoke(app, ["check", "--config", str(file)])
    assert result.exit_code == 0
    assert f"prices.binance.api_key ({file}): accepted, has no effect in this version" in result.stdout
    assert f"{file}: ok" in result.stdout
    assert json.loads(RUN.invoke(app, ["check", "--json", "-c", str(file)]).stdout)["file"] == str(file)


def test_check_refuses_with_78_and_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[worker]\nconcurrency = 0\nlock_s = 0\n")
    result = RUN.invoke(app, ["check", "--config", str(file)])
    assert result.exit_code == 78
    assert "worker.concurrency = 0" in result.stderr
    assert "worker.lock_s = 0" in result.stderr
    assert result.stdout == ""
    as_json = json.loads(RUN.invoke(app, ["check", "--json", "--config", str(file)]).stdout)
    assert len(as_json["error"]["problems"]) == 2


def test_import_env_writes_toml_and_warns_beside_it(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text('export REDIS_PASSWORD="hunter22"\nREDIS_HOST=r # where\nJWT=1\nWORKER_TIMEOUT=60000\n')
    result = RUN.invoke(app, ["import-env", str(file)])
    assert result.exit_code == 0
    assert tomllib.loads(result.stdout) == {
        "redis": {"mode": "external", "host": "r", "password": "hunter22"},
        "worker": {"timeout_s": 60.0},
    }
    assert "JWT has no effect" in result.stderr
    assert "contains secrets" in result.stderr
    without = RUN.invoke(app, ["import-env", "--no-secrets", str(file)])
    assert "hunter" not in without.stdout + without.stderr
    assert "contains secrets" not in without.stderr


def test_import_env_refuses_what_cannot_be_used(tmp_path: Path) -> None:
    assert RUN.invoke(app, ["import-env", "-"], input="REDIS_PORT=x\n").exit_code == 78
    missing = RUN.invoke(app, ["import-env", str(tmp_path / "none")])
    assert missing.exit_code == 2
    assert "cannot be read: No such file" in missing.stderr


def test_example_prints_the_example() -> None:
    from moonxd.config import example

    assert RUN.invoke(app, ["example"]).stdout == example()
