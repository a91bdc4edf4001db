"""The load of a queue: its capacity, and checks that arrivals stay below it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from cqbayes.choice.assortments import best_assortment
from cqbayes.choice.mnl import departure_probability
from cqbayes.environments.environment import Population
from cqbayes.errors import InputError


def capacity(
    population: Population, slate_size: int = 1, num_queries: int = 8_192, services: int = 1
) -> Array:
    """The arrival rate from which on even the oracle's queue is unstable.

    A query keeps its context when it is served again. With the best assortment it therefore takes
    ``1 / p*(x)`` services on average, where ``p*(x) = max_S p(x, S)``. The queue is stable below
    ``services / E[1 / p*(x)]`` arrivals in a round. The mean is over ``num_queries`` simulated
    arrivals.
    """
    queries = jax.vmap(population.draw)(jax.random.split(jax.random.key(1), num_queries))
    utility = jax.vmap(population.utility)(queries)
    offered, _ = best_assortment(utility, slate_size)
    return services / jnp.mean(1 / departure_probability(utility, offered))


def check_rate(arrival_rate: np.ndarray) -> None:
    """Refuses arrival rates that are not probabilities."""
    wrong = arrival_rate[~((arrival_rate >= 0) & (arrival_rate <= 1))]
    if wrong.size:
        raise InputError(
            f"arrival rate: expected a probability per round in [0, 1], got {wrong.flat[0]:.3g}"
        )


def check_stable(
    arrival_rate: Array | np.ndarray, limit: Array, allowed: bool = False
) -> str | None:
    """A warning if the load is unstable, so that no policy can serve it; otherwise None.

    Args:
        arrival_rate: mean arrivals in a round, of one environment or several; for a trace,
            ``arrivals.rate``.
        limit: :func:`capacity` of the same environments.
        allowed: whether to allow an unstable load.

    Raises:
        InputError: for an unstable load that is not allowed.
    """
    rate, most = np.broadcast_arrays(np.asarray(arrival_rate), np.asarray(limit))
    if (rate < most).all():
        return None
    worst = np.argmax(rate - most)
    said = (
        f"unstable load: {rate.flat[worst]:.3g} arrivals a round, and even the oracle serves no "
        f"more than {most.flat[worst]:.3g}; every queue grows without end"
    )
    if not allowed:
        raise InputError(f"{said}; lower the arrival rate, or allow it with unstable")
    return said
