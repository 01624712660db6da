"""`moonxd` and `python -m moonxd`."""

from __future__ import annotations

import sys


def main() -> int:
    # Answered before anything is imported: scripts and supervisors ask for it all the time.
    if sys.argv[1:] in (["version"], ["--version"], ["-V"]):
        from .version import VERSION

        sys.stdout.write(f"moonxd {VERSION}\n")
        return 0
    from .cli.main import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
