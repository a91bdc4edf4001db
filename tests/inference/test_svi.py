"""Variational fits against an exact posterior, and what is said of a guide that is too narrow."""

import jax
import numpy as np
import pytest
from cqbayes.models.disjoint_mnl import disjoint_mnl
from reference import disjoint_posterior

from cqbayes.choice.data import choice_data
from cqbayes.diagnostics.summary import agreement
from cqbayes.errors import InputError
from cqbayes.inference import svi
from cqbayes.inference.infer import infer
from cqbayes.posterior.info import Status


@pytest.fixture(scope="module")
def data(choices):
    return choices(seed=7, num_obs=3_000)[0]


def _moments(gaussian):
    sites = gaussian.sites(jax.random.key(1), 20_000)
    both = np.concatenate([sites["intercept"][..., None], sites["theta"]], axis=-1)[0]
    return both.mean(axis=0), both.std(axis=0)


@pytest.mark.slow
def test_minibatches_reach_the_exact_moments(data):
    """Rows are more than a batch: what is fitted is the guide alone, before any reweighting."""
    exact = disjoint_posterior(data, intercept_sd=1.5, prior_sd=1.0, num_draws=10_000)
    gaussian, info = jax.jit(lambda d: svi.fit(jax.random.key(0), disjoint_mnl(), d))(data)
    assert int(info.status) == Status.OK, str(info)
    mean, sd = _moments(gaussian)
    assert np.sqrt(np.mean(((mean - exact.mean) / exact.sd) ** 2)) < 0.15
    np.testing.assert_allclose(sd, exact.sd, rtol=0.1)


@pytest.mark.slow
@pytest.mark.long
def test_guides_that_are_too_narrow_are_told(data):
    """Independent parameters, where contexts with a common mean tie intercepts to slopes."""
    shifted = choice_data(np.asarray(data.context) + 1.5, data.offered, data.choice)
    narrow, info = infer(jax.random.key(0), disjoint_mnl(), shifted, engine="svi", guide="normal")
    assert info.verdict == Status.POOR_APPROXIMATION, str(info)
    assert float(info.stats["khat"]) > 0.7
    wide, info = infer(
        jax.random.key(0), disjoint_mnl(), shifted, engine="svi", guide="multivariate"
    )
    assert info.ok, str(info)
    assert agreement(narrow, wide).sd_ratio < 0.8


@pytest.mark.slow
@pytest.mark.long
def test_a_richer_guide_comes_closer(data):
    """Of intercepts and slopes that are tied: low rank lies between none and all."""
    few = jax.tree.map(lambda column: column[:400], data)
    shifted = choice_data(np.asarray(few.context) + 1.5, few.offered, few.choice)
    elbo, sd = {}, {}
    for guide in ("normal", "low_rank", "multivariate"):
        gaussian, info = jax.jit(
            lambda d, g=guide: svi.fit(jax.random.key(0), disjoint_mnl(), d, guide=g)
        )(shifted)
        assert int(info.status) == Status.OK, str(info)
        elbo[guide], sd[guide] = float(info.stats["elbo"]), _moments(gaussian)[1].mean()
    print(elbo, sd)
    assert elbo["normal"] + 0.5 < elbo["low_rank"] <= elbo["multivariate"] + 0.2
    assert sd["normal"] < sd["low_rank"]


def test_stopping_short_is_told(data):
    _, info = infer(
        jax.random.key(0), disjoint_mnl(), data, engine="svi", max_blocks=1, block_steps=10
    )
    assert info.verdict == Status.NOT_CONVERGED


def test_unknown_guides(data):
    with pytest.raises(InputError, match=r"guide: expected one of normal, .* got 'wide'"):
        infer(jax.random.key(0), disjoint_mnl(), data, engine="svi", guide="wide")
