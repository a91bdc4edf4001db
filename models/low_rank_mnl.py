"""Low-rank multinomial logit: many LLMs, which differ along a few directions.

::

    W_kl     ~ Normal(0, s)                     loading   [feature, factor]
    z_jl     ~ Normal(0, 1)                     position  [llm, factor]
    b_j      ~ Normal(0, intercept_sd)          intercept [llm]
    theta_j  = W z_j                            theta     [llm, feature]
    u_j      = b_j + x . theta_j
    y | x, S ~ MNL(u, S)

with ``s = prior_sd / sqrt(rank)``: ``prior_sd`` is the spread of a slope, whatever the rank.

``theta`` and the prior stay the same if ``W`` and all ``z_j`` are rotated or reflected together.
Every draw of NUTS is therefore rotated after sampling, so that the first ``rank`` rows of ``W`` are
as close to the identity as possible; they are then symmetric and positive definite. Factor ``k``
then follows feature ``k``, and R-hat of ``W`` and ``z`` is meaningful.

A common alternative constrains ``W`` to a lower triangle with a positive diagonal (Geweke and Zhou
1996). But a chain that starts with the wrong signs then gets stuck at a diagonal of zero (Erosheva
and Curtis 2017); this happened to one or two of four chains in our trials. Here sampling is
unconstrained and the rotation is fixed afterwards, as in Assmann, Boysen-Hogrefe and Pape (2016),
An ex-post approach towards the rotation problem, by the orthogonal Procrustes problem (Schönemann
1966). The posterior has no isolated peak, since rotations leave it unchanged, so Laplace fails: use
NUTS.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions import Normal

from cqbayes.errors import InputError
from cqbayes.preference import PreferenceModel, Sites, Sizes, preference_model

from .disjoint_mnl import with_prior


@preference_model
def low_rank_mnl(
    rank: int = 2, prior_sd: float = 1.0, intercept_sd: float = 1.5
) -> PreferenceModel:
    """The low-rank MNL.

    Args:
        rank: number of directions in which LLMs differ; at most the dimensions of the context.
        prior_sd: prior standard deviation of each slope, in log-odds per unit of context.
        intercept_sd: prior standard deviation of each intercept, in log-odds.

    Raises:
        InputError: if the rank is not between 1 and the context's dimensions; raised as soon as
            these are known.

    Example:
        >>> from cqbayes.preference import layout
        >>> layout(low_rank_mnl(rank=2), Sizes(num_llms=100, dim=16)).size  # 1700 if disjoint
        332
    """

    def prior(sizes: Sizes) -> dict[str, Any]:
        if not 1 <= rank <= sizes.dim:
            raise InputError(
                f"low_rank_mnl: expected a rank of 1 to {sizes.dim}, the dimensions of the "
                f"context, got {rank}"
            )
        with numpyro.plate("feature", sizes.dim):
            law = Normal(0, prior_sd / np.sqrt(rank)).expand([rank]).to_event(1)
            loading: Any = numpyro.sample("loading", law)
        with numpyro.plate("llm", sizes.num_llms):
            intercept = numpyro.sample("intercept", Normal(0, intercept_sd))
            law = Normal(0, 1).expand([rank]).to_event(1)
            position: Any = numpyro.sample("position", law)
        theta = numpyro.deterministic("theta", position @ loading.T)
        return {"intercept": intercept, "theta": theta}

    def turned(sites: Sites) -> Sites:
        left, _, right = jnp.linalg.svd(sites["loading"][:rank])
        turn = (left @ right).T
        return sites | {name: sites[name] @ turn for name in ("loading", "position")}

    named = {"loading": ("feature", "factor"), "position": ("llm", "factor")}
    model = with_prior(prior, dims=(*named.items(), ("theta", ("llm", "feature"))))
    return model._replace(canonical=turned)


MODEL = low_rank_mnl()
