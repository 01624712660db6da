"""The chains and price sources of the running daemon, opened anew when the configuration is reloaded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import trio

from .config import Config
from .domain.errors import MoonxdError, Transient
from .jobs import Env

log = logging.getLogger("moonxd.sources")

Open = Callable[[Config], AbstractAsyncContextManager[Env]]


class Sources:
    """A supervised child that holds the current `Env`. `linger_s`: how long attempts may still use a replaced one."""

    def __init__(self, config: Config, open_env: Open, *, linger_s: float) -> None:
        self._config = config
        self._open = open_env
        self._linger_s = linger_s
        self._env: Env | None = None
        self._replace = trio.Event()

    def __call__(self) -> Env:
        """The current one. Raises Transient while it is being opened again after a failure."""
        if self._env is None:
            raise Transient("the chains are not open: this worker is starting or recovering")
        return self._env

    def replace(self, config: Config) -> None:
        """Open anew with `config`; running attempts end with what they began with."""
        self._config = config
        self._replace.set()

    async def run(self, ready: Callable[[], None]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                retire: trio.Event = await nursery.start(self._generation, self._config)
                ready()
                while True:
                    await self._replace.wait()
                    self._replace = trio.Event()
                    try:
                        successor: trio.Event = await nursery.start(self._generation, self._config)
                    except MoonxdError as error:
                        log.error("the old chains and prices stay: %s", error)
                    else:
                        retire.set()
                        retire = successor
        finally:
            self._env = None

    async def _generation(
        self, config: Config, *, task_status: trio.TaskStatus[trio.Event] = trio.TASK_STATUS_IGNORED
    ) -> None:
        retired = trio.Event()
        async with self._open(config) as env:
            self._env = env
            task_status.started(retired)
            await retired.wait()
            await trio.sleep(self._linger_s)
