"""The online update with memory, against importance sampling and the model's own utility."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from cqbayes.choice.data import Situation, choice_data
from cqbayes.errors import InputError
from cqbayes.inference.online_memory import MEMBERS, Member, prior, update
from cqbayes.policies import belief
from cqbayes.preference import Sizes, layout, load_model

SIZES = Sizes(3, 2)
CONTEXT, FAILURES = np.array([0.6, -0.8]), np.array([2, 0, 1])


def row(choice, llm=0, weight=1.0, offered=None):
    offered = np.eye(3, dtype=bool)[llm] if offered is None else np.array(offered)
    return choice_data([CONTEXT], [offered], [choice], [weight], failures=[FAILURES])


def features(llm):
    total = FAILURES.sum() - FAILURES[llm]
    own = np.array([1.0, *CONTEXT, -np.log2(1 + total)])
    return np.array([*own[:3], -float(FAILURES[llm]), own[3]]), own


@pytest.mark.parametrize("choice", [0, 1])
def test_moments_and_evidence_are_those_of_importance_sampling(choice):
    begin = prior(load_model("failures_mnl"), SIZES, (Member(), Member(scale=0.3, can=0.99)))
    after = update(begin, row(choice))
    rng = np.random.default_rng(choice)
    shared_z, own_z = features(0)
    evidence = []
    for member in range(2):
        m0, f0 = (np.asarray(x[member], float) for x in (begin.shared, begin.shared_root))
        m1, f1 = (np.asarray(x[0, member], float) for x in (begin.own, begin.own_root))
        shared = m0 + rng.normal(size=(400_000, 5)) @ f0.T
        own = m1 + rng.normal(size=(400_000, 4)) @ f1.T
        can, cannot = float(begin.can[member]), float(begin.cannot[member])
        p = cannot + (can - cannot) * expit(shared @ shared_z + own @ own_z)
        weight = p if choice else 1 - p
        evidence.append(np.log(weight.mean()))
        weight = weight / weight.sum()
        for draws, z, mean, root in (
            (shared, shared_z, after.shared[member], after.shared_root[member]),
            (own, own_z, after.own[0, member], after.own_root[0, member]),
        ):
            effective = 1 / np.sum(weight**2)
            spread = draws.std(axis=0)
            assert np.abs((weight @ draws - mean) / spread).max() < 5 / np.sqrt(effective)
            along = draws @ z
            variance = weight @ along**2 - (weight @ along) ** 2
            found = np.sum((z @ np.asarray(root, float)) ** 2)
            assert found == pytest.approx(variance, rel=0.015)
    found = float(after.evidence[1] - after.evidence[0])
    assert found == pytest.approx(evidence[1] - evidence[0], abs=0.008)
    assert float(jnp.max(after.evidence)) == 0


def test_only_what_was_offered_learns_and_masked_rows_change_nothing():
    begin = prior(load_model("failures_mnl"), SIZES)
    after = update(begin, row(0, llm=1))
    assert bool(jnp.all(after.own[jnp.array([0, 2])] == begin.own[jnp.array([0, 2])]))
    assert bool(jnp.any(after.own[1] != begin.own[1]))
    for data, slate in ((row(0, weight=0.0), 1), (row(0, offered=[True, True, False]), 1)):
        same = update(begin, data, slate)
        for x, y in zip(jax.tree.leaves(same), jax.tree.leaves(begin), strict=True):
            np.testing.assert_array_equal(x, y)


def test_a_slate_teaches_each_of_its_llms():
    begin = prior(load_model("failures_mnl"), SIZES, (Member(),))
    after = update(begin, row(1, offered=[True, True, False]), 2)
    (first, first_own), (second, second_own) = features(0), features(1)
    gain = after.shared[0] - begin.shared[0]
    taken = gain @ first + (after.own[0, 0] - begin.own[0, 0]) @ first_own
    other = gain @ second + (after.own[1, 0] - begin.own[1, 0]) @ second_own
    assert taken > 0
    assert other < taken


def test_evidence_of_slates_does_not_hang_on_the_names_of_llms():
    """One of two LLMs is taken nearly always: members are weighed alike whichever comes first."""
    rng = np.random.default_rng(4)
    members = (Member(), Member(can=0.995, cannot=0.005), Member(scale=0.0))
    begin = prior(load_model("failures_mnl"), SIZES, members)
    context, failures = rng.normal(size=(80, 2)) / 2, np.zeros((80, 3), int)
    offered = np.tile([True, True, False], (80, 1))
    taken = rng.random(80) < 0.9
    found = [
        update(
            begin,
            choice_data(context, offered, np.where(taken, favourite, 0), failures=failures),
            2,
        )
        for favourite in (1, 2)
    ]
    # One learns after another: about one unit. Of 80 rows a wrong outcome would make twenty.
    np.testing.assert_allclose(found[0].evidence, found[1].evidence, atol=2.5)
    swapped = found[1].own[jnp.array([1, 0, 2])]
    np.testing.assert_allclose(found[0].own, swapped, atol=0.25)


def test_large_weights_stay_finite():
    posterior = prior(load_model("failures_mnl"), SIZES)
    data = choice_data(
        np.ones((201, 2)) / 2,
        np.tile([True, False, False], (201, 1)),
        [1] * 200 + [0],
        [1.0] * 200 + [600.0],
        failures=np.zeros((201, 3), int),
    )
    after = update(posterior, data, 1)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after))
    with pytest.raises(InputError, match="expected a row for each service, of weight 1"):
        belief.memory(SIZES, data)


def test_without_spread_draws_are_of_the_likeliest_member():
    posterior = update(prior(load_model("failures_mnl"), SIZES), row(0))
    best = int(jnp.argmax(posterior.evidence))
    for seed in range(30):
        params = posterior.draw(jax.random.key(seed), 0.0)
        assert float(params["can"]) == float(posterior.can[best])
        assert float(params["level"]) == float(posterior.shared[best, 0])


def test_draws_are_params_of_the_model():
    """What a draw says of a situation is the model's formula, with the features of the update."""
    posterior = update(prior(load_model("failures_mnl"), SIZES), row(2, llm=1))
    params = posterior.draw(jax.random.key(0))
    at = Situation(jnp.asarray(CONTEXT, jnp.float32), failures=jnp.asarray(FAILURES))
    found = posterior.model.utility(params, at)
    for j in range(3):
        shared_z, own_z = features(j)
        level, recall, others = (float(params[n]) for n in ("level", "recall", "others"))
        shared = np.array([level, *np.asarray(params["slope"]), recall, others])
        mine = [params["own_level"][j], *params["own_slope"][j], params["own_others"][j]]
        s = shared @ shared_z + np.array(mine, float) @ own_z
        can, cannot = float(params["can"]), float(params["cannot"])
        assert expit(float(found[j])) == pytest.approx(cannot + (can - cannot) * expit(s), rel=1e-4)
    form = layout(posterior.model, SIZES)
    np.testing.assert_allclose(
        form.params(posterior.centre)["slope"], posterior.mean()["slope"], rtol=1e-5
    )


def test_evidence_finds_the_member_that_made_the_rows():
    """Simulated rows of a world with memory, and of one without: the right member wins."""
    rng = np.random.default_rng(5)
    for remembers, expected in ((True, range(4)), (False, [4])):
        posterior = prior(load_model("failures_mnl"), SIZES, MEMBERS)
        context = rng.normal(size=(600, 2)) / 2
        failures, rows = np.zeros((600, 3), int), []
        ability = context @ rng.normal(size=(2, 3)) * 2
        able = rng.random((600, 3)) < expit(ability)
        for _ in range(3):
            llm = rng.integers(3, size=600)
            at = np.arange(600), llm
            p = np.where(able[at], 0.92, 0.08) if remembers else expit(ability[at])
            good = rng.random(600) < p
            offered = np.eye(3, dtype=bool)[llm]
            rows.append((context, offered, np.where(good, llm + 1, 0), failures.copy()))
            failures[at] += ~good
        *columns, failed = (np.concatenate(column) for column in zip(*rows, strict=True))
        data = choice_data(*columns, failures=failed)
        share = np.asarray(jax.jit(lambda p, d: update(p, d, 1))(posterior, data).share)
        assert share[list(expected)].sum() > 0.95, (remembers, share)
