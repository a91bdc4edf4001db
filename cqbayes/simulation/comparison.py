"""Several policies in one world; the demo and ``cqbayes simulate`` run it."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import pandas as pd
import xarray as xr
from jaxtyping import Array

from cqbayes.environments.environment import Environment, Population
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.rules import Arrivals
from cqbayes.policies.setup import Setup, load_policy, needs_truth
from cqbayes.simulation.loop import Trace, simulate
from cqbayes.simulation.regret import over_seeds, performance, regrets


class World(NamedTuple):
    """A population and its load; with ``per_seed``, arrays have a leading seed axis.

    ``arrivals`` are those of a trace, separate for each seed, and replace the rate. ``queue`` holds
    further keywords of :func:`cqbayes.environments.queue.retrial_queue`, and ``warning`` a remark
    on the load, or None.
    """

    population: Population
    arrival_rate: Array
    per_seed: bool = False
    queue: Mapping[str, Any] = MappingProxyType({})
    warning: str | None = None
    arrivals: Arrivals | None = None


class Results(NamedTuple):
    """Results of all policies: curves over rounds, one number per seed, and failed refits."""

    curves: xr.Dataset
    performance: xr.Dataset
    failures: dict[str, int]


def compare_policies(
    key: Array,
    world: World,
    setups: Mapping[str, tuple[str, Setup]],
    rounds: int,
    num_seeds: int,
    *,
    refit_after: Sequence[int] | None = None,
    settings: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    progress: bool = False,
) -> Results:
    """Regret and performance of policies that are simulated with the same key.

    Args:
        key: decides the worlds that all policies share.
        world: the world in which they run.
        setups: by the name in the results: the policy's own name, and its setup. One must have the
            name ``oracle``: regret is measured against it. Queue-length regret is measured against
            the one called "oracle"; for regret of departures its setup has no values.
        settings: by the name in the results: keywords for the policy, where it has any.
        rounds, num_seeds, refit_after, progress: as in :func:`cqbayes.simulation.loop.simulate`.
    """
    slate_size = next(iter(setups.values()))[1].slate_size
    axis = eqx.if_array(0) if world.per_seed else None
    env = _queue(world, slate_size)
    traces: dict[str, Trace] = {}
    for label, (name, setup) in setups.items():
        per_seed = world.per_seed and needs_truth(name)
        given = settings.get(label)
        policy = _map(
            lambda truth, name=name, setup=setup, given=given: load_policy(
                name, setup._replace(truth=truth), given
            ),
            axis if per_seed else None,
            world.population,
        )
        traces[label] = simulate(
            key,
            policy,
            env,
            rounds,
            num_seeds=num_seeds,
            refit_after=refit_after,
            policy_per_seed=per_seed,
            env_per_seed=world.per_seed or world.arrivals is not None,
            progress=progress,
            name=label,
        )
    failures = {
        label: int(trace.policy_state.failures.sum())
        for label, trace in traces.items()
        if hasattr(trace.policy_state, "failures")
    }
    return Results(regrets(traces), performance(traces), failures)


def _queue(world: World, slate_size: int) -> Environment:
    """The queue, with a leading seed axis where seeds differ."""
    axis = eqx.if_array(0) if world.per_seed else None
    if world.arrivals is None:
        return _map(
            lambda population, rate: retrial_queue(population, rate, slate_size, **world.queue),
            axis,
            world.population,
            world.arrival_rate,
        )
    counts, most = world.arrivals

    def one(population: Population, counts: Array) -> Environment:
        arrivals = Arrivals(counts, most)
        return retrial_queue(population, None, slate_size, arrivals=arrivals, **world.queue)

    return eqx.filter_vmap(one, in_axes=(axis, 0))(world.population, counts)


def _map(function: Callable, axis: object, *args: object):
    """``function(*args)``, mapped over a leading seed axis where there is one."""
    if axis is None:
        return function(*args)
    return eqx.filter_vmap(function, in_axes=axis)(*args)


def comparison_table(results: Results) -> pd.DataFrame:
    """One row a policy, each cell a mean over seeds with its standard error."""
    last = results.curves.isel(round=-1)
    measures = {
        "routing regret": last["routing_regret"],
        "of a linear oracle": last["misspecification"],
        "by learning": last["learning_cost"],
        "matching regret": last["matching_regret"],
        "queue length, last tenth": results.performance["queue_length_tail"],
        "above the oracle": results.performance["queue_length_tail"]
        - results.performance["queue_length_tail"].sel(policy="oracle"),
        "mean wait": results.performance["wait_mean"],
        "p99 wait": results.performance["wait_p99"],
        "oldest, worst": results.performance["oldest_max"],
        "attempts": results.performance["attempts"],
        "$ per 1,000": 1_000 * results.performance["cost_per_departure"],
    }
    if not (results.performance["cost_per_departure"] > 0).any():
        del measures["$ per 1,000"]  # nothing is known of costs
    if not last["misspecification"].fillna(0).any():
        # The truth is linear, so all routing regret is the cost of learning; or it is not known.
        del measures["of a linear oracle"], measures["by learning"]
    policies = [str(name) for name in results.curves["policy"].values]
    return pd.DataFrame(
        {
            name: [str(over_seeds(values.sel(policy=policy).values)) for policy in policies]
            for name, values in measures.items()
        },
        index=pd.Index(policies, name="policy"),
    )


def thinned(curves: xr.Dataset, num_points: int = 400) -> xr.Dataset:
    """Every n-th round of the curves: small enough to store, and enough for figures."""
    step = max(1, curves.sizes["round"] // num_points)
    return curves.isel(round=slice(step - 1, None, step))
