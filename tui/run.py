"""Runs the live view on this process's terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from .text import ASCII, UNICODE, Glyphs

#: Terminals that cannot place text, and those whose font lacks the symbols.
_DUMB = frozenset({"", "dumb", "unknown"})
_PLAIN_FONT = frozenset({"linux", "vt100", "vt102", "vt220", "ansi"})


def run_top(socket: Path | str, *, on_quit: Callable[[], None] | None = None) -> int:
    """Show the daemon that listens on `socket` until `q`; returns the exit code.

    `on_quit` is called once the terminal is as it was before, also when the view was ended by SIGTERM.
    """
    # Textual takes most of the start time: whoever only imports this module does not pay for it.
    from .app import TopApp
    from .client import over

    try:
        code = TopApp(over(Path(socket)), glyphs=glyphs_for(sys.stdout, os.environ)).run()
        return code or 0
    finally:
        if on_quit is not None:
            on_quit()


def can_show(environ: Mapping[str, str]) -> bool:
    """Whether this process has a terminal that the live view can use. Textual draws on standard error."""
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return all(stream.isatty() for stream in streams) and environ.get("TERM", "") not in _DUMB


def glyphs_for(stream: TextIO, environ: Mapping[str, str]) -> Glyphs:
    """Symbols that `stream` can encode and the terminal's font is likely to have."""
    encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
    if stream.isatty() and environ.get("TERM", "") in _PLAIN_FONT:
        return ASCII
    return UNICODE if encoding.startswith("utf") else ASCII
