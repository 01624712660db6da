"""Text for a terminal: foreign text made harmless, measured and cut in cells; numbers with their units."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache

import msgspec
from rich.cells import cell_len, set_cell_size

#: Format characters (bidi overrides, joiners, tags), and modifiers whose width terminals disagree about.
_DROPPED_CATEGORIES = frozenset({"Cf", "Cn", "Co"})
_COMBINING = frozenset({"Mn", "Me"})
_MAX_COMBINING = 2
#: A steady value fills a sparkline to this part of its height only: a wall of full blocks says nothing, loudly.
HEADROOM = 1.4


class Glyphs(msgspec.Struct, frozen=True):
    """The symbols that carry meaning beside colour, in a rich and in a plain edition."""

    live: str = "●"
    waiting: str = "○"
    lost: str = "✗"
    retry: str = "↻"
    warn: str = "!"
    paused: str = "‖"
    cursor: str = "›"
    ellipsis: str = "…"
    dot: str = "·"
    up: str = "↑"
    down: str = "↓"
    rule: str = "─"
    bars: str = "▁▂▃▄▅▆▇█"
    full: str = "█"
    empty: str = "░"
    #: Every pattern of a cell's dots, none first (see braille.py): 2x4 of them here, 1x2 in the plain edition.
    dots: str = " " + "".join(map(chr, range(0x2801, 0x2900)))
    side: str = "│"
    unprintable: str = "�"


UNICODE = Glyphs()
ASCII = Glyphs(
    live="*",
    waiting="o",
    lost="x",
    retry="~",
    warn="!",
    paused="=",
    cursor=">",
    ellipsis="~",
    dot="-",
    up="^",
    down="v",
    rule="-",
    bars="_.:-=+*#",
    full="#",
    empty=".",
    dots=" '.:",
    side="|",
    unprintable="?",
)


def clean(text: str, glyphs: Glyphs = UNICODE) -> str:
    """`text` as one line that can only ever print: no control or escape character survives, nor bidi tricks.

    Line breaks and tabs become spaces, other control characters a visible replacement, so that nothing is hidden.
    """
    if text.isascii() and text.isprintable():
        return text
    return _clean(text, glyphs)


@lru_cache(maxsize=1024)
def _clean(text: str, glyphs: Glyphs) -> str:
    kept: list[str] = []
    combining = 0
    for character in text:
        category = unicodedata.category(character)
        combining = combining + 1 if category in _COMBINING else 0
        if combining <= _MAX_COMBINING:
            kept.append(_harmless(character, category, glyphs))
    return "".join(kept) if glyphs is UNICODE else "".join(kept).encode("ascii", "replace").decode("ascii")


def _harmless(character: str, category: str, glyphs: Glyphs) -> str:
    code = ord(character)
    if character in "\n\r\t\v\f\x85" or category in ("Zl", "Zp", "Zs"):
        return " "
    if category in ("Cc", "Cs"):
        return glyphs.unprintable
    if 0x1F1E6 <= code <= 0x1F1FF:  # flags: pairs of letters, whose width terminals disagree about
        return chr(code - 0x1F1E6 + ord("A"))
    if category in _DROPPED_CATEGORIES or 0xFE00 <= code <= 0xFE0F or 0x1F3FB <= code <= 0x1F3FF:
        return ""
    return character


def width_of(text: str) -> int:
    """Terminal cells that `text` (cleaned) takes."""
    return cell_len(text)


def fit(text: str, width: int, *, right: bool = False, middle: bool = False, glyphs: Glyphs = UNICODE) -> str:
    """`text` (cleaned) in exactly `width` cells: padded, or cut with an ellipsis at the end or in the `middle`."""
    if width <= 0:
        return ""
    if cell_len(text) > width:
        tail = text[-4:] if middle and width > 8 else ""
        text = set_cell_size(text, width - 1 - cell_len(tail)).rstrip() + glyphs.ellipsis + tail
    padding = " " * (width - cell_len(text))
    return padding + text if right else text + padding


def wrap(text: str, width: int) -> list[str]:
    """`text` (cleaned) in lines of at most `width` cells, broken at spaces where there are any."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        while cell_len(word) > width:
            head = set_cell_size(word, width).rstrip()
            lines, line = ([*lines, line] if line else lines), ""
            lines.append(head)
            word = word[len(head) :]
        if line and cell_len(line) + 1 + cell_len(word) > width:
            lines, line = [*lines, line], word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line] if line or not lines else lines


def count(number: int) -> str:
    """A count in at most six characters: 0, 1,234, 99,999, 123k, 1.23M, 4.56G."""
    if number < 100_000:
        return f"{number:,}"
    if number < 1_000_000:
        return f"{number // 1000}k"
    for size, letter in ((1_000_000, "M"), (1_000_000_000, "G")):
        if number < size * 1000:
            return f"{number / size:.2f}{letter}" if number < size * 99.995 else f"{number // size}{letter}"
    return f"{number // 1_000_000_000}G"


def rate(per_second: float | None) -> str:
    """Per second: 0, 0.4, 12.5, 1,234. An unknown rate is a dash, never a zero."""
    if per_second is None:
        return "-"
    if per_second == 0:
        return "0"
    return f"{per_second:.1f}" if per_second < 99.95 else f"{per_second:,.0f}"


def seconds(duration: float | None) -> str:
    """A measured duration: 0.4 ms, 420 ms, 1.30 s, 42.0 s, 5m 02s; a dash when unknown."""
    if duration is None:
        return "-"
    if duration < 0.9995:
        return f"{duration * 1000:.0f} ms" if duration >= 0.00095 or duration == 0 else f"{duration * 1000:.1f} ms"
    if duration < 9.995:
        return f"{duration:.2f} s"
    return f"{duration:.1f} s" if duration < 99.95 else age(duration)


def age(duration: float) -> str:
    """Time passed, in at most seven characters: 3.2 s, 42 s, 3m 12s, 2h 05m, 4d 03h, 142 d. Never negative."""
    whole = max(0, int(duration))
    if duration < 9.95:
        return f"{max(0.0, duration):.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    days = whole // 86400
    return f"{days}d {whole % 86400 // 3600:02d}h" if days < 100 else f"{days} d"


def megabytes(size: int) -> str:
    """Memory in MB (2^20 bytes)."""
    return f"{size / (1 << 20):.0f} MB"


def percent(share: float) -> str:
    """A share as percent: 0 %, <0.1 %, 0.4 %, 12 %."""
    value = share * 100
    if 0 < value < 0.1:
        return "<0.1 %"
    return f"{value:.1f} %" if 0 < value < 0.95 else f"{value:.0f} %"


def change(percents: float | None) -> str:
    """A change in percent, in at most seven characters: +0.4 %, -12.5 %, +340 %."""
    if percents is None:
        return "-"
    if abs(percents) < 99.95:
        return f"{percents:+.1f} %"
    return f"{percents:+.0f} %" if abs(percents) < 9_999.5 else f"{'>' if percents > 0 else '<'}9999 %"


def dollars(amount: Decimal | None) -> str:
    """An amount in at most seven characters: $0, $950, $12.3k, $1.23M, $45.6B, $1.20T."""
    if amount is None:
        return "-"
    value = float(amount)
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"${_three(value / size)}{letter}"
    return f"${value:.0f}"


def gwei(wei: int | None) -> str:
    """A gas price in gwei, in at most seven characters: 0, <0.0001, 0.0123, 1.23, 24.1, 312."""
    if wei is None:
        return "-"
    value = wei / 1e9
    if value == 0:
        return "0"
    if value < 0.0001:
        return "<0.0001"
    return f"{value:.4f}" if value < 0.9995 else _three(value)


def _three(value: float) -> str:
    """Three digits that count, more before the point."""
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def sparkline(values: Sequence[float | None], *, top: float = 0.0, glyphs: Glyphs = UNICODE) -> str:
    """One character a value, scaled from 0 to the larger of `top` and the highest value, with some headroom.

    Zero is the lowest bar and nothing else is; an unknown value (None) is a blank.
    """
    highest = max((value for value in values if value is not None), default=0.0)
    scale = max(highest, top) * HEADROOM
    return "".join(_bar(value, scale, glyphs.bars) for value in values)


def _bar(value: float | None, scale: float, bars: str) -> str:
    if value is None:
        return " "
    if value <= 0 or scale <= 0:
        return bars[0]
    steps = len(bars) - 1
    return bars[min(steps, 1 + int(value / scale * steps))]


def gauge(part: int, whole: int, width: int, glyphs: Glyphs = UNICODE) -> str:
    """A bar of `width` cells, `part` of `whole` filled; something is never drawn as nothing, nor not-all as all."""
    if whole <= 0:
        return glyphs.empty * width
    filled = round(min(part, whole) / whole * width)
    filled = max(filled, 1) if part > 0 else 0
    filled = min(filled, width - 1) if part < whole else width
    return glyphs.full * filled + glyphs.empty * (width - filled)
