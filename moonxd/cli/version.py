"""`moonxd version`. The bare form is answered in __main__, before typer is loaded."""

from __future__ import annotations

import platform
from typing import Annotated

import typer

from ..version import VERSION
from .output import Json, connect, print_json, say


def version(
    daemon: Annotated[bool, typer.Option("--daemon", help="Ask the running daemon for its version.")] = False,
    json: Json = False,
) -> None:
    """The version of this program, or of the running daemon."""
    if daemon:
        from ..api import calls

        with connect() as client:
            answer = client.call(calls.version())
        if json:
            print_json(answer)
        else:
            say(f"moonxd {answer.version} (pid {answer.pid}, worker {answer.worker}, queue {answer.queue})")
    elif json:
        print_json({"version": VERSION, "python": platform.python_version()})
    else:
        say(f"moonxd {VERSION}")
