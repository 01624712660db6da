"""Python's cycle collector, told what a daemon is like: its passes run on the event loop and hold up everybody."""

from __future__ import annotations

import gc

#: New objects per young pass, young per middle, middle per full passes. A sync leaves no cycles behind: with Python's
#: own numbers the passes took 7 % of the daemon's time and found nothing. These are a third of that, at 1-2 ms a pass.
_THRESHOLD = (5_000, 20, 20)


def settle() -> None:
    """To be called once everything is started.

    What the start made lives as long as the process. Walked by every full pass, it held up the loop for 30-50 ms.
    """
    gc.freeze()
    gc.set_threshold(*_THRESHOLD)
