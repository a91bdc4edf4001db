"""MaxWeight over query classes, against enumeration; and the samples of TS-QMB."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seen import seen

from cqbayes.policies.maxweight import heaviest, nearest, unit_centres
from cqbayes.policies.ts_qmb import optimistic_samples, ts_qmb
from cqbayes.policies.ucb_qmb import ucb_qmb

NUM_LLMS, DIM, CLASSES, ROOM = 4, 3, 5, 12


def _value(utility: np.ndarray, chosen: tuple[int, ...], values: np.ndarray) -> float:
    odds = np.exp(utility[list(chosen)])
    return float(odds @ values[list(chosen)] / (1 + odds.sum()))


def _enumerated(utility, centres, context, wait, servable, priority, slate_size, values):
    """The pick by trying every class and every assortment of up to ``slate_size``."""
    cell = np.argmin(((context[:, None] - centres) ** 2).sum(axis=2), axis=1)
    best = (-np.inf, None, None)
    for c in range(len(centres)):
        members = [i for i in range(len(context)) if cell[i] == c and servable[i]]
        if not members:
            continue
        first = max(members, key=lambda i: (priority[i], wait[i]))
        for size in range(1, slate_size + 1):
            for chosen in combinations(range(NUM_LLMS), size):
                value = _value(utility[c], chosen, values)
                weight = len(members) * value * np.exp(priority[first])
                best = max(best, (weight, first, set(chosen)), key=lambda found: found[0])
    return best[1:]


@pytest.mark.parametrize("slate_size", [1, 2, 3])
@pytest.mark.parametrize("valued", [False, True])
@pytest.mark.parametrize("urgent", [False, True])
def test_picks_are_those_of_enumeration(slate_size, valued, urgent):
    pick = jax.jit(heaviest, static_argnums=3)
    for seed in range(25):
        rng = np.random.default_rng(seed)
        utility = rng.normal(size=(CLASSES, NUM_LLMS)) * 1.5
        centres, context = rng.normal(size=(CLASSES, DIM)), rng.normal(size=(ROOM, DIM))
        wait, servable = rng.permutation(ROOM), rng.random(ROOM) < 0.7
        servable[0] = True
        values = rng.uniform(0.2, 1, NUM_LLMS) if valued else np.ones(NUM_LLMS)
        priority = rng.normal(size=ROOM) if urgent else np.zeros(ROOM)
        room = seen(context, wait=wait, servable=servable, priority=priority if urgent else None)
        action = pick(
            jnp.asarray(utility, jnp.float32),
            jnp.asarray(centres, jnp.float32),
            room,
            slate_size,
            jnp.asarray(values, jnp.float32) if valued else None,
        )
        expected = _enumerated(
            utility, centres, context, wait, servable, priority, slate_size, values
        )
        assert (int(action.query), set(np.flatnonzero(action.offered))) == expected


def test_cells_are_those_of_the_nearest_centre():
    rng = np.random.default_rng(0)
    centres, context = rng.normal(size=(CLASSES, DIM)), rng.normal(size=(200, DIM))
    expected = np.argmin(np.linalg.norm(context[:, None] - centres, axis=2), axis=1)
    found = nearest(jnp.asarray(centres, jnp.float32), jnp.asarray(context, jnp.float32))
    np.testing.assert_array_equal(found, expected)


def test_centres_by_default_are_eight_unit_vectors_that_stay():
    centres = unit_centres(DIM)
    assert centres.shape == (8, DIM)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(centres, unit_centres(DIM))


def test_ucb_qmb_serves_the_longer_class_until_rates_tell_otherwise(choices):
    centres = jnp.array([[1.0, 0, 0], [-1.0, 0, 0]])
    policy = ucb_qmb(NUM_LLMS, DIM, centres=centres)
    state = policy.init(jax.random.key(0))
    context = np.array([[1, 0, 0], [-0.5, 0, 0], [-0.6, 0, 0], [-0.7, 0, 0]])
    wait = np.array([9, 2, 5, 3])
    assert policy.select(jax.random.key(0), state, seen(context, wait=wait)).query == 2


def test_the_index_of_ucb_qmb_is_the_mean_and_the_papers_radius(choices):
    """One class: the pick is the LLM of highest index at the centre."""
    data, _ = choices(seed=4, num_obs=60, slate_size=1)
    scale, kappa, t = 0.3, 0.2, 50
    centre = np.array([[0.3, -0.2, 0.5]])
    policy = ucb_qmb(NUM_LLMS, DIM, centres=jnp.asarray(centre), scale=scale, kappa=kappa)
    state = policy.update(jax.random.key(0), policy.init(jax.random.key(0)), data)
    weights, root = (np.asarray(x, np.float64) for x in state)
    z, size = np.array([1, *centre[0]]), DIM + 1
    radius = scale * np.sqrt(1 + size / kappa * np.log(1 + t / size))
    index = weights @ z + radius * np.sqrt(np.einsum("k,jkm,jlm,l->j", z, root, root, z))
    action = policy.select(jax.random.key(0), state, seen(np.zeros((2, DIM)), t=t))
    assert np.flatnonzero(action.offered).tolist() == [int(np.argmax(index))]


def test_samples_of_ts_qmb_have_the_mean_and_spread_of_their_normals(choices):
    """One class, one sample and one answer: pick rates are those of independent normals."""
    data, _ = choices(seed=4, num_obs=60, slate_size=1)
    scale, kappa, t, draws = 0.3, 0.2, 50, 20_000
    centre = np.array([[0.3, -0.2, 0.5]])
    z, size = np.array([1, *centre[0]]), DIM + 1
    radius = scale * np.sqrt(1 + size / kappa * np.log(1 + t / size))
    rng = np.random.default_rng(0)
    for num_samples in (1, 5):
        policy = ts_qmb(
            NUM_LLMS,
            DIM,
            centres=jnp.asarray(centre),
            scale=scale,
            kappa=kappa,
            num_samples=num_samples,
        )
        state = policy.update(jax.random.key(0), policy.init(jax.random.key(0)), data)
        weights, root = (np.asarray(x, np.float64) for x in state)
        spread = radius * np.sqrt(np.einsum("k,jkm,jlm,l->j", z, root, root, z))
        drawn = weights @ z + spread * rng.normal(size=(draws, num_samples, NUM_LLMS))
        expected = np.bincount(drawn.max(axis=1).argmax(axis=1), minlength=NUM_LLMS) / draws
        select = jax.vmap(policy.select, in_axes=(0, None, None))
        keys = jax.random.split(jax.random.key(1), draws)
        found = select(keys, state, seen(np.zeros((2, DIM)), t=t))
        rate = np.asarray(found.offered).mean(axis=0)
        assert (np.abs(rate - expected) <= 4 * np.sqrt(2 * 0.25 / draws)).all()
        assert rate.max() < 0.95  # there is something to compare


def test_number_of_samples_makes_all_indices_optimistic():
    for slate_size in (1, 2, 3, 8):
        miss = (1 - 1 / (4 * np.sqrt(np.e * np.pi))) ** (optimistic_samples(slate_size) - 1)
        assert miss <= 1 / slate_size
