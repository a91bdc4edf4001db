"""What is printed of a fit and what programs read of it are the same, and in the right words."""

import json

import numpy as np
import pytest

import cqbayes
from cqbayes.logs.describe import (
    acceptances_of,
    describe_fit,
    describe_log,
    fit_as_dict,
)
from cqbayes.logs.fit import Fitted, fit_to, model_for
from cqbayes.logs.read import Log

NUM = 400


@pytest.fixture(scope="module")
def repeated() -> Fitted:
    """Half of the services are second attempts, which fail more often; all else is alike."""
    rng = np.random.default_rng(1)
    attempt = 1 + np.arange(NUM) % 2
    taken = rng.random(NUM) < np.where(attempt == 1, 0.8, 0.3)
    data = cqbayes.choice_data(
        np.ones((NUM, 1)), np.ones((NUM, 1), bool), np.where(taken, 1, 0), attempt=attempt
    )
    log = Log(data, ("a",), query=np.arange(NUM) // 2)
    return fit_to(log, model_for(log), engine="laplace")


@pytest.fixture(scope="module")
def silent() -> Fitted:
    """A third of the outcomes are not known; of the others half are taken."""
    choice = np.arange(NUM) % 3 - 1
    data = cqbayes.choice_data(np.ones((NUM, 1)), np.ones((NUM, 1), bool), choice)
    log = Log(data, ("a",), query=np.arange(NUM))
    return fit_to(log, model_for(log), engine="laplace")


def test_a_fresh_query_comes_first_and_all_services_second(repeated):
    found = acceptances_of(repeated)
    assert found.bounds is None
    assert float(found.fresh["overall_mean"][0]) == pytest.approx(0.8, abs=0.07)
    assert float(found.services["overall_mean"][0]) == pytest.approx(0.55, abs=0.05)
    lines = describe_fit(repeated, found)
    fresh = lines.index("of a fresh query, at its first attempt, one row a query")
    every = lines.index("over all services")
    assert fresh < every
    assert f"{float(found.fresh['overall_mean'][0]):.3f}" in lines[fresh + 3]
    assert f"{float(found.services['overall_mean'][0]):.3f}" in lines[every + 3]


def test_the_verdict_on_the_data_stands_beside_the_samplers(repeated):
    lines = describe_fit(repeated, acceptances_of(repeated))
    at = lines.index(str(repeated.info))
    assert lines[at + 2] == str(repeated.data)
    assert "note: 400 services are of 200 queries" in lines[at + 2]


def test_what_is_not_known_has_bounds(silent):
    found = acceptances_of(silent)
    assert found.services is None
    said = fit_as_dict(silent, found)["acceptance"]
    mean = {case: said["bounds"][case][0]["mean"] for case in said["bounds"]}
    assert mean == {
        "taken": pytest.approx(2 / 3, abs=0.03),
        "not taken": pytest.approx(1 / 3, abs=0.03),
        "dropped": pytest.approx(1 / 2, abs=0.03),
    }
    lines = describe_fit(silent, found)
    at = lines.index("of a fresh query, if all that is not known were")
    assert lines[at + 1].split() == ["taken", "not", "taken", "dropped"]
    assert [float(number) for number in lines[at + 2].split()[1:]] == pytest.approx(
        list(mean.values()), abs=6e-4
    )
    assert "no sign: 134" in describe_log(silent.log)


def test_what_programs_read_is_json_and_says_the_same(repeated):
    found = acceptances_of(repeated)
    said = json.loads(json.dumps(fit_as_dict(repeated, found), allow_nan=False))
    assert said["ok"] == repeated.ok
    assert said["data"] == repeated.data.to_dict()
    assert said["sampler"]["engine"] == "laplace"
    assert said["sampler"]["ok"] == repeated.info.ok
    assert said["model"] == repr(repeated.posterior.model)
    taken = int((np.asarray(repeated.log.data.choice) == 1).sum())
    assert said["counts"] == {
        "records": None,
        "requests": None,
        "turns": None,
        "services": NUM,
        "queries": NUM // 2,
        "retried": NUM - taken,
        "not_known": 0,
        "llms": [{"llm": "a", "offered": NUM, "taken": taken}],
    }
    assert said["acceptance"]["bounds"] is None
    (row,) = said["acceptance"]["fresh"]
    assert set(row) == {"llm", "mean", "lower", "upper"}
    assert row["lower"] < row["mean"] < row["upper"]


def test_numbers_that_json_does_not_have_are_null(repeated):
    from cqbayes.posterior.info import InferenceInfo

    info = InferenceInfo("nuts", repeated.info.status, {"khat": np.array(np.nan)})
    said = fit_as_dict(repeated._replace(info=info), acceptances_of(repeated))
    assert said["sampler"]["stats"] == {"khat": None}
