"""The contextual queueing bandits' phases, at exact rounds, and their exploration rates."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seen import seen

from cqbayes.choice.data import ChoiceData
from cqbayes.environments.environment import Action
from cqbayes.errors import InputError
from cqbayes.policies.cqb_eps import cqb_eps
from cqbayes.policies.cqb_eta import cqb_eta
from cqbayes.policies.cqb_opt import cqb_opt
from cqbayes.policies.horizon import exploration_rounds
from cqbayes.policies.policy import Policy

NUM_LLMS, DIM, HORIZON, DRAWS = 4, 2, 10_000, 20_000
ROOM = np.random.default_rng(0).normal(size=(5, DIM)) / 2
WAIT = np.array([3, 9, 1, 7, 4])  # the query in place 2 is the newest


def _actions(policy: Policy, t: int, draws: int = DRAWS, state=None) -> Action:
    state = policy.init(jax.random.key(0)) if state is None else state
    keys = jax.random.split(jax.random.key(t), draws)
    room = seen(ROOM, wait=WAIT, t=t)
    return jax.jit(jax.vmap(lambda key: policy.select(key, state, room)))(keys)


def _row(offered: np.ndarray, weight: float = 1.0) -> ChoiceData:
    return ChoiceData(
        context=jnp.zeros((1, DIM)),
        offered=jnp.asarray(offered)[None],
        choice=jnp.zeros(1, jnp.int32),
        weight=jnp.array([weight]),
    )


def _optimistic(policy: Policy, t: int, slate_size: int) -> Action:
    inner = cqb_opt(NUM_LLMS, DIM, slate_size)
    state = inner.init(jax.random.key(0))
    return inner.select(jax.random.key(0), state, seen(ROOM, wait=WAIT, t=t))


def _elsewhere(policy: Policy, t: int, slate_size: int = 1) -> float:
    """Share of the actions that are not the optimistic one."""
    done, best = _actions(policy, t), _optimistic(policy, t, slate_size)
    same = (done.query == best.query) & (done.offered == best.offered).all(axis=1)
    return float(1 - same.mean())


def _close(rate: float, explored: float, actions: int) -> bool:
    expected = explored * (1 - 1 / actions)  # random actions hit the optimistic one as well
    return abs(rate - expected) <= 4 * np.sqrt(expected * (1 - expected) / DRAWS)


@pytest.mark.parametrize("slate_size", [1, 2])
def test_cqb_eps_takes_the_llms_in_turn_on_the_newest_query(slate_size):
    policy = cqb_eps(NUM_LLMS, DIM, slate_size, horizon=HORIZON)
    tau = int(np.ceil((DIM + 1) * np.log(HORIZON) * NUM_LLMS / slate_size))
    offered = np.zeros(NUM_LLMS)
    state = policy.init(jax.random.key(0))
    for n, t in enumerate([*range(1, 9), tau - 1, tau]):
        done = _actions(policy, t, 3, state)
        assert (done.query == 2).all()
        turn = {(n * slate_size + i) % NUM_LLMS for i in range(slate_size)}
        assert all(set(np.flatnonzero(row)) == turn for row in np.asarray(done.offered))
        offered += np.asarray(done.offered[0]) * (t <= 8)
        state = policy.update(jax.random.key(1), state, _row(done.offered[0]))
    assert (offered == 8 * slate_size / NUM_LLMS).all()


def test_rounds_in_which_nothing_waits_take_no_turn_of_cqb_eps():
    """Else, with an arrival in every second round, every second LLM would never be tried."""
    policy = cqb_eps(NUM_LLMS, DIM, 1, horizon=HORIZON)
    state = policy.init(jax.random.key(0))
    taken = []
    for t in range(1, 9):
        offered = _actions(policy, t, 1, state).offered[0]
        served = t % 2 == 0
        state = policy.update(jax.random.key(1), state, _row(offered, weight=float(served)))
        if served:
            taken += np.flatnonzero(offered).tolist()
    assert taken == list(range(NUM_LLMS))


def test_cqb_eps_then_explores_at_the_inverse_root_of_the_horizon():
    horizon = 100
    policy = cqb_eps(NUM_LLMS, DIM, 1, horizon=horizon, factor=0.5)
    tau = int(np.ceil(0.5 * (DIM + 1) * np.log(horizon) * NUM_LLMS))
    assert (_actions(policy, tau, 50).query == 2).all()
    for t in (tau + 1, horizon):
        assert _close(_elsewhere(policy, t), 0.1, 5 * NUM_LLMS)


def test_cqb_eps_does_not_know_what_cannot_be_served():
    policy = cqb_eps(NUM_LLMS, DIM, 1, horizon=HORIZON)
    room = seen(ROOM, wait=WAIT, t=1, servable=np.array([True, True, False, True, True]))
    assert policy.select(jax.random.key(0), policy.init(jax.random.key(0)), room).query == 0


def test_cqb_eta_has_three_phases():
    policy = cqb_eta(NUM_LLMS, DIM, 1, horizon=HORIZON, eta=0.2, tail=30.0)
    tau = int(np.ceil((DIM + 1) * np.log(HORIZON) * NUM_LLMS))
    cutoff = HORIZON - int(np.ceil(30 * np.log(HORIZON)))
    pairs = 5 * NUM_LLMS
    for t in (1, tau):
        assert _close(_elsewhere(policy, t), 1.0, pairs)
    for t in (tau + 1, cutoff):
        assert _close(_elsewhere(policy, t), 0.2, pairs)
    for t in (cutoff + 1, HORIZON):
        assert _elsewhere(policy, t) == 0


def test_cqb_eta_explores_queries_and_assortments_uniformly():
    done = _actions(cqb_eta(NUM_LLMS, DIM, 1, horizon=HORIZON), 1)
    counts = np.zeros((5, NUM_LLMS))
    np.add.at(counts, (np.asarray(done.query), np.argmax(done.offered, axis=1)), 1)
    expected = DRAWS / counts.size
    assert np.abs(counts - expected).max() <= 5 * np.sqrt(expected)


def test_exploration_ends_with_the_horizon():
    assert exploration_rounds(num_llms=20, num_features=50, slate_size=1, horizon=30) == 30
    assert exploration_rounds(num_llms=5, num_features=5, slate_size=1, horizon=1) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cqb_eps(3, 2, horizon=None), "cqb_eps: expected a horizon, .*horizon=rounds"),
        (lambda: cqb_eta(3, 2, horizon=None), "cqb_eta: expected a horizon, .*horizon=rounds"),
        (lambda: cqb_eps(3, 2, horizon=0), "cqb_eps: expected a horizon of at least one .*got 0"),
        (lambda: cqb_eta(3, 2, horizon=9, eta=1.5), "cqb_eta: expected eta to be a probability"),
    ],
)
def test_settings_that_make_no_sense(make, message):
    with pytest.raises(InputError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [cqb_eps, cqb_eta])
def test_another_horizon_runs_in_the_same_compiled_code(make):
    traces = 0

    @eqx.filter_jit
    def select(policy: Policy) -> Action:
        nonlocal traces
        traces += 1
        return policy.select(jax.random.key(0), policy.init(jax.random.key(0)), seen(ROOM))

    for horizon in (1_000, 2_000):
        select(make(NUM_LLMS, DIM, 1, horizon=horizon))
    assert traces == 1
