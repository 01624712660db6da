"""The keys of the live feed: what switches it on, and what is refused before anybody relies on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from moonxd.config import load_config
from moonxd.config.load import InvalidConfig
from moonxd.config.tree import secrets_in

HOME = {"HOME": "/home/nobody"}
SECRET = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("variables", "is_on"),
    [
        ({}, False),
        ({"HS256_SECRET": SECRET}, True),
        ({"PUBLIC_STATS": "true"}, True),
        ({"EDDSA_PUBLIC_KEY": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"}, True),
        ({"HS256_SECRET": SECRET, "ENABLED": "false"}, False),
        ({"ORIGINS": "https://app.example"}, False),
    ],
)
def test_a_key_switches_it_on(variables: dict[str, str], is_on: bool) -> None:
    environ = HOME | {f"MOONXD_LIVE__{name}": value for name, value in variables.items()}
    assert load_config(None, environ).config.live.is_on is is_on


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HS256_SECRET", "short", "at least 32 bytes"),
        ("EDDSA_PUBLIC_KEY", "-----BEGIN PRIVATE KEY-----\nAAAA", "must be a public key"),
        ("EDDSA_PUBLIC_KEY", "live.pem", "absolute path"),
        ("EDDSA_PUBLIC_KEY", "/no/such/file.pem", "existing file"),
        ("ORIGINS", "app.example", "http"),
        ("ORIGINS", "https://app.example/page", "must be an origin"),
        ("ORIGINS", "https://user@app.example", "must be an origin"),
        ("PING_S", "0", "at least 0.1"),
    ],
)
def test_what_cannot_work_is_refused(name: str, value: str, said: str) -> None:
    with pytest.raises(InvalidConfig, match=said) as refused:
        load_config(None, HOME | {f"MOONXD_LIVE__{name}": value})
    assert "BEGIN PRIVATE" not in str(refused.value)


def test_origins_are_written_as_browsers_send_them() -> None:
    loaded = load_config(None, HOME | {"MOONXD_LIVE__ORIGINS": "https://App.Example/,http://x:8080,null,*"})
    assert loaded.config.live.origins == ("https://app.example", "http://x:8080", "null", "*")


def test_the_secret_is_one(tmp_path: Path) -> None:
    config = load_config(None, HOME | {"MOONXD_LIVE__HS256_SECRET": SECRET}).config
    assert SECRET not in repr(config)
    assert SECRET in secrets_in(config)
