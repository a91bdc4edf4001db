"""Next requests with scores: the law by hand, and what simulated users are told apart by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cqbayes.choice.channels import Seen
from cqbayes.choice.data import choice_data
from cqbayes.errors import InputError
from cqbayes.inference.infer import infer
from cqbayes.preference import Sizes, model_factory

next_request = model_factory("next_request")
SHARES = np.array([0.75, 0.17, 0.06, 0.02])
LEVELS = np.array([-1.5, -0.3, 0.6, 1.9])


def test_the_rates_are_the_formula():
    """Of one draw of the prior: rows add up, and the classes are those of the docstring."""
    model = next_request()
    from numpyro import handlers

    trace = handlers.trace(handlers.seed(model.prior, 3)).get_trace(Sizes(2, 1))
    at = {name: np.asarray(site["value"], float) for name, site in trace.items()}
    setting = dict(model.settings)
    first = np.log(setting["shares"]) + at["opening"]
    after = first + at["tilt"] * np.array(setting["levels"]) + 0.5 * at["off"]

    def spread(logs):
        return np.exp(logs) / np.exp(logs).sum()

    bad = spread(after + at["strength"] * np.array(setting["levels"]))
    left, hides, thanks, on = (float(at[n]) for n in ("leaves", "hides", "thanks", "goes_on"))
    expected = np.zeros((3, 7))
    expected[0] = [(1 - left) * (1 - hides), 0, left, *((1 - left) * hides * bad)]
    expected[1] = [0, thanks, (1 - thanks) * (1 - on), *((1 - thanks) * on * spread(after))]
    expected[2] = [0.5, 0, 0, *(spread(first) / 2)]
    seeded = handlers.seed(model.prior, 3)(Sizes(2, 1))
    np.testing.assert_allclose(seeded["rates"], expected, rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(expected.sum(axis=1), 1)
    assert at["asks_otherwise"] == pytest.approx((1 - left) * hides, rel=1e-5)


def test_rates_with_labels_are_the_formula():
    """A label halves a sign, and says which row it came from but for errors."""
    from numpyro import handlers

    plain, known = next_request(), next_request(known=True, labels=(20.0, 80.0))
    with handlers.seed(rng_seed=3):
        trace = handlers.trace(known.prior).get_trace(Sizes(2, 1))
    values = {n: site["value"] for n, site in trace.items() if site["type"] == "sample"}
    rates = handlers.condition(handlers.seed(known.prior, 3), values)(Sizes(2, 1))["rates"]
    alone = handlers.condition(handlers.seed(plain.prior, 3), values)(Sizes(2, 1))["rates"]
    rates, alone = np.asarray(rates, float), np.asarray(alone, float)
    wrong, speaks = float(values["wrong_labels"]), float(values["speaks"])
    np.testing.assert_allclose(rates.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(rates[:2, :3], alone[:2, :3])
    np.testing.assert_allclose(rates[:2, 3:7], alone[:2, 3:] / 2, rtol=1e-5)
    right = np.array([1 - wrong, wrong])[:, None]
    np.testing.assert_allclose(rates[:2, 7:11], right * alone[:2, 3:] / 2, rtol=1e-5)
    np.testing.assert_allclose(rates[:2, 11:], (1 - right) * alone[:2, 3:] / 2, rtol=1e-5)
    f1, f0 = (row / row.sum() for row in alone[:2, 3:])
    expected = [alone[2, 3:] / 2, (speaks * f1 + (1 - speaks) * f0) / 4, f0 / 4]
    np.testing.assert_allclose(rates[2], [0.25, 0, 0, *np.concatenate(expected)], rtol=1e-5)


def test_signs_are_the_mixture():
    """Two LLMs, of which one is offered; and a row without."""
    rates = jnp.array(
        [[0.5, 0, 0.2, 0.1, 0.2], [0, 0.1, 0.3, 0.5, 0.1], [0.5, 0, 0, 0.2, 0.3]], float
    )
    law = Seen(jnp.array([1.0, 9.0]), jnp.array([True, False]), rates, signs=3)
    taken = 1 / (1 + np.exp(-1.0))
    expected = (1 - taken) * np.asarray(rates[0]) + taken * np.asarray(rates[1])
    found = np.exp(law.log_prob(jnp.array([0, 1, -1, -2, -3])))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(law.log_probs), [*expected[:2], 0, *expected[2:]], rtol=1e-5)
    nothing = Seen(jnp.zeros(2), jnp.array([False, False]), rates, signs=3)
    alone = np.exp(nothing.log_prob(jnp.array([0, -2, -3])))
    np.testing.assert_allclose(alone, [0.5, 0.2, 0.3], rtol=1e-5)
    drawn = np.asarray(law.sample(jax.random.key(0), (40_000,)))
    shares = [(drawn == label).mean() for label in (0, 1, -1, -2, -3)]
    np.testing.assert_allclose(shares, expected, atol=0.01)


def _simulated(hides: float, tilt: float, seed: int, number: int = 6_000):
    """Simulated services of two LLMs, taken with 0.8 and 0.5, and first requests of sessions."""
    rng = np.random.default_rng(seed)

    def spread(logs):
        return np.exp(logs) / np.exp(logs).sum()

    after = spread(np.log(SHARES) + tilt * LEVELS)
    bad = spread(np.log(after) + LEVELS)
    llm = rng.integers(0, 2, number)
    taken = rng.random(number) < np.array([0.8, 0.5])[llm]
    more = np.where(rng.random(number) < 0.6, -2 - rng.choice(4, number, p=after), -1)
    asks = np.where(rng.random(number) < hides, -2 - rng.choice(4, number, p=bad), 0)
    choice = np.where(taken, more, np.where(rng.random(number) < 0.2, -1, asks))
    opening = -2 - np.arange(4)
    return choice_data(
        np.ones((number + 4, 1)),
        np.concatenate([np.eye(2, dtype=bool)[llm], np.zeros((4, 2), bool)]),
        np.concatenate([choice, opening]),
        weight=np.concatenate([np.ones(number), 2_000 * SHARES]),
    ).merged(multiple=64)


def _acceptance(posterior):
    sites = posterior.sites(jax.random.key(1), 2_000)
    utility = np.asarray(sites["intercept"] + sites["theta"][..., 0], float)
    drawn = 1 / (1 + np.exp(-utility.reshape(-1, 2)))
    return drawn.mean(axis=0), np.quantile(drawn, [0.05, 0.95], axis=0), sites


@pytest.mark.parametrize("hides", [0.0, 0.3])
def test_hidden_retries_are_found_where_there_are_any(hides):
    """The prior allows many: where next requests look like first ones, few are believed."""
    posterior, info = infer(
        jax.random.key(0), next_request(shows_acceptances=False), _simulated(hides, 0.0, 1)
    )
    assert info.ok
    mean, (low, high), sites = _acceptance(posterior)
    truth = np.array([0.8, 0.5])
    assert ((low - 0.02 <= truth) & (truth <= high + 0.02)).all()
    assert np.mean(sites["hides"]) == pytest.approx(hides, abs=0.08)
    if not hides:
        np.testing.assert_allclose(mean, truth, atol=0.03)
        assert np.mean(sites["asks_otherwise"]) < 0.03


def test_labels_tell_what_scores_mean():
    """Scores are worth half of what is thought, and common after answers that were taken."""
    rng, number = np.random.default_rng(4), 6_000
    after = SHARES * np.exp(0.5 * LEVELS)
    bad = after * np.exp(0.5 * LEVELS)
    after, bad = after / after.sum(), bad / bad.sum()
    llm = rng.integers(0, 2, number)
    taken = rng.random(number) < np.array([0.9, 0.7])[llm]
    place = np.where(taken, rng.choice(4, number, p=after), rng.choice(4, number, p=bad))
    silent = rng.random(number) < 0.1
    choice = np.where(silent, -1, -2 - place)
    labelled = np.flatnonzero(~silent)[:400]
    choice[labelled] -= np.where(taken, 8, 4)[labelled]
    data = choice_data(
        np.ones((number + 4, 1)),
        np.concatenate([np.eye(2, dtype=bool)[llm], np.zeros((4, 2), bool)]),
        np.concatenate([choice, -2 - np.arange(4)]),
        weight=np.concatenate([np.ones(number), 2_000 * SHARES]),
    ).merged(multiple=64)
    model = next_request(known=True, shows_retries=False, shows_acceptances=False)
    posterior, info = infer(jax.random.key(0), model, data)
    assert info.ok
    _, (low, high), _ = _acceptance(posterior)
    truth = np.array([0.9, 0.7])
    assert ((low <= truth) & (truth <= high)).all()
    assert (high - low < 0.2).all()


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(InputError, match="as many of each, got 3 shares, 4 levels and 4 doubts"):
        next_request(shares=(0.5, 0.3, 0.2))
    with pytest.raises(InputError, match="shares and doubts above 0"):
        next_request(doubts=(0.0, 0.1, 0.1, 0.1))
