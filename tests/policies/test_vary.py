"""Variation: what it leaves to the rule, and what it gains."""

import jax
import jax.numpy as jnp
import numpy as np
from seen import seen

from cqbayes.datasets.score_table import ScoreTable
from cqbayes.environments.environment import Action, Observation
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.scores import from_scores
from cqbayes.policies.policy import best_pair, oldest, stateless
from cqbayes.policies.vary import vary
from cqbayes.simulation.loop import simulate

KEY, NUM_LLMS, DIM = jax.random.key(0), 4, 3


WAIT = np.array([3, 9, 1, 7, 4])


def _by_first_dimension(key, state, room: Observation) -> Action:
    """A rule whose log-odds of a query are the first dimension of its context."""
    utility = jnp.stack([room.context[:, 0], room.context[:, 0] - 1], axis=1)
    return best_pair(utility, room, 1)


RULE = stateless(_by_first_dimension)


def _room(**columns) -> Observation:
    return seen(np.array([[0.5, 0], [0.1, 0], [0.4, 0], [-2.0, 0], [0.0, 0]]), wait=WAIT, **columns)


def test_variation_leaves_the_first_attempts_to_the_rule():
    fresh, tried = (_room(attempts=np.array([n, 9, 9, 9, 9])) for n in (1, 2))
    policy = vary(RULE, 2, num_llms=2)
    keys = jax.random.split(KEY, 400)
    early, late = (
        jax.vmap(lambda key, room=room: policy.select(key, (), room))(keys)
        for room in (fresh, tried)
    )
    assert (early.query == 0).all()
    assert (late.query == 0).all()
    assert early.offered.tolist() == [[True, False]] * 400
    # Either of two LLMs, with the same probability: 4 standard errors.
    assert (late.offered.sum(axis=1) == 1).all()
    assert abs(late.offered[:, 0].mean() - 0.5) < 4 * 0.5 / 20


def test_variation_pays_where_an_llm_cannot_answer_a_query_at_all():
    """Half of the queries, which look like the others, are answered by the second LLM only.

    A query takes 10.5 services of the first LLM on average, and 2.6 with variation: at 0.2 arrivals
    a round the one queue grows and the other does not.
    """
    table = ScoreTable(
        name="two queries",
        llms=("first", "second"),
        query_id=np.array(["a", "b"]),
        task=np.array(["", ""]),
        split=np.array(["test", "test"]),
        context=np.ones((2, 1)),
        score=np.eye(2),
    )
    env = retrial_queue(from_scores(table, contradiction=0.05), 0.2)
    stubborn = stateless(lambda key, state, room: Action(oldest(room), jnp.array([True, False])))
    plain, varied = (
        simulate(KEY, policy, env, 2_000, num_seeds=4).metrics.queue_length[:, -1]
        for policy in (stubborn, vary(stubborn, 2, num_llms=2))
    )
    assert (plain > 100).all()
    assert (varied < 20).all()
