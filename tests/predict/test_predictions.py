"""Predictions held against NumPy by hand and against quadrature; what-ifs; every model."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recovery import linear_utilities, log_shares
from scipy import stats
from scipy.special import expit, logit

from cqbayes.errors import InputError
from cqbayes.posterior.posteriors import Draws, Gaussian
from cqbayes.predict import predictions as predict
from cqbayes.predict.new_llm import with_new_llm
from cqbayes.predict.predictions import Interval, acceptance, new_queries, shares, what_if
from cqbayes.preference import Sizes, layout, load_model, model_factory, model_names

SIZES = Sizes(num_llms=3, dim=2, num_attributes=2, num_users=4, num_times=3)
COLUMNS = {
    "attributes": np.array([[0.1, 1.0], [0.5, -1.0], [0.9, 0.0]]),
    "user": np.array([0, 3, 1, 2, 0]),
    "attempt": np.array([1, 2, 9, 1, 3]),
    "time": np.array([0, 1, 2, 2, 0]),
    "failures": np.array([[0, 0, 0], [1, 0, 0], [2, 1, 0], [0, 0, 3], [0, 1, 0]]),
}
MODELS = model_names()


def contexts(count=5):
    x = np.random.default_rng(1).normal(size=(count, 2))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def drawn(name, num_draws=60, sd=0.5):
    """A posterior that is draws around 0, simulated: what is predicted of it is arithmetic."""
    model = load_model(name)
    size = layout(model, SIZES).size
    vectors = sd * np.random.default_rng(2).normal(size=(2, num_draws // 2, size))
    return Draws(vectors=jnp.asarray(vectors, jnp.float32), model=model, sizes=SIZES)


def asked(posterior):
    needed = {name: COLUMNS[name] for name in posterior.model.needs}
    return new_queries(posterior, contexts(), **needed)


def sites(posterior):
    found = eqx.filter_jit(lambda p: p.sites(jax.random.key(0), 1))(posterior)
    return {name: np.asarray(x, float).reshape(-1, *x.shape[2:]) for name, x in found.items()}


def test_acceptance_is_the_one_by_hand_whatever_the_chunks(key, monkeypatch):
    posterior = drawn("disjoint_mnl")
    by_hand = expit(linear_utilities(sites(posterior), contexts()))
    for at_once in (predict.AT_ONCE, 60 * 3 * 2):  # all queries at once, and two of them
        monkeypatch.setattr(predict, "AT_ONCE", at_once)
        found = acceptance(key, posterior, asked(posterior), llms=["a", "b", "c"])
        assert found["mean"].dims == ("query", "llm")
        assert found["llm"].values.tolist() == ["a", "b", "c"]
        np.testing.assert_allclose(found["mean"], by_hand.mean(axis=0), rtol=1e-5)
        bounds = np.moveaxis(np.quantile(by_hand, [0.05, 0.95], axis=0), 0, -1)
        np.testing.assert_allclose(found["interval"], bounds, rtol=1e-4)
        overall = by_hand.mean(axis=1)
        np.testing.assert_allclose(found["overall_mean"], overall.mean(axis=0), rtol=1e-5)
        bounds = np.quantile(overall, [0.05, 0.95], axis=0).T
        np.testing.assert_allclose(found["overall_interval"], bounds, rtol=1e-4)
    assert found.attrs["draws"] == 60
    assert "users do" in found.attrs["predicts"]


def test_shares_and_a_removal_are_the_ones_by_hand(key):
    posterior = drawn("disjoint_mnl")
    offered = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    utility = linear_utilities(sites(posterior), contexts())
    before = np.exp(log_shares(utility, offered))
    found = shares(key, posterior, asked(posterior), offered, interval=Interval(0.5, "hdi"))
    assert found["outcome"].values.tolist() == ["retry", "llm0", "llm1", "llm2"]
    np.testing.assert_allclose(found["mean"], before.mean(axis=0), rtol=1e-5, atol=1e-9)
    inside = (before >= found["interval"][..., 0].values - 1e-6) & (
        before <= found["interval"][..., 1].values + 1e-6
    )
    held = inside.mean(axis=0)[before.mean(axis=0) > 0]
    assert (held >= 0.5).all()
    assert (held <= 0.5 + 3 / 60).all()
    left = offered & (np.arange(3) != 2)
    after = np.exp(log_shares(utility, left))
    change = what_if(key, posterior, asked(posterior), offered, without="llm2")
    for scenario, expected in (("before", before), ("after", after), ("change", after - before)):
        mean = change["mean"].sel(scenario=scenario)
        np.testing.assert_allclose(mean, expected.mean(axis=0), rtol=1e-4, atol=1e-7)
    bounds = np.moveaxis(np.quantile(after - before, [0.05, 0.95], axis=0), 0, -1)
    interval = change["interval"].sel(scenario="change")
    np.testing.assert_allclose(interval, bounds, rtol=1e-3, atol=1e-6)


def test_a_gaussian_posterior_agrees_with_quadrature(key):
    """``u_j`` is normal: its mean acceptance by Gauss and Hermite, its quantiles in closed form."""
    model = load_model("disjoint_mnl")
    size, num_draws = layout(model, SIZES).size, 4_000
    rng = np.random.default_rng(3)
    location, factor = rng.normal(size=size), rng.normal(size=(size, size)) / 3
    posterior = Gaussian(
        location=jnp.asarray(location, jnp.float32),
        factor=jnp.asarray(factor, jnp.float32),
        model=model,
        sizes=SIZES,
    )
    found = acceptance(key, posterior, asked(posterior), num_draws=num_draws)
    # Utilities are linear in the unconstrained vector, whose sites have no bounds.
    basis = jax.vmap(lambda v: layout(model, SIZES).constrain(v))(jnp.eye(size))
    slopes = linear_utilities({n: np.asarray(x, float) for n, x in basis.items()}, contexts())
    mean = np.einsum("pnj,p->nj", slopes, location)
    sd = np.linalg.norm(np.einsum("pnj,pq->njq", slopes, factor), axis=-1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    at_nodes = expit(mean[..., None] + sd[..., None] * nodes)
    weights = weights / weights.sum()
    exact = at_nodes @ weights
    error = np.sqrt((at_nodes**2 @ weights - exact**2) / num_draws)
    z = (found["mean"].values - exact) / error
    print("largest deviation in standard errors", np.abs(z).max())
    assert np.abs(z).max() < 4
    for side, level in ((0, 0.05), (1, 0.95)):
        reached = stats.norm.cdf((logit(found["interval"].values[..., side]) - mean) / sd)
        z = (reached - level) / np.sqrt(level * (1 - level) / num_draws)
        assert np.abs(z).max() < 4


@pytest.mark.parametrize("name", MODELS)
def test_every_model_predicts_what_users_do(name, key):
    posterior = drawn(name)
    at = asked(posterior)
    alone = acceptance(key, posterior, at)
    assert alone["mean"].shape == (5, 3)
    together = shares(key, posterior, at, np.ones(3, bool))
    np.testing.assert_allclose(together["mean"].sum("outcome"), 1, rtol=1e-5)
    lower, upper = (alone["interval"].sel(ci_bound=side) for side in ("lower", "upper"))
    assert ((lower < alone["mean"]) & (alone["mean"] < upper)).all()
    # One LLM alone is an assortment of one: two ways to the same number.
    only = shares(key, posterior, at, [False, True, False])
    np.testing.assert_allclose(only["mean"].sel(outcome="llm1"), alone["mean"][:, 1], rtol=1e-5)
    removed = what_if(key, posterior, at, np.ones(3, bool), without=0)["mean"]
    assert (removed.sel(scenario="after", outcome="llm0") == 0).all()
    assert (removed.sel(scenario="change", outcome=["retry", "llm1", "llm2"]) > 0).all()
    seen = shares(key, posterior, at, np.ones(3, bool), seen=True)
    np.testing.assert_allclose(seen["mean"].sum("outcome"), 1, rtol=1e-5)
    garbled = name in ("misclassified", "abandonment", "next_request")
    signs = {
        "abandonment": ["silence"],
        "next_request": ["silence", *(f"sign {k}" for k in range(2, 6))],
    }
    assert list(seen["outcome"].values)[4:] == signs.get(name, [])
    same = np.allclose(seen["mean"][:, :4], together["mean"], rtol=1e-5)
    assert same != garbled


def test_a_change_that_changes_nothing_is_refused(key):
    posterior = drawn("shared_mnl")
    at, same = asked(posterior), COLUMNS["attributes"]
    offered = np.ones((5, 3), bool)
    offered[0, 2] = False  # of one query: removing it changes the others
    found = what_if(key, posterior, at, offered, without="llm2", attributes=same)["mean"]
    assert (found.sel(scenario="change", query=0) == 0).all()
    assert (found.sel(scenario="change", query=1) != 0).all()
    for change in ({"attributes": same}, {"adding": 0}, {"adding": 1, "attributes": same}):
        with pytest.raises(InputError, match="expected a change, got one that changes nothing"):
            what_if(key, posterior, at, offered, **change)


def test_labels_and_users_differ_by_the_channel(key):
    posterior = drawn("misclassified")
    found = sites(posterior)
    true = np.exp(log_shares(linear_utilities(found, contexts()), np.array([True, True, False])))
    sensitivity, kept = (found[n][:, None] for n in ("sensitivity", "specificity"))
    seen = sensitivity * true[..., 0] + (1 - kept) * true[..., 1:].sum(axis=-1)
    at = asked(posterior)
    for how, expected in ((False, true[..., 0]), (True, seen)):
        mean = shares(key, posterior, at, [1, 1, 0], seen=how)["mean"].sel(outcome="retry")
        np.testing.assert_allclose(mean, expected.mean(axis=0), rtol=1e-5)


def test_a_price_is_changed(key):
    posterior = drawn("shared_mnl")
    dearer = COLUMNS["attributes"] + np.array([[0, 0], [2.0, 0], [0, 0]])
    found = what_if(key, posterior, asked(posterior), np.ones(3, bool), attributes=dearer)
    p, x = sites(posterior), contexts()

    def by_hand(attributes):
        common = p["intercept"][:, None] + p["beta"] @ x.T
        slope = p["gamma"][:, None, :] + np.einsum("smk,nk->snm", p["interaction"], x)
        return np.exp(log_shares(common[..., None] + slope @ attributes.T, np.ones(3, bool)))

    change = by_hand(dearer) - by_hand(COLUMNS["attributes"])
    np.testing.assert_allclose(
        found["mean"].sel(scenario="change"), change.mean(axis=0), rtol=1e-4, atol=1e-6
    )


def test_a_new_llm_comes_from_the_population_of_every_draw(key):
    posterior = drawn("hierarchical_mnl", num_draws=2_000)
    larger = with_new_llm(key, posterior)
    before, after = sites(posterior), sites(larger)
    for name in ("intercept", "theta"):
        np.testing.assert_allclose(after[name][:, :3], before[name], rtol=1e-5, atol=1e-6)
        mu, tau = before[f"{name}_mu"], before[f"{name}_tau"]
        np.testing.assert_array_equal(after[f"{name}_mu"], mu)
        z = (after[name][:, 3] - mu) / tau
        p_value = stats.kstest(z.ravel(), "norm").pvalue
        print(name, "new LLMs are normal around the population: p", p_value)
        assert p_value > 1e-3
        # Of each draw its own, and nobody's twin.
        assert abs(np.corrcoef(z.ravel(), ((before[name][:, 0] - mu) / tau).ravel())[0, 1]) < 0.1
    at = new_queries(larger, contexts())
    joined = what_if(key, larger, at, [True, True, True, False], adding="llm3")["mean"]
    assert (joined.sel(scenario="before", outcome="llm3") == 0).all()
    assert (joined.sel(scenario="change", outcome="retry") < 0).all()


def test_a_new_llm_inherits_what_is_shared_in_any_program(key):
    before = sites(posterior := drawn("low_rank_mnl", num_draws=1_000))
    after = sites(with_new_llm(key, posterior))
    np.testing.assert_allclose(after["loading"], before["loading"], rtol=1e-4, atol=1e-5)
    theta = np.einsum("skl,sl->sk", after["loading"], after["position"][:, 3])
    np.testing.assert_allclose(after["theta"][:, 3], theta, rtol=1e-4, atol=1e-5)
    assert stats.kstest(after["position"][:, 3].ravel(), "norm").pvalue > 1e-3
    # LLMs that differ by attributes alone have nothing to inherit: the new LLM brings its own.
    shared = with_new_llm(key, drawn("shared_mnl"))
    four = np.concatenate([COLUMNS["attributes"], [[0.2, 0.2]]])
    assert acceptance(key, shared, new_queries(shared, contexts(), attributes=four))[
        "mean"
    ].shape == (
        5,
        4,
    )
    # On top of another model the population is that one's.
    nested = model_factory("misclassified")(base=load_model("hierarchical_mnl"))
    size = layout(nested, SIZES).size
    grown = with_new_llm(key, Draws(vectors=jnp.zeros((1, 8, size)), model=nested, sizes=SIZES))
    assert grown.sizes.num_llms == 4


@pytest.mark.parametrize("name", ["disjoint_mnl", "user_mnl", "misclassified"])
def test_without_a_population_there_is_no_new_llm(name, key):
    with pytest.raises(InputError, match=f"^{name}: expected a model with a population of LLMs"):
        with_new_llm(key, drawn(name))


def test_bad_calls(key):
    posterior = drawn("disjoint_mnl")
    at = asked(posterior)
    everyone = np.ones(3, bool)
    refused = {
        "expected dim of 2 as in the posterior, got 1": lambda: new_queries(posterior, [[1.0]]),
        "shared_mnl: expected queries with attributes": lambda: new_queries(
            drawn("shared_mnl"), contexts()
        ),
        "expected num_attributes of 2": lambda: new_queries(
            drawn("shared_mnl"), contexts(), attributes=np.ones((3, 1))
        ),
        "context: expected finite": lambda: new_queries(posterior, [[np.nan, 1.0]]),
        "context: expected 2 dimension": lambda: new_queries(posterior, 1.0),
        "offered: expected booleans": lambda: shares(key, posterior, at, [True]),
        "kind: expected eti or hdi, got 'mode'": lambda: acceptance(
            key, posterior, at, interval=Interval(kind="mode")
        ),
        "llms: expected none called retry or silence, .*, got one called retry": lambda: shares(
            key, posterior, at, everyone, llms=["a", "retry", "c"]
        ),
        "probability: expected": lambda: acceptance(key, posterior, at, interval=Interval(90)),
        "llms: expected 3 different names": lambda: acceptance(key, posterior, at, llms=["a"]),
        "num_draws: expected at least 1": lambda: acceptance(key, posterior, at, num_draws=0),
        "what_if: expected a change": lambda: what_if(key, posterior, at, everyone),
        "LLM: expected one of llm0, llm1, llm2 or a number below 3, got 'gpt'": lambda: what_if(
            key, posterior, at, everyone, without="gpt"
        ),
        "expected an LLM to answer after the change, got none for query 0": lambda: what_if(
            key, posterior, at, [True, False, False], without=0
        ),
        "what_if: expected a change, got one that changes nothing": lambda: what_if(
            key, posterior, at, [True, False, True], without="llm1", adding="llm2"
        ),
        "disjoint_mnl: expected a model that uses attributes": lambda: what_if(
            key, posterior, at, everyone, attributes=np.ones((3, 1))
        ),
        "predict: expected a posterior, got str": lambda: acceptance(key, "posterior", at),
    }
    for message, call in refused.items():
        with pytest.raises(InputError, match=message):
            call()
