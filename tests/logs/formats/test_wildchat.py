"""WildChat: made-up files in the official schema become requests; every conversation is counted."""

import json
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cqbayes.data import wildchat as data_set
from hypothesis import given, settings
from hypothesis import strategies as st

from cqbayes.errors import InputError
from cqbayes.logs import records
from cqbayes.logs.formats import importer, messages, wildchat
from cqbayes.logs.records import read_requests
from cqbayes.logs.schema import REQUESTS

TIME = pa.timestamp("us", tz="UTC")
HEADER = pa.struct([("accept-language", pa.string()), ("user-agent", pa.string())])
MODERATION = pa.struct([("flagged", pa.bool_())])  # as far as a reader that leaves it alone can see
MESSAGE = {
    "content": pa.string(),
    "country": pa.string(),
    "hashed_ip": pa.string(),
    "header": HEADER,
    "language": pa.string(),
    "redacted": pa.bool_(),
    "role": pa.string(),
    "state": pa.string(),
    "timestamp": TIME,
    "toxic": pa.bool_(),
    "turn_identifier": pa.int64(),
}
COLUMNS = {
    "conversation_hash": pa.string(),
    "model": pa.string(),
    "timestamp": TIME,
    "conversation": pa.list_(pa.struct(list(MESSAGE.items()))),
    "turn": pa.int64(),
    "language": pa.string(),
    "openai_moderation": pa.list_(MODERATION),
    "detoxify_moderation": pa.list_(MODERATION),
    "toxic": pa.bool_(),
    "redacted": pa.bool_(),
    "state": pa.string(),
    "country": pa.string(),
    "hashed_ip": pa.string(),
    "header": HEADER,
}
SCHEMA = pa.schema(list(COLUMNS.items()))
NOON = datetime(2023, 4, 9, 12, tzinfo=UTC)


def _user(content, identifier=None, **rest) -> dict:
    header = {"accept-language": "en", "user-agent": "Mozilla"}
    also = {"hashed_ip": "ip1", "language": "English", "header": header, "country": "France"}
    return {"role": "user", "content": content, "turn_identifier": identifier, **also, **rest}


def _assistant(content, minutes=0, **rest) -> dict:
    moment = NOON + timedelta(minutes=minutes)
    return {"role": "assistant", "content": content, "timestamp": moment, **rest}


def _record(*messages, name="abc", **rest) -> dict:
    record = {
        "conversation_hash": name,
        "model": "gpt-4-0314",
        "timestamp": NOON + timedelta(hours=1),
        "conversation": list(messages),
        "turn": 1,
        "language": "English",
        "openai_moderation": [{"flagged": False}],
        "detoxify_moderation": [],
        "toxic": False,
        "redacted": False,
        "state": None,
        "country": "France",
        "hashed_ip": "ip0",
        "header": {"accept-language": "en", "user-agent": "Mozilla"},
    }
    return {**record, **rest}


GOOD = _record(_user("Why?", 7), _assistant("So."))


def _parquet(path: Path, records: list[dict], schema: pa.Schema = SCHEMA, **settings) -> Path:
    pq.write_table(pa.Table.from_pylist(records, schema), path, **settings)
    return path


def _lines(path: Path, *lines: bytes | dict) -> Path:
    written = [
        line if isinstance(line, bytes) else json.dumps(line, default=datetime.isoformat).encode()
        for line in lines
    ]
    path.write_bytes(b"\n".join(written) + b"\n")
    return path


def _write(folder: Path, suffix: str, records: list[dict]) -> Path:
    path = folder / f"train-00000-of-00001{suffix}"
    return _parquet(path, records) if suffix == ".parquet" else _lines(path, *records)


def _rows(stream: records.Requests) -> list[dict]:
    batches = list(stream)
    assert all(batch.schema == REQUESTS for batch in batches)
    for batch in batches:
        batch.validate(full=True)
    report = stream.report
    assert report.read == report.kept + sum(report.set_aside.values())
    return pa.Table.from_batches(batches, REQUESTS).to_pylist()


both = pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])


@both
def test_requests_of_both_formats(tmp_path, suffix):
    two = [
        _record(
            _user("Why is\nthe sky blue?", 7, hashed_ip="ip1"),
            _assistant("Rayleigh.", 1),
            _user(" Why is the  sky blue? ", 9, hashed_ip=None, language=None),
            _assistant("Scattering,", 5),
            _assistant("as I said.", 6),
            _user("why is the sky blue?", 11, language="French"),
        ),
        _record(_user("", 13), _assistant(""), _user("x"), _assistant("y"), name="def"),
    ]
    stream = read_requests(wildchat.IMPORTER, _write(tmp_path, suffix, two))
    rows = _rows(stream)
    assert stream.report[:3] == (2, 2, {})
    assert [row["session"] for row in rows] == ["abc/7"] * 3 + ["def/13"] * 2
    assert [(row["place"], row["turn"]) for row in rows] == [(i, i) for i in (0, 1, 2, 0, 1)]
    assert [row["user"] for row in rows] == ["ip1", "ip0", "ip1", "ip1", "ip1"]
    ends = [row["end"] and (row["end"] - NOON).total_seconds() / 60 for row in rows]
    assert ends == [1, 6, None, 0, 0]
    # Of the conversation: of its last message, which has no answer.
    starts = [row["start"] and (row["start"] - NOON).total_seconds() / 60 for row in rows]
    assert starts == [None, None, 60, None, None]
    assert {row["llm"] for row in rows} == {"gpt-4-0314"}
    assert [row["text"] for row in rows[::3]] == ["Why is\nthe sky blue?", None]
    assert [row["response_chars"] for row in rows] == [9, 21, None, 0, 1]
    assert [row["language"] for row in rows[:3]] == ["English", "English", "French"]
    same = rows[0]["message"]
    assert [row["message"] == same for row in rows] == [True, True, False, False, False]
    assert [row["before"] for row in rows] == [None, same, same, None, None]
    assert [row["opening"] == same for row in rows] == [True, True, True, False, False]
    assert rows[3]["message"] is None
    assert [row["answer"] is None for row in rows] == [False, False, True, True, False]


@both
def test_users_who_write_twice_and_what_is_null(tmp_path, suffix):
    quiet = {"hashed_ip": None, "language": None, "timestamp": None}
    record = _record(
        _assistant("Hello!"),
        _user("Why?", **quiet),
        _user("Why?", **quiet),
        _assistant("So.", timestamp=None),
        **quiet,
    )
    rows = _rows(read_requests(wildchat.IMPORTER, _write(tmp_path, suffix, [record])))
    here = [{key for key, value in row.items() if value not in (None, [])} for row in rows]
    shared = {"kind", "session", "llm", "text", "place", "turn", "message", "opening", "after"}
    shared |= {"tools"}
    assert here[0] == shared
    assert here[1] == shared | {"before", "asked", "history", "response_chars", "answer"}
    assert [(row["session"], row["place"], row["response_chars"]) for row in rows] == [
        ("abc", 0, None),
        ("abc", 1, 3),
    ]


def test_a_conversation_as_json_in_a_text(tmp_path):
    said = json.dumps([_user("Why?", 7), {"role": "assistant", "content": "So."}])
    path = _lines(tmp_path / "a.jsonl", {**GOOD, "conversation": said})
    flat = pa.table({"conversation_hash": ["abc"], "model": ["m"], "conversation": [said]})
    pq.write_table(flat, tmp_path / "a.parquet")
    for one in (path, tmp_path / "a.parquet"):
        (row,) = _rows(read_requests(wildchat.IMPORTER, one))
        assert (row["session"], row["text"], row["response_chars"]) == ("abc/7", "Why?", 3)


@both
@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({**GOOD, "conversation_hash": None}, wildchat.NO_HASH),
        ({**GOOD, "conversation_hash": ""}, wildchat.NO_HASH),
        ({**GOOD, "conversation_hash": "x" * 257}, importer.LONG_CELL),
        ({**GOOD, "model": None}, wildchat.NO_MODEL),
        ({**GOOD, "conversation": None}, wildchat.NO_CONVERSATION),
        ({**GOOD, "conversation": []}, wildchat.NO_CONVERSATION),
        (_record(_assistant("Hello!")), messages.NO_USER),
        (_record(_user(""), _assistant("Hello!"), _user(" ")), messages.NO_CONTENT),
        (_record(None), wildchat.NO_MESSAGE),
        (_record(_user(None)), wildchat.NO_MESSAGE),
        (_record({**_user("x"), "role": "system"}), wildchat.NO_MESSAGE),
        (_record({**_user("x"), "role": None}), wildchat.NO_MESSAGE),
        (_record(_user("x" * 5_000_000)), importer.LONG_CELL),
        (_record(_user("x"), _assistant("ü" * 500_001)), importer.LONG_CELL),
        (_record(*[_user("x" * 900_000)] * 20), importer.LONG_RECORD),
        (_record(*[{"role": "user", "content": ""}] * 10_001), importer.LONG_RECORD),
    ],
)
def test_conversations_that_are_set_aside(tmp_path, suffix, record, reason):
    stream = read_requests(wildchat.IMPORTER, _write(tmp_path, suffix, [GOOD, record, GOOD]))
    assert len(_rows(stream)) == 2
    assert stream.report[:3] == (3, 2, {reason: 1})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", importer.NOT_JSON),
        (b"[1, 2]", importer.NOT_JSON),
        (b"null", importer.NOT_JSON),
        (b"\0\0", importer.NOT_JSON),
        (b"[" * 100_000, importer.NOT_JSON),
        (b'{"a": ' + b"9" * 5_000 + b"}", importer.NOT_JSON),
        (b'{"conversation_hash": "\xff"}', importer.NOT_UTF8),
        (json.dumps(_record(_user("\ud800")), default=str).encode(), importer.NOT_UTF8),
        (b'{"a": "' + b"x" * 40_000_000 + b'"}', importer.LONG_RECORD),
        (b"{}", wildchat.NO_HASH),
        ({**GOOD, "conversation_hash": 7}, wildchat.NO_HASH),
        ({**GOOD, "conversation": "x"}, wildchat.NO_CONVERSATION),
        ({**GOOD, "conversation": {"role": "user"}}, wildchat.NO_CONVERSATION),
        ({**GOOD, "hashed_ip": 7}, wildchat.NO_STRING),
        (_record(_user("x", language=["en"])), wildchat.NO_STRING),
        (_record(_user("x", 1.5)), wildchat.NO_IDENTIFIER),
        (_record("x"), wildchat.NO_MESSAGE),
        (_record(_user(["x"])), wildchat.NO_MESSAGE),
        (_record(_user("x", role=["user"])), wildchat.NO_MESSAGE),
        ({**GOOD, "timestamp": "yesterday"}, importer.NO_TIMESTAMP),
        ({**GOOD, "timestamp": True}, importer.NO_TIMESTAMP),
        ({**GOOD, "timestamp": 1.5}, importer.NO_TIMESTAMP),
        ({**GOOD, "timestamp": float("nan")}, importer.NO_TIMESTAMP),
        ({**GOOD, "timestamp": 10**30}, importer.NO_TIMESTAMP),
        ({**GOOD, "timestamp": "0001-01-01T00:00:00+09:00"}, importer.NO_TIMESTAMP),
        (_record(_user("x", timestamp={})), importer.NO_TIMESTAMP),
    ],
)
def test_lines_that_are_set_aside(tmp_path, line, reason):
    # A blank line is no conversation; a byte order mark and an end without a newline do no harm.
    path = _lines(tmp_path / "log.jsonl", GOOD, b"  ", line, GOOD)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes()[:-1])
    stream = read_requests(wildchat.IMPORTER, path)
    assert len(_rows(stream)) == 2
    assert stream.report[:3] == (3, 2, {reason: 1})


@pytest.mark.parametrize("given_as", ["own", "conversation"])
@pytest.mark.parametrize(
    "value",
    [
        "2023-04-09T14:00:00+02:00",
        "2023-04-09T12:00:00Z",
        "2023-04-09 12:00:00.000000",
        "2023-04-09T05:00:00.000-07:00",
        int(NOON.timestamp()) * 1_000,
    ],
)
def test_times_of_all_zones_are_utc(tmp_path, value, given_as):
    place = {"timestamp": value}
    record = {"own": _record(_user("x", **place)), "conversation": _record(_user("x"), **place)}
    path = _lines(tmp_path / "a.jsonl", record[given_as])
    (row,) = _rows(read_requests(wildchat.IMPORTER, path))
    assert row["start"] == NOON


@pytest.mark.parametrize("kind", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_times_of_all_kinds_in_parquet(tmp_path, kind, zone):
    """Those of the later WildChat-4.8M have no zone."""
    other = pa.timestamp(kind, tz=zone)
    message = pa.list_(pa.struct(list({**MESSAGE, "timestamp": other}.items())))
    schema = pa.schema(list({**COLUMNS, "timestamp": other, "conversation": message}.items()))
    local = NOON if zone else NOON.replace(tzinfo=None)
    if zone == "America/New_York":
        local = NOON.astimezone(timezone(-timedelta(hours=4)))
    records = [
        _record(_user("x"), {**_assistant("y"), "timestamp": local}, timestamp=local),
        _record(_user("x"), timestamp=local),
    ]
    rows = _rows(
        read_requests(wildchat.IMPORTER, _parquet(tmp_path / "a.parquet", records, schema))
    )
    assert [(row["start"], row["end"]) for row in rows] == [(None, NOON), (NOON, None)]


def test_parquet_that_holds_what_python_cannot(tmp_path):
    """Times past the year 9999 and bytes that are no text: one conversation each, not the file."""
    table = pa.Table.from_pylist([GOOD, GOOD, GOOD], SCHEMA)
    late = pa.array([2**62, 0, None], pa.int64()).cast(TIME)
    table = table.set_column(2, "timestamp", late)
    noise = pa.array([b"gpt", b"\xff", b"gpt"]).view(pa.string())
    pq.write_table(table.set_column(1, "model", noise), tmp_path / "a.parquet")
    stream = read_requests(wildchat.IMPORTER, tmp_path / "a.parquet")
    assert len(_rows(stream)) == 1
    assert stream.report.set_aside == {importer.NO_TIMESTAMP: 1, importer.NOT_UTF8: 1}


def test_large_types_and_absent_optional_columns(tmp_path):
    struct = pa.struct([("content", pa.large_string()), ("role", pa.string())])
    kinds = [("conversation_hash", pa.large_string()), ("model", pa.string())]
    schema = pa.schema([*kinds, ("conversation", pa.large_list(struct))])
    (row,) = _rows(
        read_requests(wildchat.IMPORTER, _parquet(tmp_path / "a.parquet", [GOOD], schema))
    )
    assert (row["session"], row["text"], row["response_chars"]) == ("abc", "Why?", 3)


# What is refused


def _without(column: str) -> pa.Schema:
    return pa.schema([(name, kind) for name, kind in COLUMNS.items() if name != column])


@pytest.mark.parametrize("column", wildchat.NEEDED)
def test_missing_columns(tmp_path, column):
    path = _parquet(tmp_path / "a.parquet", [GOOD], _without(column))
    with pytest.raises(InputError, match=f"a.parquet: expected columns .*; no {column}$"):
        read_requests(wildchat.IMPORTER, path)


@pytest.mark.parametrize("column", wildchat.NEEDED_OF_MESSAGES)
def test_missing_parts_of_messages(tmp_path, column):
    struct = pa.struct([(name, kind) for name, kind in MESSAGE.items() if name != column])
    schema = pa.schema(list({**COLUMNS, "conversation": pa.list_(struct)}.items()))
    path = _parquet(tmp_path / "a.parquet", [GOOD], schema)
    with pytest.raises(InputError, match=f"structs in conversation: expected .*; no {column}$"):
        read_requests(wildchat.IMPORTER, path)


def test_other_files_are_refused(tmp_path):
    other = pa.table({"conversation_hash": ["a"], "model": ["b"], "conversation": [3]})
    pq.write_table(other, tmp_path / "other.parquet")
    (tmp_path / "noise.parquet").write_bytes(b"noise")
    for name, message in {
        "other.parquet": "expected a list of structs in conversation, got int64",
        "noise.parquet": "expected a Parquet file",
    }.items():
        with pytest.raises(InputError, match=f"{name}: {message}"):
            read_requests(wildchat.IMPORTER, tmp_path / name)


def test_damage_is_found_when_it_is_reached(tmp_path):
    """Which shows too that nothing is read ahead of what is asked for."""
    records = [_record(_user(f"secret {i}"), name=str(i)) for i in range(512)]
    path = _parquet(
        tmp_path / "a.parquet",
        records,
        row_group_size=128,
        compression="gzip",
        use_dictionary=False,
    )
    content = bytearray(path.read_bytes())
    last = pq.ParquetFile(path).metadata.row_group(3)
    for i in range(last.num_columns):
        column = last.column(i)
        start, size = column.data_page_offset, column.total_compressed_size
        content[start : start + size] = bytes(size)
    path.write_bytes(content)
    stream = read_requests(wildchat.IMPORTER, path, rows=128)
    with pytest.raises(InputError, match=r"a.parquet: .* it is damaged; get it again") as refusal:
        list(stream)
    assert "secret" not in str(refusal.value)
    assert stream.report[:3] == (384, 384, {})


# Streams


@both
def test_batches_come_before_the_file_is_read_through(tmp_path, suffix):
    records = [_record(_user("x"), _user("y"), _user("z"), name=f"{i:04}") for i in range(1000)]
    path = _write(tmp_path, suffix, records)
    stream = read_requests(wildchat.IMPORTER, path, rows=10)
    first = next(stream)
    assert len(first) == 12, "no conversation is in two batches"
    assert stream.report[:3] == (4, 4, {})
    rest = list(stream)
    assert {len(batch) for batch in rest} == {12}
    assert stream.report[:3] == (1000, 1000, {})
    assert next(stream, None) is None


@both
def test_memory_does_not_grow_with_the_file(tmp_path, suffix):
    """40 MB of text; texts of a batch are limited too, however many rows it may have."""
    word = "x" * 100_000
    records = [_record(_user(f"{i} {word}"), name=str(i)) for i in range(400)]
    if suffix == ".parquet":  # pages, which are decoded as a whole, end after so many values only
        path = _parquet(tmp_path / "a.parquet", records, write_batch_size=8)
    else:
        path = _lines(tmp_path / "a.jsonl", *records)
    del records
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        most = 0
        sizes = []
        for batch in read_requests(wildchat.IMPORTER, path, rows=50):
            most = max(most, pa.total_allocated_bytes() - before)
            sizes.append(len(batch))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(sizes) == 400
    assert max(peak, most) < 30e6
    assert len(next(read_requests(wildchat.IMPORTER, path, rows=400))) < 400


def test_a_table_without_rows(tmp_path):
    assert _rows(read_requests(wildchat.IMPORTER, _parquet(tmp_path / "none.parquet", []))) == []


# Counts always add up

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]) | ANYTHING, "content": st.text() | ANYTHING},
    optional={
        "timestamp": st.datetimes().map(datetime.isoformat) | ANYTHING,
        "turn_identifier": st.integers() | ANYTHING,
        "hashed_ip": st.text(max_size=3) | ANYTHING,
    },
)
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "conversation_hash": st.text(min_size=1, max_size=5) | ANYTHING,
        "model": st.just("gpt-4") | ANYTHING,
        "timestamp": st.integers() | ANYTHING,
        "conversation": st.lists(MESSAGES | ANYTHING, max_size=4) | ANYTHING,
    },
)
SOUND = st.builds(
    lambda words: _record(*[_user(word) for word in words]),
    st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=4),
)
LINES = st.lists(
    st.binary(max_size=30)
    | (ANYTHING | RECORDS | SOUND).map(lambda made: json.dumps(made, default=str).encode()),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(lines=LINES)
def test_counts_always_add_up(lines, tmp_path_factory):
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    # A sound line first, or what follows may be read as one JSON text.
    path.write_bytes(b"\n".join([json.dumps(GOOD, default=str).encode(), *lines]))
    stream = read_requests(wildchat.IMPORTER, path, rows=3)
    rows = _rows(stream)
    assert stream.report.read == sum(1 for line in path.read_bytes().split(b"\n") if line.strip())
    assert sum(row["place"] == 0 for row in rows) == stream.report.kept
    assert all((row["before"] is None) >= (row["place"] == 0) for row in rows)


# The data set


def test_the_data_set(tmp_path, monkeypatch):
    monkeypatch.setenv("CQBAYES_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"wildchat: .*; get it: cqbayes data get wildchat"):
        data_set.requests()
    assert len(data_set.FILES) == 14
    eighth = data_set.FILES[7]
    assert (eighth.repository, eighth.revision) == ("allenai/WildChat-1M", "main")
    assert eighth.path == "data/train-00007-of-00014.parquet"
    (tmp_path / "wildchat").mkdir()
    for i, file in enumerate(data_set.FILES):
        folder = tmp_path / "wildchat" if i % 2 else tmp_path
        _parquet(folder / file.name, [_record(_user("x"), name=str(i))])
    rows = _rows(data_set.requests())
    assert [row["session"] for row in rows] == [str(i) for i in range(14)]
    assert len(_rows(data_set.requests(tmp_path / "wildchat"))) == 7
    found = data_set.turns()
    assert set(found.turns["session_id"].to_pylist()) == {str(i) for i in range(14)}
    assert (found.report.read, found.counts.turns) == (14, 14)
