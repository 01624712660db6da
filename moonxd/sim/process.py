"""The simulator as a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import trio

from moonxd.domain.errors import ConfigError

from .settings import SimSettings
from .simulator import open_simulator


def run(settings: SimSettings, env_file: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT; the address goes to stderr and the variables to `env_file` once it listens.

    Raises ConfigError when the address cannot be had or the file cannot be written.
    """
    trio.run(_serve, settings, env_file)


async def _serve(settings: SimSettings, env_file: Path | None) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        try:
            async with open_simulator(settings) as simulator:
                if env_file is not None:
                    write_env(env_file, simulator.env())
                sys.stderr.write(f"simulating {', '.join(simulator.world.chains)} at {simulator.url}\n")
                sys.stderr.flush()
                async for _signal in signals:
                    return
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"cannot listen on {settings.host}:{settings.port}: {reason}") from error


def write_env(path: Path, variables: Mapping[str, str]) -> None:
    """Write a file of NAME=value lines that appears whole or not at all. Raises ConfigError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text("".join(f"{name}={value}\n" for name, value in variables.items()), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
