"""`python -m moonxd.config > config.example.toml`"""

from __future__ import annotations

import sys

from .write import example

if __name__ == "__main__":
    sys.stdout.write(example())
