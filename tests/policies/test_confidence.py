"""Confidence-bound policies against plain NumPy, over the same rows."""

from itertools import combinations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seen import seen

from cqbayes.choice.data import ChoiceData
from cqbayes.environments.environment import Observation
from cqbayes.errors import InputError
from cqbayes.policies import confidence
from cqbayes.policies.cqb_opt import cqb_opt
from cqbayes.policies.linucb import linucb
from cqbayes.policies.policy import Policy
from cqbayes.policies.ts_qmb import ts_qmb
from cqbayes.policies.ucb_mnl import ucb_mnl
from cqbayes.policies.ucb_qmb import ucb_qmb

NUM_LLMS, DIM, RIDGE = 4, 3, 0.7
MAKERS = {"linucb": linucb, "ucb_mnl": ucb_mnl, "cqb_opt": cqb_opt, "ucb_qmb": ucb_qmb}
MAKERS["ts_qmb"] = ts_qmb


def _features(context: np.ndarray, intercept: bool) -> np.ndarray:
    context = np.asarray(context, np.float64)
    return np.hstack([np.ones((len(context), 1)), context]) if intercept else context


def _rows(choices, slate_size: int, num_obs: int = 150) -> ChoiceData:
    """Rows of several weights, some of them zero with nonsense in their other columns."""
    data, _ = choices(seed=slate_size, num_obs=num_obs, slate_size=slate_size)
    weight = np.random.default_rng(1).choice([0.0, 0.5, 1.0, 2.0], num_obs)
    context = jnp.where(jnp.asarray(weight)[:, None] > 0, data.context, jnp.nan)
    return eqx.tree_at(
        lambda d: (d.weight, d.context), data, (jnp.asarray(weight, jnp.float32), context)
    )


def _live(rows: ChoiceData) -> list[tuple[np.ndarray, np.ndarray, int, float]]:
    columns = (rows.context, rows.offered, rows.choice, rows.weight)
    context, offered, choice, weight = (np.asarray(column) for column in columns)
    return [
        (context[i].astype(np.float64), offered[i], int(choice[i]), float(weight[i]))
        for i in np.flatnonzero(weight > 0)
    ]


def _squared(root: np.ndarray) -> np.ndarray:
    return np.asarray(root) @ np.swapaxes(root, 1, 2)


def _probabilities(utility: np.ndarray, offered: np.ndarray) -> tuple[float, np.ndarray]:
    odds = np.exp(utility) * offered
    return 1 / (1 + odds.sum()), odds / (1 + odds.sum())


def _gram(rows: ChoiceData, intercept: bool, times: float = 1.0) -> np.ndarray:
    gram = np.stack([RIDGE * np.eye(DIM + intercept)] * NUM_LLMS)
    for x, offered, _, weight in _live(rows):
        z = _features(x[None], intercept)[0]
        gram[offered] += times * weight * np.outer(z, z)
    return gram


def _ridge(rows: ChoiceData, intercept: bool) -> tuple[np.ndarray, np.ndarray]:
    gram, total = _gram(rows, intercept), np.zeros((NUM_LLMS, DIM + intercept))
    for x, _, choice, weight in _live(rows):
        if choice > 0:
            total[choice - 1] += weight * _features(x[None], intercept)[0]
    return np.stack([np.linalg.solve(a, b) for a, b in zip(gram, total, strict=True)]), gram


def _mirror_descent(
    rows: ChoiceData, slate_size: int, intercept: bool
) -> tuple[np.ndarray, np.ndarray]:
    eta = np.log(slate_size + 1) / 2 + 2
    size = DIM + intercept
    weights, hessian = np.zeros((NUM_LLMS, size)), np.stack([RIDGE * np.eye(size)] * NUM_LLMS)
    for x, offered, choice, weight in _live(rows):
        z = _features(x[None], intercept)[0]
        retry, share = _probabilities(weights @ z, offered)
        taken = np.arange(NUM_LLMS) == choice - 1
        for j in np.flatnonzero(offered):
            before = hessian[j] + eta * weight * retry * share[j] * np.outer(z, z)
            weights[j] += eta * weight * np.linalg.solve(before, z) * (taken[j] - share[j])
        retry, share = _probabilities(weights @ z, offered)
        for j in np.flatnonzero(offered):
            hessian[j] += weight * retry * share[j] * np.outer(z, z)
    return weights, hessian


def _newton(rows: ChoiceData, kappa: float, intercept: bool) -> tuple[np.ndarray, np.ndarray]:
    size = DIM + intercept
    weights, gram = np.zeros((NUM_LLMS, size)), np.stack([RIDGE * np.eye(size)] * NUM_LLMS)
    for x, offered, choice, weight in _live(rows):
        z = _features(x[None], intercept)[0]
        _, share = _probabilities(weights @ z, offered)
        for j in np.flatnonzero(offered):
            gram[j] += kappa / 2 * weight * np.outer(z, z)
            weights[j] += weight * np.linalg.solve(gram[j], z) * ((choice - 1 == j) - share[j])
    return weights, gram


def _widths(gram: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("qk,jkl,ql->qj", z, np.linalg.inv(gram), z))


def _learnt(policy: Policy, rows: ChoiceData):
    return jax.jit(policy.update)(jax.random.key(0), policy.init(jax.random.key(1)), rows)


def _pick(policy: Policy, state, room: Observation) -> tuple[int, set[int]]:
    action = policy.select(jax.random.key(2), state, room)
    return int(action.query), set(np.flatnonzero(action.offered).tolist())


def _best_by_sum(bound: np.ndarray, slate_size: int) -> tuple[int, set[int]]:
    pairs = [
        (sum(bound[q, j] for j in chosen), q, set(chosen))
        for q in range(len(bound))
        for chosen in combinations(range(NUM_LLMS), slate_size)
    ]
    return max(pairs, key=lambda pair: pair[0])[1:]


@pytest.mark.parametrize("slate_size", [1, 2])
@pytest.mark.parametrize("intercept", [True, False])
def test_linucb_is_ridge_regression_with_widths(choices, slate_size, intercept):
    rows = _rows(choices, slate_size)
    policy = linucb(NUM_LLMS, DIM, slate_size, delta=0.1, ridge=RIDGE, intercept=intercept)
    state = _learnt(policy, rows)
    weights, gram = _ridge(rows, intercept)
    np.testing.assert_allclose(state.location, weights, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(_squared(state.root), np.linalg.inv(gram), atol=1e-5)
    alpha = 1 + np.sqrt(np.log(2 / 0.1) / 2)
    for seed in range(10):
        context = np.random.default_rng(seed).normal(size=(6, DIM)) / 2
        z = _features(context, intercept)
        bound = z @ weights.T + alpha * _widths(gram, z)
        assert _pick(policy, state, seen(context)) == _best_by_sum(bound, slate_size)


@pytest.mark.parametrize("slate_size", [1, 2])
@pytest.mark.parametrize("intercept", [True, False])
def test_ucb_mnl_is_mirror_descent_with_widths(choices, slate_size, intercept):
    rows = _rows(choices, slate_size)
    policy = ucb_mnl(NUM_LLMS, DIM, slate_size, scale=0.3, ridge=RIDGE, intercept=intercept)
    state = _learnt(policy, rows)
    weights, hessian = _mirror_descent(rows, slate_size, intercept)
    np.testing.assert_allclose(state.location, weights, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(_squared(state.root), np.linalg.inv(hessian), atol=1e-4)
    t = 77
    radius = 0.3 * np.sqrt(DIM + intercept) * np.log(1 + t) * np.log(1 + slate_size)
    for seed in range(10):
        context = np.random.default_rng(seed).normal(size=(6, DIM)) / 2
        z = _features(context, intercept)
        utility = z @ weights.T + radius * _widths(hessian, z)
        # The departure probability of S grows with the sum of the odds in it.
        expected = _best_by_sum(np.exp(utility), slate_size)
        assert _pick(policy, state, seen(context, t=t)) == expected


@pytest.mark.parametrize("slate_size", [1, 2])
def test_cqb_opt_is_the_logistic_mean_and_the_width_of_the_services(choices, slate_size):
    rows = _rows(choices, slate_size)
    policy = cqb_opt(NUM_LLMS, DIM, slate_size, scale=0.2, ridge=RIDGE)
    state = _learnt(policy, rows)
    weights, _ = _mirror_descent(rows, slate_size, True)
    gram = _gram(rows, True)
    np.testing.assert_allclose(state.preference.location, weights, rtol=1e-3, atol=1e-4)
    t, size = 77, DIM + 1
    radius = 0.2 * (np.sqrt(RIDGE) + np.sqrt(size * np.log(1 + t / (size * RIDGE))))
    for seed in range(10):
        context = np.random.default_rng(seed).normal(size=(6, DIM)) / 2
        z = _features(context, True)
        bound = 1 / (1 + np.exp(-z @ weights.T)) + radius * _widths(gram, z)
        assert _pick(policy, state, seen(context, t=t)) == _best_by_sum(bound, slate_size)


@pytest.mark.parametrize("slate_size", [1, 2])
@pytest.mark.parametrize("make", [ucb_qmb, ts_qmb])
def test_qmb_is_the_online_newton_step(choices, slate_size, make):
    rows = _rows(choices, slate_size)
    state = _learnt(make(NUM_LLMS, DIM, slate_size, kappa=0.2, ridge=RIDGE), rows)
    weights, gram = _newton(rows, 0.2, True)
    np.testing.assert_allclose(state.location, weights, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(_squared(state.root), np.linalg.inv(gram), atol=1e-4)


def test_the_blocks_bound_the_mnl_curvature_from_below():
    """``diag(p) - p p^T >= p_0 diag(p)``, with equality for one answer."""
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 6):
        for _ in range(200):
            _, share = _probabilities(rng.normal(size=size) * 3, np.ones(size, bool))
            slack = np.diag(share) - np.outer(share, share) - (1 - share.sum()) * np.diag(share)
            assert np.linalg.eigvalsh(slack).min() >= -1e-12
            if size == 1:
                np.testing.assert_allclose(slack, 0, atol=1e-12)


def test_widths_survive_many_rows_in_float32(choices):
    """The root form keeps what an inverse that is updated by subtraction would lose."""
    data, _ = choices(seed=3, num_obs=20_000, slate_size=1)
    state = _learnt(linucb(NUM_LLMS, DIM, 1, ridge=RIDGE), data)
    z = _features(np.random.default_rng(0).normal(size=(20, DIM)), True)
    _, width = confidence.means_and_widths(state, jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(width, _widths(_gram(data, True), z), rtol=5e-3)


@pytest.mark.parametrize("name", MAKERS)
def test_rows_that_say_nothing_change_nothing(choices, name):
    """Rows of weight zero, and rows that offer more than the slate holds, bit for bit."""
    policy = MAKERS[name](NUM_LLMS, DIM, 2)
    state = _learnt(policy, _rows(choices, 2))
    nothing = eqx.tree_at(lambda d: d.weight, _rows(choices, 2, 5), jnp.zeros(5))
    larger = choices(seed=0, num_obs=5, slate_size=3)[0]
    update = jax.jit(policy.update)
    for rows in (nothing, jax.tree.map(lambda x: x[:1], nothing), larger):
        after = update(jax.random.key(0), state, rows)
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", MAKERS)
def test_rows_at_once_are_rows_one_by_one(choices, name):
    policy = MAKERS[name](NUM_LLMS, DIM, 2)
    rows = _rows(choices, 2, 30)
    state, update = policy.init(jax.random.key(1)), jax.jit(policy.update)
    for i in range(30):
        state = update(jax.random.key(0), state, jax.tree.map(lambda x, i=i: x[i : i + 1], rows))
    for a, b in zip(jax.tree.leaves(_learnt(policy, rows)), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MAKERS)
def test_states_keep_their_types_and_equal_policies_their_compiled_code(choices, name):
    rows = _rows(choices, 1, 5)
    traces = 0

    @eqx.filter_jit
    def round_of(policy, state, room):
        nonlocal traces
        traces += 1
        action = policy.select(jax.random.key(0), state, room)
        return action, policy.update(jax.random.key(0), state, rows)

    room = seen(np.zeros((4, DIM)))
    for _ in range(2):
        policy = MAKERS[name](NUM_LLMS, DIM, 1)
        state = policy.init(jax.random.key(0))
        for _ in range(2):
            _, after = round_of(policy, state, room)
            for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
                assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
                assert not b.weak_type
            state = after
    assert traces == 1


@pytest.mark.parametrize("name", MAKERS)
def test_free_places_and_those_that_cannot_be_served_do_not_matter(choices, name):
    policy = MAKERS[name](NUM_LLMS, DIM, 2)
    state = _learnt(policy, _rows(choices, 2))
    rng = np.random.default_rng(0)
    for _ in range(5):
        context = rng.normal(size=(6, DIM)) / 2
        other = np.where(np.arange(6)[:, None] < 3, context, np.nan)
        expected = _pick(policy, state, seen(context[:3]))
        assert _pick(policy, state, seen(other, 3)) == expected
        servable = np.arange(6) < 3
        crowded = np.where(np.arange(6)[:, None] < 3, context, 5.0)
        assert _pick(policy, state, seen(crowded, servable=servable, wait=np.arange(6))) == expected


@pytest.mark.parametrize("name", MAKERS)
def test_a_high_priority_is_served_first(choices, name):
    policy = MAKERS[name](NUM_LLMS, DIM, 2)
    state = _learnt(policy, _rows(choices, 2))
    context = np.random.default_rng(0).normal(size=(6, DIM)) / 2
    for place in range(6):
        priority = np.where(np.arange(6) == place, 50.0, 0.0)
        assert _pick(policy, state, seen(context, priority=priority))[0] == place
    level = _pick(policy, state, seen(context, priority=np.full(6, 0.3)))
    assert level == _pick(policy, state, seen(context))


def test_a_unit_of_priority_counts_a_quarter_of_a_probability(choices):
    """As much as a unit of log-odds moves a probability where it moves it most."""
    rows = _rows(choices, 2)
    policy = linucb(NUM_LLMS, DIM, 2, ridge=RIDGE)
    weights, gram = _ridge(rows, True)
    alpha = 1 + np.sqrt(np.log(2 / 0.05) / 2)
    state = _learnt(policy, rows)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        context, priority = rng.normal(size=(6, DIM)) / 2, rng.normal(size=6)
        z = _features(context, True)
        bound = z @ weights.T + alpha * _widths(gram, z)
        score = np.sort(bound, axis=1)[:, -2:].sum(axis=1) + priority / 4
        assert _pick(policy, state, seen(context, priority=priority))[0] == np.argmax(score)


def test_values_multiply_the_bounds(choices):
    rows = _rows(choices, 2)
    values = np.array([0.1, 0.9, 0.5, 1.0])
    policy = linucb(NUM_LLMS, DIM, 2, ridge=RIDGE, values=jnp.asarray(values))
    weights, gram = _ridge(rows, True)
    alpha = 1 + np.sqrt(np.log(2 / 0.05) / 2)
    context = np.random.default_rng(5).normal(size=(6, DIM)) / 2
    z = _features(context, True)
    bound = values * (z @ weights.T + alpha * _widths(gram, z))
    assert _pick(policy, _learnt(policy, rows), seen(context)) == _best_by_sum(bound, 2)


@pytest.mark.parametrize("name", MAKERS)
def test_an_answer_worth_nothing_is_not_offered(choices, name):
    policy = MAKERS[name](NUM_LLMS, DIM, 1, values=jnp.array([0.0, 1.0, 0.0, 1.0]))
    state = _learnt(policy, _rows(choices, 1))
    for seed in range(10):
        context = np.random.default_rng(seed).normal(size=(6, DIM)) / 2
        assert _pick(policy, state, seen(context))[1] <= {1, 3}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: linucb(3, 2, ridge=0.0), "linucb: expected ridge to be a positive number, got 0"),
        (lambda: linucb(3, 2, delta=1.0), "linucb: expected delta to be a probability in"),
        (lambda: ucb_mnl(3, 2, ridge=-1.0), "ucb_mnl: expected ridge to be a positive number"),
        (lambda: cqb_opt(3, 2, ridge=-1.0), "cqb_opt: expected ridge to be a positive number"),
        (lambda: ucb_qmb(3, 2, kappa=0.0), "ucb_qmb: expected kappa to be a positive number"),
        (lambda: ts_qmb(3, 2, num_samples=0), "ts_qmb: expected at least one sample, got 0"),
        (lambda: ts_qmb(3, 2, centres=jnp.ones((4, 3))), r"ts_qmb: .*\(classes, 2\), got \(4, 3\)"),
    ],
)
def test_settings_that_make_no_sense(make, message):
    with pytest.raises(InputError, match=message):
        make()
