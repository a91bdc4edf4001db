"""Users whose true utilities follow from scores of real answers.

::

    u_ij = logit(e + (1 - 2 e) s_ij)

``s_ij`` in [0, 1] says how good LLM j's real answer to query i was, and ``e`` how often a user
contradicts the score. Answers are real and users are simulated. True utilities are not linear in
the context.
"""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.datasets.score_table import ScoreTable
from cqbayes.environments.environment import Population, Query
from cqbayes.errors import InputError


def from_scores(table: ScoreTable, contradiction: float | None = None) -> Population:
    """A population from a table of scores; arrivals are rows drawn with replacement.

    Args:
        table: rows to draw from. If a projection or model was fitted to some rows, pass the others.
        contradiction: ``e`` above, in (0, 0.5). If absent, it is 0.1 for scores of one answer. For
            scores that are the share of right answers among n, it is ``1 / (2 (n + 1))``: half a
            right and half a wrong answer are added, so that a retry has nearly the measured
            probability.

    Raises:
        InputError: for a contradiction rate outside (0, 0.5).
    """
    if contradiction is None:
        contradiction = 0.1 if table.samples == 1 else 0.5 / (table.samples + 1)
    if not 0 < contradiction < 0.5:
        raise InputError(f"contradiction: expected a rate in (0, 0.5), got {contradiction}")
    satisfied = contradiction + (1 - 2 * contradiction) * jnp.asarray(table.score, float)
    utility = jnp.log(satisfied) - jnp.log1p(-satisfied)
    return Population(
        draw=Partial(_draw, jnp.asarray(table.context, float)),
        utility=Partial(_look_up, utility),
        cost=None if table.cost is None else Partial(_look_up, jnp.asarray(table.cost, float)),
    )


def _draw(context: Float[Array, "query dim"], key: PRNGKeyArray) -> Query:
    identity = jax.random.randint(key, (), 0, context.shape[0])
    return Query(context[identity], identity)


def _look_up(table: Float[Array, "query llm"], query: Query) -> Float[Array, " llm"]:
    return table[query.identity]
