"""Long tables: one row a query and an LLM. Wrong rows are named as they stand in the file."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from cqbayes.data import llmrouter9, paretobandit4, routellm2, routerbench3k, routerdc7

from cqbayes.datasets.text_scores import from_long, sample, score_table
from cqbayes.errors import InputError

SHARED = Path(os.environ.get("CQBAYES_DATA") or ROOT.parent / "shared" / "data")


def _frame() -> pd.DataFrame:
    """Three queries and two LLMs, by query; as the files have it, strings are categories."""
    frame = pd.DataFrame(
        {
            "query_id": np.repeat(["q2", "q1", "q3"], 2),
            "task": ["math"] * 6,
            "split": ["train", "train", "test", "test", "train", "train"],
            "prompt": np.repeat(["Two?", "One?", "Three?"], 2),
            "query_text": np.repeat(["two", "one", "three"], 2),
            "model": ["b", "a"] * 3,
            "score": np.array([0.2, 0.1, 0.4, 0.3, 0.6, 0.5], np.float32),
            "score_kind": np.repeat(["binary", "fraction_of_10_samples", "binary"], 2),
            "cost_usd": np.array([2, 1, 4, 3, 6, 5], np.float32),
        }
    )
    return frame.astype(dict.fromkeys(("query_id", "task", "split", "model"), "category"))


def _write(tmp_path, frame: pd.DataFrame) -> Path:
    path = tmp_path / "long.parquet"
    frame.to_parquet(path, index=False)
    return path


def test_a_table_becomes_one_row_a_query(tmp_path):
    answers = routerbench3k.answers(_write(tmp_path, _frame()))
    assert answers.name == "routerbench3k"
    assert answers.llms == ("a", "b")
    assert answers.query_id.tolist() == ["q2", "q1", "q3"]
    assert answers.split.tolist() == ["train", "test", "train"]
    assert answers.text.tolist() == ["two", "one", "three"]
    np.testing.assert_allclose(answers.score, [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], rtol=1e-6)
    np.testing.assert_array_equal(answers.cost, [[1, 2], [3, 4], [5, 6]])
    mixed = _frame().sample(frac=1, random_state=1)
    again = routerbench3k.answers(_write(tmp_path, mixed))
    order = [again.query_id.tolist().index(one) for one in answers.query_id]
    np.testing.assert_array_equal(again.rows(order).score, answers.score)
    assert again.rows(order).text.tolist() == answers.text.tolist()


def test_each_file_has_its_ways(tmp_path):
    path = _write(tmp_path, _frame())
    assert llmrouter9.answers(path).text.tolist() == ["Two?", "One?", "Three?"]
    assert llmrouter9.answers(path).cost is None
    measured = routerdc7.answers(path, measured=True)
    assert measured.query_id.tolist() == ["q1"]
    assert measured.samples == 10
    assert routerdc7.answers(path).samples == 1
    assert score_table(measured, np.ones((1, 2))).samples == 10
    named = _frame()
    named["split"] = named["split"].cat.rename_categories({"train": "val"})
    bandit = paretobandit4.answers(_write(tmp_path, named))
    assert bandit.split.tolist() == ["train", "test", "train"]
    # Without splits, by the text: the same wherever it stands.
    unsplit = routellm2.answers(path)
    alone = routellm2.answers(_write(tmp_path, _frame().iloc[2:4]))
    assert alone.split[0] == unsplit.split[1]
    twins = _frame().assign(prompt="The same?")
    assert len(set(routellm2.answers(_write(tmp_path, twins)).split)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="score"), "expected columns .*; no score"),
        (lambda f: f.drop(columns=["task", "model"]), "no task, model"),
        (lambda f: f[:0], "at least one row"),
        (lambda f: f.assign(score=[0.0] * 4 + [1.5, 0.0]), r"scores in \[0, 1\].* row 4"),
        (lambda f: f.assign(score=[0.0] * 4 + [np.inf, 0.0]), r"scores in \[0, 1\].* row 4"),
        (lambda f: f.assign(score=["0"] * 4 + ["x", "0"]), "numbers in column score.* row 4"),
        (lambda f: f.assign(score=[0.0] * 3 + [None] * 3), "a score of every LLM.* row 3"),
        (lambda f: f.assign(model=[["a", "b"]] * 6), "strings or numbers in column model"),
        (lambda f: f.assign(cost_usd=[0.0] * 5 + [-1]), "costs in dollars.* row 5"),
        (lambda f: f.assign(model=["a", "b", "a", "a", "a", "b"]), "each query_id once .* row 3"),
        (lambda f: f.assign(model=["a", "b", "a", "c", "a", "b"]), "a score of every LLM.* row 0"),
        (lambda f: f.assign(model=["a", None, "a", "b", "a", "b"]), "a model in every row.* row 1"),
        (lambda f: f.assign(query_id=[None] * 6), "a query_id in every row.* row 0"),
        (lambda f: f.assign(split=["dev"] * 6), "a split .* row 0"),
        (lambda f: f.assign(split=["train"] * 3 + ["test"] * 3), "the same split .* row 3"),
        (lambda f: f.assign(query_text=[*"aabbcd"]), "the same query_text .* row 5"),
        (lambda f: f.assign(query_text=[*"aabb", None, None]), "a query_text in every row.* row 4"),
        (lambda f: f.drop(index=3), "a score of every LLM.* row 2"),
    ],
)
def test_wrong_tables(tmp_path, change, message):
    with pytest.raises(InputError, match=f"routerbench3k: .*{message}"):
        routerbench3k.answers(_write(tmp_path, change(_frame())))


def test_rows_are_those_of_the_file_even_where_some_are_left_out(tmp_path):
    frame = _frame().assign(score=[0.0, 0.0, 0.0, 7.0, 0.0, 0.0])
    with pytest.raises(InputError, match="row 3"):
        routerdc7.answers(_write(tmp_path, frame), measured=True)
    with pytest.raises(InputError, match="no score_kind"):
        routerdc7.answers(_write(tmp_path, frame.drop(columns="score_kind")), measured=True)


def test_what_pandas_notes_of_an_index_does_not_count(tmp_path):
    path = tmp_path / "long.parquet"
    _frame().set_index(["query_id", "model"]).to_parquet(path)
    assert routerbench3k.answers(path).query_id.tolist() == ["q2", "q1", "q3"]
    _frame().assign(score=[0.0, 0.0, 0.0, 7.0, 0.0, 0.0]).iloc[2:].to_parquet(path)
    with pytest.raises(InputError, match="row 1"):
        routerbench3k.answers(path)


def test_incomplete_queries_can_be_left_out(tmp_path):
    path = _write(tmp_path, _frame().drop(index=3))
    with pytest.warns(UserWarning, match="routerbench3k: 1 of 3 queries lack"):
        answers = routerbench3k.answers(path, drop_incomplete=True)
    assert answers.query_id.tolist() == ["q2", "q3"]
    np.testing.assert_array_equal(answers.cost, [[1, 2], [5, 6]])


def test_other_files(tmp_path):
    with pytest.raises(InputError, match="expected a readable file"):
        llmrouter9.answers(tmp_path / "absent.parquet")
    (tmp_path / "x.parquet").write_text("not Parquet, as anybody can see")
    with pytest.raises(InputError, match="expected a Parquet file"):
        llmrouter9.answers(tmp_path / "x.parquet")


def test_damage_that_shows_only_in_the_columns(tmp_path):
    frame = _frame().assign(prompt="Of a user.").astype({"prompt": object})
    path = tmp_path / "long.parquet"
    frame.to_parquet(path, index=False, compression="none", use_dictionary=False)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"Of a user.", b"Of a use\xff."))
    with pytest.raises(InputError, match="it is damaged; get it again") as refusal:
        llmrouter9.answers(path)
    assert "Of a" not in str(refusal.value)
    path.write_bytes(whole[:4] + bytes(400) + whole[404:])
    with pytest.raises(InputError, match="it is damaged; get it again"):
        llmrouter9.answers(path)


def test_a_column_that_is_there_twice(tmp_path):
    table = pa.Table.from_pandas(_frame())
    pq.write_table(table.append_column("score", table["score"]), tmp_path / "long.parquet")
    with pytest.raises(InputError, match="expected each column once; not so score"):
        llmrouter9.answers(tmp_path / "long.parquet")


def test_identifiers_that_are_numbers():
    frame = _frame().assign(query_id=[7, 7, 5, 5, 3, 3])
    assert from_long("x", frame).query_id.tolist() == ["7", "5", "3"]


def test_llms_that_come_in_no_order():
    """Names whose order is not undone by itself: each keeps its scores."""
    frame = pd.DataFrame(
        {
            "query_id": np.repeat(["q", "r"], 3),
            "task": "t",
            "prompt": np.repeat(["One?", "Two?"], 3),
            "model": ["b", "c", "a"] * 2,
            "score": [0.2, 0.3, 0.1, 0.5, 0.6, 0.4],
        }
    )
    answers = from_long("x", frame)
    assert answers.llms == ("a", "b", "c")
    np.testing.assert_array_equal(answers.score, [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])


def test_a_sample_is_drawn_by_its_seed_and_keeps_the_order():
    names = [f"q{i:03}" for i in range(300)]
    frame = pd.DataFrame(
        {
            "query_id": names,
            "task": "t",
            "prompt": names,
            "model": "m",
            "score": np.arange(300) / 300,
        }
    )
    answers = from_long("x", frame)
    one, again, other = (sample(answers, 100, seed) for seed in (0, 0, 1))
    place = (one.score[:, 0] * 300).round().astype(int)
    assert (np.diff(place) > 0).all(), "in their order, and none twice"
    # Where a third is drawn uniformly; four standard deviations of the mean.
    assert abs(place.mean() - 149.5) < 4 * 300 / np.sqrt(12 * 100)
    assert one.query_id.tolist() == again.query_id.tolist() == one.text.tolist()
    assert one.query_id.tolist() != other.query_id.tolist()


# The real tables, where they are


def _real(module, **settings):
    path = SHARED / module.FILE.name
    if not path.exists():
        pytest.skip(f"shared/data/{path.name} is not there")
    return module.answers(path, **settings)


@pytest.mark.parametrize(
    ("module", "shape", "train", "costs"),
    [
        (routerdc7, (20_566, 7), 7_574, False),
        (routerbench3k, (3_150, 11), 2_205, True),
        (llmrouter9, (5_989, 9), 5_608, False),
        (paretobandit4, (3_559, 4), 1_766, True),
        (routellm2, (15_334, 2), 10_748, False),
    ],
)
def test_real_tables(module, shape, train, costs):
    answers = _real(module)
    assert answers.score.shape == shape
    assert (answers.split == "train").sum() == train
    assert (answers.cost is not None) == costs
    # Held against a table made in another way.
    frame = pd.read_parquet(SHARED / module.FILE.name, columns=["query_id", "model", "score"])
    table = frame.astype({"query_id": str, "model": str}).pivot(
        index="query_id", columns="model", values="score"
    )
    wide = table.loc[answers.query_id, list(answers.llms)]
    np.testing.assert_array_equal(answers.score, wide.to_numpy(float))


def test_measured_queries_of_routerdc():
    answers = _real(routerdc7, measured=True)
    assert answers.score.shape == (3_146, 7)
    np.testing.assert_allclose(answers.score * 10, (answers.score * 10).round(), atol=1e-5)
    assert set(answers.task) == {"gsm8k", "humaneval", "mbpp", "multipl_e_js"}
