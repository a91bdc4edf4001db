"""Hierarchical multinomial logit: LLMs come from a population with parameters to be inferred.

::

    mu_0 ~ Normal(0, intercept_sd),  tau_0 ~ HalfNormal(spread_sd)    intercept_mu, intercept_tau []
    mu_k ~ Normal(0, prior_sd),      tau_k ~ HalfNormal(spread_sd)    theta_mu, theta_tau [feature]
    b_j       ~ Normal(mu_0, tau_0)                                   intercept [llm]
    theta_jk  ~ Normal(mu_k, tau_k)                                   theta     [llm, feature]
    u_j       = b_j + x . theta_j
    y | x, S  ~ MNL(u, S)

The estimate of an LLM with few data shrinks towards the other LLMs, and a new LLM starts with the
population. The prior is sampled non-centred, as ``theta_decentered = (theta - mu) / tau``, or
centred. The non-centred form suits few data per LLM, the centred form many.

Source: for the population of coefficients, Allenby and Rossi (1999), Marketing models of consumer
heterogeneity, with a population of users; for the two forms, Betancourt and Girolami (2015). A
population of LLMs, and the priors, are ours.
"""

from typing import Any

import numpyro
from numpyro.distributions import HalfNormal, Normal
from numpyro.handlers import reparam
from numpyro.infer.reparam import LocScaleReparam

from cqbayes.preference import PreferenceModel, Sizes, preference_model

from .disjoint_mnl import with_prior


@preference_model
def hierarchical_mnl(
    prior_sd: float = 1.0,
    intercept_sd: float = 1.5,
    spread_sd: float = 1.0,
    centred: bool = False,
) -> PreferenceModel:
    """The hierarchical MNL.

    Args:
        prior_sd: prior standard deviation of the mean of each slope over LLMs, in log-odds per
            unit of context.
        intercept_sd: prior standard deviation of the mean intercept, in log-odds.
        spread_sd: scale of the half-normal prior of how much LLMs differ.
        centred: whether to sample the LLMs' parameters themselves (True) or their standardised
            deviations from the population (False).

    Example:
        >>> import jax
        >>> from cqbayes.preference import layout
        >>> sorted(layout(hierarchical_mnl(centred=True), Sizes(3, 2)).dims)
        ['intercept', 'intercept_mu', 'intercept_tau', 'theta', 'theta_mu', 'theta_tau']
    """

    def prior(sizes: Sizes) -> dict[str, Any]:
        intercept_mu = numpyro.sample("intercept_mu", Normal(0, intercept_sd))
        intercept_tau = numpyro.sample("intercept_tau", HalfNormal(spread_sd))
        with numpyro.plate("feature", sizes.dim):
            mu = numpyro.sample("theta_mu", Normal(0, prior_sd))
            tau = numpyro.sample("theta_tau", HalfNormal(spread_sd))
        form = LocScaleReparam(centered=float(centred))
        with (
            reparam(config={"intercept": form, "theta": form}),
            numpyro.plate("llm", sizes.num_llms),
        ):
            intercept = numpyro.sample("intercept", Normal(intercept_mu, intercept_tau))
            theta = numpyro.sample("theta", Normal(mu, tau).to_event(1))
        return {"intercept": intercept, "theta": theta}

    slopes = ("llm", "feature")
    return with_prior(
        prior, dims=(("intercept", ("llm",)), ("theta", slopes), ("theta_decentered", slopes))
    )


MODEL = hierarchical_mnl()
