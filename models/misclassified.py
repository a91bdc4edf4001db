"""Misclassified retrials: a log whose retries were inferred, with errors; added to any model.

::

    d ~ Beta(specificity)                         specificity []: an acceptance is seen as one
    r ~ Beta(recognised)                          recognised  []: a retry is recognised
    c = r + (1 - r) (1 - d)                       sensitivity []: a retry is seen as one
    P(seen retry) = c P(retry) + (1 - d) sum_j P(j)      P: the base model
    P(seen j)     = d P(j) + (1 - c) P(retry) / |S|      j in S
    P(silence)    = P(silence)

A retry that is not recognised is treated like an acceptance: a share ``1 - d`` of both is taken for
retries by mistake. A retry that is missed is logged as the acceptance of an offered answer, of each
offered answer with the same probability. This is exact if one LLM is shown, and an assumption if
more are shown. If no LLM was offered, a retry is seen for sure.

With one LLM shown, ``(c, d, u)`` and ``(1 - d, 1 - c, -u)`` give the same probabilities. Data
cannot tell a good classifier from one that swaps the labels. With independent priors of ``c`` and
``d``, even informative ones, some chains got stuck at the wrong one. Here ``c + d = 1 + r d > 1``:
a retry is seen as a retry more often than an acceptance is. Data alone still say little about ``r``
and ``d``. Priors from labelled conversations, made by :func:`priors_from_labels`, are better than
the defaults.

Source: Hausman, Abrevaya and Scott-Morton (1998), Misclassification of the dependent variable in a
discrete-response setting, for one LLM, with ``c + d > 1``. Several LLMs, and the priors, are ours.
"""

from typing import Any

import numpyro
from numpyro.distributions import Beta

from cqbayes.choice.channels import Rates, channel_rates
from cqbayes.errors import InputError
from cqbayes.preference import PreferenceModel, Sizes, nested, preference_model, shown_through

from .disjoint_mnl import MODEL as DISJOINT


@preference_model
def misclassified(
    base: PreferenceModel = DISJOINT,
    recognised: tuple[float, float] = (8.0, 2.0),
    specificity: tuple[float, float] = (18.0, 2.0),
) -> PreferenceModel:
    """A model for logs whose retries were inferred, with errors.

    Args:
        base: the model of what users do.
        recognised: Beta prior of the probability ``r`` that a retry is recognised. With ``r = 0``
            sensitivity is 1 - specificity, as for blind guesses; with ``r = 1`` it is 1.
        specificity: Beta prior of the probability that an acceptance is seen as one.

    Example:
        >>> import jax.numpy as jnp
        >>> base = {"intercept": jnp.zeros(1), "theta": jnp.zeros((1, 2))}
        >>> params = {"base": base, "sensitivity": 0.8, "specificity": 0.9}
        >>> law = MODEL.outcome(params, jnp.zeros(1), jnp.array([True]))
        >>> [round(float(p), 3) for p in jnp.exp(law.log_probs)]  # retry, taken
        [0.45, 0.55]
    """

    def prior(sizes: Sizes) -> dict[str, Any]:
        known = numpyro.sample("recognised", Beta(*recognised))
        kept = numpyro.sample("specificity", Beta(*specificity))
        hit = numpyro.deterministic("sensitivity", known + (1 - known) * (1 - kept))
        return {"base": base.prior(sizes), "sensitivity": hit, "specificity": kept}

    def rates(params: dict[str, Any]) -> Rates:
        hit, kept = params["sensitivity"], params["specificity"]
        return channel_rates(retry=(hit, 1 - hit, 0), taken=(1 - kept, kept, 0))

    inside = nested(base)
    return inside._replace(prior=prior, outcome=shown_through(inside, rates))


def priors_from_labels(
    found: int, retries: int, kept: int, acceptances: int
) -> dict[str, tuple[float, float]]:
    """Settings of :func:`misclassified` from conversations with known outcomes.

    With uniform priors of sensitivity and specificity, ``c ~ Beta(found + 1, retries - found + 1)``
    and ``d ~ Beta(kept + 1, acceptances - kept + 1)``. The mean and variance of
    ``r = 1 - (1 - c) / d`` then have a closed form, and ``recognised`` is the Beta
    distribution with this mean and variance.

    Args:
        found: number of labelled retries that the detector calls retries.
        retries: number of labelled retries.
        kept: number of labelled acceptances that the detector calls acceptances.
        acceptances: number of labelled acceptances.

    Raises:
        InputError: for impossible counts, too few labels, or a detector that is no better than
            guessing.

    Example:
        >>> settings = priors_from_labels(found=90, retries=100, kept=190, acceptances=200)
        >>> settings["specificity"]
        (191.0, 11.0)
        >>> recognised = settings["recognised"]
        >>> round(recognised[0] / sum(recognised), 2)
        0.89
    """
    if not (0 <= found <= retries and 0 <= kept <= acceptances and acceptances > 1):
        raise InputError(
            "misclassified: expected counts of labels, the first of each pair no larger than the "
            f"second, got {found} of {retries} and {kept} of {acceptances}"
        )
    a, b = retries - found + 1.0, found + 1.0
    k, n = kept + 1.0, acceptances + 2.0
    mean = a / (a + b) * (n - 1) / max(k - 1, 1)
    square = a * (a + 1) / ((a + b) * (a + b + 1)) * (n - 1) * (n - 2) / max((k - 1) * (k - 2), 1)
    strength = mean * (1 - mean) / (square - mean**2) - 1 if square > mean**2 else 0
    if k <= 2 or not (mean < 1 and strength > 0):
        raise InputError(
            "misclassified: expected enough labels to show that the detector calls retries so more "
            f"often than acceptances, got {found} of {retries} and {acceptances - kept} of "
            f"{acceptances}; label more conversations, or improve the detector"
        )
    return {"recognised": ((1 - mean) * strength, mean * strength), "specificity": (k, n - k)}


MODEL = misclassified()
