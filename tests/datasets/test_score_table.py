"""Score tables: files that are wrong are refused, with the reason."""

import hashlib
from dataclasses import replace

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cqbayes.datasets.score_table import ScoreTable, read_scores
from cqbayes.environments.scores import from_scores
from cqbayes.errors import InputError


def _write(path, **changes):
    columns = {
        "query_id": ["a", "b"],
        "task": ["t", "t"],
        "split": ["train", "test"],
        "score|m": [0.5, 1.0],
        "cost_usd|m": [0.1, 0.2],
        "context": pa.array([[3.0, 4.0], [1.0, 0.0]], pa.list_(pa.float32(), 2)),
        **changes,
    }
    pq.write_table(pa.table({k: v for k, v in columns.items() if v is not None}), path)
    return path


def test_round_trip(tmp_path):
    path = _write(tmp_path / "scores.parquet")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    table = read_scores(path, sha256=digest, dim=2)
    assert table.llms == ("m",)
    np.testing.assert_allclose(table.context[0], [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score|m": [0.5, 1.5]}, r"scores in \[0, 1\], .*row 1"),
        ({"score|m": [0.5, float("nan")]}, r"scores in \[0, 1\], .*row 1"),
        ({"cost_usd|m": [0.1, -1.0]}, "costs in dollars, .*row 1"),
        ({"split": ["train", "dev"]}, "split .*row 1"),
        ({"score|m": None}, "expected columns"),
        ({"cost_usd|m": None}, "expected columns cost_usd|m"),
        ({"query_id": ["a", "a"]}, "each query_id once, .*row 1"),
        ({"context": [[1.0, 2.0], [1.0]]}, "lists of one length"),
        ({"context": pa.array([[0.0, 0.0], [1.0, 0.0]], pa.list_(pa.float32(), 2))}, "row 0"),
    ],
)
def test_bad_files(tmp_path, changes, message):
    path = _write(tmp_path / "scores.parquet", **changes)
    with pytest.raises(InputError, match=message):
        read_scores(path, sha256=None, dim=2)


def test_wrong_checksum_missing_file_wrong_format(tmp_path):
    path = _write(tmp_path / "scores.parquet")
    with pytest.raises(InputError, match="expected SHA-256 000"):
        read_scores(path, sha256="0" * 64, dim=2)
    with pytest.raises(InputError, match="expected a readable file"):
        read_scores(tmp_path / "absent.parquet", sha256=None, dim=2)
    path.write_bytes(b"not parquet")
    with pytest.raises(InputError, match="expected a Parquet file"):
        read_scores(path, sha256=None, dim=2)


def test_unknown_split_and_contradiction(tmp_path):
    table = read_scores(_write(tmp_path / "scores.parquet"), sha256=None, dim=2)
    with pytest.raises(InputError, match="expected a split among test, train, got 'dev'"):
        table.part("dev")
    with pytest.raises(InputError, match="contradiction"):
        from_scores(table, contradiction=0.5)


@pytest.mark.parametrize("contradiction", [0.1, 1 / 22])
def test_satisfaction_follows_the_score_of_the_row_that_is_drawn(contradiction):
    rng = np.random.default_rng(0)
    names = np.array(list("abcde"))
    table = ScoreTable(
        name="made-up",
        llms=("m", "n"),
        query_id=names,
        task=names,
        split=np.full(5, "test"),
        context=rng.normal(size=(5, 3)),
        score=np.array([[0, 1], [0.5, 0.1], [1, 0], [0.3, 0.9], [0.7, 0.2]]),
        cost=rng.random((5, 2)),
    )
    population = from_scores(table, contradiction)
    assert population.cost is not None
    assert table.cost is not None
    rows = []
    for key in jax.random.split(jax.random.key(0), 200):
        query = population.draw(key)
        row = int(query.identity)
        chance = 1 / (1 + np.exp(-np.asarray(population.utility(query))))
        expected = [contradiction + (1 - 2 * contradiction) * s for s in table.score[row]]
        np.testing.assert_allclose(chance, expected, rtol=1e-5)
        np.testing.assert_allclose(query.context, table.context[row], rtol=1e-5)
        np.testing.assert_allclose(population.cost(query), table.cost[row], rtol=1e-5)
        rows.append(row)
    # 40 each, give or take four standard deviations.
    assert (np.abs(np.bincount(rows, minlength=5) - 40) < 4 * np.sqrt(200 * 0.2 * 0.8)).all()
    # Half an answer added to either side of ten: section 7's map at 1 / 22.
    if contradiction == 1 / 22:
        np.testing.assert_allclose(expected, (10 * table.score[row] + 0.5) / 11)


@pytest.mark.parametrize(("samples", "contradiction"), [(1, 0.1), (10, 1 / 22), (3, 1 / 8)])
def test_contradiction_follows_the_number_of_answers(samples, contradiction, tmp_path):
    table = read_scores(_write(tmp_path / "scores.parquet"), sha256=None, dim=2)
    assert table.samples == 1
    table = replace(table, samples=samples)
    query = from_scores(table).draw(jax.random.key(0))
    np.testing.assert_array_equal(
        from_scores(table.part("test")).utility(query),
        from_scores(table.part("test"), contradiction).utility(query),
    )
