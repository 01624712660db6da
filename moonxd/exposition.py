"""The metrics of several worker processes on one page of Prometheus' text format, each sample with its worker's number.

They are not added up here: a worker that starts anew would look like a counter that went backwards a little, which
Prometheus takes for a reset of the whole. `sum without (worker) (...)` does it right.
"""

from __future__ import annotations

from collections.abc import Mapping

#: About the queue or the whole daemon: the supervising process' own samples say it once for all.
_ONCE = ("moonxd_queue", "moonxd_info", "moonxd_slots", "moonxd_child_up")


def joined(own: bytes, workers: Mapping[str, bytes]) -> bytes:
    """`own` page and those of `workers`, by the value of their label."""
    families = _families(own.decode(), "")
    for worker in sorted(workers):
        for name, (head, samples) in _families(workers[worker].decode(), worker).items():
            if not name.startswith(_ONCE):
                families.setdefault(name, (head, []))[1].extend(samples)
    lines = [line for head, samples in families.values() for line in (*head, *samples)]
    return ("\n".join(lines) + "\n").encode()


def _families(text: str, worker: str) -> dict[str, tuple[list[str], list[str]]]:
    """Per metric: its HELP and TYPE lines, and its samples."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("# "):
            name = line.split(" ", 3)[2]
            found.setdefault(name, ([], []))[0].append(line)
        elif line:
            found.setdefault(name, ([], []))[1].append(_labelled(line, worker) if worker else line)
    return found


def _labelled(sample: str, worker: str) -> str:
    label = f'worker="{worker}"'
    brace, space = sample.find("{"), sample.find(" ")
    if 0 <= brace < space:
        return f"{sample[: brace + 1]}{label},{sample[brace + 1 :]}"
    return f"{sample[:space]}{{{label}}}{sample[space:]}"
