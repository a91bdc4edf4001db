"""Policies by name in a world by name, with results and pictures in a folder."""

import sys
from collections.abc import Sequence
from pathlib import Path

import equinox as eqx
import jax

from cqbayes._tools.files import replacing, writable_folder, write_netcdf
from cqbayes._tools.provenance import provenance
from cqbayes.environments.queue import retrial_queue
from cqbayes.policies.belief import belief_by_name
from cqbayes.policies.setup import Setup, load_policy
from cqbayes.policies.wrappers.refit import doubling
from cqbayes.simulation.comparison import World, compare_policies, comparison_table, thinned
from cqbayes.simulation.worlds import WorldSettings, world_by_name


def simulate_by_name(
    policies: Sequence[str],
    wanted: WorldSettings,
    out: Path,
    *,
    posterior: str,
    rounds: int,
    num_seeds: int,
    seed: int,
) -> list[str]:
    """Runs the policies and the oracle, writes results and pictures, returns lines to print.

    Args:
        policies: by name.
        wanted: the world in which all of them run.
        out: folder of what is written.
        posterior: what the Thompson step draws from, see :func:`belief_by_name`.
        rounds, num_seeds, seed: how long, how often, and what decides all randomness.

    Raises:
        InputError: for anything unknown or out of range, before anything is run.
    """
    truth_key, queue_key = jax.random.split(jax.random.key(seed))
    world, sizes, rate = world_by_name(truth_key, wanted, num_seeds, rounds)
    slate_size = wanted.slate_size
    if world.warning:
        print(f"cqbayes: {world.warning}", file=sys.stderr)
    setup = Setup(sizes, slate_size, belief_by_name(posterior, sizes), horizon=rounds)
    setups = {name: (name, setup) for name in ("oracle", *policies)}
    for name in setups:
        _check_policy(name, setup, world)
    # Before the work: a folder that cannot be written to should not cost the user the run.
    folder = writable_folder(out)
    refit_after = doubling(max(rounds // 16, 1))(rounds)
    results = compare_policies(
        queue_key, world, setups, rounds, num_seeds, refit_after=refit_after, progress=True
    )
    from cqbayes._tools.figure import save_figure
    from cqbayes.simulation.plots import regret_figure

    title = f"{wanted.data}, arrival rate {rate:.3f}, slate size {slate_size}; simulated users"
    picture = save_figure(regret_figure(results.curves, title), folder / "regret.png")
    rows = comparison_table(results)
    curves = thinned(results.curves)
    curves.attrs.update(
        provenance(
            data=wanted.data,
            posterior=posterior,
            rounds=rounds,
            seeds=num_seeds,
            seed=seed,
            slate_size=slate_size,
            arrival_rate=rate,
            **(
                {}
                if wanted.trace is None
                else {"trace": str(wanted.trace), "trace_name": wanted.trace_name or ""}
            ),
            dim=sizes.dim,
            llms=sizes.num_llms,
        )
    )
    write_netcdf(curves, folder / "curves.nc")
    with replacing(folder / "policies.csv") as temporary:
        rows.to_csv(temporary)
    failed = [f"{name}: {n} refits failed" for name, n in results.failures.items() if n]
    files = [picture, folder / "curves.nc", folder / "policies.csv"]
    return [rows.T.to_string(), *failed, "", *map(str, files)]


def _check_policy(name: str, setup: Setup, world: World) -> None:
    def build(population):
        retrial_queue(population, 0.0, setup.slate_size)
        return load_policy(name, setup._replace(truth=population))

    if world.per_seed:
        eqx.filter_eval_shape(eqx.filter_vmap(build), world.population)
    else:
        build(world.population)
