"""Low-rank MNL: its density by hand, its rotation, recovery, and chains that agree."""

import jax
import numpy as np
import pytest
from cqbayes.models.low_rank_mnl import low_rank_mnl
from recovery import (
    arrays,
    assert_better,
    assert_density,
    assert_recovered,
    deviations,
    disjoint_log_shares,
    draw,
    draws,
    linear_utilities,
    log_likelihood,
    log_shares,
    named_dims,
    normal,
    predicted,
    services,
    thinned,
)
from scipy.linalg import polar

from cqbayes.choice.data import choice_data
from cqbayes.errors import InputError
from cqbayes.inference.infer import infer
from cqbayes.preference import Sizes, layout

NUM_LLMS, DIM, RANK = 16, 5, 2


def test_density_is_the_one_by_hand():
    def by_hand(sites, data):
        context, offered, choice = arrays(data)
        prior = normal(sites["loading"], 0, 0.7 / np.sqrt(RANK)) + normal(sites["position"], 0, 1)
        prior += normal(sites["intercept"], 0, 1.2)
        theta = np.einsum("kl,jl->jk", sites["loading"], sites["position"])
        own = {"intercept": sites["intercept"], "theta": theta}
        shares = log_shares(linear_utilities(own, context), offered)
        return prior + log_likelihood(shares, choice)

    assert_density(low_rank_mnl(RANK, prior_sd=0.7, intercept_sd=1.2), by_hand)


def turned(loading: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both after the rotation that makes the first rows of the loadings positive definite."""
    rotation, _ = polar(loading[:RANK], side="left")
    return loading @ rotation.T, position @ rotation.T


@pytest.mark.parametrize("seed", range(4))  # of which some mirror and some only turn
def test_turning_changes_the_names_of_factors_and_nothing_else(seed):
    form = layout(low_rank_mnl(RANK), Sizes(NUM_LLMS, DIM))
    free = form.unravel(jax.random.normal(jax.random.key(seed), (form.size,)))
    kept = low_rank_mnl(RANK).canonical(free)
    assert {name: x.shape for name, x in kept.items()} == {n: x.shape for n, x in free.items()}
    expected = turned(np.asarray(free["loading"], float), np.asarray(free["position"], float))
    np.testing.assert_allclose(kept["loading"], expected[0], atol=1e-5)
    np.testing.assert_allclose(kept["position"], expected[1], atol=1e-5)
    before, after = (form.to_params(sites)["theta"] for sites in (free, kept))
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.fixture(scope="module")
def world():
    """Truth from the prior."""
    rng = np.random.default_rng(13)
    loading = 2.0 * rng.normal(size=(DIM, RANK)) / np.sqrt(RANK)
    loading, position = turned(loading, rng.normal(size=(NUM_LLMS, RANK)))
    truth = {
        "loading": loading,
        "position": position,
        "intercept": rng.normal(size=NUM_LLMS),
    }
    own = {"intercept": truth["intercept"], "theta": position @ loading.T}

    def rows(num_obs):
        context, offered = services(rng, num_obs, NUM_LLMS, DIM, 2)
        choice = draw(rng, log_shares(linear_utilities(own, context), offered))
        return context, offered, choice

    return truth, rows(700), rows(2_000)


@pytest.mark.slow
@pytest.mark.long
def test_recovery_with_chains_that_agree_on_every_site(world):
    truth, old, (context, offered, choice) = world
    data = choice_data(*old)
    model = low_rank_mnl(RANK, prior_sd=2.0, intercept_sd=1.0)
    posterior, info = infer(jax.random.key(0), model, data, num_warmup=250, num_draws=200)
    print(info)
    assert float(info.stats["rhat"]) < 1.05
    found = draws(posterior)
    assert_recovered(deviations(found, truth))
    leading = found["loading"][:, :RANK]
    np.testing.assert_allclose(leading, np.swapaxes(leading, 1, 2), atol=1e-4)
    assert (np.linalg.eigvalsh(leading) > 0).all()
    ours = log_shares(linear_utilities(thinned(found), context), offered)
    theirs = disjoint_log_shares(data, context, offered, intercept_sd=1.0, prior_sd=2.0)
    assert_better(predicted(ours, choice), predicted(theirs, choice))
    assert named_dims(posterior) == {
        "intercept": ("llm",),
        "loading": ("feature", "factor"),
        "position": ("llm", "factor"),
        "theta": ("llm", "feature"),
    }


@pytest.mark.parametrize("rank", [0, 4])
def test_a_rank_that_cannot_be(rank, choices):
    data, _ = choices(seed=0, num_obs=10)
    with pytest.raises(InputError, match=rf"expected .*rank.*got {rank}"):
        infer(jax.random.key(0), low_rank_mnl(rank), data)
