"""Posteriors survive the disk exactly, and what was changed or is improper is refused."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from cqbayes.models.disjoint_mnl import disjoint_mnl

from cqbayes.choice.data import ChoiceData
from cqbayes.errors import InputError
from cqbayes.inference.infer import infer, load_engine
from cqbayes.posterior.datatree import GROUPS
from cqbayes.posterior.info import InferenceInfo, Status
from cqbayes.posterior.online_gaussian import OnlineGaussian
from cqbayes.posterior.posteriors import Draws, Gaussian
from cqbayes.posterior.storage import checksum, load_posterior, save_posterior
from cqbayes.preference import PreferenceModel, Sizes, layout, load_model, sizes_of

LLMS = ["small", "medium", "large", "xlarge"]
VERDICT = {"ok": False, "findings": [{"name": "few_rows", "level": "warn", "value": 3.0}]}
# As many services as LLMs, so that their dimensions could be taken for each other.
COLUMNS = {
    "query": np.array([0, 1, 1, 2]),
    "attempt": np.array([1, 1, 2, 1]),
    "offered": np.array(
        [[True, False, False, True], [True] * 4, [False, True, True, False], [True] * 4]
    ),
    "chosen": np.array([4, 0, 2, -1]),
    "propensity": np.array([0.25, np.nan, 1.0, 0.5]),
    "time": np.array([1_700_000_000, -1, 1_700_000_001, 4_000_000_000]),
    "user": np.array([0, -1, -1, 1]),
    "split": np.array([0, 0, 0, 1]),
}


@pytest.fixture(scope="module")
def data(choices):
    return choices(seed=0, num_obs=150)[0]


@pytest.fixture(scope="module")
def fits(data) -> dict[str, tuple[Any, InferenceInfo]]:
    model, key = disjoint_mnl(prior_sd=0.8), jax.random.key(0)
    gaussian, info = load_engine("laplace").fit(key, model, data)
    return {
        "Gaussian": (gaussian, info),
        "Draws": infer(key, model, data, engine="laplace"),
        "OnlineGaussian": infer(key, model, data, engine="online"),
    }


@pytest.fixture(scope="module")
def saved(fits, data, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "fit.nc"
    kept = {"verdict": VERDICT, "columns": COLUMNS}
    save_posterior(path, *fits["Gaussian"], data=data, llms=LLMS, num_draws=50, **kept)
    return path


@pytest.fixture
def stored(saved, tmp_path) -> Path:
    shutil.copy(saved, tmp_path / "fit.nc")
    return tmp_path / "fit.nc"


@pytest.mark.parametrize("kind", ["Gaussian", "Draws", "OnlineGaussian"])
@pytest.mark.parametrize("name", ["fit.nc", "fit.zarr"])
def test_what_is_loaded_draws_as_what_was_saved(fits, data, tmp_path, kind, name):
    posterior, info = fits[kind]
    path = tmp_path / name
    save_posterior(path, posterior, info, data=data, llms=LLMS, seed=7, num_draws=50)
    save_posterior(path, posterior, info, data=data, llms=LLMS, seed=7, num_draws=50)  # again
    found = load_posterior(path, llms=LLMS)
    assert {Gaussian: "Gaussian", Draws: "Draws", OnlineGaussian: "OnlineGaussian"}[
        type(found.posterior)
    ] == kind
    assert found.posterior.model == posterior.model, "the same settings give the same model"
    assert found.posterior.sizes == posterior.sizes
    assert found.info.verdict == info.verdict
    assert found.info.scalars == pytest.approx(info.scalars)
    for a, b in zip(
        jax.tree.leaves(found.posterior.draw(jax.random.key(1))),
        jax.tree.leaves(posterior.draw(jax.random.key(1))),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    assert [p.name for p in tmp_path.iterdir()] == [name], "nothing is left beside it"


def test_all_groups_are_there_with_named_coordinates(stored, data):
    tree = load_posterior(stored).tree
    assert {"posterior", *GROUPS} <= set(tree.children)
    assert tree["posterior"]["theta"].dims == ("chain", "draw", "llm", "feature")
    assert tree["posterior"]["llm"].values.tolist() == LLMS
    assert tree["log_likelihood"]["choice"].dims == ("chain", "draw", "obs")
    np.testing.assert_array_equal(tree["observed_data"]["choice"], data.choice)
    np.testing.assert_array_equal(tree["constant_data"]["offered"], data.offered)
    drawn = tree["posterior_predictive"]["choice"].values
    taken = np.take_along_axis(
        np.asarray(data.offered)[None, None], np.maximum(drawn, 1)[..., None] - 1, axis=-1
    )[..., 0]
    assert (taken | (drawn == 0)).all(), "only what was offered is taken"
    versions = json.loads(tree.attrs["versions"])
    assert {"cqbayes", "jax", "numpyro"} <= set(versions)
    assert json.loads(tree.attrs["model"])["settings"]["prior_sd"] == 0.8


@pytest.mark.parametrize("name", ["fit.nc", "fit.zarr"])
def test_what_is_kept_of_the_log_comes_back_as_it_was(fits, tmp_path, name):
    path = tmp_path / name
    save_posterior(path, *fits["Gaussian"], llms=LLMS, verdict=VERDICT, columns=COLUMNS)
    found = load_posterior(path)
    assert found.verdict == VERDICT
    assert set(found.columns.data_vars) == set(COLUMNS)
    for column, values in COLUMNS.items():
        np.testing.assert_array_equal(found.columns[column], values)
    assert found.columns["offered"].sel(llm="xlarge").values.tolist() == [True, True, False, True]
    assert found.columns["propensity"].dtype == np.float64
    assert all(column.dtype.kind in "bif" for column in found.tree["services"].variables.values())
    assert found.tree["posterior"]["llm"].values.tolist() == LLMS
    save_posterior(path, *fits["Gaussian"], columns={"chosen": [1, 0]})
    found = load_posterior(path)
    assert found.verdict is None
    assert list(found.columns) == ["chosen"]
    save_posterior(path, *fits["Gaussian"])
    assert load_posterior(path).columns is None


def test_many_services_are_a_small_file(fits, tmp_path):
    num, rng = 200_000, np.random.default_rng(0)
    query = np.sort(rng.integers(0, num // 2, num))
    offered = np.eye(4, dtype=bool)[rng.integers(0, 4, num)]
    columns = {
        "query": query,
        "attempt": rng.integers(1, 4, num),
        "offered": offered,
        "chosen": np.where(rng.random(num) < 0.5, 0, offered.argmax(axis=1) + 1),
        "propensity": rng.choice([0.25, 0.5], num),
        "time": 1_700_000_000 + 3 * query,
        "split": np.zeros(num),
    }
    save_posterior(tmp_path / "with.nc", *fits["Gaussian"], columns=columns)
    save_posterior(tmp_path / "without.nc", *fits["Gaussian"])
    more = (tmp_path / "with.nc").stat().st_size - (tmp_path / "without.nc").stat().st_size
    assert more < 6 * num, "bytes; 33 in memory"


def test_pointwise_likelihood_is_that_of_numpy(stored, data):
    tree = load_posterior(stored).tree
    post = tree["posterior"]
    utility = np.einsum("sjk,ik->sij", post["theta"].values[0], np.asarray(data.context))
    utility += post["intercept"].values[0][:, None]
    odds = np.exp(utility) * np.asarray(data.offered)
    outcomes = np.concatenate([np.ones_like(odds[..., :1]), odds], axis=-1)
    outcomes /= outcomes.sum(axis=-1, keepdims=True)
    expected = np.log(outcomes[:, np.arange(data.num_obs), np.asarray(data.choice)])
    np.testing.assert_allclose(tree["log_likelihood"]["choice"].values[0], expected, atol=1e-4)
    # Intercepts have prior N(0, 1.5), slopes N(0, 0.8); transforms have no Jacobian here.
    prior = sum(
        -0.5 * (post[name].values[0] / sd) ** 2 - np.log(sd * np.sqrt(2 * np.pi))
        for name, sd in (("intercept", 1.5),)
    ).sum(axis=-1)
    theta = post["theta"].values[0] / 0.8
    prior += (-0.5 * theta**2 - np.log(0.8 * np.sqrt(2 * np.pi))).sum(axis=(1, 2))
    total = sum(tree["log_prior"][name].values[0] for name in ("intercept", "theta"))
    np.testing.assert_allclose(total, prior, rtol=1e-4)
    lp = tree["sample_stats"]["lp"].values[0]
    np.testing.assert_allclose(lp, prior + expected.sum(axis=1), rtol=1e-4)


def test_prior_group_is_the_prior(fits, data):
    posterior, info = fits["Gaussian"]
    tree = posterior.to_arviz(data=data, info=info, num_draws=4_000, groups=["prior"])
    theta = tree["prior"]["theta"].values
    assert theta.shape == (1, 4_000, 4, 3)
    assert abs(theta.std() / 0.8 - 1) < 4 / np.sqrt(2 * theta.size)
    assert abs(theta.mean()) < 4 * 0.8 / np.sqrt(theta.size)


def test_arviz_takes_the_tree(stored):
    import arviz_stats

    tree = load_posterior(stored).tree
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # 50 draws are too few for a small k-hat
        loo = arviz_stats.loo(tree)
    assert -1.5 * 150 < loo.elpd < 0


def test_many_rows_are_thinned_and_it_is_said(fits, data, monkeypatch):
    monkeypatch.setattr("cqbayes.posterior.datatree.MOST_POINTWISE", 10 * data.num_obs)
    posterior, info = fits["Draws"]
    tree = posterior.to_arviz(data=data, info=info)
    kept = tree["log_likelihood"].sizes["draw"]
    assert kept <= 10
    assert tree["posterior"].sizes["draw"] == kept, "draws of all groups are the same ones"
    assert tree.attrs["draws_kept"] == kept
    assert tree.attrs["draws_made"] == posterior.vectors.shape[1]


def test_rows_that_say_nothing_are_no_observations(data):
    """Idle rounds and padding would be constant log-likelihoods, which LOO cannot take."""
    import arviz_stats

    weight = np.ones(data.num_obs)
    weight[[3, 77]] = 0
    some = eqx.tree_at(lambda d: d.weight, data, jnp.asarray(weight, jnp.float32))
    posterior, info = infer(jax.random.key(0), disjoint_mnl(), some, engine="laplace")
    tree = posterior.to_arviz(data=some, info=info)
    assert tree["log_likelihood"].sizes["obs"] == data.num_obs - 2
    assert not set(tree["observed_data"]["obs"].values) & {3, 77}
    assert np.isfinite(arviz_stats.loo(tree).elpd)


def test_power_scaling_takes_what_hmc_gives(data):
    """Prior sensitivity needs the same draws in log_prior and log_likelihood."""
    import arviz_stats

    posterior, info = infer(jax.random.key(0), disjoint_mnl(), data, engine="hmc")
    table = arviz_stats.psense_summary(posterior.to_arviz(data=data, info=info))
    assert np.isfinite(table[["prior", "likelihood"]].to_numpy(float)).all()


def test_new_data_with_other_users(choices):
    data, _ = choices(seed=0, num_obs=30, full=True)
    model, sizes = load_model("user_mnl"), sizes_of(data)
    size = layout(model, sizes).size
    posterior = Gaussian(
        location=jnp.zeros(size), factor=0.1 * jnp.eye(size), model=model, sizes=sizes
    )
    other = eqx.tree_at(lambda d: d.user, data, jnp.zeros(30, jnp.int32))
    other = ChoiceData(
        other.context, other.offered, other.choice, other.weight, user=other.user, num_users=1
    )
    tree = posterior.to_arviz(data=other, num_draws=10, groups=["sample_stats", "log_likelihood"])
    assert np.isfinite(tree["sample_stats"]["lp"]).all()


def _changed(path: Path, change: Callable[[h5py.File], None]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def _resigned(path: Path, change: Callable[[Any], None]) -> None:
    """As a program would that writes what it believes: with the right checksum."""
    from cqbayes._tools.files import write_netcdf

    tree = load_posterior(path).tree.copy(deep=True)
    change(tree)
    tree.attrs["checksum"] = checksum(tree)
    write_netcdf(tree, path)


def test_one_changed_number_is_noticed(stored):
    for group, name in (("state", "location"), ("posterior", "theta"), ("services", "time")):
        original = stored.read_bytes()

        def change(file: h5py.File, at: str = f"{group}/{name}") -> None:
            file[at][(0,) * file[at].ndim] += 1

        _changed(stored, change)
        with pytest.raises(InputError, match="checksum is off"):
            load_posterior(stored)
        stored.write_bytes(original)
    load_posterior(stored)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "a bit": lambda group: group.assign(chosen=group["chosen"] ^ 1),
    "dimensions": lambda group: group.assign(offered=(("llm", "obs"), group["offered"].values)),
    "names": lambda group: group.rename(query="attempt", attempt="query"),
    "the name of a dimension": lambda group: group.rename(obs="row"),
    "rows": lambda group: group.isel(obs=[1, 0, 2, 3]),
    "LLMs": lambda group: group.assign(offered=group["offered"].isel(llm=[1, 0, 2, 3])),
    "a column less": lambda group: group.drop_vars("split"),
    "a column as coordinate": lambda group: group.set_coords("time"),
    "a type": lambda group: group.assign(chosen=group["chosen"].astype(np.int64)),
    "all of it": lambda group: xr.Dataset(),
}


def test_services_that_were_changed_are_noticed(fits, tmp_path):
    from cqbayes._tools.files import write_netcdf

    path = tmp_path / "fit.nc"
    save_posterior(path, *fits["Gaussian"], columns=COLUMNS)
    tree = load_posterior(path).tree
    original = tree["services"].to_dataset()
    write_netcdf(tree, path)
    load_posterior(path)  # it is the change that is refused, not that it was written again
    for what, change in CHANGES.items():
        tree["services"] = xr.DataTree(change(original))
        write_netcdf(tree, path)
        with pytest.raises(InputError, match="checksum is off"):
            pytest.fail(f"{what}: {load_posterior(path)}")
    del tree["services"]
    write_netcdf(tree, path)
    with pytest.raises(InputError, match="checksum is off"):
        load_posterior(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"texts": [1]}, "expected some of query, attempt, .*, got texts"),
        ({"query": ["a"]}, "expected query in int32 with 1 dimensions, got <U1 with 1"),
        ({"query": [0.5]}, "expected query in int32 .* a value that is not of this type"),
        ({"query": [2**40]}, "expected query in int32 .* a value that is not of this type"),
        ({"query": [[1]]}, "expected query in int32 with 1 dimensions, got int64 with 2"),
        ({"time": [np.nan]}, "expected time in int64 .* a value that is not of this type"),
        ({"query": [0, 1], "chosen": [0]}, "expected one length"),
        ({"offered": [[True] * 3]}, "expected offered for 4 LLMs"),
        ({"attempt": [1, 0]}, "expected attempt of at least 1, not so in row 1"),
        ({"chosen": [1, 5]}, "expected chosen of at most 4, not so in row 1"),
        ({"propensity": [0.5, 0.0]}, r"expected propensity in \(0, 1\], not so in row 1"),
        ({"offered": [[True, False, True, True]], "chosen": [2]}, "a chosen LLM that was offered"),
    ],
)
def test_columns_that_cannot_be_are_not_saved(fits, tmp_path, columns, message):
    with pytest.raises(InputError, match=message):
        save_posterior(tmp_path / "fit.nc", *fits["Gaussian"], columns=columns)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verdict", [{"value": np.nan}, {"value": np.ones(1)}, ["a"]])
def test_a_verdict_that_json_does_not_have_is_not_saved(fits, tmp_path, verdict):
    with pytest.raises(InputError, match="types that JSON has, and finite numbers"):
        save_posterior(tmp_path / "fit.nc", *fits["Gaussian"], verdict=verdict)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "poor_mixing"),
        ("verdict", json.dumps({**VERDICT, "ok": True})),
        ("llms", json.dumps(LLMS[::-1])),
    ],
)
def test_a_changed_attribute_is_noticed(stored, name, value):
    _changed(stored, lambda file: file.attrs.__setitem__(name, value))
    with pytest.raises(InputError, match="checksum is off"):
        load_posterior(stored)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["state"]["factor"].values.__imul__(0), "covariance that is positive definite"),
        (lambda t: t["state"]["factor"].values[:, 0].fill(0), "covariance that is positive defin"),
        (lambda t: t["state"]["location"].values.fill(np.nan), "finite numbers in location"),
        (lambda t: t.attrs.update(kind="Draws"), "expected arrays for 16 parameters"),
        (lambda t: t.attrs.update(sizes='{"num_llms": 4, "dim": 2}'), "expected arrays for 12"),
        (lambda t: t.attrs.update(model='{"name": "nope", "settings": {}}'), "model: expected one"),
        (lambda t: t.attrs.update(model='{"name": "os.system", "settings": {}}'), "model: expec"),
        (
            lambda t: t.attrs.update(model='{"name": "disjoint_mnl", "settings": {"wings": 2}}'),
            "expected settings among",
        ),
        (lambda t: t.attrs.update(format="another 3"), "expected a file of format"),
        (lambda t: t.attrs.update(status="fine"), "expected all attributes"),
        (lambda t: t.attrs.update(verdict="fine"), "expected all attributes"),
        (lambda t: t["services"]["chosen"].values.fill(3), "a chosen LLM that was offered, not so"),
        (lambda t: t["services"]["attempt"].values.fill(0), "attempt of at least 1, not so"),
    ],
)
def test_states_that_cannot_be_are_refused(stored, change, message):
    _resigned(stored, change)
    with pytest.raises(InputError, match=message) as caught:
        load_posterior(stored)
    assert "\n" not in str(caught.value)
    assert str(stored) in str(caught.value)


def test_another_model_or_other_llms_are_refused(stored):
    with pytest.raises(InputError, match=r"expected the LLMs .*'a', 'b', 'c', 'd'.*got .*small"):
        load_posterior(stored, llms=["a", "b", "c", "d"])
    with pytest.raises(InputError, match="expected a posterior of"):
        load_posterior(stored, model=disjoint_mnl(prior_sd=2.0))
    load_posterior(stored, model=disjoint_mnl(prior_sd=0.8), llms=LLMS)


def test_a_model_without_a_name_has_to_be_passed(fits, data, tmp_path):
    model = disjoint_mnl(prior_sd=0.8)._replace(name="", settings=())
    gaussian, info = fits["Gaussian"]
    mine = eqx.tree_at(lambda p: p.location, gaussian, gaussian.location)
    mine = Gaussian(mine.location, mine.factor, model, mine.sizes)
    save_posterior(tmp_path / "mine.nc", mine, info)
    with pytest.raises(InputError, match="pass the fitted model as model="):
        load_posterior(tmp_path / "mine.nc")
    assert isinstance(load_posterior(tmp_path / "mine.nc", model=model).posterior, Gaussian)
    assert isinstance(model, PreferenceModel)


def test_improper_posteriors_are_not_saved(fits, tmp_path):
    gaussian, info = fits["Gaussian"]
    flat = eqx.tree_at(lambda p: p.factor, gaussian, jnp.zeros_like(gaussian.factor))
    with pytest.raises(InputError, match="positive definite"):
        save_posterior(tmp_path / "flat.nc", flat, info)
    broken = eqx.tree_at(lambda p: p.location, gaussian, gaussian.location * np.nan)
    with pytest.raises(InputError, match="finite numbers"):
        save_posterior(tmp_path / "broken.nc", broken, info)
    assert not list(tmp_path.iterdir())


def _improper(change: str, vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.copy()
    if change == "alike":
        vectors[:] = vectors[:, :1]
    elif change == "one parameter":
        vectors[..., 3] = vectors[0, 0, 3]
    else:
        vectors[..., 3] = vectors[..., 4]
    return vectors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("alike", "draws that vary, got 16 of 16 parameters"),
        ("one parameter", "draws that vary, got 1 of 16 parameters"),
        ("one direction", "positive definite, got draws that vary in 15 of 16"),
    ],
)
def test_draws_that_do_not_vary_are_refused(fits, data, tmp_path, change, message):
    draws, info = fits["Draws"]
    assert isinstance(draws, Draws)
    broken = _improper(change, np.asarray(draws.vectors))
    with pytest.raises(InputError, match=message):
        save_posterior(
            tmp_path / "fit.nc", eqx.tree_at(lambda p: p.vectors, draws, jnp.asarray(broken)), info
        )
    save_posterior(tmp_path / "fit.nc", draws, info)

    def stale(tree: Any) -> None:
        tree["state"]["vectors"].values[:] = broken

    _resigned(tmp_path / "fit.nc", stale)
    with pytest.raises(InputError, match=message):
        load_posterior(tmp_path / "fit.nc")


def test_draws_in_a_canonical_form_may_be_dependent(tmp_path):
    """Turned factors have a symmetric block: a direction that no draw has."""
    model, sizes = load_model("low_rank_mnl"), Sizes(num_llms=4, dim=3)
    form = layout(model, sizes)
    vectors = jax.vmap(form.canonical)(jax.random.normal(jax.random.key(0), (200, form.size)))
    info = InferenceInfo("nuts", jnp.array(0), {})
    save_posterior(tmp_path / "fit.nc", Draws(vectors[None], model, sizes), info)
    stuck = vectors.at[:, 0].set(1.0)
    with pytest.raises(InputError, match="draws that vary, got 1 of"):
        save_posterior(tmp_path / "fit.nc", Draws(stuck[None], model, sizes), info)


@pytest.mark.parametrize("name", ["feature", "llm"])
def test_other_names_than_the_models_are_refused(stored, name):
    def renamed(tree: Any) -> None:
        group = tree["posterior"].dataset
        values = [f"other{i}" for i in range(group.sizes[name])]
        tree["posterior"] = xr.DataTree(group.assign_coords({name: values}))

    _resigned(stored, renamed)
    with pytest.raises(InputError, match=f"expected the coordinate {name} to be .* got .*other0"):
        load_posterior(stored)


def test_users_have_the_names_that_are_asked_for(choices, tmp_path):
    data, _ = choices(seed=0, num_obs=30, full=True)
    model, sizes = load_model("user_mnl"), sizes_of(data)
    size = layout(model, sizes).size
    posterior = Gaussian(
        location=jnp.zeros(size), factor=0.1 * jnp.eye(size), model=model, sizes=sizes
    )
    users = list("abcdef")
    info = InferenceInfo("laplace", jnp.array(0), {})
    save_posterior(tmp_path / "fit.nc", posterior, info, users=users)
    load_posterior(tmp_path / "fit.nc")
    load_posterior(tmp_path / "fit.nc", users=users)
    with pytest.raises(InputError, match=r"expected the coordinate user to be .*'f', 'a'"):
        load_posterior(tmp_path / "fit.nc", users=[*users[1:], "a"])


def test_files_that_are_no_posteriors(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_posterior(tmp_path / "nothing.nc")
    (tmp_path / "text.nc").write_text("not a posterior")
    with pytest.raises(InputError, match="in NetCDF or Zarr"):
        load_posterior(tmp_path / "text.nc")
    (tmp_path / "folder.zarr").mkdir()
    with pytest.raises(InputError, match=r"in NetCDF or Zarr|expected a file of format"):
        load_posterior(tmp_path / "folder.zarr")


def test_cut_and_huge_files(stored, monkeypatch):
    whole = stored.read_bytes()
    stored.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError):
        load_posterior(stored)
    stored.write_bytes(whole)
    monkeypatch.setattr("cqbayes.posterior.storage.MOST_BYTES", 1_000)
    with pytest.raises(InputError, match="expected at most 1000 bytes"):
        load_posterior(stored)


def test_a_failed_fit_stays_a_failed_fit(data, tmp_path):
    posterior, info = infer(
        jax.random.key(0), disjoint_mnl(), data, engine="laplace", max_iterations=1
    )
    save_posterior(tmp_path / "fit.nc", posterior, info)
    assert load_posterior(tmp_path / "fit.nc").info.verdict == Status.NOT_CONVERGED


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ["abandonment", "attempt_mnl", "drift_mnl", "low_rank_mnl"])
def test_posteriors_of_richer_models_survive_with_all_groups(name, choices, tmp_path):
    data, _ = choices(seed=0, num_obs=30, full=True)
    model, sizes = load_model(name), sizes_of(data)
    size = layout(model, sizes).size
    posterior = Gaussian(
        location=jnp.zeros(size), factor=0.1 * jnp.eye(size), model=model, sizes=sizes
    )
    info = InferenceInfo("laplace", jnp.array(0), {})
    save_posterior(tmp_path / "fit.nc", posterior, info, data=data, num_draws=20)
    found = load_posterior(tmp_path / "fit.nc")
    assert found.posterior.model == model
    assert {"posterior", *GROUPS} <= set(found.tree.children)
    dims = layout(model, sizes).dims
    for site, values in found.tree["posterior"].data_vars.items():
        assert values.dims == ("chain", "draw", *dims[str(site)])
        assert not any(dim.startswith(f"{site}_dim") for dim in values.dims), "all are named"
    for group in ("posterior", "prior", "log_likelihood", "log_prior"):
        for values in found.tree[group].data_vars.values():
            assert np.isfinite(values).all(), (group, values.name)
