"""A fit is written whole: its posterior, what is said of its data, and no user's identifier."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cqbayes
from cqbayes.diagnostics.data_verdict import DataVerdict
from cqbayes.errors import InputError
from cqbayes.logs.fit import Fitted, fit_to
from cqbayes.logs.predictions import kept_columns, predict_file, save_fit
from cqbayes.logs.read import Log
from cqbayes.preference import load_model

USERS = ("ann@example.org", "bob@example.org", "zoe@example.org")
NUM = 90


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    """Ann takes most answers, Bob few; the last rows are nobody's."""
    rng = np.random.default_rng(0)
    user = np.where(np.arange(NUM) < 80, np.arange(NUM) % 3, 3)
    taken = rng.random(NUM) < np.array([0.95, 0.1, 0.5, 0.5])[user]
    data = cqbayes.choice_data(
        np.ones((NUM, 1)),
        np.eye(2, dtype=bool)[np.arange(NUM) % 2],
        np.where(taken, np.arange(NUM) % 2 + 1, 0),
        user=np.minimum(user, 2),
        attempt=1 + np.arange(NUM) % 2,
    )
    columns = {"user": user.astype(np.int32), "num_users": 3}
    data = type(data)(**{**data.__dict__, **columns})
    log = Log(
        data,
        ("a", "b"),
        USERS,
        query=np.arange(NUM) // 2,
        propensity=np.where(np.arange(NUM) == 5, np.nan, 0.5),
        seconds=np.where(np.arange(NUM) == 7, np.nan, 1_700_000_000.9 + np.arange(NUM)),
    )
    return fit_to(log, load_model("user_mnl"), engine="laplace")


def test_the_columns_of_a_log_are_kept_with_its_posterior(fitted, tmp_path):
    save_fit(tmp_path / "fit.nc", fitted, seed=0, data=None)
    stored = cqbayes.load_posterior(tmp_path / "fit.nc", llms=["a", "b"])
    assert DataVerdict.from_dict(stored.verdict) == fitted.data
    kept, data = stored.columns, fitted.log.data
    np.testing.assert_array_equal(kept["offered"], data.offered)
    np.testing.assert_array_equal(kept["chosen"], data.choice)
    np.testing.assert_array_equal(kept["attempt"], data.attempt)
    np.testing.assert_array_equal(kept["query"], fitted.log.query)
    np.testing.assert_array_equal(kept["propensity"], fitted.log.propensity)
    np.testing.assert_array_equal(kept["user"], [*(np.arange(80) % 3), *[-1] * 10])
    assert kept["time"].values[:8].tolist() == [*(1_700_000_000 + np.arange(7)), -1]
    assert not kept["split"].any()


def test_what_is_not_known_is_not_kept():
    data = cqbayes.choice_data([[1.0]], [[True]], [1])
    unknown = Log(data, ("a",), propensity=np.array([np.nan]), seconds=np.array([np.nan]))
    assert set(kept_columns(unknown)) == {"offered", "chosen", "split"}


def test_no_row_of_the_log_need_be_kept(fitted, tmp_path):
    save_fit(tmp_path / "fit.nc", fitted, data=None, columns=None)
    stored = cqbayes.load_posterior(tmp_path / "fit.nc")
    assert stored.columns is None
    assert set(stored.tree.children) == {"posterior", "state"}
    assert DataVerdict.from_dict(stored.verdict) == fitted.data


@pytest.mark.parametrize("users", ["hash", "drop", "keep"])
def test_no_identifier_of_a_user_is_in_any_file(fitted, tmp_path, users):
    saved = save_fit(tmp_path / "fit.nc", fitted, users=users)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == sorted(path for path in saved if path is not None)
    holding = [path for path in files if any(user.encode() in path.read_bytes() for user in USERS)]
    assert holding == ([saved.codes] if users == "keep" else [])


def test_predictions_find_users_by_their_digests(fitted, tmp_path):
    save_fit(tmp_path / "fit.nc", fitted, data=None)
    asked = ["bob@example.org", "ann@example.org", "who@example.org", None]
    table = pa.table({"embedding": [[1.0]] * 4, "user_id": asked})
    pq.write_table(table, tmp_path / "asked.parquet")
    _, each = predict_file(tmp_path / "fit.nc", tmp_path / "asked.parquet")
    mean = each["mean"].to_numpy().reshape(4, 2)
    expected = fitted.acceptance(np.ones((4, 1)), user=np.array([1, 0, 3, 3]), seed=0)
    np.testing.assert_allclose(mean, expected["mean"], atol=0.05)  # other draws
    assert (mean[0] + 0.2 < mean[2]).all()
    assert (mean[2] + 0.1 < mean[1]).all()
    np.testing.assert_array_equal(mean[2], mean[3])
    assert isinstance(each, pd.DataFrame)


def test_predictions_without_users_are_for_a_user_as_yet_unknown(fitted, tmp_path):
    save_fit(tmp_path / "fit.nc", fitted, users="drop", data=None)
    for user, found in ((None, True), ("ann@example.org", False)):
        rows = [{"embedding": [1.0], "user_id": user}]
        (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)))
        if found:
            _, each = predict_file(tmp_path / "fit.nc", tmp_path / "asked.jsonl")
            assert len(each) == 2
        else:
            with pytest.raises(InputError, match="expected no user in user_id"):
                predict_file(tmp_path / "fit.nc", tmp_path / "asked.jsonl")


def test_an_unknown_way_to_write_users_is_refused_before_anything_is_written(fitted, tmp_path):
    with pytest.raises(InputError, match="users: expected one of hash, keep, drop, got 'md5'"):
        save_fit(tmp_path / "fit.nc", fitted, users="md5")
    assert not list(tmp_path.iterdir())
