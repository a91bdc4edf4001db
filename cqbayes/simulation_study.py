"""``cqbayes simulate``: policies by name in a world by name, into a folder."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cqbayes import belief
from cqbayes.assortment import check_slate
from cqbayes.catalogue import (
    check_scores,
    load_engine,
    load_model,
    load_policy,
    load_scores,
    names,
)
from cqbayes.environments import Population
from cqbayes.environments.best_linear import with_best_linear
from cqbayes.environments.load import capacity, check_rate, check_stable
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.rules import Arrivals, rules_of
from cqbayes.environments.scores import from_scores
from cqbayes.environments.synthetic import synthetic
from cqbayes.environments.traffic import block_bootstrap, read_trace, replay
from cqbayes.errors import InputError
from cqbayes.files import replacing, writable_folder, write_netcdf
from cqbayes.policies import Setup
from cqbayes.policies.refit import doubling
from cqbayes.preference import Sizes
from cqbayes.provenance import provenance
from cqbayes.study import World, run_policies, table, thinned

TRAFFIC = 1 << 31  # sets the key of arrivals apart from those of truths


class Traffic(NamedTuple):
    """A trace's times in seconds, and for how many rounds arrivals are made of it."""

    times: Float[np.ndarray, " request"]
    rounds: int


def traffic_of(trace: str | Path | None, name: str | None, rounds: int) -> Traffic | None:
    """The trace of a file, or None where there is none.

    Raises:
        InputError: as :func:`cqbayes.environments.traffic.read_trace`; for a name without a file.
    """
    if trace is None:
        if name is not None:
            raise InputError(f"trace: expected the file that holds {name}, got only its name")
        return None
    return Traffic(read_trace(Path(trace), name), rounds)


def run(
    *,
    policies: Sequence[str],
    data: str,
    posterior: str,
    rounds: int,
    num_seeds: int,
    slate_size: int,
    arrival_rate: float | None,
    slack: float,
    num_llms: int,
    dim: int,
    out: Path,
    seed: int,
    unstable: bool = False,
    trace: Path | None = None,
    trace_name: str | None = None,
) -> list[str]:
    """Runs the policies and the oracle, writes results and pictures, returns lines to print.

    Raises:
        InputError: for anything unknown or out of range, before anything is run.
    """
    # Before the work: a folder that cannot be written to should not cost the user the run.
    truth_key, queue_key = jax.random.split(jax.random.key(seed))
    settings = {"num_llms": num_llms, "dim": dim} if data == "synthetic" else {"dim": dim}
    traffic = traffic_of(trace, trace_name, rounds)
    world, sizes, rate = world_by_name(
        truth_key,
        data,
        num_seeds,
        slate_size,
        arrival_rate,
        slack,
        settings,
        unstable=unstable,
        traffic=traffic,
    )
    if world.warning:
        print(f"cqbayes: {world.warning}", file=sys.stderr)
    setup = Setup(sizes, slate_size, belief_by_name(posterior, sizes), horizon=rounds)
    wanted = {name: (name, setup) for name in ("oracle", *policies)}
    for name in wanted:
        _check_policy(name, setup, world)
    folder = writable_folder(out)
    refit_after = doubling(max(rounds // 16, 1))(rounds)
    results = run_policies(
        queue_key, world, wanted, rounds, num_seeds, refit_after=refit_after, progress=True
    )
    from cqbayes import plots

    title = f"{data}, arrival rate {rate:.3f}, slate size {slate_size}; simulated users"
    picture = plots.save(plots.regret_figure(results.curves, title), folder / "regret.png")
    rows = table(results)
    curves = thinned(results.curves)
    curves.attrs.update(
        provenance(
            data=data,
            posterior=posterior,
            rounds=rounds,
            seeds=num_seeds,
            seed=seed,
            slate_size=slate_size,
            arrival_rate=rate,
            **({} if trace is None else {"trace": str(trace), "trace_name": trace_name or ""}),
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


def world_by_name(
    key: jax.Array,
    data: str,
    num_seeds: int,
    slate_size: int,
    arrival_rate: float | None,
    slack: float,
    settings: Mapping[str, Any],
    queue: Mapping[str, Any] = MappingProxyType({}),
    *,
    unstable: bool = False,
    traffic: Traffic | None = None,
) -> tuple[World, Sizes, float]:
    """A world, its sizes and its mean arrival rate.

    Args:
        key: decides synthetic truths, one for each seed.
        data: ``synthetic``, or a data set, of which held-out rows are drawn.
        num_seeds: how many truths.
        slate_size: most LLMs that answer one query.
        arrival_rate, slack: arrivals a round, or where None their distance from capacity.
        settings: keywords of the function that makes the truth; see :func:`data_settings`.
        queue: further keywords of :func:`cqbayes.environments.queue.retrial_queue`; ``rules`` may
            be a table, ``values`` a list.
        unstable: whether a load is allowed that no policy can carry.
        traffic: a trace, brought to the arrival rate and resampled for every seed.

    Raises:
        InputError: for anything unknown or out of range, and for a load that is not allowed.
    """
    check_data_name(data)
    queue = _queue(queue)
    services = queue["rules"].services if "rules" in queue else 1
    if data == "synthetic":
        # A truth of its own for every seed: results are about the problem, not about one theta.
        population = eqx.filter_vmap(lambda k: synthetic(k, **settings))(
            jax.random.split(key, num_seeds)
        )
        sizes = _sizes(eqx.filter_vmap(_draw), population)
        check_slate(slate_size, sizes.num_llms)
        limit = eqx.filter_vmap(lambda p: capacity(p, slate_size, services=services))(population)
    else:
        rest = {name: value for name, value in settings.items() if name != "dim"}
        dim = {"dim": settings["dim"]} if "dim" in settings else {}
        population = from_scores(load_scores(data, **dim).part("test"), **rest)
        population = with_best_linear(population)
        sizes = _sizes(_draw, population)
        check_slate(slate_size, sizes.num_llms)
        limit = capacity(population, slate_size, services=services)
    rate = limit - slack if arrival_rate is None else jnp.full_like(limit, arrival_rate)
    arrivals, offered = None, np.asarray(rate)
    if traffic is None:
        check_rate(offered)
    else:
        rates = np.broadcast_to(offered, num_seeds)
        arrivals, offered = _resampled(jax.random.fold_in(key, TRAFFIC), traffic, rates)
    # Who may lose patience leaves: no load is too much then.
    patient = "rules" not in queue or queue["rules"].patience is None
    warning = check_stable(offered, limit, unstable) if patient else None
    world = World(population, rate, data == "synthetic", queue, warning, arrivals)
    return world, sizes, float(jnp.mean(rate))


def _resampled(
    key: jax.Array, traffic: Traffic, rates: Float[np.ndarray, " seed"]
) -> tuple[Arrivals, Float[np.ndarray, " seed"]]:
    """Arrivals ``[seed, round]`` at these rates, and what they come to in the long run."""
    replayed = [replay(traffic.times, float(rate)) for rate in rates]
    keys = jax.random.split(key, len(replayed))
    drawn = [
        block_bootstrap(key, arrivals, traffic.rounds, 1).counts
        for key, arrivals in zip(keys, replayed, strict=True)
    ]
    most = max(arrivals.most for arrivals in replayed)
    in_the_long_run = np.array([arrivals.rate for arrivals in replayed])
    return Arrivals(jnp.concatenate(drawn), most), in_the_long_run


def _queue(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of the queue, of what a file can hold."""
    made = dict(settings)
    if isinstance(made.get("rules"), Mapping):
        made["rules"] = rules_of(made["rules"])
    if "values" in made:
        made["values"] = np.asarray(made["values"], float)
    return made


def _draw(population: Population) -> tuple[jax.Array, jax.Array]:
    query = population.draw(jax.random.key(0))
    return query.context, population.utility(query)


def _sizes(draw: Callable, population: Population) -> Sizes:
    context, utility = eqx.filter_eval_shape(draw, population)
    return Sizes(utility.shape[-1], context.shape[-1])


def check_data_name(data: str) -> None:
    """Refuses what is no data set, or one without scores."""
    if data == "synthetic":
        return
    if data not in names("data"):
        known = ", ".join(["synthetic", *names("data")])
        raise InputError(f"data: expected one of {known}, got {data!r}")
    check_scores(data)


def data_settings(data: str) -> list[str]:
    """Keywords that the truth of a data set takes.

    Example:
        >>> data_settings("synthetic")
        ['num_llms', 'dim', 'bound']
    """
    check_data_name(data)
    if data == "synthetic":
        return list(inspect.signature(synthetic).parameters)[1:]
    return ["dim", *list(inspect.signature(from_scores).parameters)[1:]]


def queue_settings() -> list[str]:
    """Keywords of the queue besides its population, load and slate."""
    fixed = ("population", "arrival_rate", "slate_size", "arrivals")
    return [name for name in inspect.signature(retrial_queue).parameters if name not in fixed]


def check_posterior(posterior: str) -> None:
    """Refuses what cannot keep a policy's posterior."""
    # auto decides by diagnostics that refits do not run.
    known = [name for name in names("inference") if name != "auto"]
    if posterior not in known:
        raise InputError(f"posterior: expected one of {', '.join(known)}, got {posterior!r}")


def belief_by_name(posterior: str, sizes: Sizes) -> belief.Belief:
    """The disjoint model's posterior, kept online or refitted by an engine."""
    check_posterior(posterior)
    model = load_model("disjoint_mnl")
    if posterior == "online":
        return belief.online(model, sizes)
    engine = load_engine(posterior)
    # Draws enough for a Thompson step, which takes one: not for tail probabilities.
    settings: dict[str, dict[str, Any]] = {
        "nuts": {"num_warmup": 150, "num_draws": 150, "num_chains": 1},
        "hmc": {"num_chains": 4, "num_draws": 100},
    }
    return belief.refitted(engine.fit, model, sizes, **settings.get(posterior, {}))


def _check_policy(name: str, setup: Setup, world: World) -> None:
    def build(population):
        retrial_queue(population, 0.0, setup.slate_size)
        return load_policy(name, setup._replace(truth=population))

    if world.per_seed:
        eqx.filter_eval_shape(eqx.filter_vmap(build), world.population)
    else:
        build(world.population)
