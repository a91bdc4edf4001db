"""Abandonment: users who leave without a word, added to any model.

::

    q ~ Beta(leave)                                   leave []: a dissatisfied user leaves
    r = acknowledged, or ~ Beta(acknowledged)         acknowledged []: the log shows an acceptance
    P(seen j)  = r P(j)                               P: the base model
    P(retry)   = (1 - q) P(retry)
    P(silence) = q P(retry) + (1 - r) sum_j P(j) + P(silence)

Silence is coded -1. If the log shows every acceptance, for example by a thumb or by a next question
on another subject, then ``r = 1``, and silence means that a user gave up. A chat log does not show
satisfaction at all: then ``r = 0``, and both satisfied users and lost users are silent. In this
case the data inform about ``q`` only by how often users do not retry bad answers, and the prior of
``q`` matters much. If no LLM was offered, the only possible outcome is a retry.

Source: ours; a partially observed choice, a mixture as in Dempster, Laird and Rubin (1977).
"""

from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import Beta

from cqbayes.choice.channels import LogShares, Outcomes, log_shares, log_sum, log_total
from cqbayes.choice.data import Situation
from cqbayes.errors import InputError
from cqbayes.preference import PreferenceModel, Sizes, preference_model

from .disjoint_mnl import MODEL as DISJOINT


@preference_model
def abandonment(
    base: PreferenceModel = DISJOINT,
    leave: tuple[float, float] = (2.0, 4.0),
    acknowledged: float | tuple[float, float] = 1.0,
) -> PreferenceModel:
    """A model with users who leave in silence.

    Args:
        base: the model of what users do.
        leave: Beta prior of the probability that a dissatisfied user leaves and does not retry.
        acknowledged: probability that the log shows an acceptance, or the Beta prior of this
            probability.

    Raises:
        InputError: if ``acknowledged`` is a number outside [0, 1].

    Example:
        >>> base = {"intercept": jnp.zeros(1), "theta": jnp.zeros((1, 2))}
        >>> params = {"base": base, "leave": 0.2, "acknowledged": 1.0}
        >>> law = MODEL.outcome(params, jnp.zeros(1), jnp.array([True]))
        >>> [round(float(p), 3) for p in jnp.exp(law.log_probs)]  # retry, taken, silence
        [0.4, 0.5, 0.1]
    """
    pair = isinstance(acknowledged, tuple) and len(acknowledged) == 2 and min(acknowledged) > 0
    if not (pair or (isinstance(acknowledged, int | float) and 0 <= acknowledged <= 1)):
        raise InputError(
            "abandonment: expected acknowledged to be a probability from 0 to 1 or the two numbers "
            f"of a Beta prior, got {acknowledged}"
        )

    def prior(sizes: Sizes) -> dict[str, Any]:
        gone = numpyro.sample("leave", Beta(*leave))
        shown: Any = acknowledged
        if isinstance(acknowledged, tuple):
            shown = numpyro.sample("acknowledged", Beta(*acknowledged))
        return {"base": base.prior(sizes), "leave": gone, "acknowledged": shown}

    def utility(params: dict[str, Any], at: Situation) -> Float[Array, " llm"]:
        return base.utility(params["base"], at)

    def outcome(params: dict[str, Any], utility: Array, offered: Array) -> Outcomes:
        done = log_shares(base.outcome(params["base"], utility, offered), offered.shape[-1])
        gone, shown = jnp.asarray(params["leave"]), jnp.asarray(params["acknowledged"])
        unseen = [] if done.silent is None else [done.silent]
        before = jnp.full_like(done.retry, -jnp.inf) if done.silent is None else done.silent
        unseen += [jnp.log(gone) + done.retry, jnp.log1p(-shown) + log_total(done.taken)]
        answered = jnp.any(offered, axis=-1)
        return LogShares(
            retry=jnp.where(answered, jnp.log1p(-gone) + done.retry, done.retry),
            taken=jnp.log(shown) + done.taken,
            silent=jnp.where(answered, log_sum(*unseen), before),
        ).joined()

    return base._replace(prior=prior, utility=utility, outcome=outcome, linear=None, silence=True)


MODEL = abandonment()
