"""Users who differ: a random effect per user, added to any model.

::

    sigma     ~ HalfNormal(spread_sd)                 user_sd []
    e_i       ~ Normal(0, 1)                          user_raw [user]
    v_i       = sigma e_i                             user_effect [user]
    u_ij      = u_j of the base + v_i                 for user i and every LLM j
    y | x, S  as in the base

One user is content with any answer and another user retries them all, so the retries of one user
are correlated. A model without user effects treats them as independent: its intervals are too
narrow, and its effects of the context are biased towards 0. A user who is not in the data has
effect 0, the median of the population.

Source: random-effects (mixed) logit, McFadden and Train (2000); sampled non-centred.
"""

from typing import Any

import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import HalfNormal, Normal

from cqbayes.choice.data import Situation
from cqbayes.preference import PreferenceModel, Sizes, nested, preference_model

from .disjoint_mnl import MODEL as DISJOINT


@preference_model
def user_mnl(base: PreferenceModel = DISJOINT, spread_sd: float = 1.0) -> PreferenceModel:
    """A model with random effects of users; data need ``user``.

    Args:
        base: the model of what all users have in common.
        spread_sd: scale of the half-normal prior of how much users differ, in log-odds.

    Example:
        >>> import jax.numpy as jnp
        >>> base = {"intercept": jnp.zeros(3), "theta": jnp.ones((3, 2))}
        >>> params = {"base": base, "user_effect": jnp.array([0.0, -2.0])}
        >>> MODEL.utility(params, Situation(jnp.array([1.0, 0.0]), user=jnp.array(1))).tolist()
        [-1.0, -1.0, -1.0]
    """

    def prior(sizes: Sizes) -> dict[str, Any]:
        spread = numpyro.sample("user_sd", HalfNormal(spread_sd))
        with numpyro.plate("user", sizes.num_users):
            raw = numpyro.sample("user_raw", Normal(0, 1))
            effect = numpyro.deterministic("user_effect", spread * raw)
        return {"base": base.prior(sizes), "user_effect": effect}

    def utility(params: dict[str, Any], at: Situation) -> Float[Array, " llm"]:
        effect = params["user_effect"].at[at.user].get(mode="fill", fill_value=0)
        return base.utility(params["base"], at) + effect

    return nested(base)._replace(
        prior=prior,
        utility=utility,
        linear=None,
        needs=(*base.needs, "user"),
        dims=(*base.dims, ("user_effect", ("user",))),
    )


MODEL = user_mnl()
