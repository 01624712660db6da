"""`moonxd serve`: the daemon in the foreground. systemd, a container or a terminal supervises it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import exits


def serve(
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Configuration file (TOML).")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Jobs at a time; wins over the configuration.", min=1)] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning, error or critical.")] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, json or pretty.")] = None,
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Serve the API on loopback TCP too.")] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="N|auto", help="Worker processes under this daemon; auto: one per core.")
    ] = None,
    cluster_worker: Annotated[int | None, typer.Option(hidden=True, min=1)] = None,
    cluster_redis: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C; SIGHUP reloads what can be reloaded."""
    flags = {
        "worker.concurrency": concurrency,
        "log.level": log_level,
        "log.format": log_format,
        "http.listen": listen,
        **_cluster(workers),
    }
    raise typer.Exit(run(config, flags, worker=cluster_worker, redis_socket=cluster_redis))


def _cluster(workers: str | None) -> dict[str, Any]:
    if workers is None or workers == "auto":
        return {"cluster.mode": workers}
    if not workers.isdecimal() or int(workers) < 1:
        raise typer.BadParameter(f"--workers {workers!r}: use a number from 1, or auto")
    return {"cluster.mode": "manual", "cluster.workers": int(workers)}


def run(
    file: Path | None, flags: dict[str, Any], *, worker: int | None = None, redis_socket: Path | None = None
) -> int:
    """Raises ConfigError when there is nothing to start; later ends are a logged sentence and an exit code."""
    import logging
    import os

    import msgspec
    import trio

    from ..config import load_config, secrets_in
    from ..config.cluster import worker_config
    from ..domain.errors import ConfigError, MoonxdError, describe, single
    from ..log import setup_logging

    def load() -> Any:
        loaded = load_config(file, os.environ, flags)
        if worker is None:
            return loaded
        return msgspec.structs.replace(loaded, config=worker_config(loaded.config, worker, redis_socket))

    loaded = load()
    config = loaded.config
    log = logging.getLogger("moonxd.daemon")
    with setup_logging(config.log.level, config.log.format, secrets_in(config)) as logging_now:
        _tell(log, loaded.notes)
        from .. import garbage
        from ..daemon import serve

        try:
            trio.run(serve, loaded, load, logging_now, garbage.settle)
        except Exception as error:
            cause = single(error)
            if not isinstance(cause, MoonxdError):
                log.critical("the daemon broke", exc_info=error)
                return exits.BAD
            log.critical("the daemon cannot go on: %s", describe(cause))
            misconfigured = isinstance(cause, ConfigError) or isinstance(cause.__cause__, ConfigError)
            return exits.BAD_CONFIG if misconfigured else exits.BAD
    return exits.OK


def _tell(log: Any, notes: list[str]) -> None:
    """What an operator should know of the configuration; keys without effect are only counted here."""
    idle = [note for note in notes if note.endswith("has no effect in this version")]
    for note in notes:
        if note not in idle:
            log.info("configuration: %s", note)
    if idle:
        log.info("configuration: %d keys have no effect in this version, `moonxd config check` names them", len(idle))
