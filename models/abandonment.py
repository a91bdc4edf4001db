"""Abandonment: users who leave without a word, on top of any model.

::

    q ~ Beta(leave)                                   leave []: a dissatisfied user leaves
    r = acknowledged, or ~ Beta(acknowledged)         acknowledged []: an acceptance is seen
    P(seen j)  = r P(j)                               P: the base
    P(retry)   = (1 - q) P(retry)
    P(silence) = q P(retry) + (1 - r) sum_j P(j) + P(silence)

Silence is coded -1. Where every acceptance is seen, as by a thumb or a next question on another
subject, ``r = 1`` and silence means that a user gave up. In a chat log satisfaction does not show
at all: ``r = 0``, and silence is both, the content and the lost. The data then tell ``q`` only by
how often hopeless answers are not retried, and its prior decides much. Nobody leaves over an answer
that was not given: where nothing was offered a retry is all that can be.

Source: ours; a partially observed choice, a mixture as in Dempster, Laird and Rubin (1977).
"""

from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import Beta

from cqbayes.choice import Situation
from cqbayes.errors import InputError
from cqbayes.outcomes import LogShares, Outcomes, log_shares, log_sum, log_total
from cqbayes.preference import PreferenceModel, Sizes, preference_model

from .disjoint_mnl import MODEL as DISJOINT


@preference_model
def abandonment(
    base: PreferenceModel = DISJOINT,
    leave: tuple[float, float] = (2.0, 4.0),
    acknowledged: float | tuple[float, float] = 1.0,
) -> PreferenceModel:
    """Users who leave.

    Args:
        base: the model of what users do.
        leave: Beta prior of the probability that a dissatisfied user leaves and does not retry.
        acknowledged: probability that an acceptance is seen, or its Beta prior.

    Raises:
        InputError: if ``acknowledged`` is a number that is no probability.

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
