"""Services become choice data with stable codes, at once or in parts of one shape."""

from datetime import UTC, datetime, timedelta

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cqbayes.choice.data import choice_data
from cqbayes.errors import InputError
from cqbayes.logs.choice_files import read_choices, write_choices
from cqbayes.logs.choices import choice_data_of, codes_of, minibatches, with_failures
from cqbayes.logs.read import notes
from cqbayes.logs.schema import SERVICES
from cqbayes.preference import layout, load_model, sizes_of, utilities

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)  # a Friday
LLMS = ["a", "b", "c"]


def _rows(count: int, seed: int = 0) -> list[dict]:
    """Simulated services of one attempt each."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        offered = [LLMS[j] for j in rng.permutation(3)[:2]]
        outcome = rng.integers(4)
        rows.append(
            {
                "query_id": str(i),
                "attempt": 1,
                "user_id": None if i % 5 == 0 else f"u{rng.integers(4)}",
                "timestamp": NOON + timedelta(days=int(rng.integers(20))),
                "offered": offered,
                "chosen": offered[outcome] if outcome < 2 else None,
                "silent": bool(outcome == 3),
                "text": "x" * int(rng.integers(1, 9)),
                "embedding": rng.normal(size=3).tolist(),
                "weight": None if i % 3 else 0.5,
            }
        )
    return rows


def _batches(rows: list[dict], size: int = 7) -> list[pa.RecordBatch]:
    return pa.Table.from_pylist(rows, SERVICES).to_batches(size)


def test_each_column_is_what_the_rows_say():
    rows = _rows(50)
    coded = choice_data_of(_batches(rows), time="W", attributes={n: [ord(n), 1.0] for n in LLMS})
    data = coded.data
    assert coded.llms == ("a", "b", "c")
    assert coded.users == ("u0", "u1", "u2", "u3")
    assert coded.times[0] == datetime(2024, 2, 26, tzinfo=UTC), "a Monday"
    assert (data.num_users, data.num_times) == (4, len(coded.times))
    assert data.user is not None
    assert data.time is not None
    assert data.attributes is not None
    for i, row in enumerate(rows):
        assert [n for n, there in zip(LLMS, data.offered[i], strict=True) if there] == sorted(
            row["offered"]
        )
        wanted = -1 if row["silent"] else 0
        if row["chosen"]:
            wanted = 1 + LLMS.index(row["chosen"])
        assert data.choice[i] == wanted
        assert data.weight[i] == (row["weight"] or 1)
        assert int(data.user[i]) == (coded.users.index(row["user_id"]) if row["user_id"] else 4)
        begins = coded.times[int(data.time[i])]
        assert begins <= row["timestamp"] < begins + timedelta(days=7)
        unit = np.array(row["embedding"]) / np.linalg.norm(row["embedding"])
        np.testing.assert_allclose(data.context[i], unit, rtol=1e-5)
    np.testing.assert_array_equal(data.attributes[0], [[97, 1], [98, 1], [99, 1]])


@pytest.mark.parametrize("size", [1, 7, 16, 50, 64])
def test_parts_of_one_shape_are_the_whole(size):
    rows = _rows(50)
    whole = choice_data_of(_batches(rows), time="D")
    parts = list(minibatches(iter(_batches(rows)), size, codes=whole.codes))
    assert {jax.tree.structure(part) for part in parts} == {jax.tree.structure(whole.data)}
    assert {part.num_obs for part in parts} == {size}
    for name in ("context", "offered", "choice", "weight", "user", "attempt", "time"):
        found = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(found[:50], getattr(whole.data, name))
        padded = found[50:]
        assert (padded == (1 if name == "attempt" else 0)).all()
        assert len(padded) == -50 % size


def test_parts_of_a_file(tmp_path):
    pq.write_table(pa.Table.from_pylist(_rows(50), SERVICES), tmp_path / "log.parquet")
    whole = choice_data_of(_batches(_rows(50)))
    (part,) = minibatches(tmp_path / "log.parquet", 50)
    for one, other in zip(jax.tree.leaves(part), jax.tree.leaves(whole.data), strict=True):
        np.testing.assert_array_equal(one, other)


def test_codes_that_are_given_are_kept():
    rows = _rows(20)
    llms, users = ["z", "c", "b", "a"], ["u3", "u2", "u1", "u0", "new"]
    coded = choice_data_of(_batches(rows), llms=llms, users=users)
    assert (coded.llms, coded.users) == (tuple(llms), tuple(users))
    assert (coded.data.num_llms, coded.data.num_users) == (4, 5)
    plain = choice_data_of(_batches(rows)).data
    order = [llms.index(name) for name in LLMS]
    np.testing.assert_array_equal(coded.data.offered[:, np.array(order)], plain.offered)
    # Codes of one part serve for another.
    again = choice_data_of(_batches(_rows(20, seed=1)), llms=coded.llms, users=coded.users)
    assert again.codes == coded.codes


def test_rows_without_a_user_are_nobody_and_not_one_user(tmp_path):
    """Their likelihood is that of the median user, and what they did says nothing of any user."""
    rows = [{**row, "user_id": "" if i == 5 else row["user_id"]} for i, row in enumerate(_rows(40))]
    coded = choice_data_of(_batches(rows))
    nobody = np.array([not row["user_id"] for row in rows])
    np.testing.assert_array_equal(np.asarray(coded.data.user) == 4, nobody)
    assert coded.data.num_users == 4
    write_choices(tmp_path / "a.parquet", coded.data, list(coded.llms), "simulated")
    again, _ = read_choices(tmp_path / "a.parquet")
    np.testing.assert_array_equal(again.user, coded.data.user)
    assert again.num_users == 4
    model = load_model("user_mnl")
    form = layout(model, sizes_of(again))
    effects = {"user_sd": jnp.array(1.0), "user_raw": jnp.arange(1.0, 5)}
    zero = form.constrain(jnp.zeros(form.size))
    params = form.to_params({**zero, **effects})
    np.testing.assert_allclose(
        utilities(model, params, again.situation)[:, 0], np.where(nobody, 0, 1 + again.user)
    )
    assert any("services have no user" in note for note in notes(again))
    assert not any("no user" in note for note in notes(choice_data_of(_batches(rows[1:5])).data))


def test_contexts_of_texts():
    rows = [{**row, "embedding": None} for row in _rows(20)]

    def context(texts: list[str]) -> np.ndarray:
        return np.array([[len(text), 1.0] for text in texts])

    data = choice_data_of(_batches(rows), context=context).data
    assert data.dim == 2
    for i, row in enumerate(rows):
        np.testing.assert_allclose(data.context[i, 0] / data.context[i, 1], len(row["text"]))
    np.testing.assert_allclose(np.linalg.norm(data.context, axis=1), 1, rtol=1e-6)


def test_columns_that_nobody_has():
    rows = [{**row, "user_id": None, "timestamp": None} for row in _rows(5)]
    coded = choice_data_of(_batches(rows))
    assert (coded.users, coded.data.user, coded.data.time) == (None, None, None)
    assert coded.data.num_users == 0


def _changed(**cells) -> list[pa.RecordBatch]:
    return _batches([*_rows(4), {**_rows(1)[0], **cells}])


@pytest.mark.parametrize(
    ("batches", "settings", "message"),
    [
        ([], {}, "log: expected at least one valid row, got none"),
        (_batches(_rows(3)[:0]), {}, "log: expected at least one valid row, got none"),
        (_changed(), {"llms": ["a", "b"]}, "llms: expected all .* with others . times"),
        (_changed(), {"users": ["u0"]}, "users: expected all"),
        (_changed(), {"llms": ["a", "b", "c", "a"]}, "llms: expected different names"),
        (_changed(), {"time": "year"}, "time: expected one of h, D, W, got 'year'"),
        (_changed(timestamp=None), {"time": "W"}, "timestamp: expected one in every row"),
        (_changed(embedding=None), {}, "embedding: expected one of the same length"),
        (_changed(embedding=[1.0]), {}, "embedding: expected one of the same length"),
        (_changed(text=None), {"context": len}, "text: expected one in every row, .* 1"),
        (_changed(), {"context": lambda _: np.zeros(3)}, r"context: expected shape \(5, dim\)"),
        (_changed(), {"context": lambda t: np.zeros((5, 1))}, "context: expected finite contexts"),
        (_changed(), {"attributes": {"a": [1.0]}}, "attributes: expected numbers .* none for 2"),
    ],
)  # fmt: skip
def test_what_is_refused(batches, settings, message):
    with pytest.raises(InputError, match=message):
        choice_data_of(batches, **settings)


def test_parts_that_are_refused():
    batches = _batches(_rows(4))
    with pytest.raises(InputError, match="size: expected at least 1, got 0"):
        minibatches(batches, 0)
    with pytest.raises(InputError, match="codes: expected the codes of the whole log"):
        minibatches(batches, 4)
    codes = codes_of(batches[:1], time="h")
    late = _batches([{**_rows(1)[0], "timestamp": NOON + timedelta(days=400)}])
    with pytest.raises(InputError, match="time: expected all rows within the blocks given"):
        list(minibatches(late, 4, codes=codes._replace(users=("u0", "u1", "u2", "u3"))))


def test_failures_are_counted_from_chains_of_attempts():
    """In any order of rows, against a count row by row."""
    rng = np.random.default_rng(2)
    rows, expected = [], []
    for query in range(60):
        vain = np.zeros(3, int)
        for attempt in range(1, rng.integers(2, 7)):
            offered = np.isin(np.arange(3), rng.permutation(3)[: rng.integers(1, 3)])
            rows.append((query, attempt, offered, 0))
            expected.append(vain.copy())
            vain += offered
        rows[-1] = (*rows[-1][:3], int(rng.choice([0, -1, 1 + np.argmax(rows[-1][2])])))
    order = rng.permutation(len(rows))
    query, attempt, offered, choice = (np.array(x)[order] for x in zip(*rows, strict=True))
    data = choice_data(np.ones((len(rows), 1)), offered, choice, attempt=attempt)
    found, broken = with_failures(data, query)
    assert broken == 0
    np.testing.assert_array_equal(found.failures, np.array(expected)[order])
    # Without one query's first attempt, its others have no history; no row is guessed.
    lost = ~((query == query[attempt == 2][0]) & (attempt == 1))
    part = jax.tree.map(lambda column: column[lost], data)
    found, broken = with_failures(part, query[lost])
    assert found.failures is None
    assert broken == (query[lost] == query[attempt == 2][0]).sum()
