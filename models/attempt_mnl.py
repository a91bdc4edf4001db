"""Fatigue: utilities that shift with the attempt number, added to any model.

::

    d_a       ~ Normal(0, step_sd)                    step [attempt], a = 2, ..., levels
    f_1       = 0,   f_a = f_(a-1) + d_a              shift [attempt], a = 2, ..., levels
    u_j       = u_j of the base + f_min(a, levels)    at attempt a, 1 for the first service
    y | x, S  as in the base

The prior is a random walk: shifts of neighbouring attempts are similar, and no shape is assumed.
The shift mixes two effects: fatigue (or giving in), and selection, since the queries that are
served again are the hard ones. Predictions need only the sum of both, but the shift is not the
causal effect of one more attempt.

The posterior is log-concave if that of the base model is. Source: ours; the prior is the random
walk of a dynamic linear model, West and Harrison (1997).
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import Normal

from cqbayes.choice.data import Situation
from cqbayes.errors import InputError
from cqbayes.preference import Linear, PreferenceModel, Sizes, nested, preference_model

from .disjoint_mnl import MODEL as DISJOINT


@preference_model
def attempt_mnl(
    base: PreferenceModel = DISJOINT, step_sd: float = 0.5, levels: int = 5
) -> PreferenceModel:
    """A model with effects of the attempt number; data need ``attempt``.

    Args:
        base: the model of a first attempt.
        step_sd: prior standard deviation of the shift from one attempt to the next, in log-odds.
        levels: all attempts from this number on share one shift; at least 2.

    Example:
        >>> base = {"intercept": jnp.zeros(3), "theta": jnp.ones((3, 2))}
        >>> params = {"base": base, "shift": jnp.array([-0.5, -0.75, -1.0, -1.0])}
        >>> third = Situation(jnp.array([1.0, 0.0]), attempt=jnp.array(3))
        >>> MODEL.utility(params, third).tolist()
        [0.25, 0.25, 0.25]
    """

    if levels < 2:
        raise InputError(f"attempt_mnl: expected levels of 2 or more, got {levels}")

    def prior(sizes: Sizes) -> dict[str, Any]:
        with numpyro.plate("attempt", levels - 1):
            step = numpyro.sample("step", Normal(0, step_sd))
        shift = numpyro.deterministic("shift", jnp.cumsum(step))
        return {"base": base.prior(sizes), "shift": shift}

    def reached(at: Situation) -> Float[Array, " attempt"]:
        """1 for the shift of this attempt, 0 for the others."""
        assert at.attempt is not None
        return (jnp.arange(2, levels + 1) == jnp.minimum(at.attempt, levels)).astype(float)

    def utility(params: dict[str, Any], at: Situation) -> Float[Array, " llm"]:
        return base.utility(params["base"], at) + jnp.sum(reached(at) * params["shift"])

    inside = nested(base)
    linear = inside.linear
    if linear is not None:
        linear = _with_shift(linear, reached)
    return inside._replace(
        prior=prior,
        utility=utility,
        linear=linear,
        needs=(*base.needs, "attempt"),
        dims=(*base.dims, ("shift", ("attempt",))),
        coords=(*base.coords, ("attempt", tuple(range(2, levels + 1)))),
    )


def _with_shift(linear: Linear, reached: Callable[[Situation], Array]) -> Linear:
    """Linear utilities with one more feature for each shift, of the same weight for all LLMs."""

    def features(at: Situation) -> Float[Array, " feature"]:
        return jnp.concatenate([linear.features(at), reached(at)])

    def weights(params: dict[str, Any]) -> Float[Array, "llm feature"]:
        own, shift = linear.weights(params), params["shift"]
        same = jnp.broadcast_to(shift, (len(own), shift.size))
        return jnp.concatenate([own, same], axis=1)

    return Linear(features, weights)


MODEL = attempt_mnl()
