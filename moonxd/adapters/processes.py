"""Child processes that end when we do, and whose end is noticed without polling."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence

import trio

_PR_SET_PDEATHSIG = 1


def dies_with(parent: int) -> Callable[[], None] | None:
    """What a child does before it becomes another program: ask for SIGTERM, an orderly end, at its parent's death."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return prepare


async def exit_of(process: subprocess.Popen[bytes]) -> None:
    """Return when `process` has ended, or a little earlier."""
    if not hasattr(os, "pidfd_open"):
        await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
        return
    descriptor = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


class ChildProcess:
    """A running program with our own output. Start it from the thread that lives as long as the process: the child is
    told to end when that thread does."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        with warnings.catch_warnings():
            # Python 3.12 warns about every fork beside other threads; between fork and exec we make two system calls.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process = subprocess.Popen(
                command,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                preexec_fn=dies_with(os.getpid()),
                start_new_session=True,  # Ctrl-C in our terminal is for us: we end our children in their order
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        """Its exit code (negative: the signal) once it has ended."""
        while (code := self._process.poll()) is None:
            await exit_of(self._process)
        return code

    def ask_to_end(self) -> None:
        """SIGTERM. A second one means: at once."""
        if self._process.poll() is None:
            self._process.terminate()

    def ask_to_reload(self) -> None:
        """SIGHUP."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGHUP)

    async def end(self, within_s: float) -> None:
        """Ask, wait up to `within_s` seconds, then kill. Shielded, since it is clean-up."""
        with trio.CancelScope(shield=True):
            self.ask_to_end()
            with trio.move_on_after(within_s):
                await self.wait()
                return
            self._process.kill()
            await self.wait()
