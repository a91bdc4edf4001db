"""Shared multinomial logit: all LLMs share one parameter vector and differ by their attributes.

::

    alpha       ~ Normal(0, intercept_sd)             intercept   []
    beta_k      ~ Normal(0, prior_sd)                 beta        [feature]
    gamma_m     ~ Normal(0, attribute_sd)             gamma       [attribute]
    Gamma_mk    ~ Normal(0, interaction_sd)           interaction [attribute, feature]
    u_j         = alpha + x . beta + a_j . gamma + a_j^T Gamma x
    y | x, S    ~ MNL(u, S)

That is, ``u_j = phi(x, a_j) . theta`` with ``phi = (1, x, a_j, a_j x^T)``. Scale attributes
``a_j``, such as price, latency or context window, to numbers near 1. The model predicts an LLM that
was never offered from its attributes. The posterior is log-concave.

Source: Bae, Son and Lee, arXiv 2602.02061, for one parameter vector and a feature map of query and
LLM; McFadden (1974) for the conditional logit. This feature map and the priors are ours.
"""

from typing import Any

import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import Normal

from cqbayes.choice.data import Situation
from cqbayes.preference import PreferenceModel, Sizes, preference_model


@preference_model
def shared_mnl(
    prior_sd: float = 1.0,
    intercept_sd: float = 1.5,
    attribute_sd: float = 1.0,
    interaction_sd: float = 1.0,
) -> PreferenceModel:
    """The shared MNL; data need ``attributes``.

    Args:
        prior_sd: prior standard deviation of each slope of the context, in log-odds per unit.
        intercept_sd: prior standard deviation of the intercept, in log-odds.
        attribute_sd: prior standard deviation of each slope of an attribute.
        interaction_sd: prior standard deviation of each slope of a product of an attribute and a
            dimension of the context.

    Example:
        >>> import jax.numpy as jnp
        >>> params = {"intercept": jnp.array(0.5), "beta": jnp.ones(2), "gamma": jnp.ones(1),
        ...     "interaction": jnp.array([[0.0, 3.0]])}
        >>> price = jnp.array([[0.0], [-1.0]])
        >>> MODEL.utility(params, Situation(jnp.array([0.0, 1.0]), price)).tolist()
        [1.5, -2.5]
    """

    def prior(sizes: Sizes) -> dict[str, Any]:
        intercept = numpyro.sample("intercept", Normal(0, intercept_sd))
        with numpyro.plate("feature", sizes.dim):
            beta = numpyro.sample("beta", Normal(0, prior_sd))
        with numpyro.plate("attribute", sizes.num_attributes):
            gamma = numpyro.sample("gamma", Normal(0, attribute_sd))
            products = Normal(0, interaction_sd).expand([sizes.dim]).to_event(1)
            interaction = numpyro.sample("interaction", products)
        return {"intercept": intercept, "beta": beta, "gamma": gamma, "interaction": interaction}

    def utility(params: dict[str, Array], at: Situation) -> Float[Array, " llm"]:
        assert at.attributes is not None
        common = params["intercept"] + params["beta"] @ at.context
        return common + at.attributes @ (params["gamma"] + params["interaction"] @ at.context)

    return PreferenceModel(
        prior,
        utility,
        needs=("attributes",),
        dims=(("interaction", ("attribute", "feature")),),
    )


MODEL = shared_mnl()
