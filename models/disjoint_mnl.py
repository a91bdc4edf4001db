"""Disjoint multinomial logit: every LLM has its own parameters (the paper's experiments).

::

    b_0        ~ Normal(0, level_sd)                  level     []: only with level_sd; else 0
    b_j        ~ Normal(b_0, intercept_sd)            intercept [llm]
    theta_jk   ~ Normal(0, prior_sd)                  theta     [llm, feature]
    u_j        = b_j + x . theta_j                    log-odds against a retry
    y | x, S   ~ MNL(u, S)

The posterior is log-concave. Source: Bae, Son and Lee, arXiv 2602.02061; the priors are ours.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import Normal

from cqbayes.choice.data import Situation
from cqbayes.errors import InputError
from cqbayes.preference import Linear, PreferenceModel, Sizes, preference_model


@preference_model
def disjoint_mnl(
    prior_sd: float = 1.0,
    intercept_sd: float = 1.5,
    intercept: bool = True,
    level_sd: float | None = None,
) -> PreferenceModel:
    """The disjoint MNL.

    Without a level, the more LLMs there are, the surer the prior is that on average users take half
    of the answers: the mean of ``b_j`` has the standard deviation ``intercept_sd / sqrt(LLMs)``.
    Data that say how LLMs differ, and little of how often answers are taken at all, need a level.

    Args:
        prior_sd: prior standard deviation of each slope, in log-odds per unit of context.
        intercept_sd: prior standard deviation of each intercept, in log-odds.
        intercept: whether the model has intercepts.
        level_sd: prior standard deviation of what the intercepts have in common, in log-odds, where
            they have; they are not independent then, and the online engine does not take the model.

    Raises:
        InputError: for a ``level_sd`` that is not positive.

    Example:
        >>> params = {"theta": jnp.ones((3, 2)), "intercept": jnp.ones(3)}
        >>> disjoint_mnl(prior_sd=2.0).utility(params, Situation(jnp.array([1.0, 0.0]))).tolist()
        [2.0, 2.0, 2.0]
    """

    if level_sd is not None and not 0 < level_sd < float("inf"):
        raise InputError(f"disjoint_mnl: expected level_sd to be a positive number, got {level_sd}")

    def prior(sizes: Sizes) -> dict[str, Array]:
        params = {}
        level: Any = 0.0
        if intercept and level_sd:
            level = numpyro.sample("level", Normal(0, level_sd))
        with numpyro.plate("llm", sizes.num_llms):
            if intercept:
                params["intercept"] = numpyro.sample("intercept", Normal(level, intercept_sd))
            slopes = Normal(0, prior_sd).expand([sizes.dim]).to_event(1)
            params["theta"] = numpyro.sample("theta", slopes)
        return params

    def utility(params: dict[str, Array], at: Situation) -> Float[Array, " llm"]:
        slope = params["theta"] @ at.context
        return slope + params["intercept"] if intercept else slope

    def features(at: Situation) -> Float[Array, " feature"]:
        x = at.context
        return jnp.concatenate([jnp.ones_like(x[:1]), x]) if intercept else x

    def feature_sd(sizes: Sizes) -> Float[Array, " feature"]:
        return jnp.array([intercept_sd] * intercept + [prior_sd] * sizes.dim)

    def weights(params: dict[str, Array]) -> Float[Array, "llm feature"]:
        if intercept:
            return jnp.concatenate([params["intercept"][:, None], params["theta"]], axis=1)
        return params["theta"]

    def to_params(weights: Float[Array, "llm feature"]) -> dict[str, Array]:
        if intercept:
            return {"intercept": weights[:, 0], "theta": weights[:, 1:]}
        return {"theta": weights}

    return PreferenceModel(
        prior,
        utility,
        linear=Linear(features, weights)
        if intercept and level_sd
        else Linear(features, weights, feature_sd, to_params),
        dims=(("theta", ("llm", "feature")),),
    )


def with_prior(
    prior: Callable[[Sizes], dict[str, Any]], dims: tuple[tuple[str, tuple[str, ...]], ...]
) -> PreferenceModel:
    """A model with the disjoint MNL's utilities and the given prior of its parameters."""
    disjoint = disjoint_mnl()
    assert disjoint.linear is not None
    linear = Linear(disjoint.linear.features, disjoint.linear.weights)
    return PreferenceModel(prior, disjoint.utility, linear=linear, dims=dims)


MODEL = disjoint_mnl()
