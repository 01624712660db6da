"""`moonxd top`: the live view."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Annotated

import typer

from ..api import calls
from .output import connect

Once = Annotated[bool, typer.Option("--once", help="Print one plain frame and end: for scripts, logs and tickets.")]


def top(once: Once = False) -> None:
    """Watch the daemon live, and pause, resume or requeue from there. `?` inside shows the keys.

    Without a terminal, or on one that cannot place text (TERM=dumb), it prints one frame as with --once.
    """
    from tui.run import can_show

    if once or not can_show(os.environ):
        _print_frame()
        return
    from tui.run import run_top

    from ..paths import find_socket

    raise typer.Exit(run_top(find_socket(os.environ)))


def _print_frame() -> None:
    from tui.once import frame
    from tui.run import glyphs_for

    with connect() as daemon:
        snapshot = daemon.call(calls.status())
    # Into a file or a pipe the reasons matter more than the width; COLUMNS overrides.
    width = shutil.get_terminal_size((200, 24)).columns
    sys.stdout.write(frame(snapshot, time.time(), width, glyphs_for(sys.stdout, os.environ)))
