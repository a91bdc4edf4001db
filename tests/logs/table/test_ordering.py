"""Rows in any order: in memory none is dropped for where it stood, and DuckDB says the same."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cqbayes.errors import InputError
from cqbayes.logs.schema import SERVICES
from cqbayes.logs.table import services
from cqbayes.logs.table.services import ServicesReport, read_services

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
FUZZ = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
both = pytest.mark.parametrize("sort", [True, "memory"])


def _row(
    query: str = "q", attempt: int | None = 1, minutes: int | None = 0, **rest: object
) -> dict:
    at = None if minutes is None else NOON + timedelta(minutes=minutes)
    row = {"query_id": query, "attempt": attempt, "timestamp": at, "offered": ["a", "b"]}
    return {**row, "chosen": None, **rest}


def _written(path: Path, rows: list[dict], leaving_out: str | None = None) -> Path:
    if path.suffix == ".parquet":
        schema = pa.schema([field.with_nullable(True) for field in SERVICES])
        table = pa.Table.from_pylist(rows, schema)
        pq.write_table(table.drop_columns([leaving_out] if leaving_out else []), path)
    else:
        there = [{k: v for k, v in row.items() if k != leaving_out} for row in rows]
        path.write_text("\n".join(json.dumps(row, default=datetime.isoformat) for row in there))
    return path


def _read(path: Path, **reading) -> tuple[list[dict], ServicesReport]:
    stream = read_services(path, **reading)
    found = pa.Table.from_batches(list(stream), SERVICES).to_pylist()
    report = stream.report
    assert report.read == report.kept + sum(report.set_aside.values())
    assert report.kept == len(found)
    return found, report


def _places(rows: list[dict]) -> list[tuple[str, int]]:
    return [(row["query_id"], row["attempt"]) for row in rows]


@st.composite
def sound_logs(draw) -> list[dict]:
    """Queries that are asked again and again, a little faster than one after another."""
    rows, minutes = [], 0
    for number in range(draw(st.integers(1, 5))):
        session = draw(st.none() | st.sampled_from(["s1", "s2"]))
        attempts = draw(st.integers(1, 3))
        for attempt in range(1, attempts + 1):
            minutes += draw(st.integers(1, 2))
            last = attempt == attempts
            taken = last and draw(st.booleans())
            silent = last and not taken and draw(st.booleans())
            rows.append(
                _row(f"q{(number * 7) % 10}", attempt, minutes, session_id=session, silent=silent,
                     chosen=draw(st.sampled_from("ab")) if taken else None)
            )  # fmt: skip
        minutes -= draw(st.integers(0, 3))
    return rows


@FUZZ
@given(rows=sound_logs(), data=st.data())
def test_shuffled_rows_of_a_sound_log_are_the_same_services(rows, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("order")
    suffix = data.draw(st.sampled_from([".parquet", ".jsonl"]))
    size = data.draw(st.sampled_from([1, 3, 100]))
    first, report = _read(_written(folder / f"a{suffix}", rows), sort="memory", rows=size)
    assert (len(first), report.set_aside) == (len(rows), {})
    by_query = sorted(rows, key=lambda row: (row["query_id"], row["attempt"]))
    found = sorted(first, key=lambda row: (row["query_id"], row["attempt"]))
    assert [dict.fromkeys(SERVICES.names) | row for row in by_query] == found
    shuffled = data.draw(st.permutations(rows))
    then, report = _read(_written(folder / f"b{suffix}", shuffled), sort="memory", rows=size)
    assert then == first
    assert report.set_aside == {}
    assert report.out_of_order == sum(
        any(r["query_id"] == row["query_id"] and r["attempt"] > row["attempt"] for r in before)
        for row, before in ((row, shuffled[:place]) for place, row in enumerate(shuffled))
    )
    # And without attempts, which times tell.
    path = _written(folder / f"c{suffix}", shuffled, leaving_out="attempt")
    numbered, report = _read(path, sort="memory", rows=size)
    assert numbered == first
    assert f"{len(rows):,} rows have no attempt, and were numbered" in report.notes[-1]


ANY = st.lists(
    st.builds(
        _row,
        query=st.sampled_from(["a", "b", "c"]),
        attempt=st.integers(0, 4),
        minutes=st.none() | st.integers(0, 4),
        session_id=st.none() | st.sampled_from(["s", "t", "b"]),
        offered=st.sampled_from([["a"], ["b", "a"], ["a|b"]]),
        chosen=st.none() | st.sampled_from(["a", "b"]),
        silent=st.none() | st.booleans(),
    ),
    min_size=1,
    max_size=16,
)


@settings(parent=FUZZ, max_examples=25)
@given(rows=ANY, size=st.sampled_from([1, 3, 100]))
def test_memory_and_duckdb_give_the_same(rows, size, tmp_path_factory):
    """Whatever is wrong with the log."""
    path = _written(tmp_path_factory.mktemp("order") / "log.parquet", rows)
    found, report = _read(path, sort="memory", rows=size)
    wanted, other = _read(path, sort=True, rows=size)
    assert found == wanted
    assert report == other
    assert "order" not in report.set_aside


@FUZZ
@given(rows=ANY, data=st.data(), known=st.booleans())
def test_what_is_wrong_does_not_depend_on_the_order_of_rows(rows, data, known, tmp_path_factory):
    """Of rows that say the same, it is open which is kept, so that they have the same session."""
    rows = [{**row, "session_id": str(row["timestamp"])} for row in rows]
    folder = tmp_path_factory.mktemp("order")
    column = None if known else "attempt"
    first, report = _read(_written(folder / "a.parquet", rows, column), sort="memory")
    rows = data.draw(st.permutations(rows))
    then, other = _read(_written(folder / "b.parquet", rows, column), sort="memory")
    assert then == first
    assert report.set_aside == other.set_aside


@both
def test_sorting_puts_queries_and_sessions_together(tmp_path, sort):
    log = [
        _row("q2", 2, 30, session_id="s1", chosen="a"), _row("q3", 1, 5, session_id="s2"),
        _row("q1", 1, 10, session_id="s1"), _row("q2", 1, 20, session_id="s1"),
        _row("q4", 1, 1), _row("q5", 1, None), _row("q1", 2, 40, session_id="s1"),
        _row("q6", 1, 15, session_id="s3"), _row("q7", 1, 50, session_id="s5"),
        _row("q8", 1, 50, session_id="s4"), _row("q9", 1, 50, session_id="s5"),
        {**_row("", 2, 9), "query_id": None}, {**_row("", 1, 9), "query_id": None},
    ]  # fmt: skip
    path = _written(tmp_path / "log.jsonl", log)
    path.write_bytes(b"{\n" + path.read_bytes())
    found, report = _read(path, sort=sort, rows=2)
    wanted = [("q4", 1), ("q3", 1), ("q1", 1), ("q1", 2), ("q2", 1), ("q2", 2), ("q6", 1)]
    assert _places(found) == [*wanted, ("q8", 1), ("q7", 1), ("q9", 1), ("q5", 1)]
    assert report.set_aside == {"line": 1, "query_id": 2}
    assert report.places["line"] == ("log.jsonl:1",)
    assert report.out_of_order == 1
    assert "1 rows stood after a later attempt, and were sorted" in report.notes
    _, unsorted = _read(path)
    assert unsorted.set_aside == {"line": 1, "gap": 1, "query_id": 2}
    assert unsorted.out_of_order == 0
    assert any("sort='memory' sorts them" in note for note in unsorted.notes)


@both
def test_a_query_that_goes_on_in_another_session_stays_whole(tmp_path, sort):
    log = [
        _row("q1", 2, 9, session_id="s2", chosen="a"), _row("q2", 1, 5, session_id="s2"),
        _row("q1", 1, 0, session_id="s1"),
    ]  # fmt: skip
    found, report = _read(_written(tmp_path / "log.jsonl", log), sort=sort)
    assert _places(found) == [("q1", 1), ("q1", 2), ("q2", 1)]
    assert report.set_aside == {}


@both
def test_attempts_are_believed_and_times_that_go_back_are_counted(tmp_path, sort):
    log = [_row("q", 1, 5), _row("q", 2, 3), _row("q", 3, 4), _row("q", 4, 5), _row("r", 1, 0)]
    path = _written(tmp_path / "log.jsonl", log)
    found, report = _read(path, sort=sort, rows=2)
    assert _places(found) == [("r", 1), *(("q", attempt) for attempt in (1, 2, 3, 4))]
    assert any(note.startswith("2 rows have a timestamp before") for note in report.notes)
    assert _read(path)[1].set_aside == {"order": 1, "gap": 2}


def test_attempts_without_numbers_are_numbered_by_time(tmp_path):
    """Of a query that has none at all; two records that say the same are one attempt."""
    log = [
        _row("q", None, 9, chosen="b"), _row("q", None, 3), _row("q", None, 3),
        _row("q", None, 5, offered=["b"]), _row("r", None, None), _row("r", None, 1),
        _row("s", None, 2), _row("s", 1, 1), _row("t", None, 7, chosen="a"), _row("t", None, 7),
        _row("v", None, 6, silent=True), _row("v", None, 6),
        _row("u", None, 8, offered=["a"]), _row("u", None, 8, offered=["b"]),
        _row("u", None, 0, timestamp=datetime(1970, 1, 1, tzinfo=UTC)),
        {**_row("", None, 8), "query_id": None}, {**_row("", None, 9), "query_id": None},
    ]  # fmt: skip
    found, report = _read(_written(tmp_path / "log.jsonl", log), sort="memory")
    assert sorted(_places(found)) == [
        ("q", 1), ("q", 2), ("q", 3), ("r", 1), ("s", 1), ("t", 1), ("t", 2), ("u", 1), ("u", 2),
        ("v", 1), ("v", 2),
    ]  # fmt: skip
    outcomes = {(row["query_id"], row["attempt"]): row["chosen"] for row in found}
    assert (outcomes["q", 3], outcomes["t", 1], outcomes["t", 2]) == ("b", None, "a")
    assert {name: {int(place.split(":")[1]) for place in places}
            for name, places in report.places.items()} == {
        "attempt": {5, 7}, "duplicate": {3}, "timestamp": {15}, "query_id": {16, 17}
    }  # fmt: skip
    assert [row["silent"] for row in found if row["query_id"] == "v"] == [None, True]
    assert "11 rows have no attempt, and were numbered by their timestamps" in report.notes
    assert any(note.startswith("3 of those have the timestamp of an") for note in report.notes)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_column_of_attempts_is_needed_where_there_are_no_times(tmp_path, suffix):
    def written(*leaving_out: str) -> Path:
        table = pa.Table.from_pylist([_row("q", 1, 0), _row("q", 2, 1)], SERVICES)
        path = tmp_path / f"log{suffix}"
        if suffix == ".csv":
            names = [n for n in ("query_id", "attempt", "timestamp") if n not in leaving_out]
            table.select(names).to_pandas().assign(offered="a", chosen=None).to_csv(path)
        else:
            pq.write_table(table.drop_columns(list(leaving_out)), path)
        return path

    for sort in (False, True):
        with pytest.raises(InputError, match=r"no attempt; sort='memory' numbers attempts by time"):
            read_services(written("attempt"), sort=sort)
    found, _ = _read(written("attempt"), sort="memory")
    assert _places(found) == [("q", 1), ("q", 2)]
    with pytest.raises(InputError, match=r"expected columns .*; no attempt$"):
        read_services(written("attempt", "timestamp"), sort="memory")


@both
def test_sorting_keeps_all_that_a_row_has_and_counts_its_faults_once(tmp_path, sort):
    rng = np.random.default_rng(0)
    full = {"user_id": "u", "text": "x", "embedding": [0.5, 1.0], "weight": 2.0, "cost": 0.01}
    rows = [_row(str(i), j, j, **full) for i in range(200) for j in (1, 2)]
    rows[7]["weight"], rows[8]["weight"] = "much", -1.0
    path = _written(tmp_path / "log.jsonl", [rows[i] for i in rng.permutation(400)])
    aside = tmp_path / "aside.jsonl"
    found, report = _read(path, sort=sort, rows=50, quarantine=aside, memory="64MB")
    assert report.set_aside == {"cell": 1, "weight": 1}
    assert len(aside.read_text().splitlines()) == 2
    places = dict(zip(_places(found), found, strict=True))
    wanted = dict.fromkeys(SERVICES.names) | rows[20]
    assert places[rows[20]["query_id"], rows[20]["attempt"]] == wanted


def test_sorting_needs_sense_and_passes_on_what_is_refused(tmp_path, monkeypatch):
    path = _written(tmp_path / "log.jsonl", [_row("1"), _row("2", weight="x")])
    with pytest.raises(InputError, match="memory: expected a size such as '1GB', got 'much'"):
        list(read_services(path, sort=True, memory="much"))
    with pytest.raises(InputError, match="sort: expected False, True or 'memory', got 'disk'"):
        read_services(path, sort="disk")  # pyright: ignore[reportArgumentType]
    for sort in (True, "memory"):
        with pytest.raises(InputError, match=r"log.jsonl:2: expected in every cell .*, got: cell"):
            list(read_services(path, sort=sort, strict=True))
    monkeypatch.setattr(services, "MOST_IN_MEMORY", 1)
    with pytest.raises(InputError, match="expected at most 1 rows in memory, got more; sort=True"):
        list(read_services(path, sort="memory"))


def test_texts_that_do_not_fit_in_one_batch_come_in_several(tmp_path, monkeypatch):
    monkeypatch.setattr(services, "MOST_BYTES_OF_BATCH", 1_000)
    log = [_row(str(i), text="x" * 300) for i in range(10)]
    batches = list(read_services(_written(tmp_path / "log.parquet", log), sort="memory"))
    assert sum(map(len, batches)) == 10
    assert max(map(len, batches)) <= 4
