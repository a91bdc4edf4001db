"""Worlds by name: a truth, a load and arrivals, as ``cqbayes simulate`` and sweeps ask for them."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cqbayes.choice.assortments import check_slate
from cqbayes.datasets.files import data_set_names
from cqbayes.datasets.load import check_has_scores, load_scores
from cqbayes.environments.best_linear import with_best_linear
from cqbayes.environments.environment import Population
from cqbayes.environments.load import capacity, check_rate, check_stable
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.rules import Arrivals, rules_of
from cqbayes.environments.scores import from_scores
from cqbayes.environments.synthetic import synthetic
from cqbayes.environments.traffic import arrivals_from_trace, block_bootstrap, read_trace
from cqbayes.errors import InputError
from cqbayes.preference import Sizes
from cqbayes.simulation.comparison import World

TRAFFIC = 1 << 31  # sets the key of arrivals apart from those of truths


DEFAULT_SLACK = 0.1  # of a load that nobody has named


class WorldSettings(NamedTuple):
    """What a world by name is made of.

    Attributes:
        data: ``synthetic``, or a data set, of which held-out rows are drawn.
        settings: keywords of the function that makes the truth; see :func:`data_settings`.
        slate_size: most LLMs that answer one query.
        arrival_rate, slack: arrivals a round, or where None their distance from capacity.
        queue: further keywords of :func:`cqbayes.retrial_queue`; ``rules`` may be a table,
            ``values`` a list.
        unstable: whether a load is allowed that no policy can carry.
        trace, trace_name: a file of arrival times (:func:`cqbayes.read_trace`), and which of its
            traces; arrivals are like it, at the rate above.
    """

    data: str = "synthetic"
    settings: Mapping[str, Any] = MappingProxyType({})
    slate_size: int = 1
    arrival_rate: float | None = None
    slack: float = DEFAULT_SLACK
    queue: Mapping[str, Any] = MappingProxyType({})
    unstable: bool = False
    trace: str | Path | None = None
    trace_name: str | None = None


def trace_times(trace: str | Path | None, name: str | None) -> Float[np.ndarray, " request"] | None:
    """The times of a trace in seconds, or None where there is no trace.

    Raises:
        InputError: as :func:`cqbayes.read_trace`; for a name without a file.
    """
    if trace is None:
        if name is not None:
            raise InputError(f"trace: expected the file that holds {name}, got only its name")
        return None
    return read_trace(Path(trace), name)


def world_by_name(
    key: jax.Array, wanted: WorldSettings, num_seeds: int, rounds: int
) -> tuple[World, Sizes, float]:
    """A world, its sizes and its mean arrival rate.

    Args:
        key: decides synthetic truths, one for each seed, and arrivals that are like a trace.
        wanted: what the world is made of.
        num_seeds: how many truths.
        rounds: for how many rounds arrivals are made of a trace.

    Raises:
        InputError: for anything unknown or out of range, and for a load that is not allowed.
    """
    times = trace_times(wanted.trace, wanted.trace_name)
    data, settings, slate_size = wanted.data, wanted.settings, wanted.slate_size
    check_data_name(data)
    queue = _queue(wanted.queue)
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
    rate = limit - wanted.slack
    if wanted.arrival_rate is not None:
        rate = jnp.full_like(limit, wanted.arrival_rate)
    arrivals, offered = None, np.asarray(rate)
    if times is None:
        check_rate(offered)
    else:
        rates = np.broadcast_to(offered, num_seeds)
        arrivals, offered = _resampled(jax.random.fold_in(key, TRAFFIC), times, rates, rounds)
    # Who may lose patience leaves: no load is too much then.
    patient = "rules" not in queue or queue["rules"].patience is None
    warning = check_stable(offered, limit, wanted.unstable) if patient else None
    world = World(population, rate, data == "synthetic", queue, warning, arrivals)
    return world, sizes, float(jnp.mean(rate))


def _resampled(
    key: jax.Array,
    times: Float[np.ndarray, " request"],
    rates: Float[np.ndarray, " seed"],
    rounds: int,
) -> tuple[Arrivals, Float[np.ndarray, " seed"]]:
    """Arrivals ``[seed, round]`` at these rates, and what they come to in the long run."""
    replayed = [arrivals_from_trace(times, float(rate)) for rate in rates]
    keys = jax.random.split(key, len(replayed))
    drawn = [
        block_bootstrap(key, arrivals, rounds, 1).counts
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
    if data not in data_set_names():
        known = ", ".join(["synthetic", *data_set_names()])
        raise InputError(f"data: expected one of {known}, got {data!r}")
    check_has_scores(data)


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
