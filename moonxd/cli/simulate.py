"""`moonxd simulate`: a simulated world on a port."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

_BAD_CONFIGURATION = 78


def simulate(
    port: Annotated[int, typer.Option(help="TCP port; 0 takes any free one.", min=0, max=65535)] = 0,
    seed: Annotated[str, typer.Option(help="The same seed gives the same world.")] = "1",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    latency_ms: Annotated[float, typer.Option(help="Median answer time of every upstream.", min=0)] = 0.0,
    latency_sigma: Annotated[float, typer.Option(help="Spread of the answer time; 0 is fixed.", min=0)] = 0.0,
    error_rate: Annotated[float, typer.Option(help="Share of requests answered with 503.", min=0, max=1)] = 0.0,
    chains: Annotated[str, typer.Option(help="Chains by slug or id, comma separated; default all six.")] = "",
    tokens: Annotated[Path | None, typer.Option(help="JSON token list that the wallets hold from.")] = None,
    env_file: Annotated[Path | None, typer.Option(help="Write the variables that point a daemon here.")] = None,
    price_bucket_s: Annotated[float, typer.Option(help="Seconds between price moves; 0 freezes.", min=0)] = 300.0,
    alchemy_key: Annotated[str | None, typer.Option(help="Also write ALCHEMY_API_KEY, to be read by Alchemy.")] = None,
) -> None:
    """Serve simulated chains, prices and bridges until interrupted."""
    from moonxd.domain.chain import CHAINS, parse_chain
    from moonxd.domain.errors import ConfigError, Permanent
    from moonxd.sim.process import run
    from moonxd.sim.settings import SimSettings, read_token_list

    knobs: dict[str, Any] = {"latency_ms": latency_ms, "latency_sigma": latency_sigma, "error_rate": error_rate}
    try:
        names = [name for name in chains.split(",") if name.strip()]
        settings = SimSettings(
            seed=seed,
            host=host,
            port=port,
            chains=tuple({chain.id: chain for chain in map(parse_chain, names)}.values()) or tuple(CHAINS.values()),
            tokens=() if tokens is None else read_token_list(tokens),
            knobs={"*": knobs},
            price_bucket_s=price_bucket_s,
            alchemy_key=alchemy_key,
        )
        run(settings, env_file)
    except (ConfigError, Permanent) as error:
        typer.echo(f"moonxd simulate: {error}", err=True)
        raise typer.Exit(_BAD_CONFIGURATION) from error
