"""Memory in policies: what they do after vain answers, and a floor that knows the population."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seen import seen

from cqbayes.datasets.score_table import ScoreTable
from cqbayes.environments.environment import Population, Query
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.scores import from_scores
from cqbayes.errors import InputError
from cqbayes.inference.infer import load_engine
from cqbayes.policies import belief
from cqbayes.policies.acqb import acqb
from cqbayes.policies.pattern_oracle import pattern_oracle
from cqbayes.policies.setup import Setup, load_policy
from cqbayes.preference import Sizes, load_model
from cqbayes.simulation.loop import simulate

SIZES = Sizes(3, 2)


def population() -> Population:
    """Real-valued contexts that tell nothing, and answers that are right or wrong for good."""
    rng = np.random.default_rng(0)
    right = rng.random((400, 3)) < [0.7, 0.6, 0.4]
    return from_scores(
        ScoreTable(
            name="made up",
            llms=("a", "b", "c"),
            query_id=tuple(f"q{i}" for i in range(400)),
            context=rng.normal(size=(400, 2)) / 2,
            score=right.astype(float),
            cost=None,
            split=np.full(400, "test"),
            task=np.full(400, "made up"),
        )
    )


def test_with_memory_another_llm_is_tried_and_regret_is_far_less(key):
    env = retrial_queue(population(), 0.5)
    regret, again = {}, {}
    beliefs = {
        "memory": acqb(belief.memory(SIZES), 3),
        "forgets": acqb(belief.memory(SIZES), 3, memory=False),
        "paper": acqb(belief.online(load_model("disjoint_mnl"), SIZES), 3),
        "floor": pattern_oracle(population()),
    }
    for name, policy in beliefs.items():
        trace = simulate(key, policy, env, 3_000, num_seeds=4, record=True)
        late = trace.rows.weight[:, 1_000:] > 0
        failed = np.sum(trace.rows.failures * trace.rows.offered, axis=-1)[:, 1_000:]
        again[name] = (failed[late] > 0).mean()
        gap = trace.metrics.best_for_query - trace.metrics.value
        regret[name] = gap.sum(axis=1).mean()
    print(again, regret)
    # Who failed is asked again where all have: the floor does it, too.
    assert again["memory"] < 1.2 * again["floor"] < 0.7 * min(again["paper"], again["forgets"])
    assert regret["memory"] < 0.6 * min(regret["paper"], regret["forgets"])
    assert regret["memory"] < 1.25 * regret["floor"]


def test_the_floor_conditions_on_failures():
    """Two patterns, by Bayes' rule on paper: whoever failed is not asked again."""
    utility = jnp.array([[2.0, -2.0], [-2.0, 1.0]])

    def draw(key) -> Query:
        return Query(jnp.zeros(2), jax.random.bernoulli(key, 0.25).astype(jnp.int32))

    policy = pattern_oracle(Population(draw, lambda query: utility[query.identity]))
    room = seen(np.zeros((1, 2)))
    for failures, expected in (([0, 0], 0), ([1, 0], 1), ([1, 3], 0), ([0, 2], 0)):
        action = policy.select(jax.random.key(0), (), room._replace(failures=jnp.array([failures])))
        vain = (1 / (1 + np.exp(np.asarray(utility, float)))) ** np.array(failures)
        weight = np.array([0.75, 0.25]) * vain.prod(axis=1)
        taken = weight / weight.sum() @ (1 / (1 + np.exp(-np.asarray(utility, float))))
        assert int(
            jnp.argmax(action.offered[0] if action.offered.ndim > 1 else action.offered)
        ) == (expected)
        assert expected == int(np.argmax(taken))


def test_context_free_does_not_see_contexts():
    policy = load_policy("context_free", Setup(SIZES, 1, belief.memory(SIZES)))
    state = policy.init(jax.random.key(0))
    assert not np.asarray(state.posterior.own_root)[:, :, 1:3].any()
    rng = np.random.default_rng(1)
    room = seen(rng.normal(size=(5, 2)))._replace(failures=jnp.zeros((5, 3), jnp.int32))
    other = room._replace(context=room.context * -3)
    for seed in range(20):
        one, two = (policy.select(jax.random.key(seed), state, at) for at in (room, other))
        assert one.query == two.query
        assert (one.offered == two.offered).all()


def test_failures_that_are_not_seen_are_asked_for():
    policy = acqb(belief.memory(SIZES), 3, c=0.0)
    state = policy.init(jax.random.key(0))
    with pytest.raises(InputError, match="observation: expected failures"):
        policy.select(jax.random.key(0), state, seen(np.zeros((2, 2))))


def test_without_memory_refits_do_not_see_failures_either(choices):
    data, _ = choices(seed=0, num_obs=40, num_llms=3, dim=2, slate_size=1, full=True)
    model = load_model("failures_mnl")
    how = belief.refitted(load_engine("laplace").fit, model, SIZES)
    for memory in (True, False):
        policy = acqb(how, 3, memory=memory)
        state = policy.init(jax.random.key(0))
        fresh = eqx.tree_at(lambda d: d.failures, data, jnp.zeros_like(data.failures))
        one, two = (policy.refit(jax.random.key(1), state, rows) for rows in (data, fresh))
        assert bool(jnp.all(one.posterior.centre == two.posterior.centre)) == (not memory)
