"""What `garbage.settle` does to the collector, seen in a process of its own: its settings belong to the process."""

from __future__ import annotations

import subprocess
import sys

_PROBE = """
import gc
from moonxd import garbage
started = len(gc.get_objects())
garbage.settle()
assert gc.get_freeze_count() >= started, "what stood is not frozen"
assert gc.isenabled(), "cycles must still be found"
class Node: ...
one = Node(); one.itself = one
del one
assert gc.collect() >= 1, "a cycle made later was not found"
"""


def test_what_stands_is_frozen_and_later_cycles_are_found() -> None:
    subprocess.run([sys.executable, "-c", _PROBE], check=True, timeout=30)
