"""Abandonment: a log whose last turns say nothing, since no next turn of the user follows.

A user of a chat who got an answer writes a next turn, or nothing more. The log shows a retry by a
next turn that asks again, an acceptance by a next turn about something else, and silence, coded -1,
by the lack of a next turn::

    leaves  ~ Beta, or sin^2(angle)         leaves  []: a dissatisfied user leaves
    angle   ~ Normal(0, sd)                 turned  []: angle - pi / 6
    goes_on = a number, or ~ Beta           goes_on []: a satisfied user goes on

    P(next turn | not taken) = 1 - leaves       P(nothing | not taken) = leaves
    P(next turn | taken)     = goes_on          P(nothing | taken)     = 1 - goes_on

    P(seen j)  = goes_on P(j)                                         P: the base model
    P(retry)   = (1 - leaves) P(retry)
    P(silence) = leaves P(retry) + (1 - goes_on) sum_j P(j) + P(silence)

With ``goes_on = 1`` every acceptance shows, by a thumb or a next turn, and silence is a user who
gave up. With ``goes_on = 0`` no acceptance shows. In between, both rates are learnt if acceptance
differs between LLMs or contexts and the rates do not; otherwise the posterior of a rate is about
its prior, and the prior matters much. If no LLM was offered, the only possible outcome is a retry.

That nobody leaves is common, and a Beta prior then gives a posterior with a long tail in log-odds,
far from a Gaussian. In the angle it is smooth: ``leaves = 0`` is a point like any other, and the
density of ``leaves`` near 0 is that of ``Beta(1/2, .)``. ``angle`` and ``-angle`` mean the same, so
that the density has no slope at ``angle = 0``. Searches start where all sites are 0, and would stay
there: the site is ``angle - pi / 6``.

Source: ours; a partially observed choice, a mixture as in Dempster, Laird and Rubin (1977).
"""

from collections.abc import Callable
from math import inf, pi
from typing import Any

import jax.numpy as jnp
import numpyro
from numpyro.distributions import Beta, Normal

from cqbayes.choice.channels import Rates, channel_rates
from cqbayes.errors import InputError
from cqbayes.preference import (
    PreferenceModel,
    Sites,
    Sizes,
    nested,
    preference_model,
    shown_through,
)

from .disjoint_mnl import MODEL as DISJOINT

START = pi / 6  # the angle at which searches start: a quarter of the unhappy leave


@preference_model
def abandonment(
    base: PreferenceModel = DISJOINT,
    leaves: float | tuple[float, float] = (2.0, 4.0),
    goes_on: float | tuple[float, float] = 1.0,
) -> PreferenceModel:
    """A model with users who leave in silence.

    Args:
        base: the model of what users do.
        leaves: prior of the probability that a dissatisfied user leaves and does not retry: the two
            numbers of a Beta, or the standard deviation of the angle (0.6: on average a quarter).
        goes_on: probability that the log shows an acceptance, or the Beta prior of this
            probability. The default, 1, says that every acceptance shows.

    Raises:
        InputError: if ``goes_on`` is a number outside [0, 1], or ``leaves`` no prior.

    Example:
        >>> base = {"intercept": jnp.zeros(1), "theta": jnp.zeros((1, 2))}
        >>> params = {"base": base, "leaves": 0.2, "goes_on": 1.0}
        >>> law = MODEL.outcome(params, jnp.zeros(1), jnp.array([True]))
        >>> [round(float(p), 3) for p in jnp.exp(law.log_probs)]  # retry, taken, silence
        [0.4, 0.5, 0.1]
    """
    if not (_is_beta(goes_on) or (isinstance(goes_on, int | float) and 0 <= goes_on <= 1)):
        raise InputError(
            "abandonment: expected goes_on to be a probability from 0 to 1 or the two numbers of a "
            f"Beta prior, got {goes_on}"
        )
    if not (_is_beta(leaves) or _is_positive(leaves)):
        raise InputError(
            "abandonment: expected leaves to be the two positive numbers of a Beta prior, or one, "
            f"the sd of an angle, got {leaves}"
        )

    def prior(sizes: Sizes) -> dict[str, Any]:
        gone = sampled_rate("leaves", "turned", leaves)
        shown: Any = goes_on
        if isinstance(goes_on, tuple):
            shown = numpyro.sample("goes_on", Beta(*goes_on))
        return {"base": base.prior(sizes), "leaves": gone, "goes_on": shown}

    def rates(params: dict[str, Any]) -> Rates:
        gone, shown = params["leaves"], params["goes_on"]
        return channel_rates(retry=(1 - gone, 0, gone), taken=(0, shown, 1 - shown))

    inside = nested(base)
    return inside._replace(
        prior=prior,
        outcome=shown_through(inside, rates, signs=1),
        canonical=inside.canonical if _is_beta(leaves) else folded(inside, "turned"),
    )


def sampled_rate(name: str, turned: str, prior: float | tuple[float, float]) -> Any:
    """A rate with a Beta prior, or ``sin^2`` of an angle whose site is ``turned``."""
    if isinstance(prior, tuple):
        return numpyro.sample(name, Beta(*prior))
    angle = jnp.asarray(numpyro.sample(turned, Normal(-START, prior)))
    return numpyro.deterministic(name, jnp.sin(START + angle) ** 2)


def folded(inside: PreferenceModel, *turned: str) -> Callable[[Sites], Sites]:
    """Of angles that mean the same, those between 0 and pi / 2, for sites that are ``turned``."""

    def canonical(sites: Sites) -> Sites:
        found = sites if inside.canonical is None else inside.canonical(sites)
        kept = {name: jnp.arcsin(jnp.abs(jnp.sin(START + found[name]))) - START for name in turned}
        return {**found, **kept}

    return canonical


def _is_positive(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and 0 < x < inf


def _is_beta(prior: Any) -> bool:
    return isinstance(prior, tuple) and len(prior) == 2 and all(map(_is_positive, prior))


MODEL = abandonment()
