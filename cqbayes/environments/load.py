"""How much a queue can carry, and refusing what it cannot."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from cqbayes.assortment import best_assortment
from cqbayes.choice import departure_probability
from cqbayes.environments import Population
from cqbayes.errors import InputError


def capacity(
    population: Population, slate_size: int = 1, num_queries: int = 8_192, services: int = 1
) -> Array:
    """The arrival rate at which even the oracle's queue just fails to be stable.

    A query keeps its context when it is asked again, so with the best assortment it takes
    ``1 / p*(x)`` services on average, and the server keeps up below ``services / E[1 / p*(x)]``
    arrivals a round, ``p*(x) = max_S p(x, S)``. The mean is over ``num_queries`` simulated
    arrivals.
    """
    queries = jax.vmap(population.draw)(jax.random.split(jax.random.key(1), num_queries))
    utility = jax.vmap(population.utility)(queries)
    offered, _ = best_assortment(utility, slate_size)
    return services / jnp.mean(1 / departure_probability(utility, offered))


def check_rate(arrival_rate: np.ndarray) -> None:
    """Refuses what is not a probability."""
    wrong = arrival_rate[~((arrival_rate >= 0) & (arrival_rate <= 1))]
    if wrong.size:
        raise InputError(
            f"arrival rate: expected a probability per round in [0, 1], got {wrong.flat[0]:.3g}"
        )


def check_stable(
    arrival_rate: Array | np.ndarray, limit: Array, allowed: bool = False
) -> str | None:
    """What is to be said of a load that no policy can carry, or None.

    Args:
        arrival_rate: arrivals a round, of one world or several; of a trace, ``arrivals.rate``.
        limit: :func:`capacity` of the same.
        allowed: whether such a load is wanted.

    Raises:
        InputError: if it is not.
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
