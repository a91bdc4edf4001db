"""Disjoint multinomial logit: every LLM has its own parameters (the paper's experiments).

::

    b_j        ~ Normal(0, intercept_sd)              intercept [llm]
    theta_jk   ~ Normal(0, prior_sd)                  theta     [llm, feature]
    u_j        = b_j + x . theta_j                    log-odds against a retry
    y | x, S   ~ MNL(u, S)

The posterior is log-concave. Source: Bae, Son and Lee, arXiv 2602.02061; the priors are ours.
"""

from functools import lru_cache

import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import Normal

from cqbayes.preference import DisjointLinear, PreferenceModel, Sizes


@lru_cache(maxsize=64)  # the same settings give the same functions, hence one compilation
def disjoint_mnl(
    prior_sd: float = 1.0, intercept_sd: float = 1.5, intercept: bool = True
) -> PreferenceModel:
    """The disjoint MNL.

    Args:
        prior_sd: prior standard deviation of each slope, in log-odds per unit of context.
        intercept_sd: prior standard deviation of each intercept, in log-odds.
        intercept: whether there are intercepts.

    Example:
        >>> params = {"theta": jnp.ones((3, 2)), "intercept": jnp.ones(3)}
        >>> disjoint_mnl(prior_sd=2.0).utility(params, jnp.array([1.0, 0.0])).tolist()
        [2.0, 2.0, 2.0]
    """

    def prior(sizes: Sizes) -> dict[str, Array]:
        params = {}
        if intercept:
            with numpyro.plate("llm", sizes.num_llms, dim=-1):
                params["intercept"] = numpyro.sample("intercept", Normal(0, intercept_sd))
        llm = numpyro.plate("llm", sizes.num_llms, dim=-2)
        with llm, numpyro.plate("feature", sizes.dim, dim=-1):
            params["theta"] = numpyro.sample("theta", Normal(0, prior_sd))
        return params

    def utility(params: dict[str, Array], context: Float[Array, " dim"]) -> Float[Array, " llm"]:
        slope = params["theta"] @ context
        return slope + params["intercept"] if intercept else slope

    def features(context: Float[Array, " dim"]) -> Float[Array, " feature"]:
        return jnp.concatenate([jnp.ones_like(context[:1]), context]) if intercept else context

    def feature_sd(sizes: Sizes) -> Float[Array, " feature"]:
        return jnp.array([intercept_sd] * intercept + [prior_sd] * sizes.dim)

    def to_params(weights: Float[Array, "llm feature"]) -> dict[str, Array]:
        if intercept:
            return {"intercept": weights[:, 0], "theta": weights[:, 1:]}
        return {"theta": weights}

    return PreferenceModel(prior, utility, linear=DisjointLinear(features, feature_sd, to_params))


MODEL = disjoint_mnl()
