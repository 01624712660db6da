"""How values are written for people."""

from __future__ import annotations

from decimal import Decimal

import pytest
import typer

from moonxd.cli.duration import parse_duration
from moonxd.cli.output import age, plain, short, usd


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "-"),
        (0, "0ms"),
        (0.0314, "31ms"),
        (1.44, "1.4s"),
        (12.9, "12s"),
        (185, "3m05s"),
        (7800, "2h10m"),
        (400_000, "4d"),
    ],
)
def test_age(seconds: float | None, expected: str) -> None:
    assert age(seconds) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        (Decimal(0), "$0.00"),
        (Decimal("1234567.891"), "$1,234,567.89"),
        (Decimal("0.000012345"), "$0.000012"),
        (Decimal("1e-18"), "$1E-18"),
    ],
)
def test_usd_never_shows_zero_for_what_is_not(value: Decimal | None, expected: str) -> None:
    assert usd(value).upper() == expected.upper()


def test_plain_text_has_no_power_over_the_terminal() -> None:
    assert plain("a\x1b]0;title\x07b\u202ec\r\nd") == "a�]0;title�b�c  d"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("500ms", 0.5), ("1d", 86_400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "5 minutes", "1e3", "5w"])
def test_other_durations_are_usage_errors(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write 90"):
        parse_duration(text)


def test_a_long_reason_is_cut_where_a_table_shows_it() -> None:
    assert short("no chain could be read") == "no chain could be read"
    assert short("a" * 200) == "a" * 159 + "…"
