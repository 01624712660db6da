"""ports.Scratch: files in a folder that vanishes, one per share. An entry is two lengths, a key and a body."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

import trio

from ..domain.errors import Transient

_LENGTHS = struct.Struct("<II")


class FileScratch:
    """Made by `open_scratch`."""

    def __init__(self, files: Sequence[BinaryIO], folder: Path) -> None:
        self._files = files
        self._folder = folder

    @property
    def shares(self) -> int:
        return len(self._files)

    async def put(self, entries: Sequence[tuple[str, bytes]]) -> None:
        await self._in_thread(self._put, entries)

    async def share(self, number: int) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = await trio.to_thread.run_sync(self._share, number)
        return found

    async def clear(self) -> None:
        await self._in_thread(self._clear, ())

    async def _in_thread(self, work: object, entries: Sequence[tuple[str, bytes]]) -> None:
        try:
            await trio.to_thread.run_sync(work, entries)  # type: ignore[arg-type]
        except OSError as error:
            raise Transient(
                f"what is to be compared does not fit into {self._folder} ({error.strerror}): make room there, name "
                "another place in TMPDIR, or look at less (--since)"
            ) from error

    def _put(self, entries: Sequence[tuple[str, bytes]]) -> None:
        for key, body in entries:
            name = key.encode("utf-8", "surrogatepass")
            file = self._files[crc32(name) % len(self._files)]
            file.write(_LENGTHS.pack(len(name), len(body)) + name + body)

    def _share(self, number: int) -> dict[str, list[bytes]]:
        file = self._files[number]
        file.seek(0)
        content = file.read()
        found: dict[str, list[bytes]] = {}
        at = 0
        while at < len(content):
            name, body = _LENGTHS.unpack_from(content, at)
            start = at + _LENGTHS.size
            at = start + name + body
            key = content[start : start + name].decode("utf-8", "surrogatepass")
            found.setdefault(key, []).append(content[start + name : at])
        return found

    def _clear(self, _entries: object) -> None:
        for file in self._files:
            file.seek(0)
            file.truncate()


@asynccontextmanager
async def open_scratch(shares: int) -> AsyncIterator[FileScratch]:
    """In the folder for temporary files. At most one share at a time is read into memory."""
    with tempfile.TemporaryDirectory(prefix="moonxd-verify-") as name, ExitStack() as opened:
        folder = Path(name)
        files = [opened.enter_context((folder / str(number)).open("w+b")) for number in range(shares)]
        yield FileScratch(files, folder)
