"""BullMQ's own Lua, taken from the installed `bullmq` distribution as data (nothing of it is imported), and our frames.

A frame is a short script of ours (`lua/*.lua`) around the official text: it decides where pushes to the wait list go
while a 5.x client holds the queue paused, and lets `finish` end several jobs in one call. The official text stays what
the distribution says; if it ever changes shape, building the frames fails loudly here and not in production.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from moonxd.domain.errors import ConfigError

from ..redis.script import Script

_FRAMES = Path(__file__).parent / "lua"
#: Where moveToFinished's helpers end and its work begins. Without this line the helpers join the work: slower.
_FINISH_BODY = "\nlocal jobIdKey = KEYS[12]\n"


@lru_cache(maxsize=1)
def _official_texts() -> dict[str, str]:
    """Name without the number of keys -> Lua text. Raises ConfigError when the distribution is not there."""
    spec = find_spec("bullmq")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    texts = {
        file.stem.rpartition("-")[0]: file for folder in folders for file in Path(folder, "commands").glob("*.lua")
    }
    if not texts:
        raise ConfigError("the Lua scripts of the bullmq distribution are missing: install bullmq==3.4.4 (pip)")
    return {name: file.read_text("utf-8") for name, file in texts.items()}


def official(name: str) -> str:
    """The official text of script `name`. Raises ConfigError when the installed distribution has no such script."""
    try:
        return _official_texts()[name]
    except KeyError:
        raise ConfigError(f"the installed bullmq distribution has no script {name!r}: install bullmq==3.4.4") from None


@lru_cache(maxsize=16)
def _frame(name: str) -> str:
    return (_FRAMES / f"{name}.lua").read_text("utf-8")


@lru_cache(maxsize=64)
def plain(name: str) -> Script:
    """The official script as it is: for those that push to no wait list."""
    return Script(name, official(name))


@lru_cache(maxsize=64)
def detoured(name: str) -> Script:
    """The official script with its pushes to `wait` led around the trap of 5.x."""
    head = "local real_redis = redis\nlocal redis = detour(real_redis, {})\n"
    return Script(name, _frame("detour") + head + official(name))


def _framed(frame: str, name: str) -> Script:
    text = _frame(frame)
    if text.count("--@ official\n") != 1:
        raise ConfigError(f"lua/{frame}.lua must hold the line '--@ official' once")
    return Script(name, _frame("detour") + text.replace("--@ official\n", official(name) + "\n"))


@lru_cache(maxsize=1)
def claim() -> Script:
    return _framed("claim", "moveToActive")


@lru_cache(maxsize=1)
def release() -> Script:
    return _framed("release", "moveJobFromActiveToWait")


@lru_cache(maxsize=1)
def pause() -> Script:
    return _framed("pause", "pause")


@lru_cache(maxsize=1)
def stalled() -> Script:
    return _framed("stalled", "moveStalledJobsToWait")


@lru_cache(maxsize=1)
def finish() -> Script:
    """moveToFinished for several jobs in one call."""
    text = official("moveToFinished")
    helpers, found, body = text.partition(_FINISH_BODY)
    if not found or _FINISH_BODY in body:
        helpers, found, body = "", "", text
    frame = _frame("finish").replace("--@ official helpers\n", helpers + "\n")
    return Script("moveToFinished", _frame("detour") + frame.replace("--@ official body\n", found + body + "\n"))


@lru_cache(maxsize=16)
def own(name: str) -> Script:
    """A script that is ours alone."""
    return Script(name, _frame(name))
