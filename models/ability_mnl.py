"""Ability: an LLM can answer a query, or cannot, and that stays while the query is asked again.

::

    b_0 ~ Normal(0, level_sd)                         level      []: what LLMs have in common
    theta_0k ~ Normal(0, slope_sd)                    slope      [feature]
    b_j ~ Normal(b_0, own_level_sd)                   intercept  [llm]
    theta_jk ~ Normal(theta_0k, own_slope_sd)         theta      [llm, feature]
    hi  ~ Beta(can)                                   can        []: taken, if the LLM can
    lo  ~ Beta(cannot)                                cannot     []: taken, if it cannot
    tau ~ HalfNormal(hardness_sd)                     hardness   []: how far queries differ
    rho ~ Beta(persists)                              persists   []: ability stays, or is drawn anew

    a_j = b_j + x . theta_j                           log-odds that j can answer the query
    u_j = log-odds that its answer is taken after the failures so far
    y | x, n, S  ~ MNL(u, S)

:mod:`cqbayes.choice.ability` says how failures enter: with one LLM offered at a time, rows of a
query that is asked until an answer is taken together have the marginal likelihood of its attempts.
So a query that is asked again and again is a hard one, and LLMs are not blamed for it:
``Fitted.acceptance`` at no failures is that of a fresh query.

With ``rho = 0``, ``hi = 1``, ``lo = 0`` and ``tau = 0`` this is a disjoint MNL whose LLMs share
what makes a query easy. Source: ours; see :mod:`cqbayes.choice.ability`.
"""

from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import Beta, HalfNormal, Normal

from cqbayes.choice.ability import kept_utility, recalled_utility
from cqbayes.choice.data import Situation
from cqbayes.preference import Ability, PreferenceModel, Sizes, preference_model


@preference_model
def ability_mnl(
    level_sd: float = 1.0,
    own_level_sd: float = 1.0,
    slope_sd: float = 1.0,
    own_slope_sd: float = 0.5,
    can: tuple[float, float] = (9.0, 1.0),
    cannot: tuple[float, float] = (1.0, 9.0),
    hardness_sd: float = 1.0,
    persists: tuple[float, float] = (2.0, 1.0),
) -> PreferenceModel:
    """The model of abilities; data need ``failures``.

    Args:
        level_sd, own_level_sd: prior standard deviations of intercepts, in log-odds: what LLMs have
            in common, and how each differs.
        slope_sd, own_slope_sd: the same of slopes, per unit of context.
        can, cannot: the two numbers of a Beta: how often an answer is taken if the LLM can answer
            the query, and if it cannot.
        hardness_sd: scale of the half-normal prior of how far queries differ for all LLMs. 15 nodes
            are right to 0.003 for a hardness of 4, and to 0.03 for one of 8.
        persists: the two numbers of a Beta: how often ability stays with a query.

    Example:
        >>> params = {"intercept": jnp.zeros(2), "theta": jnp.zeros((2, 1))}
        >>> params |= {"can": 0.9, "cannot": 0.1}
        >>> at = Situation(jnp.ones(1), failures=jnp.array([1, 0]))
        >>> u = MODEL.utility(params | {"hardness": 0.0, "persists": 1.0}, at)
        >>> [round(float(p), 3) for p in 1 / (1 + jnp.exp(-u))]
        [0.18, 0.5]
    """

    def prior(sizes: Sizes) -> dict[str, Any]:
        params: dict[str, Any] = {
            "can": numpyro.sample("can", Beta(*can)),
            "cannot": numpyro.sample("cannot", Beta(*cannot)),
            "hardness": numpyro.sample("hardness", HalfNormal(hardness_sd)),
            "persists": numpyro.sample("persists", Beta(*persists)),
        }
        level: Any = numpyro.sample("level", Normal(0, level_sd))
        slope: Any = numpyro.sample("slope", Normal(0, slope_sd).expand([sizes.dim]).to_event(1))
        with numpyro.plate("llm", sizes.num_llms):
            params["intercept"] = numpyro.sample("intercept", Normal(level, own_level_sd))
            slopes = Normal(slope, own_slope_sd).to_event(1)
            params["theta"] = numpyro.sample("theta", slopes)
        return params

    def utility(params: dict[str, Any], at: Situation) -> Float[Array, " llm"]:
        assert at.failures is not None
        return recalled_utility(_abilities(params, at), at.failures, *_rates(params))

    def kept(key: PRNGKeyArray, params: dict[str, Any], at: Situation) -> Float[Array, " llm"]:
        return kept_utility(key, _abilities(params, at), *_rates(params))

    def features(at: Situation) -> Float[Array, " feature"]:
        return jnp.concatenate([jnp.ones_like(at.context[:1]), at.context])

    def weights(params: dict[str, Any]) -> Float[Array, "llm feature"]:
        return jnp.concatenate([params["intercept"][:, None], params["theta"]], axis=1)

    return PreferenceModel(
        prior,
        utility,
        ability=Ability(features, weights, _rates),
        begin=(("can", 0.9), ("cannot", 0.1), ("persists", 0.8)),
        needs=("failures",),
        dims=(("slope", ("feature",)), ("theta", ("llm", "feature"))),
        kept=kept,
    )


def _abilities(params: dict[str, Any], at: Situation) -> Float[Array, " llm"]:
    return params["intercept"] + params["theta"] @ at.context


def _rates(params: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    return params["can"], params["cannot"], params["hardness"], params["persists"]


MODEL = ability_mnl()
