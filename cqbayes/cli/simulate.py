"""``cqbayes simulate``: policies by name in a world by name, into a folder."""

from pathlib import Path
from typing import Annotated

import typer

from cqbayes.cli.options import Seed


def simulate(
    policy: Annotated[
        list[str], typer.Option(help="Policy to run; repeat for more. Default: acqb, random.")
    ] = ["acqb", "random"],  # noqa: B006  (typer's way to give a default)
    data: Annotated[str, typer.Option(help="synthetic, or a folder of data/.")] = "synthetic",
    posterior: Annotated[
        str,
        typer.Option(
            help="What feeds the Thompson step: memory (contexts, and which LLMs failed on each "
            "waiting query), or of contexts alone online, laplace, hmc, nuts or svi.",
        ),
    ] = "memory",
    rounds: Annotated[int, typer.Option(min=1)] = 5_000,
    seeds: Annotated[int, typer.Option(min=2, help="Independent repetitions.")] = 32,
    slate_size: Annotated[int, typer.Option(help="Most LLMs that answer one query.")] = 1,
    arrival_rate: Annotated[
        float | None, typer.Option(help="Arrivals per round; default: capacity minus slack.")
    ] = None,
    slack: Annotated[float, typer.Option(help="Distance from capacity.")] = 0.1,
    trace: Annotated[
        Path | None, typer.Option(help="Arrivals like those of a trace: Parquet with times t_s.")
    ] = None,
    trace_name: Annotated[
        str | None, typer.Option(help="Which one, where the file holds several.")
    ] = None,
    llms: Annotated[int, typer.Option(min=1, help="LLMs of the synthetic truth.")] = 5,
    dim: Annotated[int, typer.Option(min=1, help="Dimensions of a context.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder for results and pictures.")] = Path(
        "out/simulate"
    ),
    unstable: Annotated[
        bool, typer.Option(help="Allow more arrivals than anybody can serve.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Runs policies against the oracle in the retrial queue."""
    from cqbayes.simulation.by_name import simulate_by_name
    from cqbayes.simulation.worlds import WorldSettings

    wanted = WorldSettings(
        data=data,
        settings={"num_llms": llms, "dim": dim} if data == "synthetic" else {"dim": dim},
        slate_size=slate_size,
        arrival_rate=arrival_rate,
        slack=slack,
        unstable=unstable,
        trace=trace,
        trace_name=trace_name,
    )
    run = {"posterior": posterior, "rounds": rounds, "num_seeds": seeds, "seed": seed}
    for line in simulate_by_name(policy, wanted, out, **run):
        typer.echo(line)
