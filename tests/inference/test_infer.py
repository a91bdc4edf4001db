"""Data that break naive fits: a finite posterior with the prior filling in, or a clear refusal."""

import jax
import numpy as np
import pytest
from cqbayes.models.disjoint_mnl import disjoint_mnl

from cqbayes.choice.data import ChoiceData, choice_data
from cqbayes.inference.infer import engine_names, infer
from cqbayes.posterior.info import InferenceInfo
from cqbayes.posterior.posteriors import Posterior

NUM_OBS, NUM_LLMS, DIM = 64, 3, 2
ENGINES = engine_names()
SHORT = {"nuts": {"num_warmup": 300, "num_draws": 300}, "svi": {"max_blocks": 20}}


def _simulated() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    context = rng.normal(size=(NUM_OBS, DIM))
    offered = np.ones((NUM_OBS, NUM_LLMS), bool)
    return context, offered, rng.integers(0, 1 + NUM_LLMS, NUM_OBS)


def _separable() -> ChoiceData:
    context, offered, _ = _simulated()
    return choice_data(context, offered, np.where(context[:, 0] > 0, 1, 0))


def _never_offered() -> ChoiceData:
    context, offered, choice = _simulated()
    offered[:, 2] = False
    return choice_data(context, offered, np.where(choice == 3, 0, choice))


def _never_chosen() -> ChoiceData:
    context, offered, choice = _simulated()
    return choice_data(context, offered, np.where(choice == 3, 0, choice))


def _all_retries() -> ChoiceData:
    context, offered, choice = _simulated()
    return choice_data(context, offered, 0 * choice)


def _one_row() -> ChoiceData:
    context, offered, _ = _simulated()
    return choice_data(context[:1], offered[:1], [2])


def _duplicated_columns() -> ChoiceData:
    context, offered, choice = _simulated()
    context[:, 1] = context[:, 0]
    return choice_data(context, offered, choice)


def _huge() -> ChoiceData:
    context, offered, choice = _simulated()
    return choice_data(1e6 * context, offered, choice)


def _half_precision() -> ChoiceData:
    context, offered, choice = _simulated()
    return choice_data(context.astype(np.float16), offered, choice)


CASES = {
    "separable": _separable,
    "never offered": _never_offered,
    "never chosen": _never_chosen,
    "all retries": _all_retries,
    "one row": _one_row,
    "duplicated columns": _duplicated_columns,
    "contexts of norm 1e6": _huge,
    "float16": _half_precision,
}


def _fit(engine: str, case: str) -> tuple[Posterior, InferenceInfo]:
    model = disjoint_mnl(prior_sd=1.0)
    return infer(jax.random.key(0), model, CASES[case](), engine=engine, **SHORT.get(engine, {}))


@pytest.mark.parametrize(
    "engine", [pytest.param(e, marks=pytest.mark.long) if e == "nuts" else e for e in ENGINES]
)
def test_finite_or_refused(engine):
    for case in CASES:
        posterior, info = _fit(engine, case)
        sites = posterior.sites(jax.random.key(1), 200)
        print(f"{engine:8} {case:22} {info}")
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(sites)), (case, str(info))
        assert np.isfinite(list(info.scalars.values())).all() or not info.ok, (case, str(info))
        spread = np.std(sites["theta"], axis=(0, 1))
        if info.ok:
            # No posterior of a fit that is called good is wider than the prior, or a point.
            assert (spread < 1.3).all(), (case, str(info))
            assert (spread > 0).all(), (case, str(info))
        else:
            assert info.verdict.meaning in str(info)


@pytest.mark.parametrize("engine", ["laplace", "hmc", "online", "auto"])
def test_where_data_say_nothing_the_prior_stays(engine):
    posterior, info = _fit(engine, "never offered")
    assert info.ok, str(info)
    theta = np.asarray(posterior.sites(jax.random.key(1), 2_000)["theta"])[..., 2, :].reshape(
        -1, DIM
    )
    assert np.abs(theta.mean(axis=0)).max() < 0.15
    np.testing.assert_allclose(theta.std(axis=0), 1, atol=0.15)


@pytest.mark.parametrize("engine", ["laplace", "hmc", "auto"])
def test_what_is_never_chosen_is_believed_bad_but_not_infinitely(engine):
    posterior, info = _fit(engine, "never chosen")
    assert info.ok, str(info)
    intercept = np.asarray(posterior.sites(jax.random.key(1), 2_000)["intercept"]).reshape(
        -1, NUM_LLMS
    )
    assert -8 < intercept[:, 2].mean() < intercept[:, :2].mean() - 1


@pytest.mark.parametrize("engine", ["laplace", "hmc", "nuts", "svi", "auto"])
def test_duplicated_columns_share_what_is_known(engine):
    """Only the sum of their slopes is known: both have the same mean, and correlate negatively."""
    posterior, info = _fit(engine, "duplicated columns")
    assert info.ok, str(info)
    theta = np.asarray(posterior.sites(jax.random.key(1), 2_000)["theta"]).reshape(
        -1, NUM_LLMS, DIM
    )
    for llm in range(NUM_LLMS):
        assert np.corrcoef(theta[:, llm].T)[0, 1] < -0.5
    np.testing.assert_allclose(theta.mean(axis=0)[:, 0], theta.mean(axis=0)[:, 1], atol=0.25)


def test_numbers_that_overflow_are_not_learnt_from_in_silence():
    context, offered, choice = _simulated()
    data = choice_data(1e30 * context, offered, choice)
    for engine in ENGINES:
        posterior, info = infer(
            jax.random.key(0), disjoint_mnl(), data, engine=engine, **SHORT.get(engine, {})
        )
        assert not info.ok, (engine, str(info))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(posterior.mean())), engine
