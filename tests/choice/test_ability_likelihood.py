"""The fast likelihood of abilities is that of the rows one by one, whatever rows there are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cqbayes.choice.ability_likelihood import ability_rows
from cqbayes.choice.data import choice_data
from cqbayes.posterior.log_densities import log_posterior, with_terms
from cqbayes.preference import layout, load_model, sizes_of

MODEL = load_model("ability_mnl")


def asked_until_answered(rng, num_queries, num_llms=4, same_contexts=False):
    context = rng.normal(size=(num_queries, 2))
    if same_contexts:
        context[:] = context[:3].repeat(-(-num_queries // 3), axis=0)[:num_queries]
    failures, waits, log = np.zeros((num_queries, num_llms), int), np.arange(num_queries), []
    for _ in range(6):
        llm = rng.integers(num_llms, size=len(waits))
        good = rng.random(len(waits)) < 0.35
        offered = np.eye(num_llms, dtype=bool)[llm]
        log.append((context[waits], offered, np.where(good, llm + 1, 0), failures[waits]))
        failures[waits, llm] += ~good
        waits = waits[~good]
    return [np.concatenate(column) for column in zip(*log, strict=True)]


@pytest.mark.parametrize("kind", ["whole", "same contexts", "weighted", "some rows", "any history"])
def test_it_is_the_likelihood_of_the_rows(kind):
    with jax.enable_x64(True):
        rng = np.random.default_rng(8)
        *columns, failures = asked_until_answered(rng, 80, same_contexts=kind == "same contexts")
        weight = np.ones(len(failures))
        if kind == "weighted":
            weight = rng.choice([0.0, 0.5, 2.0], size=len(failures))
        if kind == "some rows":
            weight = (rng.random(len(failures)) < 0.5).astype(float)
        if kind == "any history":
            failures = rng.poisson(1.0, size=failures.shape)
        data = choice_data(*columns, weight, failures=failures)
        form = layout(MODEL, sizes_of(data))
        fast, plain = log_posterior(MODEL, with_terms(MODEL, data)), log_posterior(MODEL, data)
        for _ in range(3):
            vector = jnp.asarray(rng.normal(size=form.size))
            for one, other in zip(
                jax.value_and_grad(fast)(vector), jax.value_and_grad(plain)(vector), strict=True
            ):
                np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_terms_are_as_many_as_queries():
    *columns, failures = asked_until_answered(np.random.default_rng(0), 500)
    data = with_terms(MODEL, choice_data(*columns, failures=failures))
    assert int((data.terms.weight != 0).sum()) == 500 < data.num_obs
    np.testing.assert_allclose(float(data.terms.weight.sum()), 500)


def test_slates_and_silence_are_taken_row_by_row():
    context, failures = np.ones((2, 1)), np.zeros((2, 2), int)
    slate = choice_data(context, [[True, True], [True, False]], [1, 0], failures=failures)
    silent = choice_data(context, np.eye(2, dtype=bool), [-1, 0], failures=failures)
    many = choice_data(context, np.eye(2, dtype=bool), [1, 0], failures=[[0, 70], [0, 70]])
    for data in (slate, silent, many):
        assert ability_rows(MODEL.ability.features, data) is None
        assert with_terms(MODEL, data).terms is None
