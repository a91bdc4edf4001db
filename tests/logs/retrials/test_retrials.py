"""The detector of retrials: features by hand, recovery, calibration, files, the shipped one."""

import json
from datetime import UTC, datetime, timedelta

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import ROOT
from scipy import stats
from scipy.special import expit, logit

from cqbayes.datasets.files import data_folder
from cqbayes.errors import InputError
from cqbayes.logs.retrials.detector import Detector, at_prevalence, fit_detector, fit_logistic
from cqbayes.logs.retrials.detector_files import load_detector, save_detector
from cqbayes.logs.retrials.error_rates import Errors, error_rates
from cqbayes.logs.retrials.pairs import FEATURES, features, pairs
from cqbayes.logs.schema import TURNS
from cqbayes.preference import model_factory

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
SHIPPED = ROOT / "cqbayes" / "logs" / "retrials" / "detector.json"


def _turns(*texts: str | None, seconds: float | None = 60, **known) -> pa.Table:
    rows = [
        {
            "session_id": "a",
            "turn": i,
            "model": "m",
            "text": text,
            "timestamp": None if seconds is None else NOON + timedelta(seconds=seconds * i),
            "repeated": False,
            **{name: values[i] for name, values in known.items()},
        }
        for i, text in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows, TURNS)


def _look(*texts: str | None, **known) -> dict[str, float]:
    found = pairs(_turns(*texts, **known)).features
    assert found.shape == (1, len(FEATURES))
    return dict(zip(FEATURES, found[0].tolist(), strict=True))


# Features


def test_similarities_by_hand():
    # The longest common subsequence of abcd and abxd is abd: 2 * 3 of 8 letters.
    assert _look("abcd", "abxd")["edit"] == pytest.approx(0.75)
    assert _look("abcd", "abxd")["close"] == pytest.approx(0.05 / 0.3)
    turned = _look("sort  a LIST", "list\na sort")
    assert turned["tokens"] == turned["close"] == 1
    assert turned["edit"] == pytest.approx(2 * 7 / 22)  # "st a st"
    same = _look("Why?\t\n", " why? ")
    assert same["edit"] == same["tokens"] == same["close"] == 1
    other = _look("abc", "xyz")
    assert other["edit"] == other["tokens"] == other["close"] == 0
    assert _look("x" * 2_000 + "a" * 9, "x" * 2_000 + "b" * 9)["edit"] == 1


@pytest.mark.parametrize(
    ("seconds", "gap"), [(60, 60), (0, 1), (-5, 1), (1_800, 1_800), (86_400, 1_800)]
)
def test_gaps_and_lengths(seconds, gap):
    look = _look("Why?", "Why not?", seconds=seconds)
    assert look["gap"] == pytest.approx(np.log(gap))
    assert look["length"] == pytest.approx(np.log(9))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Wrong.", {"complaint"}),
        ("that's not right", {"complaint"}),
        ("It doesn't work", {"complaint"}),
        ("doesnt work", {"complaint"}),
        ("does not work", {"complaint"}),
        ("the test fails", {"complaint"}),
        ("still the old result", {"complaint"}),
        ("without numpy please", {"amendment"}),
        ("I meant a tuple", {"amendment"}),
        ("it should be 3", {"amendment"}),
        ("thanks", {"onward"}),
        ("now sort them", {"onward"}),
        ("NameError: name 'x' is not defined", {"fault"}),
        ("Traceback (most recent call last):", {"fault"}),
        ("how does mistaken identity arise in distilled spirits", set()),
        ("what is known of shoulders", set()),
        ("x" * 300 + " wrong", set()),
    ],
)
def test_phrases(text, said):
    look = _look("How?", text)
    phrases = ("complaint", "amendment", "onward", "fault")
    assert {name for name in phrases if look[name]} == said


def test_english_phrases_are_not_looked_for_in_other_languages():
    for language in ("English", "en", "en-US", "EN_gb", None):
        assert _look("How?", "wrong", language=[None, language])["complaint"] == 1
    other = _look("Comment ?", "wrong, TypeError: x", language=["French", "French"])
    assert np.isnan([other[name] for name in ("complaint", "amendment", "onward")]).all()
    assert other["fault"] == 1
    assert np.isnan(_look("Hvordan?", "wrong", language=["Danish", "Enets"])["complaint"])


def test_what_is_not_known_is_nan():
    look = _look("Why?", None, seconds=None)
    nan = [name for name, value in look.items() if np.isnan(value)]
    assert nan == ["edit", "tokens", "close", "gap", "length", "complaint", "amendment",
                   "onward", "fault"]  # fmt: skip
    assert np.isnan(_look(None, "wrong")["edit"])
    assert _look(None, "wrong")["complaint"] == 1


def test_pairs_stay_in_sessions_and_pass_over_what_failed():
    table = _turns("a", "b", "c", "d", "e", failed=[None, True, False, False, True])
    table = table.set_column(0, "session_id", pa.array(["x", "x", "x", "y", "y"]))
    found = pairs(table)
    assert (found.first.tolist(), found.second.tolist()) == ([0], [2])
    assert pairs(table[:0]).features.shape == (0, len(FEATURES))
    assert pairs(table[:1]).features.shape == (0, len(FEATURES))
    with pytest.raises(InputError, match=r"turns: expected columns .*; no text"):
        pairs(table.drop_columns(["text"]))


def test_pairs_of_two_lengths_and_a_missing_extra(monkeypatch):
    batch = _turns("a", "b").to_batches()[0]
    with pytest.raises(InputError, match="as many first turns as second ones, got 2 and 1"):
        features(batch, batch[:1])
    monkeypatch.setattr("cqbayes.logs.retrials.pairs.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"expected the extra logs; pip install"):
        features(batch, batch)


# The regression. Simulated pairs, whose labels follow a known one.


def _simulated(seed: int, num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=len(FEATURES) + 1)
    values = rng.normal(2, 3, size=(num, len(FEATURES)))
    chance = expit(weights[0] + (values - 2) / 3 @ weights[1:])
    return values, rng.random(num) < chance, weights


def test_recovery_of_a_known_regression(key):
    values, retrial, weights = _simulated(1, 2_000)
    one = fit_logistic(key, values, retrial)
    z = (one.mean - weights) / np.sqrt(np.diag(one.covariance))
    assert np.abs(z).max() < 4
    assert stats.chi2.sf(np.sum(z**2), len(z)) > 1e-3
    assert one.centre == pytest.approx(values.mean(axis=0))
    assert one.prevalence == pytest.approx(retrial.mean())


def test_probabilities_are_calibrated_where_the_truth_is_simulated(key):
    """Truths are drawn from the prior, so that means over the posterior are right on average."""
    said, seen = [], []
    for seed in range(40):
        values, retrial, _ = _simulated(100 + seed, 260)
        train = np.arange(260) < 60
        one = fit_logistic(jax.random.fold_in(key, seed), values, retrial, weight=train)
        said.append(one.probability(values[~train]))
        seen.append(retrial[~train])
    said, seen = np.array(said), np.array(seen, float)
    for low, high in ((0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1)):
        inside = (said >= low) & (said < high)
        gap = np.sum((seen - said) * inside, axis=1)  # a truth is one piece of evidence
        assert abs(gap.mean()) < 3.5 * gap.std(ddof=1) / np.sqrt(len(gap)), (low, high)


def test_the_mean_over_the_posterior_is_that_of_draws():
    one = load_detector().plain
    rng = np.random.default_rng(0)
    values = one.centre + one.scale * rng.normal(size=(50, len(FEATURES)))
    draws = rng.multivariate_normal(one.mean, 9 * one.covariance, 20_000)
    z = np.concatenate([np.ones((50, 1)), (values - one.centre) / one.scale], axis=1)
    exact = expit(z @ draws.T).mean(axis=1)
    wide = one._replace(covariance=9 * one.covariance)
    assert wide.probability(values) == pytest.approx(exact, abs=0.02)
    assert np.abs(one.probability(values) - 0.5).mean() > np.abs(exact - 0.5).mean()


def test_pairs_of_weight_zero_are_not_seen(key):
    values, retrial, _ = _simulated(2, 200)
    weight = np.arange(200) < 100
    spoiled = np.where(weight[:, None], values, np.nan)
    one, other = (fit_logistic(key, v, retrial, weight=weight) for v in (values, spoiled))
    assert one.mean == pytest.approx(other.mean, abs=1e-6)
    assert one.centre == pytest.approx(values[:100].mean(axis=0))


@pytest.mark.parametrize(
    ("retrial", "message"),
    [
        ([1, 1, 1, 1], "expected pairs of both kinds"),
        ([0, 1, 2, 0], "expected 4 labels, each 0 or 1"),
        ([0, 1], "expected 4 labels"),
    ],
)
def test_labels_that_are_refused(key, retrial, message):
    with pytest.raises(InputError, match=message):
        fit_logistic(key, np.ones((4, len(FEATURES))), retrial)
    with pytest.raises(InputError, match=r"features: expected 9 columns, or one more"):
        fit_logistic(key, np.ones((4, 3)), [0, 1, 0, 1])


def test_another_prevalence():
    """Bayes' rule: odds of all pairs change by one factor."""
    shipped = load_detector()
    certain = shipped.plain._replace(covariance=0 * shipped.plain.covariance, prevalence=0.4)
    before = Detector(certain, errors=shipped.errors)
    after = at_prevalence(before, 0.1)
    values = certain.centre + np.random.default_rng(0).normal(size=(9, len(FEATURES)))
    odds = logit(after.probability(values)) - logit(before.probability(values))
    assert odds == pytest.approx(logit(0.1) - logit(0.4))
    assert after.errors is None
    assert before.plain.mean is certain.mean
    with pytest.raises(InputError, match="rate: expected a share between 0 and 1, got 0"):
        at_prevalence(before, 0)


# Error rates


def test_error_rates_by_hand():
    """Groups alike, so that what is uncertain is the half a group of either kind of the prior."""
    called = np.tile([0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9], 50)
    truth = np.tile([1, 1, 1, 1, 0, 0, 0, 0, 0], 50)
    errors = error_rates(called, truth, np.repeat(np.arange(50), 9))
    specificity, sensitivity = (50 * 0.8 + 0.5) / 51, (50 * 0.75 + 0.5) / 51
    recognised = 1 - (1 - sensitivity) / specificity
    for (a, b), mean in ((errors.specificity, specificity), (errors.recognised, recognised)):
        assert a / (a + b) == pytest.approx(mean, abs=1e-3)
        assert a + b > 500


def test_no_error_in_five_labels_is_not_an_error_rate_of_zero():
    """One pair a group: what Jeffreys' prior says, Beta(1/2 + right, 1/2)."""
    truth = np.arange(10) < 5
    errors = error_rates(np.where(truth, 0.9, 0.1), truth, np.arange(10), num_samples=200_000)
    a, b = errors.specificity
    assert a / (a + b) == pytest.approx(5.5 / 6, abs=2e-3)
    assert stats.beta(a, b).std() == pytest.approx(stats.beta(5.5, 0.5).std(), rel=0.02)


@pytest.mark.parametrize(("groups", "each", "rho"), [(3, 2, 0.2), (5, 1, 0.0), (10, 4, 0.3)])
def test_error_rates_of_few_labels_hold_the_truth_as_often_as_they_say(groups, each, rho):
    rng = np.random.default_rng(6)
    truth = np.tile(np.arange(2 * each) < each, groups)
    group = np.repeat(np.arange(groups), 2 * each)
    inside = []
    for _ in range(400):
        right = rng.uniform((0.5, 0.7), 1)  # sensitivity and specificity of all users
        size = np.inf if rho == 0 else 1 / rho - 1
        own = right if rho == 0 else rng.beta(right * size, (1 - right) * size, (groups, 2))
        rate = np.broadcast_to(own, (groups, 2))[group, np.where(truth, 0, 1)]
        called = np.where(rng.random(len(truth)) < rate, truth, ~truth)
        try:
            errors = error_rates(np.where(called, 0.9, 0.1), truth, group, num_samples=500)
        except InputError:  # no better than guessing, as far as these labels say
            continue
        exact = 1 - (1 - right[0]) / right[1], right[1]
        laws = (errors.recognised, errors.specificity)
        inside.append(
            [0.05 < stats.beta(*law).cdf(x) < 0.95 for law, x in zip(laws, exact, strict=True)]
        )
    held = np.mean(inside, axis=0)
    print("of intervals of 90 percent, recognised and specificity held by", held, len(inside))
    assert len(inside) > 300
    assert ((held > 0.85) & (held < 0.99)).all()


def test_each_fit_of_a_detector_has_its_own_key(key, monkeypatch):
    keys = []

    def fit(key, values, *_, **__):
        keys.append(jax.random.key_data(key).tolist())
        return load_detector().plain

    monkeypatch.setattr("cqbayes.logs.retrials.detector.fit_logistic", fit)
    fit_detector(key, np.zeros((4, len(FEATURES) + 1)), [0, 1] * 2, trained_on="nothing")
    assert len(keys) == 2
    assert jax.random.key_data(key).tolist() not in keys
    assert keys[0] != keys[1]


def test_error_rates_are_as_wide_as_users_differ():
    rng = np.random.default_rng(3)
    rate = rng.beta(8, 2, 200)[:, None]
    truth = np.arange(20) < 10
    right = rng.random((200, 20)) < rate
    chance = np.where(right == truth, 0.9, 0.1)
    group = np.repeat(np.arange(200), 20)
    errors = error_rates(chance.ravel(), np.tile(truth, 200), group)
    a, b = errors.specificity
    each = right[:, ~truth].mean(axis=1)
    assert a / (a + b) == pytest.approx((each.sum() + 0.5) / 201, abs=1e-3)
    error = each.std(ddof=1) / np.sqrt(200)
    assert stats.beta(a, b).std() == pytest.approx(error, rel=0.1)


def test_doubtful_labels_widen_the_priors():
    rng = np.random.default_rng(4)
    truth, group = rng.random(600) < 0.4, rng.integers(0, 60, 600)
    chance = np.where(rng.random(600) < 0.8, truth, ~truth) * 0.8 + 0.1
    doubtful = rng.random(600) < 0.2
    sure, unsure = (
        error_rates(chance, truth, group, doubtful=d).specificity for d in (None, doubtful)
    )
    assert sum(unsure) < sum(sure)


def test_error_rates_that_cannot_be():
    with pytest.raises(InputError, match="group: expected at least two groups, got 1"):
        error_rates(np.array([0.9, 0.1]), [1, 0], [0, 0])
    with pytest.raises(InputError, match="expected a detector better than guessing"):
        error_rates(np.array([0.1, 0.9] * 9), [1, 0] * 9, np.repeat([0, 1, 2], 6))


def test_error_rates_are_priors_of_misclassified():
    errors = load_detector().errors
    assert errors is not None
    model = model_factory("misclassified")(
        recognised=errors.recognised, specificity=errors.specificity
    )
    assert dict(model.settings)["specificity"] == errors.specificity


# Files


def test_files(tmp_path, key):
    values, retrial, _ = _simulated(5, 200)
    more = np.c_[values, np.random.default_rng(5).normal(size=200)]
    made = fit_detector(key, more, retrial, trained_on="simulated pairs")
    assert made.embedded is not None
    made = made._replace(errors=Errors(0.4, (3.0, 2.0), (9.0, 1.0)))
    save_detector(tmp_path / "detector.json", made)
    read = load_detector(tmp_path / "detector.json")
    assert read.probability(values) == pytest.approx(made.plain.probability(values), abs=1e-4)
    assert read.probability(more) == pytest.approx(made.embedded.probability(more), abs=1e-4)
    assert (read.errors, read.trained_on) == (made.errors, "simulated pairs")
    plain = made._replace(embedded=None, errors=None)
    save_detector(tmp_path / "plain.json", plain)
    plain = load_detector(tmp_path / "plain.json")
    assert (plain.embedded, plain.errors) == (None, None)
    with pytest.raises(InputError, match="features: expected 9 columns, got 10"):
        plain.probability(more)


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.update(format=2),
        lambda said: said.pop("plain"),
        lambda said: said["plain"].update(mean=[0.0]),
        lambda said: said["plain"].update(features=["edit"]),
        lambda said: said["plain"]["scale"].__setitem__(0, 0.0),
        lambda said: said["plain"]["mean"].__setitem__(0, float("nan")),
        lambda said: said["plain"]["covariance"][0].__setitem__(0, -9.0),
        lambda said: said["plain"].update(prevalence=1.0),
        lambda said: said["errors"].update(specificity=[1.0]),
        lambda said: said["errors"].update(threshold=2.0),
        lambda said: said.update(embedded=said["plain"]),
    ],
)
def test_files_that_are_no_detectors(tmp_path, change):
    said = json.loads(SHIPPED.read_text())
    change(said)
    path = tmp_path / "detector.json"
    path.write_text(json.dumps(said))
    with pytest.raises(InputError, match=r"detector.json: expected a detector of format 1"):
        load_detector(path)


def test_files_that_cannot_be_read(tmp_path):
    for content, message in ((b"\xff", "in JSON"), (b"{", "in JSON"), (b"[]", "of format 1")):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(InputError, match=f"a.json: expected a detector {message}"):
            load_detector(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"b.json: .* that can be read, got: No such file"):
        load_detector(tmp_path / "b.json")


# The shipped one


def test_the_shipped_detector_says_what_anybody_would():
    detector = load_detector()

    def chance(*texts: str, seconds: float = 40.0) -> float:
        return float(detector.probability(pairs(_turns(*texts, seconds=seconds)).features)[0])

    first = "Write a function that counts the vowels of a sentence"
    again = "Write a function which counts the vowels of a sentence"
    other = "Who painted the ceiling of the Sistine Chapel?"
    assert chance(first, "This is wrong, it does not work for empty sentences") > 0.8
    assert chance(first, again) > 0.5 > chance(first, other)
    assert chance(first, other, seconds=600) < chance(first, other)


@pytest.fixture(scope="module")
def real_pairs() -> tuple[np.ndarray, np.ndarray]:
    """Features without embeddings, and labels as they were read."""
    path = data_folder() / "realhumaneval_retries.parquet"
    if not path.is_file():
        pytest.skip("realhumaneval_retries.parquet is not in $CQBAYES_DATA")
    log = pd.read_parquet(path).sort_values(["programmer_id", "t_s"], kind="stable")
    rows = {
        "session_id": log["programmer_id"].astype(str) + log["task_name"].astype(str),
        "timestamp": pd.to_datetime(log["t_s"], unit="s", utc=True).dt.as_unit("us"),
        "text": log["user_text"],
    }
    table = pa.table({name: pa.Array.from_pandas(column) for name, column in rows.items()})
    table = table.append_column("turn", pa.array(log["turn"]))
    for name in ("language", "failed", "repeated"):
        table = table.append_column(name, pa.nulls(len(log)).cast(TURNS.field(name).type))
    said = json.loads((ROOT / "cqbayes" / "logs" / "retrials" / "retrial_labels.json").read_text())
    read = np.array([int(digit) for session in said["sessions"] for digit in session])
    found = pairs(table).features
    assert found.shape == (667, len(FEATURES)) == (len(read), len(FEATURES))
    return found, read > 0


def test_the_shipped_coefficients_are_those_of_a_refit(real_pairs, key):
    one, shipped = fit_logistic(key, *real_pairs), load_detector().plain
    sd = np.sqrt(np.diag(shipped.covariance))
    # Draws of the importance sampler are worth some hundreds: a fifth of a posterior sd is plenty.
    assert np.abs((one.mean - shipped.mean) / sd).max() < 0.2
    assert np.sqrt(np.diag(one.covariance)) == pytest.approx(sd, rel=0.2)
    assert one.centre == pytest.approx(shipped.centre, rel=1e-4)
    assert one.prevalence == pytest.approx(shipped.prevalence, abs=1e-4)
