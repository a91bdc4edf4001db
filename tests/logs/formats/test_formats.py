"""All importers, found by discovery: they state what simulated logs say, and count broken ones."""

import copy
import importlib
import json
import random
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import FACTS, FORMATS, SECRET, Turn, settled, simulate, write

from cqbayes.errors import InputError
from cqbayes.logs import records
from cqbayes.logs.formats import fields, messages
from cqbayes.logs.formats import importer as log_format
from cqbayes.logs.formats.importer import (
    MOST_BYTES,
    MOST_BYTES_OF_NAME,
    folded,
    importer_names,
    load_importer,
)
from cqbayes.logs.records import Requests, read_requests
from cqbayes.logs.schema import REQUESTS
from cqbayes.logs.table.services import read_services

NAMES = importer_names()
NAMES_IN_ROWS = ("id", "trace", "parent", "user", "owner", "llm", "call", "language")
NUMBERS = ("place", "attempts", "latency", "cost", "response_chars", "turn", "after")
DIGESTS = ("message", "before", "opening", "asked", "history", "answer")
every = pytest.mark.parametrize("name", NAMES)


def _rows(stream: Requests) -> list[dict[str, Any]]:
    return [row for batch in stream for row in batch.to_pylist()]


def _requests(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Requests to LLMs, each with what scores say of it."""
    found = [dict(row) for row in rows if row["kind"] == "request"]
    for score in rows:
        if score["kind"] == "score":
            (of,) = (row for row in found if row["id"] == score["id"])
            said = {key: score[key] for key in ("feedback", "accepted")}
            of.update({key: value for key, value in said.items() if value is not None})
    return found


def _lines(path, found: list[Any]):
    path.write_bytes(
        b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in found)
    )
    return path


def _reasons(name: str) -> set[str]:
    """All reasons for which an importer can set a record aside: constants, so nothing of a file."""
    modules = (
        log_format,
        messages,
        fields,
        records,
        importlib.import_module(f"cqbayes.logs.formats.{name}"),
    )
    return {
        value
        for module in modules
        for key, value in vars(module).items()
        if key.isupper() and isinstance(value, str)
    }


# Round trips


def test_every_importer_has_simulated_logs():
    assert set(FORMATS) == set(NAMES)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        (name, suffix)
        for name in NAMES
        for suffix in (".jsonl", ".json", *([".parquet"] if FORMATS[name].schema else []))
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_simulated_logs_come_back(tmp_path, name, suffix, seed):
    made = FORMATS[name]
    simulated = simulate(seed)
    there = simulated if made.attempts else settled(simulated)
    stream = read_requests(load_importer(name), write(tmp_path / f"log{suffix}", name, there))
    rows = _requests(_rows(stream))
    expected = [
        {key: value if key in made.holds else None for key, value in row.items()}
        for row in made.expected(there)
    ]
    assert [{key: row[key] for key in FACTS} for row in rows] == expected
    assert stream.report.set_aside == {}
    assert len({(row["session"], row["turn"]) for row in rows}) > 6
    if made.attempts:  # or the test would not see what it is for
        assert any(row["failed"] for row in rows)
    _check_digests(there, rows, made.digests)
    for row in rows:
        assert SECRET not in repr({key: value for key, value in row.items() if key != "text"})


def _check_digests(there: list[Turn], rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Digests are equal exactly where what they stand for is, white space folded."""
    stands_for: dict[str, list[Any]] = {column: [] for column in DIGESTS}
    for i, turn in enumerate(there):
        earlier = [
            one for one in there[:i] if (one.session, one.turn < turn.turn) == (turn.session, True)
        ]
        before = settled(earlier)
        asked = [folded(one.text) for one in before]
        said = [(folded(one.text), one.answer) for one in before]
        stands_for["message"].append(folded(turn.text))
        stands_for["before"].append(asked[-1] if asked else None)
        stands_for["opening"].append([*asked, folded(turn.text)][0])
        stands_for["asked"].append(repr(asked) if asked else None)
        stands_for["history"].append(repr(said) if said else None)
        stands_for["answer"].append(turn.answer)
    for column, values in stands_for.items():
        found = [row[column] for row in rows]
        if column not in columns:
            assert set(found) == {None}
            continue
        pairs = set(zip(values, found, strict=True))
        assert len(pairs) == len(set(values)) == len(set(found)) > 3
        assert all((value is None) == (digest is None) for value, digest in pairs)
    # One message has one digest, wherever it stands.
    one = dict(zip(stands_for["message"], (row["message"] for row in rows), strict=True))
    for column in ("before", "opening"):
        if column in columns:
            said = [None if text is None else one[text] for text in stands_for[column]]
            assert [row[column] for row in rows] == said


@every
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_a_log_of_another_format_is_refused_and_named(tmp_path, name, suffix):
    for other in set(NAMES) - {name}:
        if suffix == ".parquet" and not (FORMATS[other].schema and FORMATS[name].schema):
            continue
        path = write(tmp_path / f"{other}{suffix}", other, settled(simulate(0)))
        with pytest.raises(InputError) as refusal:
            _rows(read_requests(load_importer(name), path))
        assert str(refusal.value) == (
            f"{path}: expected {load_importer(name).title}, got what looks like "
            f"{load_importer(other).title}; read it as format {other}"
        )


@every
def test_a_table_of_services_and_a_log_of_turns_are_told_apart(tmp_path, name):
    path = write(tmp_path / "log.jsonl", name, settled(simulate(0)))
    for rows in ({}, {"rename": {"id": "user_id"}}):
        with pytest.raises(
            InputError, match=rf"expected a long table .*; read it as format {name}$"
        ):
            list(read_services(path, **rows))
    row = {"query_id": "1", "attempt": 1, "offered": ["a"], "chosen": None, "messages": []}
    with pytest.raises(
        InputError, match=r"looks like a long table .*; read it as format services$"
    ):
        _rows(read_requests(load_importer(name), _lines(path, [b"", row])))


SAID = [{"role": "user", "content": SECRET}]
SPENT = {"request_id": "r", "call_type": "acompletion", "model": "gpt-4o", "spend": 0.1}
GENERATION = {"type": "GENERATION", "id": "o", "traceId": "t", "startTime": "2025-06-01T12:00:00Z"}
SPAN = {"traceId": "t", "spanId": "s", "startTimeUnixNano": "1", "attributes": []}
OTHER_SHAPES = (
    ("litellm", {**SPENT, "messages": SAID, "user": "u"}),
    ("litellm", {**SPENT, "messages": "{}", "proxy_server_request": {"messages": SAID}}),
    ("langfuse", {"trace": {"id": "t"}, "observations": [{**GENERATION, "input": SAID}]}),
    ("langfuse", {"data": [{**GENERATION, "input": SAID}], "meta": {"page": 1}}),
    ("langfuse", {**GENERATION, "input": SAID, "model": "gpt-4o"}),
    ("opentelemetry", {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN]}]}]}),
    ("opentelemetry", {**SPAN, "attributes": [{"key": "openinference.span.kind"}]}),
)


@every
def test_all_shapes_of_a_format_are_recognised(tmp_path, name):
    """A spend log has the column messages, and is no conversation; a page is what it holds."""
    for other, record in OTHER_SHAPES:
        if other == name:
            continue
        path = _lines(tmp_path / "a.jsonl", [record])
        with pytest.raises(InputError) as refusal:
            _rows(read_requests(load_importer(name), path))
        assert str(refusal.value) == (
            f"{path}: expected {load_importer(name).title}, got what looks like "
            f"{load_importer(other).title}; read it as format {other}"
        )


@every
def test_the_order_of_records_is_no_matter(tmp_path, name):
    simulated = simulate(1)
    there = simulated if FORMATS[name].attempts else settled(simulated)
    found = FORMATS[name].write(there)
    path = _lines(tmp_path / "a.jsonl", found)
    in_order = _rows(read_requests(load_importer(name), path))
    random.Random(0).shuffle(found)
    scattered = _rows(read_requests(load_importer(name), _lines(path, found)))
    assert in_order != scattered
    assert sorted(in_order, key=repr) == sorted(scattered, key=repr)


@every
def test_parquet_is_read_or_refused(tmp_path, name):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    made = FORMATS[name]
    if made.schema is None:
        with pytest.raises(InputError, match=r"expected JSON or JSON Lines of .*, got Parquet"):
            read_requests(load_importer(name), path)
        return
    with pytest.raises(InputError, match=r"a.parquet: expected columns .*; no "):
        read_requests(load_importer(name), path)


@every
def test_importers_say_what_tells_a_transport_retry(name):
    importer = load_importer(name)
    assert importer.title
    assert importer.transport


# What is bounded


@every
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", "ü" * (MOST_BYTES // 2 + 1)),
        ("text", "x" * 5_000_000),
        ("text", "\ud800"),
        ("session", "7/" + "x" * (MOST_BYTES_OF_NAME + 1)),
        ("model", "x" * (MOST_BYTES_OF_NAME + 1)),
    ],
)
def test_cells_that_are_too_long_or_no_text(tmp_path, name, field, value):
    good, bad = settled(simulate(2))[:1], settled(simulate(2))[:1]
    bad = [bad[0]._replace(**{field: value})]
    found = [*FORMATS[name].write(good), *FORMATS[name].write(bad), *FORMATS[name].write(good)]
    stream = read_requests(load_importer(name), _lines(tmp_path / "a.jsonl", found))
    assert len(_requests(_rows(stream))) == 2
    reason = log_format.NOT_UTF8 if value == "\ud800" else log_format.LONG_CELL
    assert set(stream.report.set_aside) == {reason}


# Counts always add up, whatever is in the file


def _check(name: str, stream: Requests) -> list[dict[str, Any]]:
    batches = list(stream)
    report = stream.report
    assert report.read == report.kept + sum(report.set_aside.values())
    assert set(report.set_aside) <= _reasons(name)
    assert SECRET not in repr(report)
    assert all(batch.schema == REQUESTS for batch in batches)
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert len(rows) >= report.kept
    for row in rows:
        assert row["kind"] in ("request", "span", "score")
        assert len((row["text"] or "").encode()) <= MOST_BYTES
        assert row["text"] is None or row["message"] is not None
        for key in NAMES_IN_ROWS:
            assert len((row[key] or "").encode()) <= MOST_BYTES_OF_NAME
        assert all(len(mark.encode()) <= MOST_BYTES_OF_NAME for mark in row["marks"])
        assert len((row["session"] or "").encode()) <= 2 * MOST_BYTES_OF_NAME + 1
        assert row["feedback"] in (None, -1.0, 1.0)
        for key in NUMBERS:
            assert row[key] is None or 0 <= row[key] < float("inf")
    return rows


def _places(value: Any, before: tuple = ()) -> Iterator[tuple]:
    """Of all that is in a record, by the keys and places that lead there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in inner:
        yield (*before, key)
        if isinstance(below, dict | list):
            yield from _places(below, (*before, key))


def _replaced(record: Any, place: tuple, *value: Any) -> Any:
    """A copy with another value at a place, or without any."""
    found = copy.deepcopy(record)
    holder = found
    for key in place[:-1]:
        holder = holder[key]
    if value:
        holder[place[-1]] = value[0]
    else:
        del holder[place[-1]]
    return found


ODD = (
    None,
    True,
    7,
    -1,
    0,
    2.5,
    1e308,
    float("nan"),
    10**30,
    "",
    "x",
    "\ud800",
    [],
    [[]],
    {},
    [None],
)


@every
def test_anything_missing_or_odd_is_set_aside_or_null(tmp_path, name):
    """Each field of a sound record in turn, however deep: absent, or odd in all ways."""
    simulated = simulate(4)
    there = simulated if FORMATS[name].attempts else settled(simulated)
    sound = max(FORMATS[name].write(there), key=lambda one: len(json.dumps(one)))
    places = list(_places(sound))
    found = [_replaced(sound, place) for place in places]
    found += [_replaced(sound, place, value) for place in places for value in ODD]
    rows = _check(
        name, stream := read_requests(load_importer(name), _lines(tmp_path / "a.jsonl", found))
    )
    assert len(rows) > 50
    assert stream.report.set_aside


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
BROKEN = (b"", b"{", b"null", b"[1]", b"\xff\xfe", b'{"a": "\xff"}', b"\0", b'"x"')


@st.composite
def _broken(draw, name: str):
    """A simulated record with several places changed: keys are known, values as they fall."""
    turn = settled(simulate(draw(st.integers(0, 9)), sessions=1))
    record = draw(st.sampled_from(FORMATS[name].write(turn)))
    for _ in range(draw(st.integers(0, 3))):
        places = list(_places(record))
        if not places:
            break
        place = draw(st.sampled_from(places))
        change = draw(st.sampled_from(["drop", "change", "swap"]))
        if change == "drop":
            record = _replaced(record, place)
        elif change == "change":
            record = _replaced(record, place, draw(ANYTHING))
        else:
            other = record
            for key in draw(st.sampled_from(places)):
                other = other[key]
            record = _replaced(record, place, copy.deepcopy(other))
    return record


@every
def test_counts_always_add_up(tmp_path_factory, name):
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.sampled_from(BROKEN) | st.binary(max_size=9) | ANYTHING | _broken(name), max_size=8
        )
    )
    def check(found):
        _check(name, read_requests(load_importer(name), _lines(path, found), rows=3))

    check()
