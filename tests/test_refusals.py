"""What cannot be meant is refused in one line, before the work."""

import jax
import numpy as np
import pytest
from cqbayes.models.abandonment import abandonment
from cqbayes.models.attempt_mnl import attempt_mnl
from cqbayes.models.disjoint_mnl import disjoint_mnl
from cqbayes.models.low_rank_mnl import low_rank_mnl
from cqbayes.models.misclassified import misclassified
from cqbayes.models.user_mnl import user_mnl

from cqbayes.choice.data import choice_data
from cqbayes.errors import InputError
from cqbayes.inference.infer import infer
from cqbayes.posterior.storage import load_posterior, save_posterior
from cqbayes.preference import layout, load_model, sizes_of

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def data(choices):
    return choices(seed=0, num_obs=40, full=True)[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: disjoint_mnl(prior_sd=-1.0), "expected prior_sd to be a positive number, got -1"),
        (lambda: disjoint_mnl(prior_sd=0), "expected prior_sd to be a positive number, got 0"),
        (lambda: disjoint_mnl(prior_sd=np.inf), "expected prior_sd to be a positive number"),
        (lambda: disjoint_mnl(prior_sd=np.ones(2)), "expected prior_sd to be a positive number"),
        (lambda: disjoint_mnl(intercept="no"), "expected intercept to be True or False"),
        (lambda: disjoint_mnl(wings=2), "disjoint_mnl: expected settings among prior_sd"),
        (lambda: low_rank_mnl(rank=1.5), "expected rank to be a positive integer, got 1.5"),
        (lambda: attempt_mnl(levels=1), "expected levels of 2 or more"),
        (lambda: abandonment(leaves=(0, 0)), "expected leaves to be the two positive numbers"),
        (lambda: abandonment(leaves=(1.0, 2.0, 3.0)), "expected leaves to be the two positive"),
        (lambda: abandonment(leaves=-0.3), "the sd of an angle, got -0.3"),
        (lambda: abandonment("disjoint_mnl"), "expected base to be a model"),
        (lambda: abandonment(goes_on=(1.0, 1.0, 1.0)), "goes_on to be a probability"),
    ],
)
def test_settings_of_models(make, message):
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_settings_come_in_any_form():
    assert abandonment(leaves=[2.0, 4.0]) is abandonment(leaves=(2.0, 4.0))
    assert disjoint_mnl(prior_sd=np.float32(1)) == disjoint_mnl(prior_sd=1.0)


def test_a_wrapper_does_not_go_on_twice(data):
    with pytest.raises(InputError, match=r"user_mnl\(.*unique names.*user_sd"):
        layout(user_mnl(user_mnl()), sizes_of(data))
    layout(misclassified(abandonment(user_mnl())), sizes_of(data))  # each once is fine


@pytest.mark.parametrize(
    ("engine", "settings", "message"),
    [
        ("hmc", {"num_draws": 0}, "num_draws to be an integer of at least 4, got 0"),
        ("hmc", {"num_leapfrogs": 0}, "num_leapfrogs to be an integer of at least 1"),
        ("hmc", {"num_burn_in": -3}, "num_burn_in to be an integer of at least 0"),
        ("nuts", {"num_chains": 0}, "num_chains to be an integer of at least 1"),
        ("nuts", {"target_accept": 0.0}, "target_accept between 0 and 1, got 0.0"),
        ("nuts", {"target_accept": 1.0}, "target_accept between 0 and 1, got 1.0"),
        ("nuts", {"dense_mass": "x"}, "dense_mass to be True or False"),
        ("laplace", {"num_draws": 300}, r"at least 25 and at least least_ess \(400\)"),
        ("laplace", {"max_iterations": "a"}, "max_iterations to be an integer"),
        ("svi", {"batch_size": 0}, "batch_size to be an integer of at least 1"),
        ("svi", {"learning_rate": np.nan}, "learning_rate to be a finite number"),
        ("online", {"growth": 0.5}, "growth: expected a factor above 1"),
        ("online", {"growth": np.nan}, "growth to be a finite number"),
        ("online", {"first": 0}, "first to be an integer of at least 1"),
    ],
)
def test_settings_of_engines(engine, settings, message, data):
    with pytest.raises(InputError, match=message):
        infer(KEY, disjoint_mnl(), data, engine=engine, **settings)


@pytest.mark.parametrize("key", [0, None, "key"])
def test_what_is_no_key(key, data):
    with pytest.raises(InputError, match="key: expected one JAX key"):
        infer(key, disjoint_mnl(), data, engine="laplace")


def test_what_is_no_start(data):
    found = infer(KEY, disjoint_mnl(), data, engine="laplace")
    with pytest.raises(InputError, match="start: expected a posterior, got tuple"):
        infer(KEY, disjoint_mnl(), data, engine="laplace", start=found)
    with pytest.raises(InputError, match=r"prior_sd=2.0.*got one of disjoint_mnl\(prior_sd=1.0"):
        infer(KEY, disjoint_mnl(prior_sd=2.0), data, engine="laplace", start=found[0])


def test_too_many_parameters_for_a_matrix(data):
    wide = choice_data(np.zeros((3, 30_000)), np.ones((3, 1), bool), [0, 1, 1])
    for engine in ("laplace", "hmc", "svi"):
        with pytest.raises(InputError, match=r"at most 20000 parameters.*got 30001"):
            infer(KEY, disjoint_mnl(), wide, engine=engine)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"context": np.zeros((4, 0))}, "context: expected at least one dimension"),
        ({"offered": [[True], [True, False]] * 2}, "offered: expected rows of one length"),
        ({"choice": [[0], [0, 1]] * 2}, "choice: expected rows of one length"),
        ({"context": np.ma.masked_greater(np.eye(4), 0)}, "context: expected plain numbers"),
        ({"context": np.eye(4) * 1j}, "context: expected plain numbers"),
        ({"user": list("abca")}, "user: expected 4 integers.*pandas.factorize"),
        ({"attributes": np.zeros((2, 0))}, "attributes: expected shape"),
    ],
)
def test_columns_of_choices(columns, message):
    good = {"context": np.eye(4), "offered": np.ones((4, 2), bool), "choice": [0, 1, 2, 0]}
    with pytest.raises(InputError, match=message):
        choice_data(**good | columns)


@pytest.mark.parametrize("name", ["user_mnl", "drift_mnl"])
def test_new_users_and_times_are_predicted(name, data):
    """Those of the fit are known; others are what the model's docstring says."""
    model = load_model(name)
    posterior, _ = infer(KEY, model, data, engine="svi", max_blocks=1, block_steps=10)
    rows = (data.context[:5], data.offered[:5], np.zeros(5, int))
    later = choice_data(*rows, user=[50] * 5, time=[99] * 5)
    tree = posterior.to_arviz(data=later, num_draws=20, groups=["log_likelihood"])
    assert np.isfinite(tree["log_likelihood"]["choice"]).all()
    with pytest.raises(InputError, match="expected data with the column"):
        posterior.to_arviz(data=choice_data(*rows))


def test_silence_is_not_predicted_by_a_model_without_it(data):
    posterior, info = infer(KEY, disjoint_mnl(), data, engine="laplace")
    silent = choice_data(data.context, data.offered, np.full(40, -1))
    with pytest.raises(InputError, match="40 rows of silence"):
        posterior.to_arviz(data=silent, info=info)


def test_other_folders_and_files_are_not_replaced(data, tmp_path):
    posterior, info = infer(KEY, disjoint_mnl(), data, engine="laplace")
    folder, file = tmp_path / "data.zarr", tmp_path / "file.zarr"
    folder.mkdir()
    (folder / "keep.txt").write_text("mine")
    file.write_text("mine")
    for path in (folder, file):
        with pytest.raises(InputError):
            save_posterior(path, posterior, info)
    assert (folder / "keep.txt").read_text() == file.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.zarr", "file.zarr"]
    with pytest.raises(InputError, match=r"ends in .nc or .zarr"):
        save_posterior(tmp_path / "a.pkl", posterior, info)
    with pytest.raises(InputError, match="expected a path, a posterior and its info"):
        save_posterior(tmp_path / "a.nc", info, posterior)


def test_stand_ins_of_failed_fits_are_not_saved(data, tmp_path):
    posterior, info = infer(KEY, low_rank_mnl(), data, engine="laplace")
    if info.ok:
        pytest.fail("a rotation leaves no peak: this fit cannot be good")
    with pytest.raises(InputError, match="a failed fit is not saved"):
        save_posterior(tmp_path / "fit.nc", posterior, info)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="model: expected a PreferenceModel, got str"):
        load_posterior(tmp_path / "fit.nc", model="disjoint_mnl")
