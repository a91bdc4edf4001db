"""From a log to a posterior in one call: what came of every row is told, and nothing is lost."""

import json
from datetime import UTC, datetime, timedelta

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from simulated import SECRET, settled, simulate, write
from typer.testing import CliRunner

import cqbayes
import cqbayes.predict
from cqbayes.choice.data import SILENCE, choice_data
from cqbayes.cli.app import app
from cqbayes.diagnostics.data_verdict import judge
from cqbayes.embeddings.encoder import Encoder
from cqbayes.errors import InputError
from cqbayes.inference.infer import infer
from cqbayes.logs.describe import acceptance_table, describe_log
from cqbayes.logs.fit import fit, hidden_retries, model_for
from cqbayes.logs.formats.importer import importer_names
from cqbayes.logs.predictions import predict_file, save_contexts, save_fit
from cqbayes.logs.read import TableOptions, TextOptions, TurnOptions, notes, read_log
from cqbayes.logs.retrials.detector import CLASSES
from cqbayes.preference import load_model

COUNTS = Encoder(
    "counts", lambda texts: np.array([[1 + t.count(c) for c in "abcdef123"] for t in texts], float)
)

CONSTANT = TextOptions(encoder="constant")


def _services(path, count=60, **cells):
    """Simulated services of three LLMs, one row a query, and what is in them."""
    rng = np.random.default_rng(3)
    context = rng.normal(size=(count, 2))
    context /= np.linalg.norm(context, axis=1, keepdims=True)
    choice = rng.integers(0, 3, count)
    rows = [
        {
            "query_id": str(i),
            "attempt": 1,
            "offered": ["a", "b"] if choice[i] < 3 else ["a", "c"],
            "chosen": [None, "a", "b"][choice[i]],
            "embedding": context[i].tolist(),
            **cells,
        }
        for i in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path, context, choice


def test_a_log_of_services_gives_the_posterior_of_its_choices(tmp_path):
    path, context, choice = _services(tmp_path / "log.jsonl")
    fitted = fit(path, engine="laplace", seed=4)
    data = choice_data(context, np.ones((60, 2), bool), choice)
    posterior, _ = infer(jax.random.key(4), load_model("disjoint_mnl"), data, engine="laplace")
    assert fitted.log.llms == ("a", "b")
    assert fitted.posterior.model == posterior.model
    for a, b in zip(jax.tree.leaves(fitted.posterior), jax.tree.leaves(posterior), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)
    found = fitted.acceptance()
    assert found["mean"].shape == (60, 2)
    assert found["llm"].values.tolist() == ["a", "b"]
    by_hand = 1 / (1 + np.exp(-fitted.posterior.mean()["intercept"]))
    assert np.abs(found["overall_mean"].values - by_hand).max() < 0.15
    assert cqbayes.fit is fit


def test_choice_data_go_in_as_they_are(tmp_path, choices):
    data, _ = choices(seed=0, num_obs=40)
    cqbayes.logs.choice_files.write_choices(tmp_path / "a.parquet", data, list("wxyz"), "simulated")
    log = read_log(tmp_path / "a.parquet")
    assert log.llms == tuple("wxyz")
    np.testing.assert_array_equal(log.data.context, data.context)
    assert log.inferred == 0
    assert model_for(log) == load_model("disjoint_mnl")


@pytest.mark.parametrize("name", importer_names())
def test_every_format_becomes_choice_data_and_all_counts_add_up(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CQBAYES_CACHE", str(tmp_path / "cache"))
    suffix = ".parquet" if name == "realhumaneval" else ".jsonl"
    turns = settled(simulate(5, sessions=30))
    path = write(tmp_path / f"log{suffix}", name, turns)
    log = read_log(path, format=name, text=TextOptions(3, COUNTS))
    assert log.read.read == log.read.kept + sum(log.read.set_aside.values())
    made = log.made
    assert made.turns == made.services + sum(made[2:7])
    counts = log.requests
    assert counts.requests == counts.turns + sum(counts.not_turns.values())
    assert counts.turns == made.turns
    assert log.data.num_obs == made.services > 0
    choice = np.asarray(log.data.choice)
    assert log.facts.followed == (choice < SILENCE).sum() == made.inferred
    assert (choice == SILENCE).sum() == made.last
    assert (choice >= 0).sum() == made.explicit
    np.testing.assert_allclose(np.linalg.norm(log.data.context, axis=1), 1, rtol=1e-5)
    assert SECRET not in "\n".join(describe_log(log))
    unit = COUNTS.encode(["abc"]) / np.linalg.norm(COUNTS.encode(["abc"]))
    np.testing.assert_allclose(log.contexts(["abc"]), log.projection(unit), rtol=1e-5)


@pytest.mark.slow
def test_the_outcome_of_a_scored_request_is_left_open(tmp_path):
    path = write(tmp_path / "log.jsonl", "openai_chat", settled(simulate(6, sessions=30)))
    how = {"format": "openai_chat", "text": CONSTANT}
    fitted = fit(path, **how, engine="laplace")
    assert fitted.log.facts.followed > 0
    settings = dict(fitted.posterior.model.settings)
    assert fitted.posterior.model.name == "next_request"
    assert settings["levels"] == fitted.log.next_requests.detector.levels
    assert fitted.log.next_requests.opening.sum() == fitted.log.requests.sessions
    save_fit(tmp_path / "fit.nc", fitted)
    stored = cqbayes.load_posterior(tmp_path / "fit.nc")
    assert stored.posterior.model == fitted.posterior.model
    np.testing.assert_array_equal(stored.columns["chosen"], fitted.log.data.choice)
    # Of every service, how probably the answer was not taken, and then asked for in other words.
    data, alone = fitted.log.data, fitted.acceptance(fresh=False)["mean"]
    shown = np.argmax(np.asarray(data.offered), axis=1)
    not_taken = 1 - alone.transpose("query", "llm").values[np.arange(data.num_obs), shown]
    asks = np.mean(stored.posterior.sites(jax.random.key(5), 2_000)["asks_otherwise"])
    expected = float(asks * not_taken.sum())
    # Of other draws, a thousand each: a standard error of some 3 percent on either side.
    assert hidden_retries(fitted.posterior, data) == pytest.approx(expected, rel=0.15)
    face = read_log(path, **how, turns=TurnOptions(signs="threshold"))
    assert face.data.num_obs == fitted.log.data.num_obs
    trusted = model_for(face, trust_labels=True)
    assert trusted.name == "abandonment", "what nothing follows is left open"
    assert face.inferred == face.made.inferred / face.made.services > 0
    kept = read_log(path, **how, turns=TurnOptions("taken"))
    assert kept.facts.decreed_taken == kept.made.last > 0


def test_labels_of_a_log_are_signs_of_its_fit(tmp_path):
    path = write(tmp_path / "log.jsonl", "openai_chat", settled(simulate(6, sessions=60)))
    labels, asked = tmp_path / "labels.jsonl", []

    def answer(question):
        asked.append(question)
        return "asks again" if len(asked) % 3 == 0 else "neither"

    cqbayes.label(path, answer, format="openai_chat", labels=labels, number=52)
    assert SECRET in asked[0].second
    assert SECRET not in labels.read_text()
    turns = TurnOptions(labels=labels)
    how = {"format": "openai_chat", "text": CONSTANT}
    log = read_log(path, **how, turns=turns)
    model = model_for(log)
    assert dict(model.settings)["known"]
    assert "level_sd=1.8" in repr(model)
    choice = np.asarray(log.data.choice)
    number = min(52, len(asked))
    assert (choice < SILENCE - CLASSES).sum() == number
    retrial = (choice < SILENCE - CLASSES) & (choice >= SILENCE - 2 * CLASSES)
    assert retrial.sum() == number // 3
    checked = log.facts.checked
    assert checked.labelled == number
    assert [one.drawn for one in checked.strata] == np.bincount(
        [json.loads(line)["class"] for line in labels.read_text().splitlines()], minlength=CLASSES
    ).tolist()
    assert (checked.elsewhere, checked.moved) == (0, 0)
    # What is known of next requests, by LLM: those that are labelled, and those of shown outcomes.
    spoken, llm = log.facts.spoken, np.asarray(log.data.offered).argmax(axis=1)
    for outcome, some in enumerate([(choice < SILENCE - CLASSES) & ~retrial, retrial]):
        of_llm = np.bincount(llm[some], minlength=len(log.llms))
        assert spoken[outcome].sum(axis=1).tolist() == of_llm.tolist()
    np.testing.assert_array_equal(spoken[2:].sum(axis=1), log.next_requests.after)
    # A label of a pair that is gone, and one that was drawn by other scores.
    lines = labels.read_text().splitlines()
    first, *rest = map(json.loads, lines)
    changed = [{**first, "pair": "gone"}, {**rest[0], "class": 3 - rest[0]["class"]}, *rest[1:]]
    labels.write_text("".join(f"{json.dumps(one)}\n" for one in changed))
    other = read_log(path, **how, turns=turns).facts.checked
    assert (other.labelled, other.elsewhere, other.moved) == (number - 1, 1, 1)
    verdict = judge(log.facts)
    assert "labels" in [one.name for one in verdict.findings]
    assert "unknown_words" not in [one.name for one in verdict.doubts]
    # Who reads with other rules, or another log, is told.
    for signs in ("threshold", "explicit"):
        with pytest.raises(InputError, match="labels: expected signs='scored', which they check"):
            read_log(path, **how, turns=turns._replace(signs=signs))
    with pytest.raises(InputError, match="and no trust in what is inferred; got 'threshold'"):
        fit(path, **how, turns=turns, trust_labels=True)
    services, _, _ = _services(tmp_path / "services.jsonl")
    with pytest.raises(InputError, match="expected a log of turns, in the format of an importer"):
        read_log(services, turns=turns)
    other = write(tmp_path / "other.jsonl", "openai_chat", settled(simulate(7, sessions=9)))
    with pytest.raises(InputError, match=f"expected labels of this log, got {number} that are"):
        read_log(other, **how, turns=turns)


def test_requests_that_open_sessions_are_rows_of_the_fit(tmp_path, monkeypatch):
    path = write(tmp_path / "log.jsonl", "openai_chat", settled(simulate(6, sessions=30)))
    given = []

    def stopped(key, model, data, **settings):
        given.append(data)
        raise InputError("far enough")

    monkeypatch.setattr("cqbayes.logs.fit.infer", stopped)
    with pytest.raises(InputError, match="far enough"):
        fit(path, format="openai_chat", text=CONSTANT)
    (data,) = given
    opens = ~np.asarray(data.offered).any(axis=1) & (np.asarray(data.weight) > 0)
    assert np.asarray(data.weight)[opens].sum() == 30
    assert (np.asarray(data.choice)[opens] < SILENCE).all()


@pytest.mark.parametrize(
    ("chosen", "offered", "note"),
    [
        ("a", ["a", "b"], "no service was retried"),
        (None, ["a", "b"], "no answer was taken"),
        ("a", ["a"], "one LLM only"),
    ],
)
def test_logs_that_cannot_tell_much_say_so(tmp_path, chosen, offered, note):
    path, *_ = _services(tmp_path / "log.jsonl", 1, chosen=chosen, offered=offered)
    log = read_log(path)
    assert any(note in line for line in notes(log.data))
    assert any("the prior decides much" in line for line in notes(log.data))
    assert "note: " in "\n".join(describe_log(log))
    assert "retried:" in "\n".join(describe_log(log))


def test_logs_that_are_refused(tmp_path, monkeypatch):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    monkeypatch.setenv("CQBAYES_CACHE", str(tmp_path / "cache"))
    bare, *_ = _services(tmp_path / "bare.jsonl", embedding=None)
    junk = tmp_path / "junk.jsonl"
    junk.write_text(json.dumps({"said": SECRET}))
    for path, how, message in (
        (empty, {}, "expected at least one"),
        (empty, {"format": "lmsys"}, "expected at least one sound row, got none of 0"),
        (junk, {}, "none of 1: set aside 1 by 'query_id' .first at junk.jsonl:1.; .*wildchat"),
        (junk, {"format": "lmsys"}, "none of 1: set aside 1 by .* .first at junk.jsonl:1"),
        (None, {}, "log: expected the path of a file, or several, got NoneType"),
        (empty, {"format": "nope"}, "format: expected one of auto, services, choices, .*wildchat"),
        (bare, {}, "expected text or embeddings, got neither; encoder='constant' fits without"),
    ):
        with pytest.raises(InputError, match=message):
            read_log(path, **how)
    assert read_log(bare, text=CONSTANT).data.dim == 1
    same, *_ = _services(tmp_path / "same.jsonl", embedding=None, text=SECRET)
    with pytest.raises(InputError, match="expected queries that differ") as refusal:
        read_log(same, text=TextOptions(encoder=COUNTS))
    assert SECRET not in str(refusal.value)


def test_text_becomes_contexts_and_new_queries_too(tmp_path, monkeypatch):
    """From the log to predictions on disk, with an encoder that counts letters."""
    pytest.importorskip("safetensors", reason="the extra embed is not installed")
    monkeypatch.setenv("CQBAYES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cqbayes.embeddings.encoder.load_encoder", lambda *_: COUNTS)
    path, *_ = _services(tmp_path / "log.jsonl", 40, embedding=None)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for i, row in enumerate(rows):
        row["text"] = "abcdef"[i % 6] * (1 + i % 4)
    path.write_text("\n".join(map(json.dumps, rows)))
    fitted = fit(path, engine="laplace", text=TextOptions(2))
    out = tmp_path / "fit.nc"
    cqbayes.save_posterior(out, fitted.posterior, fitted.info, llms=list(fitted.log.llms))
    assert save_contexts(out, fitted.log) == tmp_path / "fit.nc.contexts.safetensors"
    asked = tmp_path / "asked.txt"
    asked.write_text("aab\n\nf\n")
    overall, each = predict_file(out, asked)
    context = fitted.log.contexts(["aab", "f"])
    expected = acceptance_table(fitted.acceptance(context, seed=0), each=True).reset_index()
    # Not the same draws: a few Monte Carlo errors.
    np.testing.assert_allclose(each["mean"], expected["mean"], atol=0.05)
    assert overall.index.tolist() == ["a", "b"]
    table = pa.table({"embedding": context.tolist()})
    pq.write_table(table, tmp_path / "asked.parquet")
    np.testing.assert_allclose(
        predict_file(out, tmp_path / "asked.parquet")[1]["mean"], each["mean"], rtol=1e-4
    )
    _, changed = predict_file(out, asked, without="a")
    after = changed[(changed["scenario"] == "after") & (changed["outcome"] == "a")]
    assert (after["mean"] == 0).all()
    with pytest.raises(InputError, match="population"):
        predict_file(out, asked, new_llm=True)
    bare = fitted.log._replace(projection=None)
    assert save_contexts(out, bare) is None, "those of an earlier log would be others"
    with pytest.raises(InputError, match="expected the contexts that cqbayes fit writes"):
        predict_file(out, asked)


@pytest.mark.parametrize("name", ["retry", "silence"])
def test_an_llm_that_is_called_like_an_outcome_is_refused(tmp_path, name):
    path, *_ = _services(tmp_path / "log.jsonl", chosen=None, offered=["a", name])
    with pytest.raises(InputError, match=f"none called retry or silence, .*called {name}"):
        read_log(path)
    data = choice_data([[1.0]], [[True, True]], [1])
    cqbayes.logs.choice_files.write_choices(tmp_path / "a.parquet", data, ["a", name], "simulated")
    with pytest.raises(InputError, match="none called retry or silence"):
        read_log(tmp_path / "a.parquet")


def _predict(tmp_path, model, llms, *arguments):
    """``cqbayes predict`` of a posterior of simulated choices, and its table."""
    data = choice_data(np.ones((9, 1)), np.ones((9, len(llms)), bool), np.arange(9) % 3)
    settings = {} if model == "disjoint_mnl" else {"num_warmup": 5, "num_draws": 5, "num_chains": 2}
    engine = "nuts" if settings else "laplace"
    made = infer(jax.random.key(0), load_model(model), data, engine=engine, **settings)
    cqbayes.save_posterior(tmp_path / "fit.nc", *made, llms=llms)
    pq.write_table(pa.table({"embedding": [[1.0]]}), tmp_path / "asked.parquet")
    where = [str(tmp_path / name) for name in ("fit.nc", "asked.parquet")]
    out = tmp_path / "each.csv"
    done = CliRunner().invoke(app, ["predict", *where, "--out", str(out), *arguments])
    return done, pd.read_csv(out) if done.exit_code == 0 else None


def test_the_shell_removes_an_llm_by_its_name_or_its_number(tmp_path):
    """A name comes first, also one that is a number: LLM 0 is called 1 here."""
    for llms, said, gone in (
        (["1", "7"], "1", "1"),
        (["1", "7"], "0", "1"),
        (["a", "b"], "1", "b"),
    ):
        done, table = _predict(tmp_path, "disjoint_mnl", llms, "--without", said)
        assert done.exit_code == 0, done.output
        after = table[(table["scenario"] == "after") & (table["mean"] == 0)]
        assert after["outcome"].astype(str).tolist() == [gone]
    for said in ("2", "c", "9" * 5_000):
        done, _ = _predict(tmp_path, "disjoint_mnl", ["a", "b"], "--without", said)
        assert isinstance(done.exception, InputError)
        assert "LLM: expected one of a, b or a number below 2" in str(done.exception)


def test_a_new_llm_has_a_name_that_nobody_has(tmp_path):
    done, table = _predict(tmp_path, "hierarchical_mnl", ["new-llm", "b"], "--new-llm")
    assert done.exit_code == 0, done.output
    assert table["llm"].tolist() == ["new-llm", "b", "new-llm-2"]


def test_the_shell_renames_columns_and_sorts_rows(tmp_path):
    pytest.importorskip("duckdb", reason="the extra logs is not installed")
    path, *_ = _services(tmp_path / "log.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    last = {"id": "x", "try": 2, "offered": ["a", "b"], "chosen": "a", "embedding": [1.0, 0.0]}
    rows = [{**row, "id": row.pop("query_id"), "try": row.pop("attempt")} for row in rows]
    rows = [last, *rows, {**last, "try": 1, "chosen": None}]
    path.write_text("\n".join(map(json.dumps, rows)))
    arguments = ["fit", str(path), "--engine", "laplace", "--out", str(tmp_path / "fit.nc")]
    arguments += ["--rename", "id=query_id", "--rename", "try=attempt"]
    for more in ([], ["--sort"]):  # in memory, or by DuckDB
        done = CliRunner().invoke(app, [*arguments, *more])
        assert done.exit_code == 0, done.output
        assert "62 services of 2 LLMs" in done.output
    for bad, message in (
        (["--rename", "id"], "rename: expected theirs=ours"),
        (["--rename", "id=attempt"], "rename: expected each column of the log once"),
        (["--format", "litellm"], "rename: expected a long table of services, got format litellm"),
    ):
        done = CliRunner().invoke(app, [*arguments, *bad])
        assert isinstance(done.exception, InputError)
        assert message in str(done.exception)
    with pytest.raises(InputError, match=r"sort: expected a long table .* got format lmsys"):
        read_log(path, format="lmsys", table=TableOptions(sort=True))


NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def told_apart(tmp_path):
    """A log with users and times, attributes of its LLMs, and a way to fit and predict."""
    path, *_ = _services(tmp_path / "log.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for i, row in enumerate(rows):
        row["user_id"] = "wvu"[i % 3] if i % 5 else None
        row["timestamp"] = (NOON + timedelta(days=i)).isoformat()
    path.write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "prices.csv").write_text("llm,price,delay\nb,0.5,1\na,2,-1\n")

    def run(*arguments):
        done = CliRunner().invoke(app, [str(a) for a in arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output

    def fit_it(model, *more):
        out = tmp_path / "fit.nc"
        run("fit", path, "--model", model, "--engine", "laplace", "--out", out, *more)
        return cqbayes.load_posterior(out).posterior

    def predict_it(queries, *more):
        asked, each = tmp_path / "asked.jsonl", tmp_path / "each.csv"
        if isinstance(queries, pa.Table):
            asked = asked.with_suffix(".parquet")
            pq.write_table(queries, asked)
        else:
            asked.write_text("\n".join(map(json.dumps, queries)))
        run("predict", tmp_path / "fit.nc", asked, "--out", each, *more)
        return pd.read_csv(each)["mean"].to_numpy().reshape(len(queries), -1)

    return fit_it, predict_it


HERE = [0.6, 0.8]


def _by_python(posterior, count, **columns):
    at = cqbayes.new_queries(posterior, np.array([HERE] * count), **columns)
    _, key = jax.random.split(jax.random.key(0))  # as predicted does
    return cqbayes.acceptance(key, posterior, at)["mean"].values


def test_the_shell_predicts_for_users(told_apart, tmp_path):
    fit_it, predict_it = told_apart
    posterior = fit_it("user_mnl")
    assert posterior.sizes.num_users == 3
    asked = [{"embedding": HERE, "user_id": user} for user in ("v", "u", None, "nobody knows")]
    found = predict_it(asked)
    expected = _by_python(posterior, 4, user=np.array([1, 0, 0, 3]))
    expected[2] = expected[3]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(predict_it(pa.Table.from_pylist(asked)), found, rtol=1e-5)
    with pytest.raises(InputError, match=r"asked.jsonl: expected a column user_id, which user_mnl"):
        predict_it([{"embedding": HERE}])
    with pytest.raises(InputError, match=r"expected string in user_id, got something .* row 2"):
        predict_it([{"embedding": HERE, "user_id": user} for user in ("v", ["v"])])
    (tmp_path / "fit.nc.codes.json").unlink()
    with pytest.raises(
        InputError, match=r"fit.nc.codes.json: expected users as cqbayes fit writes"
    ):
        predict_it(asked)


@pytest.mark.long
def test_the_shell_predicts_for_a_time(told_apart):
    fit_it, predict_it = told_apart
    posterior = fit_it("drift_mnl", "--time", "W")
    weeks = posterior.sizes.num_times
    days = (0, 3, 20, 400)  # a Friday, the Monday after, and long after the log's last
    asked = [
        {"embedding": HERE, "timestamp": (NOON + timedelta(days=day)).isoformat()} for day in days
    ]
    found = predict_it(asked)
    expected = _by_python(posterior, 4, time=np.array([0, 1, 3, weeks - 1]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    table = pa.table({"embedding": [HERE] * 4, "timestamp": [NOON + timedelta(d) for d in days]})
    np.testing.assert_allclose(predict_it(table), found, rtol=1e-5)
    with pytest.raises(InputError, match="expected a column timestamp, which drift_mnl needs"):
        predict_it([{"embedding": HERE}])
    early = [{"embedding": HERE, "timestamp": at} for at in ("2024-02-26", "2024-02-25")]
    with pytest.raises(InputError, match=r"a time from 2024-02-26 on, .* not so in row 2"):
        predict_it(early)


def test_the_shell_fits_and_predicts_with_attributes(told_apart, tmp_path):
    fit_it, predict_it = told_apart
    prices = ("--attributes", tmp_path / "prices.csv")
    with pytest.raises(InputError, match="shared_mnl: expected numbers for each LLM: --attributes"):
        fit_it("shared_mnl")
    posterior = fit_it("shared_mnl", *prices)
    asked = [{"embedding": HERE}]
    expected = _by_python(posterior, 1, attributes=np.array([[2.0, -1], [0.5, 1]]))
    np.testing.assert_allclose(predict_it(asked, *prices), expected, rtol=1e-5)
    with pytest.raises(InputError, match=r"expected attributes of the LLMs, .*: --attributes FILE"):
        predict_it(asked)
    for content, message in (
        ("llm,delay,price\na,1,2\nb,3,4\n", "expected price, delay as the posterior was fitted"),
        ("llm,price,delay\na,1,2\n", "those of all LLMs, 1 of 2 have none, such as b"),
        ("llm,price,delay\na,1,2\na,1,2\n", "expected each LLM once"),
        ("llm,price,delay\na,1,x\nb,1,2\n", "expected finite numbers"),
        ("model,price\na,1\n", "expected a CSV with columns llm and attributes"),
        ("", "expected a CSV with columns llm and attributes"),
    ):
        (tmp_path / "prices.csv").write_text(content)
        with pytest.raises(InputError, match=message):
            predict_it(asked, *prices)
    (tmp_path / "prices.csv").write_text("llm,price\na,1\nb,2\n")
    fit_it("disjoint_mnl")
    assert not (tmp_path / "fit.nc.codes.json").exists(), "those of an earlier model are gone"
    with pytest.raises(InputError, match="expected a model that uses them, disjoint_mnl uses none"):
        predict_it(asked, *prices)


@pytest.mark.long
def test_the_shell_predicts_for_an_attempt(told_apart):
    fit_it, predict_it = told_apart
    posterior = fit_it("attempt_mnl")
    asked = [{"embedding": HERE, "attempt": attempt} for attempt in (1, 3)]
    expected = _by_python(posterior, 2, attempt=np.array([1, 3]))
    np.testing.assert_allclose(predict_it(asked), expected, rtol=1e-5)
    with pytest.raises(InputError, match=r"expected a whole number from 1 in attempt, .* row 1"):
        predict_it([{"embedding": HERE, "attempt": 0}])


def test_from_the_shell(tmp_path):
    turns = settled(simulate(7, sessions=40))
    path = write(tmp_path / "log.jsonl", "litellm", turns)
    with path.open("a") as file:
        file.write(f'{{"broken": "{SECRET}"\n')
    run = CliRunner()
    arguments = ["fit", str(path), "--format", "litellm", "--encoder", "constant"]
    arguments += ["--engine", "laplace", "--out", str(tmp_path / "fit.nc")]
    done = run.invoke(app, [*arguments, "--quarantine", str(tmp_path / "aside.jsonl")])
    assert done.exit_code in (1, 3), done.output  # the outcomes are inferred, not checked
    for part in ("set aside", "not a JSON object", "another request", "laplace: "):
        assert part in done.output
    assert SECRET not in done.output
    assert SECRET in (tmp_path / "aside.jsonl").read_text()
    strict = run.invoke(app, [*arguments, "--strict"])
    assert isinstance(strict.exception, InputError)
    assert SECRET not in str(strict.exception)
    pq.write_table(pa.table({"embedding": [[1.0]]}), tmp_path / "asked.parquet")
    for name, cells in (("x", {"embedding": ["x"]}), ("y", {"other": [1]}), ("z", {"text": [1]})):
        pq.write_table(pa.table(cells), tmp_path / f"{name}.parquet")
        bad = run.invoke(
            app, ["predict", str(tmp_path / "fit.nc"), str(tmp_path / f"{name}.parquet")]
        )
        assert isinstance(bad.exception, InputError), name
    asked = ["predict", str(tmp_path / "fit.nc"), str(tmp_path / "asked.parquet")]
    done = run.invoke(app, [*asked, "--out", str(tmp_path / "each.csv")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "each.csv").read_text().startswith("query,llm,mean,lower,upper")
