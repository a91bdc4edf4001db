"""Choice data survive Parquet, with all their columns."""

import jax
import numpy as np
import pytest

from cqbayes.choice.data import choice_data
from cqbayes.errors import InputError
from cqbayes.logs.choice_files import read_choices, write_choices


def _full(rng: np.random.Generator, num_obs: int = 20):
    return choice_data(
        rng.normal(size=(num_obs, 3)),
        np.ones((num_obs, 2), bool),
        rng.integers(-1, 3, num_obs),
        rng.random(num_obs),
        attributes=rng.normal(size=(num_obs, 2, 4)),
        user=rng.integers(0, 5, num_obs),
        attempt=rng.integers(1, 4, num_obs),
        time=rng.integers(0, 6, num_obs),
    )


def test_all_columns_come_back(tmp_path):
    data = _full(np.random.default_rng(0))
    write_choices(tmp_path / "log.parquet", data, ["a", "b"], note="simulated")
    again, llms = read_choices(tmp_path / "log.parquet")
    assert llms == ["a", "b"]
    assert (again.num_users, again.num_times) == (data.num_users, data.num_times)
    for one, other in zip(jax.tree.leaves(data), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_columns_that_are_absent_stay_absent(tmp_path):
    data = _full(np.random.default_rng(1)).only(["attempt"])
    write_choices(tmp_path / "log.parquet", data, ["a", "b"], note="simulated")
    again, _ = read_choices(tmp_path / "log.parquet")
    assert again.user is None
    assert again.attributes is None
    np.testing.assert_array_equal(again.attempt, data.attempt)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user", [0.5] * 4, "user: expected 4 integers"),
        ("user", [0, 1, 2, -1], "user: expected 0 to .*, got -1 in row 3"),
        ("attempt", [1, 1, 0, 1], "attempt: expected 1 to .*, got 0 in row 2"),
        ("time", [0, 1, 10**9, 1], "time: expected 0 to .*, got 1000000000 in row 2"),
        ("attributes", np.zeros((4, 3, 2)), r"attributes: expected shape \(4, 2, num_attributes\)"),
        ("attributes", np.full((4, 2, 1), np.nan), "attributes: expected finite numbers"),
        ("attributes", np.zeros(4), "attributes: expected shape"),
    ],
)
def test_bad_columns_are_named(column, values, message):
    with pytest.raises(InputError, match=message):
        choice_data(np.zeros((4, 1)), np.ones((4, 2), bool), np.zeros(4, int), **{column: values})
