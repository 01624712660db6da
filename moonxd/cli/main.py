"""The command line: a table of commands, each imported only when it is asked for, and the exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from . import exits

#: Command -> module. The module has a typer app named `app`, or a function named like the command.
COMMANDS = {
    "serve": "serve",
    "demo": "demo",
    "top": "top",
    "status": "status",
    "queues": "queues",
    "enqueue": "enqueue",
    "jobs": "jobs",
    "workers": "workers",
    "dlq": "dlq",
    "pause": "pause",
    "resume": "pause",
    "breakers": "breakers",
    "portfolio": "portfolio",
    "users": "users",
    "schedule": "schedule",
    "stats": "stats",
    "operations": "ledger",
    "events": "events",
    "config": "config",
    "migrate": "migrate",
    "verify": "verify",
    "tokens": "tokens",
    "simulate": "simulate",
    "version": "version",
}
#: The demo has a --state-dir of its own: it must not touch the state of a real daemon by mistake.
_WITH_OWN_OPTIONS = frozenset({"demo"})
#: Options that mean the same for every other command, and so may stand anywhere: before the command or after it.
_GLOBAL = {"--socket": "MOONXD_SOCKET", "--state-dir": "MOONXD_STATE_DIR"}


class _Commands(MutableMapping[str, Any]):
    """Imports a command's module when the command is looked up."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = _load(name, COMMANDS[name])
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS


def _load(name: str, module_name: str) -> Any:
    module = import_module(f"moonxd.cli.{module_name}")
    app = getattr(module, "app", None)
    if not isinstance(app, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command(name)(getattr(module, name))
    command = get_command(app)
    command.name = name
    return command


class _LazyGroup(TyperGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands()


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    socket: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The daemon's control socket. (MOONXD_SOCKET; may stand anywhere.)"),
    ] = None,
    state_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Where the daemon keeps its state, the socket included. (MOONXD_STATE_DIR; may stand anywhere.)",
        ),
    ] = None,
    version: Annotated[bool, typer.Option("--version", "-V", help="Show the version and exit.")] = False,
) -> None:
    """Keeps DeFi wallet portfolios fresh, and shows it happening.

    Exit codes: 0 fine, 1 the answer is bad, 2 usage, 69 no daemon, 77 not permitted, 78 bad configuration.
    """


def take_globals(arguments: Sequence[str], environ: MutableMapping[str, str]) -> list[str]:
    """`arguments` without the global options, which go to `environ`: child processes then see them too.

    Raises ValueError when one has no value. Everything after "--", and after a command that has such options of its
    own, is left alone.
    """
    rest: list[str] = []
    given = iter(arguments)
    for argument in given:
        name, equals, value = argument.partition("=")
        if argument == "--" or (not rest and argument in _WITH_OWN_OPTIONS):
            return [*rest, argument, *given]
        if name not in _GLOBAL:
            rest.append(argument)
            continue
        value = value if equals else next(given, "")
        if not value:
            raise ValueError(f"{name} needs a path after it")
        environ[_GLOBAL[name]] = os.path.abspath(os.path.expanduser(value))
    return rest


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code."""
    from ..domain.errors import ConfigError

    try:
        rest = take_globals(arguments, os.environ)
        get_command(app).main(rest, prog_name="moonxd")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else exits.OK
    except ValueError as error:
        return _complain(exits.USAGE, "usage", str(error), None, arguments)
    except ConfigError as error:
        return _complain(exits.BAD_CONFIG, "bad-configuration", str(error), None, arguments)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except Exception as error:
        return _client_error(error, arguments)
    return exits.OK


def _client_error(error: Exception, arguments: Sequence[str]) -> int:
    from ..api.client import ApiError, ClientError, DaemonUnreachable, NotPermitted

    match error:
        case DaemonUnreachable():
            return _complain(exits.UNREACHABLE, "unreachable", error.message, error.hint, arguments)
        case NotPermitted():
            return _complain(exits.NOT_PERMITTED, "not-permitted", error.message, error.hint, arguments)
        case ApiError():
            code = exits.NOT_PERMITTED if error.status in (401, 403) else exits.BAD
            return _complain(code, error.code, error.message, error.hint, arguments)
        case ClientError():
            return _complain(exits.BAD, "failed", error.message, error.hint, arguments)
    raise error


def _complain(exit_code: int, code: str, message: str, hint: str | None, arguments: Sequence[str]) -> int:
    """To stderr for people; with --json also to stdout, so that a script that parses the answer finds it there."""
    from .output import error_json, plain

    # A configuration error lists every problem on a line of its own.
    lines = [plain(line) for line in message.splitlines()]
    sys.stderr.write("moonxd: " + "\n".join(lines) + "\n")
    if hint:
        sys.stderr.write(f"        {plain(hint)}\n")
    if "--json" in arguments:
        sys.stdout.write(error_json(code, message, hint) + "\n")
    return exit_code
