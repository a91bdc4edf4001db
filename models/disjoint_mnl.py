"""Disjoint multinomial logit: every LLM has its own parameters (the paper's experiments).

::

    b_j        ~ Normal(0, intercept_sd)              intercept [llm]
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
from cqbayes.preference import Linear, PreferenceModel, Sizes, preference_model


@preference_model
def disjoint_mnl(
    prior_sd: float = 1.0, intercept_sd: float = 1.5, intercept: bool = True
) -> PreferenceModel:
    """The disjoint MNL.

    Args:
        prior_sd: prior standard deviation of each slope, in log-odds per unit of context.
        intercept_sd: prior standard deviation of each intercept, in log-odds.
        intercept: whether the model has intercepts.

    Example:
        >>> params = {"theta": jnp.ones((3, 2)), "intercept": jnp.ones(3)}
        >>> disjoint_mnl(prior_sd=2.0).utility(params, Situation(jnp.array([1.0, 0.0]))).tolist()
        [2.0, 2.0, 2.0]
    """

    def prior(sizes: Sizes) -> dict[str, Array]:
        params = {}
        with numpyro.plate("llm", sizes.num_llms):
            if intercept:
                params["intercept"] = numpyro.sample("intercept", Normal(0, intercept_sd))
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
        linear=Linear(features, weights, feature_sd, to_params),
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
