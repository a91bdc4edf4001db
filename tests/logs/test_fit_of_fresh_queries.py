"""What a fit says of fresh queries, and the channels through which a log shows what users do."""

import json

import jax
import numpy as np
import pytest

from cqbayes.errors import InputError
from cqbayes.logs.fit import default_model, fit, fit_to, learnt_rates, model_for
from cqbayes.logs.read import TextOptions, TurnOptions, read_log
from cqbayes.logs.retrials.detector import CLASSES, load_detector
from cqbayes.logs.retrials.next_requests import NextRequests
from cqbayes.predict.predictions import acceptance
from cqbayes.preference import load_model

CONSTANT = TextOptions(encoder="constant")


def services(path, acceptance, *, queries=400, hard=0.0, silent=0.0, leaves=0.0, seed=0):
    """A simulated table: queries are asked until an answer is taken, half of them hard.

    Args:
        path: where it is written.
        acceptance: of each LLM.
        hard: by how much less, in log-odds, an LLM's answer to a hard query is taken.
        silent: share of acceptances that do not show.
        leaves: share of the unhappy who leave in silence.
    """
    rng = np.random.default_rng(seed)
    logit = np.log(np.array(acceptance) / (1 - np.array(acceptance)))
    rows = []
    for query in range(queries):
        is_hard = rng.random() < 0.5
        for attempt in range(1, 30):
            llm = rng.integers(len(acceptance))
            taken = rng.random() < 1 / (1 + np.exp(hard * is_hard - logit[llm]))
            ends = taken or rng.random() < leaves
            unseen = ends and (not taken or rng.random() < silent)
            rows.append(
                {
                    "query_id": str(query), "attempt": attempt, "offered": [f"llm{llm}"],
                    "chosen": f"llm{llm}" if taken and not unseen else None, "silent": bool(unseen),
                    "embedding": [1.0, 0.0] if is_hard else [0.0, 1.0],
                }
            )  # fmt: skip
            if ends:
                break
    path.write_text("\n".join(map(json.dumps, rows)))
    return path, rows


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    path = tmp_path_factory.mktemp("hard") / "log.jsonl"
    return *services(path, (0.8, 0.6), hard=2.5, queries=600), fit(path, engine="laplace")


def test_a_query_counts_once_however_often_it_was_asked(hard):
    _, rows, fitted = hard
    assert len(rows) > 1.3 * 600
    contexts = np.array([[1.0, 0.0], [0.0, 1.0]])
    hard_ones = [row["embedding"][0] == 1.0 for row in rows if row["attempt"] == 1]
    each = fitted.acceptance(contexts, attempt=[1, 1])["mean"].transpose("query", "llm").values
    share = np.mean(hard_ones)
    expected = share * each[0] + (1 - share) * each[1]
    fresh = fitted.acceptance()
    np.testing.assert_allclose(fresh["overall_mean"], expected, atol=0.01)
    assert fresh.sizes["query"] == 600
    every = fitted.acceptance(fresh=False)
    assert every.sizes["query"] == len(rows)
    assert (every["overall_mean"] < fresh["overall_mean"] - 0.02).all()


def test_fresh_queries_are_at_their_first_attempt(hard):
    _, _, fitted = hard
    first = fitted.log.first_attempts
    assert np.asarray(fitted.log.data.attempt)[first].tolist() == [1] * 600
    assert len(set(fitted.log.query[first].tolist())) == 600


def test_the_default_model_knows_the_attempt_where_queries_repeat(hard, tmp_path):
    assert hard[2].posterior.model.name == "attempt_mnl"
    path, _ = services(tmp_path / "log.jsonl", (0.99,), queries=5)
    log = read_log(path)
    assert default_model(log).name == "disjoint_mnl"
    shown = log._replace(next_requests=NextRequests(load_detector(), np.ones(CLASSES, int)))
    assert default_model(shown) == load_model("disjoint_mnl"), "nothing hangs on a score"


def test_channels_are_around_any_model(tmp_path):
    path, _ = services(tmp_path / "log.jsonl", (0.8, 0.5), silent=0.5, queries=50)
    log = read_log(path)
    found = model_for(log)
    assert (found.name, dict(found.settings)["base"].name) == ("abandonment", "attempt_mnl")
    inferred = model_for(log._replace(inferred=0.5), "disjoint_mnl")
    assert inferred.name == "misclassified"
    inside = dict(inferred.settings)["base"]
    assert (inside.name, dict(inside.settings)["base"].name) == ("abandonment", "disjoint_mnl")
    trusted = model_for(log._replace(inferred=0.5), trust_labels=True)
    assert trusted.name == "abandonment"
    scored = log._replace(next_requests=NextRequests(load_detector(), np.ones(4, int)))
    assert model_for(scored).name == "abandonment", "no request was scored"


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    path = tmp_path_factory.mktemp("silent") / "log.jsonl"
    services(path, (0.8, 0.5), silent=0.8, leaves=0.3, queries=1_500)
    return fit(path, engine="laplace", text=CONSTANT)


def test_silence_is_neither_taken_nor_dropped(silent):
    """Each special case is biased its own way, and the truth lies between."""
    found = silent.acceptance()["overall_mean"].values
    bounds = silent.bounds()["overall_mean"]
    low, high = (bounds.sel(silence=name).values for name in ("not taken", "taken"))
    dropped = bounds.sel(silence="dropped").values
    assert (low < found).all()
    assert (found < high).all()
    assert (dropped < found - 0.02).all()
    interval = silent.acceptance(seed=1)["overall_interval"].transpose("llm", "ci_bound").values
    for truth, (lower, upper) in zip((0.8, 0.5), interval, strict=True):
        assert lower - 0.03 < truth < upper + 0.03


def test_without_silence_there_are_no_bounds(hard):
    assert hard[2].bounds() is None


def test_rates_are_learnt_where_llms_differ_and_said_where_they_are_not(silent, tmp_path):
    ratios = {name: after / before for name, before, after in learnt_rates(silent.posterior)}
    assert set(ratios) == {"leaves", "goes_on"}
    assert max(ratios.values()) < 0.6
    assert "rate_not_learnt" not in [found.name for found in silent.data.doubts]
    path, _ = services(tmp_path / "log.jsonl", (0.7,), silent=1.0, leaves=1.0, queries=3)
    few = fit(path, engine="laplace", text=CONSTANT)
    assert "rate_not_learnt" in [found.name for found in few.data.doubts]
    assert not few.ok


def test_a_model_of_its_own_is_fitted_as_it_is(hard):
    log = hard[2].log
    model = model_for(log, "disjoint_mnl")
    fitted = fit_to(log, model, engine="laplace")
    assert fitted.posterior.model.name == "disjoint_mnl"
    at = log.data.only(()).situation
    at = jax.tree.map(lambda column: column[log.first_attempts], at)
    own = acceptance(jax.random.key(0), fitted.posterior, at)
    np.testing.assert_allclose(own["overall_mean"], fitted.acceptance()["overall_mean"])


def test_a_log_of_which_much_is_set_aside_is_refused(tmp_path):
    path, rows = services(tmp_path / "log.jsonl", (0.8,), queries=30)
    broken = [{**row, "attempt": 0} for row in rows[:20]]
    path.write_text("\n".join(map(json.dumps, [*rows, *broken])))
    with pytest.raises(InputError, match="at most 20% of the records to be set aside, got 20 of"):
        read_log(path)
    assert read_log(path, most_set_aside=0.5).facts.set_aside == 20


def test_signs_are_one_of_three(tmp_path):
    path, _ = services(tmp_path / "log.jsonl", (0.8,), queries=3)
    line = {"model": "m", "id": "c", "messages": [{"role": "user", "content": "Why?"}]}
    path.write_text(json.dumps(line))
    with pytest.raises(InputError, match="expected one of scored, threshold, explicit, got 'none'"):
        read_log(path, format="openai_chat", turns=TurnOptions(signs="none"), text=CONSTANT)
