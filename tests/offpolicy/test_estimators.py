"""Estimators against values that are known, over many simulated logs; propensities; the remedy."""

from functools import lru_cache
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, softmax

from cqbayes.choice.data import Situation, choice_data
from cqbayes.environments.environment import Observation
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.synthetic import synthetic
from cqbayes.errors import InputError
from cqbayes.offpolicy.counterfactual import posterior_population, simulate_policies
from cqbayes.offpolicy.estimators import (
    doubly_robust,
    expected_reward,
    ips,
    logged_actions,
    replay,
    snips,
    unsupported_mass,
)
from cqbayes.offpolicy.propensities import thompson_propensities, with_observations
from cqbayes.offpolicy.support import Support
from cqbayes.policies import belief
from cqbayes.policies.acqb import acqb
from cqbayes.policies.random import random
from cqbayes.policies.setup import Setup
from cqbayes.policies.wrappers.explore import constant
from cqbayes.posterior.online_gaussian import OnlineGaussian
from cqbayes.posterior.posteriors import Draws, Gaussian
from cqbayes.preference import Sizes, layout, load_model
from cqbayes.simulation.loop import simulate

NUM_LLMS, NUM_LOGS, NUM_OBS = 3, 400, 600
WEIGHTS = np.array([[1.0, -1.5], [-0.5, 1.0], [0.3, 0.8]])  # slopes of the users' utilities
LOGGING = np.array([[0.8, 0.2], [-0.6, 0.5], [0.0, -0.7]])  # of the logging policy's scores
TARGET = np.array([[1.2, -1.0], [-0.9, 0.6], [0.2, 1.2]])


class Logs(NamedTuple):
    """Simulated logs ``[log, obs, ...]`` of one answer a query, and what is true of them."""

    context: np.ndarray
    action: np.ndarray
    taken: np.ndarray
    satisfied: np.ndarray  # of every LLM
    logging: np.ndarray
    target: np.ndarray


def simulated(seed=0, uniform=False, num_logs=NUM_LOGS, num_obs=NUM_OBS):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_logs, num_obs, 2))
    satisfied, target = expit(x @ WEIGHTS.T), softmax(x @ TARGET.T, axis=-1)
    logging = np.full_like(target, 1 / 3) if uniform else softmax(x @ LOGGING.T, axis=-1)
    ends = logging.cumsum(axis=-1)
    ends[..., -1] = 1
    action = (rng.random((num_logs, num_obs, 1)) > ends).sum(axis=-1)
    taken = rng.random((num_logs, num_obs)) < picked(satisfied, action)
    return Logs(x, action, taken, satisfied, logging, target)


def picked(table, action):
    return np.take_along_axis(table, action[..., None], axis=-1)[..., 0]


def true_value():
    """Of the target policy, over contexts: the simulated ones' own law, by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    x = np.stack(np.meshgrid(nodes, nodes), axis=-1)
    mass = np.outer(weights, weights) / weights.sum() ** 2
    value = np.sum(softmax(x @ TARGET.T, axis=-1) * expit(x @ WEIGHTS.T), axis=-1)
    return float(np.sum(mass * value))


@lru_cache(maxsize=8)
def logged(seed, uniform=False):
    """The simulated logs, and what estimators take of each."""
    logs = simulated(seed, uniform)
    rows = [
        logged_actions(
            choice_data(x, np.eye(NUM_LLMS, dtype=bool)[a], np.where(taken, a + 1, 0)),
            picked(mu, a),
            picked(pi, a),
        )
        for x, a, taken, _, mu, pi in zip(*logs, strict=True)
    ]
    return logs, rows


def evaluated(estimator, propensity=None, expected=None, seed=0, uniform=False):
    """Estimates and standard errors of all logs; propensities and models may be wrong ones."""
    logs, rows = logged(seed, uniform)
    found = []
    for i, log in enumerate(rows):
        if propensity is not None:
            log = log._replace(propensity=picked(propensity(logs.logging[i]), logs.action[i]))
        extra = ()
        if expected is not None:
            q = expected(logs.satisfied[i])
            extra = (picked(q, logs.action[i]), np.sum(logs.target[i] * q, axis=-1))
        found.append(estimator(log, *extra))
    return np.array([f.estimate for f in found]), np.array([f.standard_error for f in found])


def bias(estimate):
    """In standard errors over the logs."""
    gap = estimate - true_value()
    return gap.mean() / (gap.std(ddof=1) / np.sqrt(len(gap)))


def assert_covers(estimate, error, level=0.95):
    """As often as intervals promise, within three binomial standard errors."""
    inside = np.abs(estimate - true_value()) < stats.norm.ppf(0.5 + level / 2) * error
    spread = np.sqrt(level * (1 - level) / len(inside))
    print(f"coverage {inside.mean():.3f} of {level}, binomial error {spread:.3f}")
    assert abs(inside.mean() - level) < 3 * spread


def right(table):
    return table


def wrong(table):
    """Certainly not the users' probabilities."""
    return 1 - 0.8 * table


def flat(table):
    return np.full_like(table, 1 / 3)


CASES = {
    "ips": {"estimator": ips},
    "snips": {"estimator": snips},
    "dr, wrong model": {"estimator": doubly_robust, "expected": wrong},
    "dr, right model": {"estimator": doubly_robust, "expected": right},
    "replay": {"estimator": replay, "seed": 1, "uniform": True},
}


@pytest.mark.parametrize("name", CASES)
def test_estimates_are_unbiased_and_intervals_hold(name):
    estimate, error = evaluated(**CASES[name])
    print(name, "bias in standard errors", bias(estimate), "spread", estimate.std())
    assert abs(bias(estimate)) < 4
    assert_covers(estimate, error)


def test_a_right_model_mends_wrong_propensities_and_nothing_else_does():
    assert abs(bias(evaluated(doubly_robust, propensity=flat, expected=right)[0])) < 4
    assert abs(bias(evaluated(doubly_robust, propensity=flat, expected=wrong)[0])) > 10
    assert abs(bias(evaluated(ips, propensity=flat)[0])) > 10
    assert abs(bias(evaluated(replay)[0])) > 10  # on logs that are not uniform


def test_a_good_model_narrows():
    plain, _ = evaluated(ips)
    robust, error = evaluated(doubly_robust, expected=right)
    assert robust.std() < 0.7 * plain.std()
    assert error.mean() == pytest.approx(robust.std(), rel=0.15)


def small_log(**settings):
    """Ten rows whose numbers are easy."""
    action = np.array([0, 1, 0, 1, 0, 0, 1, 1, 0, 1])
    taken = np.array([1, 0, 1, 1, 0, 1, 0, 1, 1, 0], bool)
    data = choice_data(
        np.arange(10.0)[:, None], np.eye(2, dtype=bool)[action], np.where(taken, action + 1, 0)
    )
    propensity = np.where(action == 0, 0.8, 0.2)
    target = np.where(action == 0, 0.4, 0.6)
    return data, propensity, target, taken, settings


def test_formulas_by_hand():
    data, propensity, target, taken, _ = small_log()
    log = logged_actions(data, propensity, target)
    w = target / propensity
    first, second = ips(log), snips(log)
    assert first.estimate == pytest.approx(np.mean(w * taken))
    assert first.standard_error == pytest.approx(np.std(w * taken, ddof=1) / np.sqrt(10))
    assert second.estimate == pytest.approx(np.sum(w * taken) / w.sum())
    influence = w * (taken - second.estimate)
    assert second.standard_error == pytest.approx(np.sqrt(10 / 9 * np.sum(influence**2)) / w.sum())
    # Five rows weigh 0.5 and five weigh 3.
    assert first.effective_size == pytest.approx((5 * 0.5 + 5 * 3) ** 2 / (5 * 0.25 + 5 * 9))
    assert first.max_weight == pytest.approx(3)
    assert first.status == Support.LOW_OVERLAP
    assert "low_overlap" in str(first)
    q, q_target = np.linspace(0, 1, 10), np.full(10, 0.5)
    found = doubly_robust(log, q, q_target)
    assert found.estimate == pytest.approx(np.mean(q_target + w * (taken - q)))
    worth = np.array([0.5, 1.0])
    valued = ips(logged_actions(data, propensity, target, values=worth))
    reward = taken * worth[(propensity < 0.5).astype(int)]
    assert valued.estimate == pytest.approx(np.mean(w * reward))


def test_snips_does_not_care_for_a_constant_and_stays_within_rewards():
    def off(table):
        return table / 7

    one, _ = evaluated(snips)
    other, _ = evaluated(snips, propensity=off)
    np.testing.assert_allclose(one, other, rtol=1e-10)
    assert ((one >= 0) & (one <= 1)).all()
    assert np.abs(evaluated(ips, propensity=off)[0] - one).min() > 1


def test_a_deterministic_target_on_a_uniform_log_counts_matches():
    data, _, _, taken, _ = small_log()
    target = (np.asarray(data.offered)[:, 0]).astype(float)
    log = logged_actions(data, np.full(10, 0.5), target)
    found = replay(log)
    assert found.effective_size == 5
    assert found.estimate == pytest.approx(taken[target == 1].mean())
    assert snips(log).estimate == pytest.approx(found.estimate)


def test_rows_of_weight_zero_do_not_count_whatever_they_hold():
    data, propensity, target, _, _ = small_log()
    weight = jnp.ones(10).at[jnp.array([2, 5])].set(0)
    masked = eqx.tree_at(lambda d: d.weight, data, weight)
    live = np.asarray(weight) > 0
    broken = np.where(live, propensity, np.nan)
    q = np.where(live, 0.3, np.nan)
    fewer = jax.tree.map(lambda column: column[live], data)
    one = logged_actions(masked, broken, target)
    other = logged_actions(fewer, propensity[live], target[live])
    for first, second in (
        (ips(one), ips(other)),
        (doubly_robust(one, q, q), doubly_robust(other, q[live], q[live])),
    ):
        assert first[:4] == pytest.approx(second[:4])
        assert first[4:] == second[4:]


def test_support():
    data, propensity, target, _, _ = small_log()
    never = np.where(np.arange(10) == 3, 0.0, propensity)
    found = ips(logged_actions(data, never, target))
    assert found.status == Support.NO_SUPPORT
    assert "in 1 of 10 rows" in found.note
    assert np.isfinite(found.estimate)
    mass = unsupported_mass([[0.4, 0.6], [1.0, 0.0]], [[1.0, 0.0], [0.5, 0.5]])
    np.testing.assert_allclose(mass, [0.6, 0])
    missing = logged_actions(data, propensity, target, unsupported=np.repeat(mass, 5))
    assert snips(missing).status == Support.NO_SUPPORT
    for estimator in (ips, snips, replay):
        found = estimator(logged_actions(data, propensity, np.zeros(10)))
        assert found.status == Support.NOTHING_SHARED
        assert np.isnan(found.estimate)
    assert replay(logged_actions(data, propensity, target)).status == Support.UNEQUAL_LOGGING
    # A log without one LLM, whose propensities of the others say nothing of that.
    one = Logs(*(column[0] for column in simulated(2, num_logs=1, num_obs=20_000)))
    kept = one.action < 2
    rows = choice_data(
        one.context[kept], np.eye(3, dtype=bool)[one.action[kept]], np.zeros(kept.sum(), int)
    )
    mu = picked(one.logging, one.action) / one.logging[:, :2].sum(axis=-1)
    log = logged_actions(rows, mu[kept], picked(one.target, one.action)[kept])
    assert ips(log).status == Support.WEIGHTS_OFF
    whole = choice_data(one.context, np.eye(3, dtype=bool)[one.action], one.taken * 0)
    mu, pi = picked(one.logging, one.action), picked(one.target, one.action)
    assert ips(logged_actions(whole, mu, pi)).ok


def test_rows_of_a_query_are_one_observation_in_a_queue():
    """Services of a query share its difficulty: by row, intervals would be too narrow."""
    rng = np.random.default_rng(4)
    held = {True: 0, False: 0}
    num_logs, num_queries, each = 300, 150, 5
    for _ in range(num_logs):
        difficulty = rng.beta(0.5, 0.5, num_queries)
        query = np.repeat(np.arange(num_queries), each)
        taken = rng.random(query.size) < difficulty[query]
        data = choice_data(
            np.repeat(rng.normal(size=(num_queries, 1)), each, axis=0),
            np.ones((query.size, 1), bool),
            taken.astype(int),
            attempt=np.tile(np.arange(1, each + 1), num_queries),
        )
        even = np.ones(query.size)
        for clustered in (True, False):
            found = ips(logged_actions(data, even, even, queue=None if clustered else False))
            assert ("a queue was involved" in found.note) == clustered
            held[clustered] += abs(found.estimate - 0.5) < 1.96 * found.standard_error
    spread = np.sqrt(0.95 * 0.05 / num_logs)
    print({how: count / num_logs for how, count in held.items()})
    assert abs(held[True] / num_logs - 0.95) < 3 * spread
    assert held[False] / num_logs < 0.95 - 6 * spread
    named = ips(logged_actions(data, even, even, query=query))
    assert named.standard_error == pytest.approx(
        ips(logged_actions(data, even, even)).standard_error
    )


def normal_posterior(mean, sd):
    """Independent normal intercepts of the disjoint MNL, and slopes that are 0."""
    model, sizes = load_model("disjoint_mnl"), Sizes(len(mean), 1)
    location = jnp.stack([jnp.asarray(mean), jnp.zeros(len(mean))], axis=1)
    factor = jnp.zeros((len(mean), 2, 2)).at[:, 0, 0].set(jnp.asarray(sd))
    return OnlineGaussian(location=location, factor=factor, model=model, sizes=sizes)


def test_thompson_propensities_are_the_normal_cdf(key):
    mean, sd, eta = np.array([0.3, -0.2]), np.array([0.5, 1.2]), 0.2
    posterior = normal_posterior(mean, sd)
    many = eqx.filter_jit(
        jax.vmap(
            lambda k: thompson_propensities(
                k, posterior, jnp.zeros((3, 1)), jnp.array([False, True, False]), eta=eta
            )
        )
    )(jax.random.split(key, 200))
    first = stats.norm.cdf((mean[0] - mean[1]) / np.hypot(*sd))
    exact = (1 - eta) * np.array([first, 1 - first]) + eta / 2
    z = (many.probability[:, 1] - exact) / many.standard_error[:, 1]
    print("mean square of deviations", np.mean(z[:, 0] ** 2))
    low, high = stats.chi2.ppf([5e-4, 1 - 5e-4], 200) / 200
    assert low < np.mean(z[:, 0] ** 2) < high
    assert (many.probability[:, [0, 2]] == 0).all()
    np.testing.assert_allclose(many.probability.sum(axis=(1, 2)), 1, rtol=1e-5)


def test_thompson_propensities_are_how_often_acqb_acts_so(key):
    """Jointly over query and assortment; the policy itself, and NumPy's draws."""
    model, sizes, eta, slate = load_model("disjoint_mnl"), Sizes(3, 2), 0.15, 2
    rng = np.random.default_rng(6)
    size = layout(model, sizes).size
    location, factor = rng.normal(size=size) / 2, rng.normal(size=(size, size)) / 4
    as_float32 = {"location": location, "factor": factor}
    posterior = Gaussian(
        **{name: jnp.asarray(x, jnp.float32) for name, x in as_float32.items()},
        model=model,
        sizes=sizes,
    )
    context = jnp.asarray(rng.normal(size=(4, 2)) / 2, jnp.float32).at[2].set(jnp.nan)
    occupied = jnp.array([True, True, False, True])
    num = 20_000
    found = thompson_propensities(key, posterior, context, occupied, slate, num_draws=num, eta=eta)
    policy = acqb(belief.fixed(posterior), 3, slate, schedule=constant(eta))
    none = jnp.zeros(4, jnp.int32)
    seen = Observation(jnp.array(9), jnp.array(4), context, none, none, none, servable=occupied)
    state = policy.init(key)
    keys = jax.random.split(jax.random.key(7), num)
    act = jax.jit(lambda keys: jax.lax.map(lambda k: policy.select(k, state, seen), keys))(keys)
    vectors = location + rng.normal(size=(num, size)) @ factor.T
    place = jax.vmap(layout(model, sizes).constrain)(jnp.eye(size))
    basis = {name: np.asarray(x).reshape(size, -1) for name, x in place.items()}
    intercept = vectors @ basis["intercept"]
    theta = (vectors @ basis["theta"]).reshape(num, 3, 2)
    rooms = np.array([0, 1, 3])
    utility = intercept[:, None] + np.einsum("pk,sjk->spj", np.asarray(context)[rooms], theta)
    order = np.sort(np.exp(utility), axis=-1)[..., -slate:].sum(axis=-1)
    best = order.argmax(axis=1)
    top = np.argsort(utility[np.arange(num), best], axis=-1)[:, -slate:]
    sets = np.asarray(found.assortments)
    for nowhere in (-1, len(found.probability)):
        assert found.of(nowhere, jnp.asarray(sets[0])) == (0, 0)
    for which, members in enumerate(sets):
        for number, room in enumerate(rooms):
            played = (np.asarray(act.query) == room) & (np.asarray(act.offered) == members).all(1)
            by_hand = (best == number) & (np.sort(top, axis=1) == np.flatnonzero(members)).all(1)
            probability, error = found.of(room, jnp.asarray(members))
            assert probability == found.probability[room, which]
            for rate in (played.mean(), (1 - eta) * by_hand.mean() + eta / 9):
                spread = np.sqrt(float(error) ** 2 + rate * (1 - rate) / num)
                assert abs(rate - float(probability)) < 4.5 * spread
    assert float(found.probability[2].sum()) == 0


def test_a_watched_queue_says_who_waited(key):
    env = with_observations(retrial_queue(synthetic(jax.random.key(0), 3, 2), 0.7), places=80)
    trace = simulate(key, random(num_llms=3), env, 60, num_seeds=2, room=4, record=True)
    seen = trace.metrics.seen
    served = trace.metrics.metrics.served
    assert seen.queue_length.max() > 4, "the room grew, and what was written down did not"
    assert trace.rows is not None
    context = np.take_along_axis(seen.context, trace.metrics.place[..., None, None], axis=2)[
        :, :, 0
    ]
    np.testing.assert_array_equal(context[served], np.asarray(trace.rows.context)[served])
    np.testing.assert_array_equal(seen.queue_length, trace.metrics.metrics.queue_length)


def test_a_models_part_is_what_the_log_shows(key):
    model = load_model("misclassified")
    sizes = Sizes(2, 1)
    posterior = Draws(
        vectors=jnp.zeros((1, 3, layout(model, sizes).size)), model=model, sizes=sizes
    )
    at = Situation(jnp.zeros((1, 1)))
    # Of equal logits, recognised and specificity are 1/2: what is taken is seen so half the time.
    found = expected_reward(key, posterior, at, np.array([[True, False]]), values=[0.8, 1.0])
    assert found == pytest.approx([0.8 * (0.5 * 0.5 + 0.25 * 0.5)])


def test_simulated_policies_have_the_spread_of_what_is_not_known(key):
    model, sizes = load_model("disjoint_mnl"), Sizes(2, 1)
    size = layout(model, sizes).size
    setup = Setup(sizes, 1, belief.online(model, sizes))
    setups = {"random": ("random", setup)}
    context = np.linspace(-1, 1, 20)[:, None]
    spread = {}
    for sd in (1e-6, 0.7):
        posterior = Gaussian(
            location=jnp.zeros(size), factor=sd * jnp.eye(size), model=model, sizes=sizes
        )
        found = simulate_policies(key, posterior, context, setups, 0.2, 400, num_truths=12)
        assert found["value"].dims == ("policy", "truth")
        assert found["policy"].values.tolist() == ["random"]
        spread[sd] = found["value"].sel(policy="random")
    # Users without a preference take every answer with probability 1/2; 80 services a run.
    value = spread[1e-6].values
    assert abs(value.mean() - 0.5) < 4 * value.std(ddof=1) / np.sqrt(12)
    assert spread[0.7].std() > 1.5 * spread[1e-6].std()


def test_simulated_users_remember_where_the_model_does(key):
    """Whether an LLM can answer a query is drawn with the query, and stays while it waits."""
    model, sizes = load_model("ability_mnl"), Sizes(2, 1)
    form = layout(model, sizes)
    sites = {"can": 0.95, "cannot": 0.05, "hardness": 1.0, "persists": 0.999, "level": 0.0}
    sites |= {"slope": jnp.zeros(1), "intercept": jnp.array([0.5, 0.0]), "theta": jnp.zeros((2, 1))}
    centre = form.unconstrain(jax.tree.map(jnp.asarray, sites))
    posterior = Gaussian(
        location=centre, factor=1e-6 * jnp.eye(form.size), model=model, sizes=sizes
    )
    users = posterior_population(key, posterior, np.zeros((5, 1)), 1)
    users = jax.tree.map(lambda x: x[0], users)
    queries = jax.vmap(users.draw)(jax.random.split(key, 4_000))
    assert len(np.unique(queries.identity)) > 3_990, "each arrival is a query of its own"
    taken = 1 / (1 + np.exp(-np.asarray(jax.vmap(users.utility)(queries), float)))
    np.testing.assert_array_equal(
        taken, 1 / (1 + np.exp(-np.asarray(jax.vmap(users.utility)(queries), float)))
    )
    at = Situation(jnp.zeros(1), failures=jnp.zeros(2, jnp.int32))
    fresh = 1 / (1 + np.exp(-np.asarray(model.utility(form.params(centre), at), float)))
    assert np.abs(taken.mean(axis=0) - fresh).max() < 4 * 0.5 / np.sqrt(4_000)
    again = model.utility(form.params(centre), at._replace(failures=jnp.array([1, 0])))
    vain = 1 - taken[:, 0]
    found = vain @ taken / vain.sum()
    assert np.abs(found - 1 / (1 + np.exp(-np.asarray(again, float)))).max() < 0.03
    other = load_model("attempt_mnl")
    forgetful = Gaussian(location=centre, factor=jnp.eye(form.size), model=other, sizes=sizes)
    with pytest.raises(InputError, match="expected a model whose utilities need the context"):
        posterior_population(key, forgetful, np.zeros((5, 1)), 1)


def test_bad_calls(key):
    data, propensity, target, _, _ = small_log()
    silent = choice_data([[1.0]], [[True]], [-1])
    log = logged_actions(data, propensity, target)
    nobody = eqx.tree_at(lambda d: d.weight, data, jnp.zeros(10))
    model = load_model("user_mnl")
    posterior = Draws(vectors=jnp.zeros((1, 2, 3)), model=model, sizes=Sizes(1, 1, num_users=1))
    plain = normal_posterior([0.0, 0.0], [1.0, 1.0])
    setups = {"random": ("random", Setup(Sizes(2, 1), 1, belief.fixed(plain)))}
    wide = normal_posterior(np.zeros(40), np.ones(40))
    refused = {
        "propensity: expected 10 probabilities": lambda: logged_actions(data, [0.5], target),
        "propensity: expected probabilities, got 1.5 in row 0": lambda: logged_actions(
            data, np.full(10, 1.5), target
        ),
        "target: expected probabilities, got nan": lambda: logged_actions(
            data, propensity, np.full(10, np.nan)
        ),
        "rows of silence": lambda: logged_actions(silent, [0.5], [0.5]),
        "at least one row of positive weight": lambda: logged_actions(nobody, propensity, target),
        "values: expected 2 numbers": lambda: logged_actions(data, propensity, target, values=[1]),
        "query: expected 10 numbers": lambda: logged_actions(data, propensity, target, query=[1]),
        "expected_logged: expected 10 finite": lambda: doubly_robust(log, [0.1], [0.1]),
        "unsupported_mass: expected two arrays of one shape": lambda: unsupported_mass([1], [[1]]),
        "num_truths: expected at least 2": lambda: simulate_policies(
            key, plain, [[0.0]], setups, 0.1, 10, num_truths=1
        ),
        "user_mnl: expected a model whose utilities need the context alone": (
            lambda: simulate_policies(key, posterior, [[0.0]], setups, 0.1, 10)
        ),
        r"context: expected shape \(queries, 1\)": lambda: simulate_policies(
            key, plain, [0.0], setups, 0.1, 10
        ),
        "thompson_propensities: expected at most 10000 assortments": lambda: thompson_propensities(
            key, wide, jnp.zeros((1, 1)), jnp.array([True]), 4
        ),
    }
    for message, call in refused.items():
        with pytest.raises(InputError, match=message):
            call()
