"""`moonxd migrate`: bring the PostgreSQL database up to date, or say what that would do.

Beside `serve` the only command that opens a part of the outside itself: it runs before any daemon does.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .output import Json, print_json, say


def migrate(
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Configuration file (TOML).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Try everything, keep nothing.")] = False,
    json: Json = False,
) -> None:
    """Create or extend the tables in DATABASE_URL, forward only, in one transaction; `serve` does it too at its start.

    Existing tables keep their names, columns and rows. The embedded database is always up to date.
    """
    import os

    import trio

    from ..api.client import ClientError
    from ..config import load_config
    from ..domain.errors import Transient
    from ..wiring import ledger_name, migrate_ledger

    loaded = load_config(config, os.environ).config
    if not loaded.database.is_external:
        steps: list[str] = []
    else:
        try:
            steps = trio.run(partial(migrate_ledger, loaded, dry_run=dry_run))
        except Transient as error:
            raise ClientError(str(error), "is DATABASE_URL right, and does the server run?") from error
    if json:
        print_json({"database": ledger_name(loaded), "applied": steps, "dryRun": dry_run})
        return
    verb = "would be applied" if dry_run else "applied"
    for step in steps:
        say(f"{step}: {verb}")
    if not steps:
        say(f"the database ({ledger_name(loaded)}) is up to date")
