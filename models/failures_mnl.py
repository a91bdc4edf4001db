"""Failures: an LLM that answered this query in vain answers it in vain again, more likely than not.

The form of :mod:`cqbayes.models.ability_mnl` in which decisions are made: linear in what is known
of the query, inside a channel of two rates, which says how the answer of an LLM is received that
can answer the query, or cannot. With ``n_j`` vain answers of LLM ``j`` and ``n`` of all::

    hi ~ Beta(can)                                    can        []: taken, if the LLM can
    lo ~ Beta(cannot)                                 cannot     []: taken, if it cannot
    b_0 ~ Normal(0, level_sd)                         level      []
    b_j ~ Normal(0, own_level_sd)                     own_level  [llm]
    theta_0k ~ Normal(0, slope_sd)                    slope      [feature]
    theta_jk ~ Normal(0, own_slope_sd)                own_slope  [llm, feature]
    h   ~ Normal(0, others_sd)                        others     []
    h_j ~ Normal(0, own_others_sd)                    own_others [llm]
    delta ~ Normal(log((1 - lo) / (1 - hi)), recall_sd)   recall []

    s_j = b_0 + b_j + x . (theta_0 + theta_j) - delta n_j - (h + h_j) log2(1 + n - n_j)
    p_j = lo + (hi - lo) sigmoid(s_j),                u_j = logit(p_j)
    y | x, n, S  ~ MNL(u, S)

``delta`` is centred where a query that can be answered for sure or not at all would have it. With
one LLM offered ``p_j`` is the probability that its answer is taken. Source: ours; guess and slip of
item response theory (Barton and Lord, 1981), pooled as in :mod:`cqbayes.models.hierarchical_mnl`.
"""

from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float, Int
from numpyro.distributions import Beta, Normal

from cqbayes.choice.ability import certain_recall, received
from cqbayes.choice.data import Situation
from cqbayes.preference import PreferenceModel, Sizes, preference_model


def others_failed(failures: Int[Array, "*batch llm"]) -> Float[Array, "*batch llm"]:
    """``log2(1 + n - n_j)``: how often the other LLMs answered in vain.

    Example:
        >>> [round(float(x), 3) for x in others_failed(jnp.array([1, 0, 2]))]
        [1.585, 2.0, 1.0]
    """
    total = jnp.sum(failures, axis=-1, keepdims=True)
    return jnp.log2(1.0 + total - failures)


@preference_model
def failures_mnl(
    level_sd: float = 1.0,
    own_level_sd: float = 1.0,
    slope_sd: float = 1.0,
    own_slope_sd: float = 0.5,
    others_sd: float = 1.0,
    own_others_sd: float = 0.5,
    recall_sd: float = 1.0,
    can: tuple[float, float] = (12.0, 1.0),
    cannot: tuple[float, float] = (1.0, 12.0),
) -> PreferenceModel:
    """The linear model of failures; data need ``failures``.

    Args:
        level_sd, own_level_sd: prior standard deviations of intercepts, in log-odds: what LLMs have
            in common, and how each differs.
        slope_sd, own_slope_sd: the same of slopes.
        others_sd, own_others_sd: the same of what vain answers of others say.
        recall_sd: prior standard deviation of what an LLM's own vain answer says.
        can, cannot: the two numbers of a Beta: how often an answer is taken if the LLM can answer
            the query, and if it cannot.

    Example:
        >>> zero = {"slope": jnp.zeros(1), "own_slope": jnp.zeros((2, 1)), "level": 0.0}
        >>> zero |= {"own_level": jnp.zeros(2), "own_others": jnp.zeros(2), "others": 0.0}
        >>> at = Situation(jnp.ones(1), failures=jnp.array([2, 0]))
        >>> u = MODEL.utility(zero | {"recall": 2.0, "can": 0.9, "cannot": 0.1}, at)
        >>> [round(float(p), 3) for p in 1 / (1 + jnp.exp(-u))]
        [0.114, 0.5]
    """

    def prior(sizes: Sizes) -> dict[str, Any]:
        can_it: Any = numpyro.sample("can", Beta(*can))
        cannot_it: Any = numpyro.sample("cannot", Beta(*cannot))
        recall = Normal(certain_recall(can_it, cannot_it), recall_sd)
        params: dict[str, Any] = {
            "can": can_it,
            "cannot": cannot_it,
            "level": numpyro.sample("level", Normal(0, level_sd)),
            "slope": numpyro.sample("slope", Normal(0, slope_sd).expand([sizes.dim]).to_event(1)),
            "recall": numpyro.sample("recall", recall),
            "others": numpyro.sample("others", Normal(0, others_sd)),
        }
        with numpyro.plate("llm", sizes.num_llms):
            params["own_level"] = numpyro.sample("own_level", Normal(0, own_level_sd))
            slopes = Normal(0, own_slope_sd).expand([sizes.dim]).to_event(1)
            params["own_slope"] = numpyro.sample("own_slope", slopes)
            params["own_others"] = numpyro.sample("own_others", Normal(0, own_others_sd))
        return params

    def utility(params: dict[str, Any], at: Situation) -> Float[Array, " llm"]:
        assert at.failures is not None
        against = (params["others"] + params["own_others"]) * others_failed(at.failures)
        own = params["own_level"] + params["own_slope"] @ at.context
        known = params["level"] + jnp.dot(params["slope"], at.context) + own
        known = known - against - params["recall"] * at.failures
        return received(known, params["can"], params["cannot"])

    return PreferenceModel(
        prior,
        utility,
        needs=("failures",),
        dims=(("slope", ("feature",)), ("own_slope", ("llm", "feature"))),
    )


MODEL = failures_mnl()
