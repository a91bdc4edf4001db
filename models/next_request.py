"""Next requests: a log in which they say more or less plainly that an answer was not taken.

After an answer a user shows what became of it (asks for another one by a button or in the same
words, gives a thumb), makes another request, or does nothing more. A detector gives each other
request a score; the log shows its class ``k``, one of a few. Signs are coded -1 for nothing and
``-1 - k`` for a next request of class ``k``::

    angle    ~ Normal(0, leaves),  l = sin^2(angle)   leaves  []: who is not content leaves
    angle    ~ Normal(0, hides),   h = sin^2(angle)   hides   []: who asks again does not show it
    c        ~ Beta(1, 1)                             thanks  []: who is content shows it
    g        ~ Beta(1, 1)                             goes_on []: or else has another request
    o_k      ~ share_k exp(e_k)                        class of a request that opens a session
    f_0k     ~ o_k exp(tilt level_k + doubt_k e'_k)    class of one after a taken answer
    f_1k     ~ f_0k exp(strength level_k)              class of one after an answer not taken
    tilt     ~ HalfNormal,  log strength ~ Normal,  e_k, e'_k ~ Normal(0, 1);  each adds up to 1

    P(seen j)  = c P(j)                                         P: the base model
    P(retry)   = (1 - l) (1 - h) P(retry)
    P(nothing) = l P(retry) + (1 - c) (1 - g) sum_j P(j)
    P(class k) = (1 - l) h f_1k P(retry) + (1 - c) g f_0k sum_j P(j)

A request that opens a session cannot say anything of an answer before. Such requests are rows in
which no LLM is offered, of sign ``-1 - k``; in such rows a retry and these signs share the
probability by halves. Requests that follow an answer may differ from them for other reasons than
discontent, by ``tilt`` and ``doubt_k``. So a log whose next requests look like first ones has few
hidden retrials, and one in which they differ says little, unless they differ more after LLMs whose
answers are seen to be taken less. All rates are learnt together; what cannot be told stays wide.

Where a log has no way to show a retrial, ``h = 1``; where it has none to show an acceptance,
``c = 0``.

**Where outcomes are known** for some next requests, ``known=True`` adds signs for these, by which
the log itself tells what scores mean. Which requests people labelled depends on nothing but scores
and chance, so the likelihood needs no weights for it::

    e ~ Beta(labels)                                   wrong_labels []: labels that are not right
    P(class k, labelled a retrial) = (1 - e) P(class k, retry) + e P(class k, taken)    -1 - K - k
    P(class k, labelled as taken)  = e P(class k, retry) + (1 - e) P(class k, taken)   -1 - 2K - k

    m ~ Beta(2, 1)                        speaks []: who showed discontent speaks of it again
    m f_1k + (1 - m) f_0k                 class after an answer that the user showed not to be taken
    f_0k                                  class after one that the user showed to be taken

The last two are, by the same signs, rows in which no LLM is offered.

Source: ours; a mixture with known components up to a stated doubt, as in Hausman, Abrevaya and
Scott-Morton (1998) and Dempster, Laird and Rubin (1977).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from numpyro.distributions import Beta, HalfNormal, LogNormal, Normal

from cqbayes.choice.channels import Rates
from cqbayes.errors import InputError
from cqbayes.preference import PreferenceModel, Sizes, nested, preference_model, shown_through

from .abandonment import folded, sampled_rate
from .disjoint_mnl import MODEL as DISJOINT


@preference_model
def next_request(
    base: PreferenceModel = DISJOINT,
    shares: tuple[float, ...] = (0.65, 0.25, 0.07, 0.03),
    levels: tuple[float, ...] = (-1.5, -0.3, 0.6, 1.9),
    doubts: tuple[float, ...] = (0.5, 0.5, 0.5, 0.5),
    strength: tuple[float, float] = (1.0, 0.25),
    tilt: float = 0.4,
    leaves: float = 0.6,
    hides: float = 0.6,
    shows_retries: bool = True,
    shows_acceptances: bool = True,
    known: bool = False,
    labels: tuple[float, float] = (1.0, 99.0),
) -> PreferenceModel:
    """A model for logs in which next requests are scored.

    Args:
        base: the model of what users do.
        shares: of the classes among requests that open a session, up to a factor of e either way.
        levels: mean score of each class: log-odds of a request after an answer that was not taken.
        doubts: standard deviations of the log by which a class may be more frequent after an answer
            that was taken than among requests that open a session, beside the tilt.
        strength: median, and standard deviation of the log, of what scores are multiplied by.
        tilt: standard deviation of a half-normal.
        leaves, hides: standard deviations of angles; 0.6: on average a quarter.
        shows_retries: whether users have a way to show that they did not take an answer.
        shows_acceptances: whether they have a way to show that they took it.
        known: whether outcomes of some next requests are known, by labels or by what users showed.
        labels: the two numbers of a Beta, of how often a label is wrong.

    Raises:
        InputError: for shares, levels and doubts of different lengths, or shares that are none.

    Example:
        >>> base = {"intercept": jnp.zeros(1), "theta": jnp.zeros((1, 2))}
        >>> rates = jnp.array([[0.6, 0, 0.2, 0.1, 0.1], [0, 0, 0.4, 0.5, 0.1], [1, 0, 0, 0, 0]])
        >>> law = MODEL.outcome({"base": base, "rates": rates}, jnp.zeros(1), jnp.array([True]))
        >>> [round(float(p), 2) for p in jnp.exp(law.log_prob(jnp.array([0, -1, -2])))]
        [0.3, 0.3, 0.3]
    """
    size = len(shares)
    if not (len(levels) == len(doubts) == size > 1) or min(shares) <= 0 or min(doubts) <= 0:
        raise InputError(
            "next_request: expected shares and doubts above 0 and levels, as many of each, got "
            f"{size} shares, {len(levels)} levels and {len(doubts)} doubts"
        )

    def prior(sizes: Sizes) -> dict[str, Any]:
        gone = sampled_rate("leaves", "turned", leaves)
        hidden: Any = sampled_rate("hides", "turned_back", hides) if shows_retries else 1.0
        shown: Any = numpyro.sample("thanks", Beta(1.0, 1.0)) if shows_acceptances else 0.0
        more: Any = numpyro.sample("goes_on", Beta(1.0, 1.0))
        steep: Any = numpyro.sample("tilt", HalfNormal(tilt))
        strong: Any = numpyro.sample("strength", LogNormal(jnp.log(strength[0]), strength[1]))
        with numpyro.plate("class", size):
            opening: Any = numpyro.sample("opening", Normal(0.0, 1.0))
            off: Any = numpyro.sample("off", Normal(0.0, 1.0))
        level, doubt = jnp.array(levels), jnp.array(doubts)
        first = jnp.log(jnp.array(shares)) + opening
        ordinary = first + steep * level + doubt * off
        opens, f0, f1 = map(jax.nn.softmax, (first, ordinary, ordinary + strong * level))
        numpyro.deterministic("asks_otherwise", (1 - gone) * hidden)
        again = [(1 - gone) * (1 - hidden), 0.0, gone]
        content = [0.0, shown, (1 - shown) * (1 - more)]
        asked, went_on, nothing = (1 - gone) * hidden * f1, (1 - shown) * more * f0, [opens]
        signs = [asked], [went_on]
        if known:
            wrong: Any = numpyro.sample("wrong_labels", Beta(*labels))
            speaks: Any = numpyro.sample("speaks", Beta(2.0, 1.0))
            # By halves: whether anybody labels a request has nothing to do with its outcome.
            signs = [
                [one / 2, said * one / 2, (1 - said) * one / 2]
                for one, said in ((asked, 1 - wrong), (went_on, wrong))
            ]
            nothing += [speaks * f1 + (1 - speaks) * f0, f0]
        share = 1 / (1 + len(nothing))
        rows = [
            jnp.concatenate([jnp.array(again), *signs[0]]),
            jnp.concatenate([jnp.array(content), *signs[1]]),
            jnp.concatenate([jnp.array([share, 0.0, 0.0]), *(share * one for one in nothing)]),
        ]
        return {"base": base.prior(sizes), "rates": jnp.stack(rows)}

    def rates(params: dict[str, Any]) -> Rates:
        return params["rates"]

    inside = nested(base)
    turned = ("turned", "turned_back") if shows_retries else ("turned",)
    return inside._replace(
        prior=prior,
        outcome=shown_through(inside, rates, signs=1 + size * (3 if known else 1)),
        canonical=folded(inside, *turned),
        gaussian=False,  # rates at their bounds: k-hat 0.57 to 0.90 on simulated logs
    )


MODEL = next_request()
