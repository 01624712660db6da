"""A simulated world of chains, prices and bridges for the demo, the tests and the benchmarks.

Everything it says follows from a seed; everything it does wrong is a knob. `moonxd simulate` runs it as a process,
`open_simulator` inside another one. It knows the vendors' wire shapes and nothing of our adapters, so that a mistake
in one is not repeated in the other.
"""

from __future__ import annotations

from .settings import ListedToken, SimSettings, read_token_list
from .simulator import Simulator, open_simulator

__all__ = ["ListedToken", "SimSettings", "Simulator", "open_simulator", "read_token_list"]
