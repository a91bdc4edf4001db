"""Every policy, model, engine and data set, found by discovery, keeps the contract."""

import importlib
import inspect
import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.optim import Adam

from cqbayes.datasets import files as datasets
from cqbayes.datasets.files import data_set_names, load_card
from cqbayes.datasets.load import has_scores, load_scores, load_text_scores
from cqbayes.environments.environment import Observation
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.scores import from_scores
from cqbayes.environments.synthetic import synthetic
from cqbayes.errors import InputError
from cqbayes.inference.infer import engine_names, infer, load_engine
from cqbayes.policies import belief
from cqbayes.policies.setup import Setup, load_policy, needs_truth, policy_names
from cqbayes.posterior.info import InferenceInfo
from cqbayes.posterior.log_densities import log_posterior
from cqbayes.posterior.posteriors import Posterior
from cqbayes.preference import layout, load_model, model_names, program, sizes_of
from cqbayes.simulation.loop import simulate
from cqbayes.simulation.worlds import data_settings

ROOT = Path(__file__).parent.parent
POLICIES = policy_names()
POLICIES += [f"fifo_{name}" for name in POLICIES]
MODELS, ENGINES, DATA = model_names(), engine_names(), data_set_names()


def _setup(slate_size: int = 2, posterior: str = "online") -> Setup:
    from cqbayes.preference import Sizes

    model, sizes = load_model("disjoint_mnl"), Sizes(4, 3)
    how = belief.online(model, sizes)
    if posterior != "online":
        how = belief.refitted(load_engine(posterior).fit, model, sizes)
    return Setup(sizes, slate_size, how, synthetic(jax.random.key(0), 4, 3), horizon=60)


def _observation(queue_length: int, room: int = 6) -> Observation:
    rng = np.random.default_rng(0)
    context = rng.normal(size=(room, 3)) / 2
    context[queue_length:] = np.nan  # nothing may depend on free places
    return Observation(
        round=jnp.array(40),
        queue_length=jnp.array(queue_length),
        context=jnp.asarray(context, jnp.float32),
        identity=jnp.zeros(room, jnp.int32),
        wait=jnp.asarray(rng.permutation(room) + 1, jnp.int32),
        attempts=jnp.zeros(room, jnp.int32),
        failures=jnp.zeros((room, 4), jnp.int32),
    )


def test_discovery_finds_something():
    assert {"acqb", "oracle", "random", "best_single", "thompson"} <= set(POLICIES)
    assert {"greedy", "epsilon_greedy", "beta_thompson", "q_ths", "linucb"} <= set(POLICIES)
    assert {"ucb_mnl", "cqb_eps", "cqb_opt", "cqb_eta", "ts_qmb", "ucb_qmb"} <= set(POLICIES)
    assert {"context_free", "pattern_oracle"} <= set(POLICIES)
    assert {"fifo_acqb", "fifo_oracle"} <= set(POLICIES)
    assert not {"explore", "fifo", "aging", "confidence", "horizon"} & set(POLICIES)
    assert "disjoint_mnl" in MODELS
    assert {"nuts", "laplace", "online"} <= set(ENGINES)
    assert "paretobandit3" in DATA


@pytest.mark.parametrize("name", POLICIES)
def test_policies_serve_a_waiting_query_with_a_legal_assortment(name):
    setup = _setup()
    policy = load_policy(name, setup)
    state = policy.init(jax.random.key(1))
    select = eqx.filter_jit(policy.select)
    for queue_length in (1, 3, 6):
        for seed in range(20):
            action = select(jax.random.key(seed), state, _observation(queue_length))
            assert 0 <= int(action.query) < queue_length
            assert action.offered.dtype == bool
            assert 1 <= int(action.offered.sum()) <= setup.slate_size
    action = select(jax.random.key(0), state, _observation(0))
    assert 0 <= int(action.query) < 6


@pytest.mark.parametrize("name", policy_names())
def test_policies_take_values_of_answers_and_leave_alone_who_is_away(name):
    setup = _setup()._replace(values=jnp.array([0.2, 0.9, 0.5, 1.0]))
    policy = load_policy(name, setup)
    seen = _observation(5)._replace(servable=jnp.array([False, True, False, True, False, False]))
    select = eqx.filter_jit(policy.select)
    for seed in range(10):
        action = select(jax.random.key(seed), policy.init(jax.random.key(1)), seen)
        assert int(action.query) in (1, 3)
    assert 1 <= int(action.offered.sum()) <= setup.slate_size


@pytest.mark.parametrize("name", policy_names())
def test_policies_learn_nothing_from_rows_of_weight_zero(name, choices):
    policy = load_policy(name, _setup())
    data, _ = choices(seed=0, num_obs=10, slate_size=2, full=True)
    state = policy.update(jax.random.key(0), policy.init(jax.random.key(1)), data)
    nothing = (jnp.zeros(10), jnp.full_like(data.context, jnp.nan))
    rows = eqx.tree_at(lambda d: (d.weight, d.context), data, nothing)
    after = policy.update(jax.random.key(2), state, rows)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", [*policy_names(), "fifo_acqb"])
def test_policies_run_under_vmap_and_are_deterministic(name):
    setup = _setup()
    env = retrial_queue(setup.truth, 0.4, setup.slate_size)
    policy = load_policy(name, setup)
    one, two = (
        simulate(jax.random.key(2), policy, env, 60, num_seeds=3, room=32) for _ in range(2)
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(one.metrics))


@pytest.mark.parametrize("name", [n for n in POLICIES if not needs_truth(n)])
def test_undeclared_policies_are_built_without_the_truth(name):
    """What they are made of is the same, whatever the truth."""
    one, other = (
        load_policy(name, _setup()._replace(truth=synthetic(jax.random.key(seed), 4, 3)))
        for seed in (1, 2)
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.array_equal(a, b) if eqx.is_array(a) else a == b


@pytest.mark.parametrize("name", MODELS)
def test_models_are_finite_and_differentiable(name, choices):
    model = load_model(name)
    data, _ = choices(seed=0, num_obs=20, full=True)
    form = layout(model, sizes_of(data))
    density = jax.jit(jax.value_and_grad(log_posterior(model, data)))
    for seed in range(5):
        vector = jax.random.normal(jax.random.key(seed), (form.size,))
        value, gradient = density(vector)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
        numeric = [
            (density(vector + 1e-2 * e)[0] - density(vector - 1e-2 * e)[0]) / 2e-2
            for e in np.eye(form.size, dtype=np.float32)[:4]
        ]
        np.testing.assert_allclose(gradient[:4], numeric, rtol=0.02, atol=0.02)
    utility = model.utility(form.params(vector), jax.tree.map(lambda x: x[0], data.situation))
    assert utility.shape == (data.num_llms,)


@pytest.mark.parametrize("name", MODELS)
def test_models_predict_through_numpyro(name, choices):
    data, _ = choices(seed=0, num_obs=20, full=True)
    run = program(load_model(name))
    drawn = Predictive(run, num_samples=30)(jax.random.key(0), data, predict=True)["choice"]
    assert drawn.shape == (30, 20)
    taken = np.asarray(drawn) - 1
    offered = np.asarray(data.offered)
    assert all(offered[i, j] for row in taken for i, j in enumerate(row) if j >= 0)


@pytest.mark.parametrize("name", MODELS)
def test_models_take_numpyros_guides(name, choices):
    """Which need plates that keep their places."""
    data, _ = choices(seed=0, num_obs=20, full=True)
    run = program(load_model(name))
    svi = SVI(run, AutoNormal(run), Adam(0.01), Trace_ELBO())
    # Shapes are enough to know, and need no compilation.
    loss = jax.eval_shape(lambda key: svi.evaluate(svi.init(key, data), data), jax.random.key(0))
    assert loss.shape == ()


# auto only chooses among the others: one model of the first, and one of the last.
PAIRS = [(m, e) for m in MODELS for e in ENGINES if e != "auto"]
PAIRS += [("disjoint_mnl", "auto"), ("hierarchical_mnl", "auto")]
SHORTER = [p for p in PAIRS if p[0] == "disjoint_mnl"]
SHORTER += [("hierarchical_mnl", "nuts"), ("shared_mnl", "laplace"), ("attempt_mnl", "laplace")]
# What is looked at here does not depend on how long a chain is.
SHORT = {"nuts": {"num_warmup": 100, "num_draws": 50}, "hmc": {"num_draws": 50}}


@pytest.mark.parametrize(
    ("name", "engine"),
    [pair if pair in SHORTER else pytest.param(*pair, marks=pytest.mark.long) for pair in PAIRS],
)
def test_engines_run_on_models_or_say_why_not(name, engine, choices):
    model = load_model(name)
    data, _ = choices(seed=0, num_obs=60, full=True)
    short = SHORT.get(engine, {})
    try:
        posterior, info = infer(jax.random.key(0), model, data, engine=engine, **short)
    except InputError as error:
        if engine not in str(error):
            raise
        return
    assert isinstance(posterior, Posterior)
    assert isinstance(info, InferenceInfo)
    assert info.engine == engine or info.reason, "who lets another engine decide says why"
    params = posterior.draw(jax.random.key(1))
    assert jax.tree.structure(params) == jax.tree.structure(posterior.mean())
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
    assert posterior.draw_vector(jax.random.key(1)).shape == (layout(model, sizes_of(data)).size,)
    tree = posterior.to_arviz(llms=["a", "b", "c", "d"])
    named = {dim for dims in layout(model, sizes_of(data)).dims.values() for dim in dims}
    if "llm" in named:  # a shared model has no parameters of an LLM's own
        assert tree["posterior"]["llm"].values.tolist() == ["a", "b", "c", "d"]
    again, _ = infer(jax.random.key(0), model, data, engine=engine, **short)
    for a, b in zip(jax.tree.leaves(posterior), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_are_pure(engine, choices):
    """fit works under jit and vmap, and does not see rows of weight zero."""
    model = load_model("disjoint_mnl")
    data, _ = choices(seed=0, num_obs=40)
    settings = SHORT.get(engine, {})
    fit = load_engine(engine).fit
    keys = jax.random.split(jax.random.key(0), 2)
    posterior, info = jax.jit(jax.vmap(lambda k: fit(k, model, data, **settings)))(keys)
    assert info.status.shape == (2,)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(posterior))


@pytest.mark.parametrize("engine", ENGINES)
def test_bad_calls_of_engines(engine, choices):
    model = load_model("disjoint_mnl")
    data, _ = choices(seed=0, num_obs=10)
    with pytest.raises(InputError, match=f"engine {engine}: expected settings among .*, got wings"):
        infer(jax.random.key(0), model, data, engine=engine, wings=2)
    empty = eqx.tree_at(lambda d: d.weight, data, jnp.zeros(10))
    with pytest.raises(InputError, match="at least one row of positive weight"):
        infer(jax.random.key(0), model, empty, engine=engine)


@pytest.mark.parametrize("name", DATA)
def test_data_sets_say_what_they_are(name):
    known = load_card(name)
    assert known.llms >= 2
    assert known.queries
    assert known.licence
    assert known.source
    sheet = (ROOT / "data" / name / "DATASHEET.md").read_text()
    for part in ("# " + name, "## Source and licence", "## Columns", "## What it is not"):
        assert part in sheet
    for file in known.files:
        assert file.name in sheet or file.name.split("-")[0] in sheet
        assert file.sha256 is None or file.sha256 in sheet
    module = importlib.import_module(f"cqbayes.data.{name}")
    ways = {"answers": "path", "load": "dim", "turns": "path"}
    (way,) = [name for name in ways if hasattr(module, name)]
    assert inspect.signature(getattr(module, way)).parameters[ways[way]].default in (None, 16)
    assert has_scores(name) == (way != "turns")


@pytest.mark.parametrize("name", [name for name in DATA if not has_scores(name)])
def test_data_sets_without_scores_are_refused_where_scores_are_needed(name):
    refusal = rf"^{name}: expected a data set with scores of LLMs, .*{name}.turns\(\) reads them$"
    for load in (load_scores, load_text_scores, data_settings):
        with pytest.raises(InputError, match=refusal):
            load(name)


@pytest.mark.parametrize("name", [name for name in DATA if load_card(name).files])
def test_data_sets_with_text_keep_their_promises(name, monkeypatch):
    if not has_scores(name):
        pytest.skip(f"{name}: has conversations, and no scores")
    if "CQBAYES_DATA" not in os.environ:
        monkeypatch.setenv("CQBAYES_DATA", str(ROOT.parent / "shared" / "data"))
    if absent := datasets.missing(name):
        pytest.skip(f"{', '.join(absent)}: not there")
    answers, known = load_text_scores(name), load_card(name)
    assert answers.name == name
    assert len(answers.llms) == known.llms
    assert answers.score.shape == (len(answers.query_id), known.llms)
    assert set(np.unique(answers.split)) == {"train", "test"}
    assert len(set(answers.query_id)) == len(answers.query_id)
    assert ((answers.score >= 0) & (answers.score <= 1)).all()
    assert answers.cost is None or (answers.cost >= 0).all()
    assert all(isinstance(text, str) for text in answers.text)


@pytest.mark.parametrize("name", [name for name in DATA if not load_card(name).files])
def test_data_sets_in_the_package_keep_their_promises(name):
    table = load_scores(name, dim=8)
    assert set(np.unique(table.split)) == {"train", "test"}
    np.testing.assert_allclose(np.linalg.norm(table.context, axis=1), 1, rtol=1e-5)
    assert ((table.score >= 0) & (table.score <= 1)).all()
    assert (table.cost >= 0).all()
    train, test = table.part("train"), table.part("test")
    assert len(train.query_id) + len(test.query_id) == len(table.query_id)
    assert not set(train.query_id) & set(test.query_id)
    population = from_scores(test)
    query = population.draw(jax.random.key(0))
    score = test.score[int(query.identity)]
    satisfied = 1 / (1 + np.exp(-np.asarray(population.utility(query))))
    np.testing.assert_allclose(satisfied, 0.1 + 0.8 * score, rtol=1e-4)
    np.testing.assert_allclose(query.context, test.context[int(query.identity)], rtol=1e-6)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda: load_model("nope"), "model: expected one of .*disjoint_mnl.*got 'nope'"),
        (lambda: load_engine("nope"), "engine: expected one of .*nuts.*got 'nope'"),
        (lambda: load_scores("nope"), "data set: expected one of .*paretobandit3"),
        (lambda: load_text_scores("nope"), "data set: expected one of .*routerdc7"),
        (lambda: load_text_scores("paretobandit3"), "expected a data set with text"),
        (lambda: load_card("nope"), "data set: expected one of .*got 'nope'"),
        (lambda: load_policy("nope", _setup()), "policy: expected one of acqb.*'nope'"),
        (lambda: load_policy("fifo_nope", _setup()), "policy: expected one of"),
        (lambda: load_policy("fifo", _setup()), "policy: expected one of"),
        (lambda: load_scores("paretobandit3", dim=65), "1 to 64 context dimensions"),
        (lambda: load_scores("paretobandit3", method="nope"), "method: expected one of"),
        (lambda: load_scores("paretobandit3", measured=True), "no settings .* measured"),
    ],
)
def test_unknown_names(load, message):
    with pytest.raises(InputError, match=message):
        load()
