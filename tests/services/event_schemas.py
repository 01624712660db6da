"""Events against the schemas that are published, by a validator of its own."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from tests.services import ROOT


@cache
def validator(name: str) -> Draft202012Validator:
    schema = json.loads((ROOT / "docs" / "events" / f"{name}.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def assert_valid(event: dict[str, Any]) -> None:
    """`event` is a decoded body of whatever type."""
    problems = [f"{error.json_path}: {error.message}" for error in validator(event["type"]).iter_errors(event)]
    assert not problems, (event["type"], problems)
