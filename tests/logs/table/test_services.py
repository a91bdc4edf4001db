"""The long table of services: what is read, what is set aside under which rule, and where."""

import csv
import gc
import gzip
import json
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from cqbayes.errors import InputError
from cqbayes.logs import records
from cqbayes.logs.formats import importer, wildchat
from cqbayes.logs.schema import SERVICES
from cqbayes.logs.table import chunks, csv_rows, validation
from cqbayes.logs.table.services import read_services
from cqbayes.logs.table.validation import RULES, Checker

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
SECRET = "xyzzy"
DOCS = ROOT / "docs" / "logs.md"


def _row(query="q", attempt=1, minutes=0, **rest) -> dict:
    row = {
        "query_id": query,
        "attempt": attempt,
        "timestamp": NOON + timedelta(minutes=minutes),
        "offered": ["a", "b"],
        "chosen": None,
        "text": SECRET,
        "embedding": [0.6, 0.8],
    }
    return {**row, **rest}


def _cells(row: dict) -> dict:
    """As a CSV has them."""
    cells = {name: "" if value is None else value for name, value in row.items()}
    if isinstance(cells.get("timestamp"), datetime):
        cells["timestamp"] = cells["timestamp"].isoformat()
    if isinstance(cells.get("offered"), list):
        cells["offered"] = "|".join(name or "" for name in cells["offered"])
    if isinstance(cells.get("embedding"), list):
        cells["embedding"] = json.dumps(cells["embedding"])
    return cells


def _write(path: Path, rows: list[dict]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".parquet":
        schema = pa.schema([SERVICES.field(n).with_nullable(True) for n in names])
        pq.write_table(pa.Table.from_pylist(rows, schema), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(_cells(row) for row in rows)
    else:
        lines = [json.dumps(row, default=datetime.isoformat) for row in rows]
        path.write_text("\n".join(lines) + "\n")
    return path


def _kept(stream) -> list[dict]:
    batches = list(stream)
    for batch in batches:
        assert batch.schema == SERVICES
        batch.validate(full=True)
    report = stream.report
    assert report.read == report.kept + sum(report.set_aside.values())
    assert report.kept == sum(map(len, batches))
    return pa.Table.from_batches(batches, SERVICES).to_pylist()


def _set_aside(stream) -> dict[str, tuple[str, ...]]:
    """Places in the file, by rule."""
    _kept(stream)
    report = stream.report
    assert {name: len(places) for name, places in report.places.items()} == report.set_aside
    return {n: tuple(p.split(":")[1] for p in places) for n, places in report.places.items()}


FORMATS = (".parquet", ".csv", ".jsonl")
all_formats = pytest.mark.parametrize("suffix", FORMATS)

FULL = {
    "session_id": "s",
    "user_id": "u",
    "silent": False,
    "retry_probability": 0.25,
    "latency": 1.5,
    "cost": 0.01,
    "propensity": 0.5,
    "weight": 2.0,
}


@all_formats
def test_all_columns_come_through(tmp_path, suffix):
    rows = [_row('ü,\n"1"', **FULL), _row("2", 1, 1, chosen="b", **(FULL | {"weight": None}))]
    found = _kept(read_services(_write(tmp_path / f"log{suffix}", rows)))
    wanted = [dict.fromkeys(SERVICES.names) | row for row in rows]
    for row in found:
        row["embedding"] = [round(x, 6) for x in row["embedding"]]
    assert found == wanted


@pytest.mark.parametrize("packed", ["log.csv.gz", "log.jsonl.gz"])
def test_files_of_gzip(tmp_path, packed):
    plain = _write(tmp_path / packed.removesuffix(".gz"), [_row("1"), _row("2")])
    (tmp_path / packed).write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert [row["query_id"] for row in _kept(read_services(tmp_path / packed))] == ["1", "2"]


@pytest.mark.parametrize(
    ("cells", "rule"),
    [
        ({"query_id": None}, "query_id"),
        ({"query_id": ""}, "query_id"),
        ({"attempt": None}, "attempt"),
        ({"attempt": 0}, "attempt"),
        ({"offered": None}, "offered"),
        ({"offered": [f"llm-{i}" for i in range(1_001)]}, "offered"),
        ({"offered": ["a", "b", "a"]}, "offered"),
        ({"offered": ["a", ""]}, "offered"),
        ({"offered": ["a", None]}, "offered"),
        ({"offered": ["a", "nan"]}, "offered"),
        ({"offered": ["['a'"], "chosen": "['a'"}, "list"),
        ({"offered": ["a", "b, c"]}, "list"),
        ({"chosen": "c"}, "chosen"),
        ({"chosen": "ab"}, "chosen"),
        ({"chosen": "b", "silent": True}, "silent"),
        ({"timestamp": datetime(1989, 12, 31, tzinfo=UTC)}, "timestamp"),
        ({"timestamp": datetime(2100, 1, 1, tzinfo=UTC)}, "timestamp"),
        ({"retry_probability": 1.5}, "retry_probability"),
        ({"propensity": 0.0}, "propensity"),
        ({"propensity": 1.01}, "propensity"),
        ({"propensity": float("inf")}, "propensity"),
        ({"weight": -1.0}, "weight"),
        ({"weight": float("inf")}, "weight"),
        ({"latency": float("inf")}, "number"),
        ({"cost": float("-inf")}, "number"),
        ({"embedding": [0.6, 0.8, 0.0]}, "embedding"),
        ({"embedding": [0.6, float("nan")]}, "embedding"),
        ({"embedding": [0.0, 0.0]}, "embedding"),
        ({"embedding": None}, "embedding"),
        ({"text": "ü" * 500_001}, "long text"),
        ({"text": SECRET * 2_000_000}, "long text"),
        ({"user_id": "u" * 257}, "long name"),
        ({"offered": ["a", "ü" * 129]}, "long name"),
    ],
)  # fmt: skip
@all_formats
def test_rules_of_a_row(tmp_path, suffix, cells, rule):
    optional = {"user_id": "u", **{name: None for name in FULL if name != "user_id"}}
    rows = [_row("1", **optional), _row("2", **(optional | cells)), _row("3", **optional)]
    stream = read_services(_write(tmp_path / f"log{suffix}", rows))
    assert _set_aside(stream) == {rule: ("3" if suffix == ".csv" else "2",)}


@pytest.mark.parametrize("rows", [65_536, 1, 2])
@all_formats
def test_rules_of_a_query(tmp_path, suffix, rows):
    """Whether or not its rows are in one batch."""
    log = [
        _row("1", 1, 0), _row("2", 1, 0), _row("1", 2, 5),
        _row("2", 1, 0),  # again
        _row("1", 3, 4),  # at an earlier time
        _row("1", 3, 6, chosen="a"), _row("1", 4, 7),  # after the answer
        _row("2", 3, 9),  # where is the second?
        _row("2", 2, 9), _row("3", 2, 0), _row("3", 1, 0, timestamp=None), _row("3", 2, 0),
    ]  # fmt: skip
    places = _set_aside(read_services(_write(tmp_path / f"log{suffix}", log), rows=rows))
    shift = 1 if suffix == ".csv" else 0
    wanted = {"duplicate": (4,), "order": (5,), "answered": (7,), "gap": (8, 10)}
    assert places == {n: tuple(str(p + shift) for p in each) for n, each in wanted.items()}


def test_a_row_with_a_fault_still_was_an_attempt(tmp_path):
    rows = [_row("1", weight=-1), _row("1", 2, weight="much"), _row("1", 3, weight=1.0)]
    stream = read_services(_write(tmp_path / "log.csv", rows))
    assert _set_aside(stream) == {"weight": ("2",), "cell": ("3",)}


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b"{", "line"), (b"[]", "line"), (b"1", "line"), (b"\0", "line"),
        (b'{"query_id": "\xff"}', "encoding"),
        (b'{"query_id": "\\ud800", "attempt": 1, "offered": ["a"], "embedding": [1, 2]}',
         "encoding"),
        ({"offered": ["a", "\ud800"]}, "encoding"),
        ({"timestamp": "\ud800"}, "timestamp"),
        ({"timestamp": "yesterday"}, "timestamp"), ({"timestamp": True}, "timestamp"),
        ({"timestamp": 1.5}, "timestamp"), ({"timestamp": 10**30}, "timestamp"),
        ({"attempt": 1.5}, "cell"), ({"attempt": True}, "cell"), ({"attempt": "1.5"}, "cell"),
        ({"attempt": 2**40}, "cell"), ({"attempt": 10**40}, "cell"),
        ({"offered": 1}, "cell"), ({"offered": [1.5]}, "cell"), ({"offered": {"a": 1}}, "cell"),
        ({"offered": [True, False]}, "cell"), ({"offered": "['a' b]"}, "list"),
        ({"chosen": ["a"]}, "cell"), ({"silent": 2}, "cell"), ({"silent": "no"}, "cell"),
        ({"weight": "1_0"}, "cell"), ({"weight": 10**400}, "cell"), ({"weight": True}, "cell"),
        ({"embedding": ["1", "2"]}, "cell"), ({"embedding": [[1, 2]]}, "cell"),
        ({"embedding": [10**400, 1]}, "cell"), ({"embedding": [1e300, 1]}, "embedding"),
        ({"text": {}}, "cell"), (b'{"a": "' + b"x" * 17_000_000 + b'"}', "record"),
    ],
)  # fmt: skip
def test_lines_of_json_that_are_set_aside(tmp_path, line, rule):
    line = line if isinstance(line, bytes) else json.dumps(_row("2") | line, default=str).encode()
    good = [json.dumps(_row(query), default=str).encode() for query in ("1", "3")]
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join([good[0], b" ", line, good[1]]))
    assert _set_aside(read_services(path)) == {rule: ("3",)}


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b"2,1,a", "line"), (b"2,1,a|b,,,,", "line"), (b'2,"1"x,a,,', "line"),
        (b'2,1,a,,"' + b"x" * 17_000_000 + b'"', "record"),
        (b"2,1,a|b,,\xff", "encoding"),
        (b"2,one,a|b,,", "cell"), (b"2,1.5,a|b,,", "cell"), (b"2,99999999999,a|b,,", "cell"),
        (b"2,1,a||b,,", "offered"), (b"2,1,,,", "offered"), (b"2,1,['a'|b],,", "list"),
        (b'2,1,"a, b",,', "list"), (b'2,1,"""a""",,', "list"),
        (b"2,1,a,b,", "chosen"),
    ],
)  # fmt: skip
def test_lines_of_csv_that_are_set_aside(tmp_path, line, rule):
    """Places are lines, also where a cell has lines of its own, and where lines are blank."""
    path = tmp_path / "log.csv"
    head = b"\xef\xbb\xbfquery_id,attempt,offered,chosen,text\r\n"
    path.write_bytes(head + b'1, 1 ,a|b,a,"one\n\nthree"\r\n\r\n' + line + b"\r\n3,1,a,,\r\n")
    stream = read_services(path)
    assert _set_aside(stream) == {rule: ("6",)}
    assert next(read_services(path))["text"][0].as_py() == "one\n\nthree"


def test_a_quote_that_does_not_close_takes_no_more_than_a_row_may(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_rows, "MOST_BYTES_OF_RECORD", 2_000)
    head = "query_id,attempt,offered,chosen,text\n"
    rows = [f"{i},1,a,,{'x' * 90}\n" for i in range(100)]
    rows[10] = '10,1,a,,"open\n'
    (tmp_path / "log.csv").write_text(head + "".join(rows))
    stream = read_services(tmp_path / "log.csv")
    assert len(_kept(stream)) > 75
    assert stream.report.places == {"record": ("log.csv:12",)}


@pytest.mark.parametrize(
    "value",
    ["2024-03-01T14:00:00+02:00", "2024-03-01 12:00:00Z", "2024-03-01T12:00:00.000000", "{ms}"],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_times_of_all_zones_are_utc(tmp_path, suffix, value):
    """Also where each row has another."""
    ms = int(NOON.timestamp() * 1_000)
    given = (ms if suffix == ".jsonl" else str(ms)) if value == "{ms}" else value
    for others in ([], [_row("2", timestamp="2024-03-01T05:00:00-0700")]):
        path = _write(tmp_path / f"log{suffix}", [_row("1", timestamp=given), *others])
        assert {row["timestamp"] for row in _kept(read_services(path))} == {NOON}


@pytest.mark.parametrize("kind", [pa.timestamp(u) for u in ("s", "ms", "us", "ns")] + [pa.string()])
def test_parquet_of_other_types(tmp_path, kind):
    text = pa.array([SECRET, None]).dictionary_encode()
    columns = {
        "query_id": pa.array([1, 2], pa.uint64()),
        "attempt": pa.array([1, 1], pa.int8()),
        "timestamp": pa.array([NOON.replace(tzinfo=None)] * 2, pa.timestamp("us")).cast(kind),
        "offered": pa.array(["a|b", "a"], pa.large_string()),
        "chosen": pa.array(["a", None]).dictionary_encode(),
        "text": text,
        "embedding": pa.array([[0.6, 0.8], [1, 0]], pa.list_(pa.float64(), 2)),
        "weight": pa.array([1, 2], pa.int16()),
    }
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    first, second = _kept(read_services(tmp_path / "log.parquet"))
    assert (first["query_id"], first["offered"], first["chosen"]) == ("1", ["a", "b"], "a")
    assert (first["timestamp"], first["text"], second["weight"]) == (NOON, SECRET, 2)


def test_parquet_that_holds_what_python_cannot(tmp_path):
    rows = [_row(str(i)) for i in range(4)]
    log = pa.Table.from_pylist(rows, SERVICES)
    late = pa.array([0, 2**62, 2**62, 0], pa.int64()).cast(pa.timestamp("us"))
    noise = pa.array([b"0", b"1", b"\xff", b"3"]).view(pa.string())
    log = log.set_column(4, "timestamp", late).set_column(0, "query_id", noise)
    pq.write_table(log, tmp_path / "log.parquet")
    stream = read_services(tmp_path / "log.parquet", quarantine=tmp_path / "aside.jsonl")
    assert _set_aside(stream) == {"timestamp": ("1", "2", "4"), "encoding": ("3",)}
    entries = [json.loads(line) for line in (tmp_path / "aside.jsonl").read_text().splitlines()]
    assert [entry["record"]["query_id"] for entry in entries] == ["0", "1", "\\xff", "3"]


def test_long_texts_that_repeat_stay_small_in_memory(tmp_path):
    """A hundred rows in 10 MB: 1 GB if each were written out."""
    text = pa.array(["x" * 10_000_000, "short"])
    index = pa.array([0, 1] * 50, pa.int32())
    rows = pa.Table.from_pylist([_row(str(i)) for i in range(100)], SERVICES)
    column = pa.DictionaryArray.from_arrays(index, text)
    pq.write_table(rows.set_column(9, "text", column), tmp_path / "log.parquet")
    before = pa.total_allocated_bytes()
    most = 0
    stream = read_services(tmp_path / "log.parquet")
    for _ in stream:
        most = max(most, pa.total_allocated_bytes() - before)
    assert stream.report.set_aside == {"long text": 50}
    assert most < 100e6


# What is remembered


def _reference(
    rows: list[tuple[str, int, int | None, bool]], together: bool = False
) -> list[str | None]:
    """The rules of queries, row by row, with everything remembered."""
    last: dict[str, list] = {}
    found: list[str | None] = []
    for query, attempt, time, taken in rows:
        state = last.setdefault(query, [0, None, False])
        if attempt <= state[0]:
            found.append("duplicate")
        elif state[2]:
            found.append("answered")
        elif attempt > state[0] + 1:
            found.append("gap")
        elif not together and time is not None and state[1] is not None and time < state[1]:
            found.append("order")
        else:
            found.append(None)
            times = [at for at in (time, state[1]) if at is not None]
            last[query] = [attempt, max(times, default=None), taken]
    return found


def _back(rows: list[tuple[str, int, int | None, bool]], names: list[str | None]) -> int:
    """How many rows that are kept have a time before that of an earlier row of their query."""
    kept = [row for row, name in zip(rows, names, strict=True) if name is None]
    return sum(
        any(q == query and at is not None and at > time for q, _, at, _ in kept[:place])
        for place, (query, _, time, _) in enumerate(kept)
        if time is not None
    )


def _batch(rows: list[tuple[str, int, int | None, bool]]) -> pa.RecordBatch:
    found = []
    for query, attempt, time, taken in rows:
        at = None if time is None else NOON + timedelta(minutes=time)
        row = {"query_id": query, "attempt": attempt, "timestamp": at, "offered": ["a"]}
        found.append({**row, "chosen": "a" if taken else None})
    return pa.RecordBatch.from_pylist(found, SERVICES)


ROWS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(1, 4),
        st.none() | st.integers(0, 3),
        st.integers(0, 5).map(lambda i: i == 0),
    ),
    max_size=24,
)


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, size=st.integers(1, 24))
def test_rules_of_queries_against_a_loop_over_rows(rows, size):
    checker = Checker()
    codes = [checker.codes(_batch(rows[i : i + size])) for i in range(0, len(rows), size)]
    names = [RULES[code - 1].name if code else None for each in codes for code in each]
    assert names == _reference(rows)


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, size=st.integers(1, 24))
def test_one_query_is_remembered_where_rows_stand_together(rows, size):
    rows = sorted(rows, key=lambda row: row[0])
    checker = Checker(together=True)
    codes = [checker.codes(_batch(rows[i : i + size])) for i in range(0, len(rows), size)]
    names = [RULES[code - 1].name if code else None for each in codes for code in each]
    assert names == _reference(rows, together=True)
    assert checker.back == _back(rows, names)


def test_queries_are_forgotten_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "MOST_QUERIES", 100)
    rows = [_row(str(i)) for i in range(300)] + [_row("0"), _row("299"), _row("1", 2)]
    path = _write(tmp_path / "log.jsonl", rows)
    stream = read_services(path, rows=10)
    # The first query was forgotten, the last one not; the second may go on.
    assert _set_aside(stream) == {"duplicate": ("302",)}
    assert any("queries were forgotten to save memory" in note for note in stream.report.notes)
    assert _set_aside(read_services(path, rows=10, sort=True)) == {"duplicate": ("301", "302")}


# Quarantine and strictness


@pytest.mark.parametrize("rows", [1, 65_536])
@all_formats
def test_rows_set_aside_are_kept_with_the_reason(tmp_path, suffix, rows):
    log = [_row("1"), _row("2", chosen="c"), _row("1", 1)]
    aside = tmp_path / "new" / "aside.jsonl"
    stream = read_services(_write(tmp_path / f"log{suffix}", log), quarantine=aside, rows=rows)
    assert len(_kept(stream)) == 1
    entries = [json.loads(line) for line in aside.read_text().splitlines()]
    assert [entry["reason"] for entry in entries] == ["chosen", "duplicate"]
    shift = 1 if suffix == ".csv" else 0
    assert [e["place"] for e in entries] == [f"log{suffix}:{place + shift}" for place in (2, 3)]
    assert entries[0]["record"]["query_id"] == "2"
    assert [path.name for path in aside.parent.iterdir()] == ["aside.jsonl"]


def test_other_words_for_a_retry_are_set_aside_with_what_to_write_instead(tmp_path):
    path = tmp_path / "log.csv"
    cells = ("retry", "none of them", "", "a")
    lines = [f"{i},1,a|b,{cell}\n" for i, cell in enumerate(cells)]
    path.write_text("".join(["query_id,attempt,offered,chosen\n", *lines]))
    stream = read_services(path, quarantine=tmp_path / "aside.jsonl")
    assert [row["chosen"] for row in _kept(stream)] == [None, "a"]
    entries = [json.loads(line) for line in (tmp_path / "aside.jsonl").read_text().splitlines()]
    assert len(entries) == 2
    for entry in entries:
        assert entry["reason"] == "chosen"
        assert "a retry is an empty cell" in entry["expected"]
        assert list(entry) == ["place", "reason", "expected", "record"]
    assert "a retry is an empty cell" in str(stream.report)
    with pytest.raises(InputError, match=r"a retry is an empty cell \(null in JSON\), not a word"):
        list(read_services(path, strict=True))


def test_quarantine_appears_whole_or_not_at_all(tmp_path):
    rows = [_row("1", weight=-1.0), *(_row(str(i)) for i in range(9))]
    path = _write(tmp_path / "log.jsonl", rows)
    stream = read_services(path, quarantine=tmp_path / "aside.jsonl", rows=2)
    next(stream)
    assert not (tmp_path / "aside.jsonl").exists()
    del stream
    gc.collect()
    assert [one.name for one in tmp_path.iterdir()] == ["log.jsonl"]
    with pytest.raises(InputError, match="expected another file than the input"):
        read_services(path, quarantine=path)
    sound = _write(tmp_path / "log.jsonl", [_row("1")])
    list(read_services(sound, quarantine=tmp_path / "aside.jsonl"))
    assert (tmp_path / "aside.jsonl").read_text() == ""


@all_formats
def test_strict_names_the_first_row_and_rule_and_no_text(tmp_path, suffix):
    rows = [_row("1"), _row("1", 1), _row("2", chosen=SECRET), _row("3", weight=-1.0)]
    path = _write(tmp_path / f"log{suffix}", rows)
    place = f"log{suffix}:{3 if suffix == '.csv' else 2}"
    with pytest.raises(
        InputError, match=f"^{place}: expected each attempt .*, got: duplicate"
    ) as e:
        list(read_services(path, strict=True, quarantine=tmp_path / "aside.jsonl"))
    assert SECRET not in str(e.value)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "aside.jsonl").exists()


def test_importers_have_the_same(tmp_path):
    said = [{"role": "user", "content": SECRET}]
    good = json.dumps({"conversation_hash": "a", "model": "m", "conversation": said})
    bad = json.dumps({"conversation_hash": None, "model": "m", "conversation": said})
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join([good, "", bad, "{", good]))
    aside = tmp_path / "aside.jsonl"
    stream = records.read_requests(wildchat.IMPORTER, path, quarantine=aside)
    assert sum(map(len, stream)) == 2
    places = {wildchat.NO_HASH: ("log.jsonl:3",), importer.NOT_JSON: ("log.jsonl:4",)}
    assert stream.report.places == places
    entries = [json.loads(line) for line in aside.read_text().splitlines()]
    assert [entry["record"] for entry in entries] == [json.loads(bad), "{"]
    assert SECRET not in str(stream.report)
    with pytest.raises(
        InputError, match=r"log.jsonl:3: .*, got: no conversation_hash; "
    ) as refusal:
        list(records.read_requests(wildchat.IMPORTER, path, strict=True))
    assert SECRET not in str(refusal.value)


# Files of gzip


@pytest.mark.parametrize("name", ["log.jsonl.gz", "log.csv.gz"])
@pytest.mark.parametrize("damage", ["cut", "noise", "checksum", "other"])
def test_damaged_files_of_gzip(tmp_path, name, damage):
    rng = np.random.default_rng(0)
    rows = [_row(str(i), text=rng.bytes(50).hex()) for i in range(2_000)]
    content = gzip.compress(_write(tmp_path / name.removesuffix(".gz"), rows).read_bytes())
    middle = len(content) // 2
    broken = {
        "cut": content[:middle],
        "noise": content[:middle] + bytes(1_000) + content[middle + 1_000 :],
        "checksum": content[:-8] + bytes(8),
        "other": content + b"noise",
    }
    (tmp_path / name).write_bytes(broken[damage])
    with pytest.raises(InputError, match=r"gz: expected a gzip file that can be read"):
        list(read_services(tmp_path / name))


@pytest.mark.parametrize("piece", [b"\0", b"{}\n", b"\n", b'"'])
@pytest.mark.parametrize("name", ["log.jsonl.gz", "log.csv.gz"])
def test_bombs_are_refused_before_they_are_large(tmp_path, monkeypatch, name, piece):
    """3 MB in 3 kB."""
    monkeypatch.setattr(records, "MOST_BYTES_OF_ARRAY", 50_000)
    monkeypatch.setattr(records, "MOST_EXPANSION", 20)
    packer = zlib.compressobj(9, wbits=31)
    size = 3_000_000
    head = b"query_id,attempt,offered,chosen\n" if "csv" in name else b"{}\n"
    content = packer.compress(head) + packer.compress(piece * (size // len(piece)))
    (tmp_path / name).write_bytes(content + packer.flush())
    with pytest.raises(InputError, match="expected at most 20 bytes of text for a byte of gzip"):
        list(read_services(tmp_path / name))


def test_a_bomb_as_they_come(tmp_path):
    packer = zlib.compressobj(9, wbits=31)
    content = b"".join(packer.compress(bytes(10_000_000)) for _ in range(15)) + packer.flush()
    (tmp_path / "log.jsonl.gz").write_bytes(content)
    assert len(content) < 150_000
    with pytest.raises(InputError, match="expected at most 200 bytes of text for a byte of gzip"):
        list(read_services(tmp_path / "log.jsonl.gz"))


# What is refused, and what is said


@pytest.mark.parametrize("missing", chunks.NEEDED)
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_missing_columns(tmp_path, suffix, missing):
    row = {name: value for name, value in _row().items() if name not in (missing, "timestamp")}
    path = _write(tmp_path / f"log{suffix}", [row])
    with pytest.raises(InputError, match=f"log{suffix}: expected columns .*; no {missing}$"):
        read_services(path)


@all_formats
def test_other_names_and_unknown_columns(tmp_path, suffix):
    theirs = {"id": "query_id", "try": "attempt", "shown": "offered", "taken": "chosen"}
    if suffix == ".parquet":
        row = {ours: _row()[ours] for ours in theirs.values()}
        log = pa.Table.from_pylist([row], pa.schema([SERVICES.field(n) for n in row]))
        log = log.rename_columns(list(theirs)).append_column("prompt", pa.array([SECRET]))
        pq.write_table(log, tmp_path / "log.parquet")
    else:
        row = {name: _row()[ours] for name, ours in theirs.items()} | {"prompt": SECRET}
        row["shown"] = "a|b" if suffix == ".csv" else ["a", "b"]
        _write(tmp_path / f"log{suffix}", [row])
    stream = read_services(tmp_path / f"log{suffix}", rename=theirs)
    (found,) = _kept(stream)
    assert (found["query_id"], found["offered"]) == ("q", ["a", "b"])
    assert stream.report.ignored == ("prompt",)
    assert "ignored columns: prompt" in str(stream.report)
    assert SECRET not in str(stream.report)


def test_renaming_that_makes_no_sense(tmp_path):
    path = _write(tmp_path / "log.csv", [_row()])
    for rename, message in {
        ("text", "prompt"): "rename: expected columns query_id, .* as the new names, got 'prompt'",
        ("prompt", "text"): "log.csv: rename: expected columns prompt; no prompt",
        ("text", "weight"): None,
        ("text", "query_id"): "log.csv: expected one column query_id, got two",
    }.items():
        if message:
            with pytest.raises(InputError, match=message):
                read_services(path, rename=dict([rename]))
        else:
            assert _set_aside(read_services(path, rename=dict([rename]))) == {"cell": ("2",)}
    with pytest.raises(InputError, match="rename: expected different new names"):
        read_services(path, rename={"a": "text", "b": "text"})


def test_other_files_are_refused(tmp_path):
    pq.write_table(
        pa.table({**{n: ["1"] for n in chunks.NEEDED}, "weight": [[1]]}), tmp_path / "t.parquet"
    )
    (tmp_path / "noise.parquet").write_bytes(b"noise")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "noise.csv").write_bytes(b"\xff\xff\n")
    (tmp_path / "log.xlsx").touch()
    (tmp_path / "none").mkdir()
    for name, message in {
        "t.parquet": "column weight: expected double, got list",
        "noise.parquet": "expected a Parquet file",
        "absent.parquet": "expected a readable file",
        "absent.csv": "expected a readable file",
        "empty.csv": "expected a CSV with the names of its columns, got no such row",
        "noise.csv": "expected a CSV with the names of its columns, got no such row",
        "log.xlsx": "expected a file .parquet, .csv, .*, got '.xlsx'",
        "none": "expected files .parquet, .csv, .*, got none",
    }.items():
        with pytest.raises(InputError, match=f"{name}: {message}"):
            read_services(tmp_path / name)
    with pytest.raises(InputError, match="rows: expected at least 1, got 0"):
        read_services(tmp_path / "empty.csv", rows=0)


def test_damaged_parquet(tmp_path):
    path = _write(tmp_path / "log.parquet", [_row(str(i)) for i in range(1_000)])
    content = bytearray(path.read_bytes())
    content[100:5_000] = bytes(4_900)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"log.parquet: expected a Parquet file that can be read"):
        list(read_services(path))


@all_formats
def test_an_empty_log_is_refused(tmp_path, suffix):
    rows = [] if suffix == ".jsonl" else [_row()]
    path = _write(tmp_path / f"log{suffix}", rows)
    if suffix == ".parquet":
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    elif suffix == ".csv":
        path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(InputError, match=f"log{suffix}: expected at least one row, got none"):
        list(read_services(path))


@pytest.mark.parametrize(
    ("rows", "notes"),
    [
        ([_row("1"), _row("2", chosen="a")], []),
        ([_row("1", chosen="b"), _row("2", chosen="a")], ["no row is a retry"]),
        ([_row("1", chosen="b"), _row("2", silent=True)], ["no row is a retry"]),
        ([_row("1", offered=["a"]), _row("2", offered=["a"])], ["one LLM only"]),
        ([_row("1")], ["one row only"]),
        ([_row("1", chosen="c")], ["no row is left"]),
    ],
)  # fmt: skip
def test_notes(tmp_path, rows, notes):
    stream = read_services(_write(tmp_path / "log.jsonl", rows))
    assert stream.report.notes == ()
    list(stream)
    assert [
        note[: len(wanted)] for note, wanted in zip(stream.report.notes, notes, strict=True)
    ] == notes
    assert all(f"note: {note}" in str(stream.report) for note in stream.report.notes)


def test_several_files_and_reports_for_json(tmp_path):
    _write(tmp_path / "1.parquet", [_row("1"), _row("1")])
    _write(tmp_path / "2.csv", [_row("1"), _row("2")])
    (tmp_path / "README.md").touch()
    stream = read_services(tmp_path)
    assert [row["query_id"] for row in _kept(stream)] == ["1", "2"]
    found = json.loads(json.dumps(stream.report.to_dict()))
    assert (found["read"], found["kept"], found["set_aside"]) == (4, 2, {"duplicate": 2})
    assert found["places"] == {"duplicate": ["1.parquet:2", "2.csv:2"]}
    assert str(stream.report).splitlines()[:3] == ["read       4", "kept       2", "set aside  2"]


def test_the_documented_rules_are_those_of_the_code():
    lines = DOCS.read_text().splitlines()
    for rule in RULES:
        assert f"| `{rule.name}` | {rule.expected} |" in lines
    table = lines[: lines.index("## Fit")]
    assert sum(line.startswith("| `") for line in table) == len(RULES) + len(SERVICES)
    for name in SERVICES.names:
        assert any(line.startswith(f"| `{name}` | ") for line in lines)
