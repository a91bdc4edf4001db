"""Sparse multinomial logit: a regularised horseshoe, for embeddings with few relevant dimensions.

::

    tau        ~ HalfCauchy(global_scale)                          global [] (how much matters)
    c^2        ~ InverseGamma(df / 2, df slab_sd^2 / 2)            slab_square []
    lambda_jk  ~ HalfCauchy(1)                                     local [llm, feature]
    theta_jk   = tau lambda~_jk e_jk,   e_jk ~ Normal(0, 1)        theta, theta_raw [llm, feature]
    lambda~_jk = lambda_jk / sqrt(1 + tau^2 lambda_jk^2 / c^2)
    b_j        ~ Normal(0, intercept_sd)                           intercept [llm]
    u_j        = b_j + x . theta_j
    y | x, S   ~ MNL(u, S)

Most slopes are shrunk to almost 0. The few others have nearly the prior
``StudentT(df, 0, slab_sd)``. Sampling is non-centred. Use NUTS with ``target_accept=0.95`` or more:
the posterior is not close to Gaussian.

Source: Piironen and Vehtari (2017), Sparsity information and regularization in the horseshoe and
other shrinkage priors, arXiv 1707.01694.
"""

from typing import Any

import jax.numpy as jnp
import numpyro
from numpyro.distributions import HalfCauchy, InverseGamma, Normal

from cqbayes.preference import PreferenceModel, Sizes, preference_model

from .disjoint_mnl import with_prior


@preference_model
def sparse_mnl(
    global_scale: float = 0.1,
    slab_sd: float = 2.0,
    slab_df: float = 4.0,
    intercept_sd: float = 1.5,
) -> PreferenceModel:
    """The sparse MNL.

    Args:
        global_scale: scale of ``tau``. With ``p`` of ``P`` slopes expected to matter and ``n``
            rows, Piironen and Vehtari advise ``p / (P - p) * 2 / sqrt(n)`` for logits. Divide this
            by the typical size of a context's coordinates if they are small, as in unit vectors.
        slab_sd: typical size of a slope that matters, in log-odds per unit of context.
        slab_df: degrees of freedom of the prior of slopes that matter.
        intercept_sd: prior standard deviation of each intercept, in log-odds.

    Example:
        >>> from cqbayes.preference import layout
        >>> layout(sparse_mnl(slab_sd=1.0), Sizes(3, 2)).dims["theta"]
        ('llm', 'feature')
    """

    def prior(sizes: Sizes) -> dict[str, Any]:
        tau = numpyro.sample("global", HalfCauchy(global_scale))
        slab = InverseGamma(slab_df / 2, slab_df * slab_sd**2 / 2)
        slab_square = numpyro.sample("slab_square", slab)
        with numpyro.plate("llm", sizes.num_llms):
            intercept = numpyro.sample("intercept", Normal(0, intercept_sd))
            local = numpyro.sample("local", HalfCauchy(1).expand([sizes.dim]).to_event(1))
            raw = numpyro.sample("theta_raw", Normal(0, 1).expand([sizes.dim]).to_event(1))
        free = tau * local
        theta = numpyro.deterministic("theta", raw * free / jnp.sqrt(1 + free**2 / slab_square))
        return {"intercept": intercept, "theta": theta}

    slopes = ("llm", "feature")
    return with_prior(prior, dims=(("local", slopes), ("theta_raw", slopes), ("theta", slopes)))


MODEL = sparse_mnl()
