"""Tables that pandas wrote are read back as what they were, or a rule says why not."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cqbayes.errors import InputError
from cqbayes.logs.schema import SERVICES
from cqbayes.logs.table.services import read_services
from cqbayes.logs.table.validation import looks_like_list

pytestmark = pytest.mark.filterwarnings("ignore:.epoch. date format is deprecated")
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
# Names that a careless reader splits, cuts or takes for something else.
NAMES = (
    "gpt-4o", "meta/llama-3.1:free", "llama (8B)", "Bob's", "é\N{GRINNING FACE}", "a\\b", "3.0",
    "claude [beta]", "True", "x" * 80,
)  # fmt: skip
AS_LISTS = (list, tuple, np.array, lambda names: np.array(names, object))
AS_TEXT = (repr, json.dumps, str, "|".join)
AS_SETS = (set, frozenset)


def _frame(outcomes, llms=NAMES[:3]) -> pd.DataFrame:
    """A row for each outcome: None for a retry, or which of the LLMs was taken."""
    count = len(outcomes)
    return pd.DataFrame(
        {
            "query_id": [f"q{i}" for i in range(count)],
            "attempt": 1,
            "timestamp": pd.to_datetime([NOON + timedelta(seconds=i / 8) for i in range(count)]),
            "offered": [list(llms)] * count,
            "chosen": [None if one is None else llms[one] for one in outcomes],
            "silent": [False if one is None else None for one in outcomes],
            "embedding": [[0.5, -1e-9]] * count,
            "latency": [None if one is None else 0.1 + one for one in outcomes],
            "text": 'hello, "you"',
        }
    )


def _read(path, **reading):
    stream = read_services(path, **reading)
    found = pa.Table.from_batches(list(stream), SERVICES).to_pylist()
    assert stream.report.read == stream.report.kept + sum(stream.report.set_aside.values())
    return found, stream.report


def _is_read_back(path, frame: pd.DataFrame, **reading) -> None:
    found, report = _read(path, **reading)
    assert (report.set_aside, report.ignored) == ({}, ())
    wanted = frame.to_dict("records")
    for row, had in zip(found, wanted, strict=True):
        assert (row["query_id"], row["attempt"]) == (had["query_id"], had["attempt"])
        assert sorted(row["offered"]) == sorted(had["offered"])
        assert row["chosen"] == (None if pd.isna(had["chosen"]) else had["chosen"])
        assert row["silent"] == (None if pd.isna(had["silent"]) else had["silent"])
        assert row["latency"] == (None if pd.isna(had["latency"]) else had["latency"])
        assert row["timestamp"] == had["timestamp"]
        assert row["embedding"] == pytest.approx(had["embedding"])
        assert row["text"] == had["text"]


def _to_csv(frame, path):
    frame.to_csv(path)


def _to_csv_without_index(frame, path):
    frame.to_csv(path, index=False)


def _to_csv_with_words(frame, path):
    frame.to_csv(path, na_rep="NaN")


def _to_csv_twice(frame, path):
    frame.to_csv(path)
    pd.read_csv(path).to_csv(path)


def _to_csv_as_strings(frame, path):
    frame.astype(object).where(frame.notna(), None).map(str).to_csv(path, index=False)


def _to_json(frame, path):
    frame.to_json(path, orient="records", lines=True, date_format="epoch", date_unit="ms")


def _to_json_iso(frame, path):
    frame.to_json(path, orient="records", lines=True, date_format="iso", date_unit="us")


def _to_parquet(frame, path):
    frame.to_parquet(path)


WRITERS = {
    ".csv": (_to_csv, _to_csv_without_index, _to_csv_with_words, _to_csv_twice, _to_csv_as_strings),
    ".jsonl": (_to_json, _to_json_iso),
    ".parquet": (_to_parquet,),
}
OUTCOMES = st.lists(st.none() | st.integers(0, 2), min_size=1, max_size=6)
LLMS = st.lists(st.sampled_from(NAMES), min_size=3, max_size=8, unique=True)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(outcomes=OUTCOMES, llms=LLMS, data=st.data())
def test_tables_of_pandas_are_read_back(outcomes, llms, data, tmp_path_factory):
    suffix = data.draw(st.sampled_from(sorted(WRITERS)))
    writer = data.draw(st.sampled_from(WRITERS[suffix]))
    kinds = (*AS_LISTS, *AS_TEXT, *(() if suffix == ".parquet" else AS_SETS))
    kind = data.draw(st.sampled_from(kinds))
    frame = _frame(outcomes, llms)
    path = tmp_path_factory.mktemp("pandas") / f"log{suffix}"
    writer(frame.assign(offered=[kind(names) for names in frame["offered"]]), path)
    _is_read_back(path, frame, sort=data.draw(st.sampled_from([False, "memory"])))


@pytest.mark.parametrize("suffix", WRITERS)
def test_acceptances_are_not_lost(tmp_path, suffix):
    """Of a table whose lists became text, acceptances were set aside and retries stayed."""
    path = tmp_path / f"log{suffix}"
    WRITERS[suffix][0](_frame([None, 0, 1] * 10), path)
    found, report = _read(path)
    assert [row["chosen"] for row in found] == [None, *NAMES[:2]] * 10
    assert {tuple(row["offered"]) for row in found} == {NAMES[:3]}
    assert report.notes == ()


@pytest.mark.parametrize("suffix", WRITERS)
def test_numbers_beside_missing_values(tmp_path, suffix):
    """pandas makes numbers with a point of whole numbers and of booleans."""
    frame = _frame([0, None, 1], llms=(1, 2, 3)).assign(
        attempt=[1.0, 1.0, 1.0], silent=[0.0, 1.0, np.nan], user_id=[7.0, np.nan, 8.0]
    )
    frame["chosen"] = frame["chosen"].astype(float)
    frame["timestamp"] = [float(NOON.timestamp() * 1_000), np.nan, NOON.timestamp() * 1_000]
    path = tmp_path / f"log{suffix}"
    WRITERS[suffix][0](frame, path)
    found, report = _read(path)
    assert report.set_aside == {}
    assert [row["offered"] for row in found] == [["1", "2", "3"]] * 3
    assert [row["chosen"] for row in found] == ["1", None, "2"]
    assert [row["silent"] for row in found] == [False, True, None]
    assert [row["timestamp"] for row in found] == [NOON, None, NOON]
    assert [row["user_id"] is None for row in found] == [False, True, False]


@pytest.mark.parametrize("suffix", WRITERS)
def test_words_that_stand_for_nothing(tmp_path, suffix):
    """In the text of a user only those that no user writes."""
    words = ["NaN", "nan", "None", "null", "<NA>", "NaT", ""]
    frame = _frame([None] * len(words)).assign(chosen=words, user_id=words, text=words)
    path = tmp_path / f"log{suffix}"
    WRITERS[suffix][0](frame, path)
    found, report = _read(path)
    assert report.set_aside == {}
    assert {row["chosen"] for row in found} == {row["user_id"] for row in found} == {None}
    empty = None if suffix == ".csv" else ""
    assert [row["text"] for row in found] == [None, None, "None", "null", None, "NaT", empty]
    WRITERS[suffix][0](frame.assign(query_id=words), path)
    assert _read(path)[1].set_aside == {"query_id": len(words)}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_what_is_no_number_is_nothing(tmp_path, suffix):
    """As in a table of pandas that others wrote: Python writes NaN in JSON, and Arrow keeps it."""
    nan = float("nan")
    there = {"attempt": 1.0, "silent": nan, "latency": nan, "weight": nan, "timestamp": nan}
    row = {"query_id": "q", "offered": ["a"], "chosen": nan, "user_id": nan, **there}
    path = tmp_path / f"log{suffix}"
    if suffix == ".jsonl":
        path.write_text(json.dumps(row))
    else:
        pq.write_table(pa.Table.from_pylist([row]), path)
        assert pc.is_nan(pq.read_table(path)["weight"]).to_pylist() == [True]
    (found,), report = _read(path)
    assert report.set_aside == {}
    assert {name for name, value in found.items() if value is not None} == {
        "query_id",
        "attempt",
        "offered",
    }


@pytest.mark.parametrize(
    "times",
    [
        ["2024-03-01", "2024-03-02"],
        ["2024-03-01 12:00:00.123456789+00:00", "2024-03-01 12:00:01+00:00"],
        ["2024-03-01 12:00:00+02:00", None],
        ["2024-03-01 12:00:00", None],
    ],
)
@pytest.mark.parametrize("suffix", WRITERS)
def test_times_as_pandas_writes_them(tmp_path, suffix, times):
    at = pd.to_datetime(pd.Series(times), format="ISO8601")
    path = tmp_path / f"log{suffix}"
    WRITERS[suffix][-1](_frame([0, None]).assign(timestamp=at), path)
    found, report = _read(path)
    assert report.set_aside == {}
    for row, one in zip(found, at, strict=True):
        if pd.isna(one):
            assert row["timestamp"] is None
        else:
            utc = one.tz_localize(UTC) if one.tzinfo is None else one.tz_convert(UTC)
            assert row["timestamp"] == utc.floor("us").to_pydatetime()


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("kind", [lambda e: np.array(e, np.float32), tuple, str, np.array])
def test_embeddings_as_pandas_writes_them(tmp_path, suffix, kind):
    values = [0.1, -2.5e-7, 3.0] * 30
    path = tmp_path / f"log{suffix}"
    WRITERS[suffix][0](_frame([0, 1]).assign(embedding=[kind(values), kind(values)]), path)
    found, report = _read(path)
    assert report.set_aside == {}
    np.testing.assert_allclose(found[1]["embedding"], values, rtol=1e-5, atol=1e-8)


def test_an_embedding_that_numpy_cut_short_is_set_aside(tmp_path):
    frame = _frame([0, 1]).assign(embedding=[np.arange(2_000) / 7] * 2)
    frame.to_csv(tmp_path / "log.csv")
    assert _read_nothing(tmp_path / "log.csv").set_aside == {"cell": 2}


def _read_nothing(path):
    stream = read_services(path)
    assert list(stream) == []
    return stream.report


@pytest.mark.parametrize(
    "shown",
    ["['a', 'b", "['a' b]", "{'a': True}", "a, b", "a;b", "'a'", '"a"', "<StringArray>\n['a']",
     "0    a\n1    b\ndtype: str", "[['a'], ['b']]"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", WRITERS)
def test_no_llm_has_the_name_of_a_list(tmp_path, suffix, shown):
    frame = _frame([None, None]).assign(offered=shown)
    path = tmp_path / f"log{suffix}"
    WRITERS[suffix][0](frame, path)
    report = _read_nothing(path)
    assert report.set_aside == {"list": 2}
    assert "list: expected in offered a name, names with bars between them" in str(report)


def test_names_that_look_like_lists_and_names_that_do_not():
    pieces = ["['a'", "'b']", "[a", "b]", "(a", "a)", "{a", "a|b", "a,b", 'a"', "'a'", "a\n", "[a]",
              "a [b", "a (b", "a {b"]  # fmt: skip
    assert looks_like_list(pa.array(pieces)).all()
    assert not looks_like_list(pa.array([*NAMES, "a {b}", "gpt 4", "", None])).any()


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "Unnamed: 0.1", "__index_level_0__"])
def test_the_index_of_a_table_is_no_column_to_speak_of(tmp_path, name):
    frame = _frame([0, None])
    frame.insert(0, name, range(2))
    frame["prompt"] = "x"
    for suffix, writer in ((".csv", _to_csv_without_index), (".jsonl", _to_json)):
        path = tmp_path / f"log{suffix}"
        writer(frame, path)
        assert _read(path)[1].ignored == ("prompt",)


def test_names_are_trimmed_since_lists_are_split_at_commas(tmp_path):
    frame = _frame([0, None]).assign(offered=[["a", " b"], [" a", "b "]], chosen=["a ", None])
    for suffix in WRITERS:
        path = tmp_path / f"log{suffix}"
        WRITERS[suffix][0](frame, path)
        found, report = _read(path)
        assert report.set_aside == {}
        assert [row["offered"] for row in found] == [["a", "b"]] * 2
        assert found[0]["chosen"] == "a"


def test_an_array_of_json_is_refused_and_lines_are_not(tmp_path):
    frame = _frame([0, None])
    _to_json(frame, tmp_path / "log.json")
    _is_read_back(tmp_path / "log.json", frame)
    frame.to_json(tmp_path / "log.json", orient="records", date_format="iso")
    with pytest.raises(InputError, match=r"log.json: expected JSON Lines.*lines=True"):
        read_services(tmp_path / "log.json")
    (tmp_path / "notes.json").write_text("{}")
    _to_json(frame, tmp_path / "log.jsonl")
    _is_read_back(tmp_path, frame)  # of a folder only files that are sure to be tables


def test_numbers_that_numpy_shows(tmp_path):
    lines = ["query_id,attempt,offered,chosen,cost,silent", "1,1,a,,np.float64(0.5),np.False_"]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    (row,), _ = _read(tmp_path / "log.csv")
    assert (row["cost"], row["silent"]) == (0.5, False)


@pytest.mark.parametrize("values", [[2, 0], [-1, 0], [0.5, 0.0]])
def test_numbers_that_are_no_booleans(tmp_path, values):
    for suffix in WRITERS:
        path = tmp_path / f"log{suffix}"
        WRITERS[suffix][0](_frame([None, None]).assign(silent=values), path)
        found, report = _read(path)
        assert report.set_aside == {"cell": 1}
        assert found[0]["silent"] is False
