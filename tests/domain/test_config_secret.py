"""Secrets stay secret however they are printed."""

from __future__ import annotations

import copy
import pickle

import msgspec
import pytest

from moonxd.config import Secret, SecretUrl, redact_url


def test_a_secret_shows_nothing() -> None:
    secret = Secret("hunter22")
    for shown in (str(secret), repr(secret), f"{secret}", f"{secret:>5}", "%s %r" % (secret, secret), f"{[secret]}"):  # noqa: UP031
        assert "hunter" not in shown
        assert "***" in shown
    assert secret.reveal() == "hunter22"


def test_a_secret_is_not_encoded_or_pickled() -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret("hunter22"))
    with pytest.raises(TypeError):
        msgspec.json.encode(Secret("hunter22"))
    assert msgspec.json.encode(Secret("hunter22"), enc_hook=str) == b'"***"'


def test_secrets_compare_by_value_and_kind() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("redis://h") != SecretUrl("redis://h")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert not Secret("")
    assert copy.deepcopy(Secret("a")) == copy.copy(Secret("a")) == Secret("a")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://user:pass@h:1/0?password=x&db=2", "redis://***@h:1/0?password=***&db=2"),
        ("postgresql://u@h/name?sslmode=require", "postgresql://***@h/name?sslmode=require"),
        ("postgresql://u:p/q?r@h/name", "postgresql://***@h/name"),
        ("mongodb://u:p@h1:1,h2:2/db?replicaSet=r", "mongodb://***@h1:1,h2:2/db?replicaSet=r"),
        ("https://n.example/v2/key", "https://n.example/***"),
        ("https://n.example/?apikey=1&x=2#frag", "https://n.example/?apikey=***&x=2"),
        ("https://n.example", "https://n.example"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("http://[::1", "http://[::1"),
        ("no url at all", "***"),
    ],
)
def test_a_url_keeps_what_operators_need(url: str, shown: str) -> None:
    assert redact_url(url) == str(SecretUrl(url)) == shown


def test_the_parts_of_a_url_that_no_log_may_show() -> None:
    assert SecretUrl("redis://h:1/0").parts() == ()
    assert set(SecretUrl("rediss://u:p%40ss@h/0").parts()) == {"rediss://u:p%40ss@h/0", "p%40ss", "p@ss"}
    assert "0123456789abcdef" in SecretUrl("https://h/v2/0123456789abcdef").parts()
    assert "to ken" in SecretUrl("https://h/?token=to%20ken").parts()
    assert SecretUrl("redis://u:secret@[::1").parts() == ("redis://u:secret@[::1", "secret")
    assert SecretUrl("https://n.example/v2/x").host == "n.example"
    assert SecretUrl("https://[").host == ""
