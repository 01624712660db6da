"""Text from strangers (token names, other services' errors), made fit to be shown and stored."""

from __future__ import annotations

import unicodedata

#: Characters of a token's symbol and name that we keep.
SYMBOL_MAX = 32
NAME_MAX = 128


def clean_text(text: str | None, limit: int) -> str | None:
    """`text` fit for a screen, a log and a column: no control, format (bidi, zero-width) or unassigned characters,
    white space folded, cut to `limit` characters. None when nothing is left."""
    if text is None:
        return None
    visible = "".join(c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    return " ".join(visible.split())[:limit].rstrip() or None


def is_disguised(text: str | None) -> bool:
    """Whether `text` holds invisible or direction-changing characters, which no honest symbol or name needs."""
    return text is not None and any(unicodedata.category(c) in ("Cf", "Cc", "Co") for c in text.rstrip("\0"))
