"""`python -m moonxd.sim`: the same as `moonxd simulate`."""

from __future__ import annotations

import typer

from moonxd.cli.simulate import simulate

if __name__ == "__main__":
    typer.run(simulate)
