"""`moonxd config`: what is configured, where each value is from, and whether it can be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import exits

if TYPE_CHECKING:
    from ..config import Loaded

app = typer.Typer(help="Show, check and convert the configuration.", no_args_is_help=True)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="Configuration file; else MOONXD_CONFIG.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@app.command()
def show(
    config: ConfigFile = None,
    as_json: AsJson = False,
    changed: Annotated[bool, typer.Option("--changed", help="Only what differs from the defaults.")] = False,
) -> None:
    """Every key with its value in effect and where it is from. Secrets are masked."""
    from ..config import effective

    loaded = _load(config, as_json)
    rows = {key: row for key, row in effective(loaded).items() if not changed or row["origin"] != "default"}
    if as_json:
        typer.echo(_json(rows))
        return
    width = max((len(key) for key in rows), default=0)
    for key, row in rows.items():
        value = "-" if row["value"] is None else _json(row["value"])
        typer.echo(f"{key:<{width}}  {value}" + ("" if row["origin"] == "default" else f"  ({row['origin']})"))


@app.command()
def check(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Whether the configuration can be used: every problem at once, exit code 78 when there is one."""
    loaded = _load(config, as_json)
    if as_json:
        typer.echo(_json({"file": loaded.path and str(loaded.path), "notes": loaded.notes, "problems": []}))
        return
    for note in loaded.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"{loaded.path or 'no file, defaults and variables only'}: ok")


@app.command("import-env")
def import_env(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The .env file, or - for standard input.")],
    secrets: Annotated[bool, typer.Option("--secrets/--no-secrets", help="Write passwords and keys too.")] = True,
) -> None:
    """Turn an old .env into a configuration file on standard output; remarks go to standard error."""
    from ..config import import_env as convert
    from ..config import parse_env
    from ..domain.errors import ConfigError

    env = parse_env(_read(file))
    try:
        imported = convert(env.variables, secrets=secrets)
    except ConfigError as error:
        raise _refuse(str(error)) from None
    for remark in [*env.doubts, *imported.remarks]:
        typer.echo(f"note: {remark}", err=True)
    if imported.has_secrets:
        typer.echo("warning: the output contains secrets: keep it readable by its owner only (chmod 600)", err=True)
    typer.echo(imported.toml, nl=False)


@app.command()
def example() -> None:
    """The example file: every key with its default, unit, meaning and old variables."""
    from ..config import example as text

    typer.echo(text(), nl=False)


def _load(config: Path | None, as_json: bool) -> Loaded:
    import os

    from ..config import load_config
    from ..domain.errors import ConfigError

    try:
        return load_config(config, os.environ)
    except ConfigError as error:
        if as_json:
            message, problems = str(error), getattr(error, "problems", (str(error),))
            typer.echo(_json({"error": {"code": "bad-configuration", "message": message, "problems": list(problems)}}))
        raise _refuse(str(error)) from None


def _read(file: Path) -> str:
    import sys

    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        typer.echo(f"{file} cannot be read: {reason}", err=True)
        raise typer.Exit(exits.USAGE) from None


def _refuse(message: str) -> typer.Exit:
    typer.echo(f"moonxd: {message}", err=True)
    return typer.Exit(exits.BAD_CONFIG)


def _json(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)
