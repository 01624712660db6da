"""The binary's entry point."""

import sys

from moonxd.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
