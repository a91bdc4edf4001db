"""Whatever is in a file: counts add up, nothing but InputError is raised, and no text is shown."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cqbayes.errors import InputError
from cqbayes.logs.choices import choice_data_of
from cqbayes.logs.schema import SERVICES
from cqbayes.logs.table.services import read_services

SECRET = "xyzzy"
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.just(SECRET)
    | st.sampled_from(["\ud800", "\0", "a|b", "1e999", "NaN", "2024-13-01"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
ZONES = st.sampled_from([None, *(timezone(timedelta(hours=h)) for h in (-7, 0, 2))])
TIMES = st.datetimes(datetime(2024, 1, 1), datetime(2024, 1, 2), timezones=ZONES)
# Mostly sound, with few queries, so that there are duplicates, gaps and times out of order.
SOUND = st.fixed_dictionaries(
    {
        "query_id": st.sampled_from("abcd"),
        "attempt": st.integers(1, 3),
        "timestamp": TIMES.map(datetime.isoformat),
        "offered": st.lists(st.sampled_from("xyz"), min_size=1, max_size=3),
        "chosen": st.none() | st.sampled_from("xyz"),
        "text": st.just(SECRET),
        "embedding": st.just([3.0, 4.0]),
    }
)
WILD = st.builds(
    lambda row, cells: row | cells,
    SOUND,
    st.dictionaries(st.sampled_from(SERVICES.names) | st.text(max_size=3), ANYTHING, max_size=3),
)
ROWS = st.lists(SOUND | WILD, max_size=15)


def _checked(path: Path, expected: int | None, **reading) -> None:
    """Reads a log in all ways; ``expected`` is how many rows it has."""
    aside = path.parent / "aside.jsonl"
    stream = read_services(path, quarantine=aside, **reading)
    kept: list[pa.RecordBatch] = []
    refusal = _refusal(lambda: kept.extend(stream))
    report = stream.report
    assert (refusal is None) == (report.read > 0)
    for batch in kept:
        batch.validate(full=True)
        assert batch.schema == SERVICES
    assert report.read == report.kept + sum(report.set_aside.values())
    assert report.kept == sum(map(len, kept))
    assert expected is None or report.read == expected
    assert SECRET not in str(report).replace(SECRET, "", sum(SECRET in n for n in report.ignored))
    entries = [json.loads(line) for line in aside.read_text().splitlines()]
    assert len(entries) == sum(report.set_aside.values())
    for rule, places in report.places.items():
        found = [entry["place"] for entry in entries if entry["reason"] == rule]
        assert tuple(found[:20]) == places
        assert len(found) == report.set_aside[rule]
    keys = [(r["query_id"], r["attempt"]) for batch in kept for r in _plain(batch)]
    assert len(set(keys)) == len(keys)
    strict = _refusal(lambda: list(read_services(path, strict=True, **reading)))
    assert (strict is None) == (report.read > 0 and not report.set_aside)
    if kept:
        unsuited = _refusal(lambda: choice_data_of(kept))
        assert unsuited is None or unsuited.startswith("embedding")


def _plain(batch: pa.RecordBatch) -> list[dict]:
    return batch.select(["query_id", "attempt"]).to_pylist()


def _refusal(read: Callable[[], object]) -> str | None:
    """The message of an InputError, which shows no text; anything else that is raised goes on."""
    try:
        read()
    except InputError as error:
        message = str(error)
    else:
        return None
    assert SECRET not in message
    return message


@FUZZ
@given(
    rows=st.lists(
        (SOUND | WILD | ANYTHING).map(lambda row: json.dumps(row).encode())
        | st.binary(max_size=30).filter(lambda line: b"\n" not in line and line.strip()),
        max_size=15,
    ),
    size=st.sampled_from([1, 4, 100]),
    packed=st.booleans(),
)
def test_lines_of_json(rows, size, packed, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / ("log.jsonl.gz" if packed else "log.jsonl")
    content = b"\n".join(rows)
    path.write_bytes(gzip.compress(content) if packed else content)
    _checked(path, len(rows), rows=size)


def _csv(rows: list[dict]) -> str:
    """As others write it, whatever stands in the cells."""
    names = ["query_id", "attempt", "timestamp", "offered", "chosen", "text", "embedding", "weight"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        offered = row.get("offered")
        shown = "|".join(map(str, offered)) if isinstance(offered, list) else offered
        writer.writerow([shown if n == "offered" else row.get(n, "") for n in names])
    return file.getvalue()


@FUZZ
@given(rows=ROWS, size=st.sampled_from([1, 4, 100]))
def test_rows_of_csv(rows, size, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "log.csv"
    path.write_bytes(_csv(rows).encode("utf-8", "surrogatepass"))
    # A NUL ends no row, and a broken encoding costs one.
    _checked(path, len(rows), rows=size)


@FUZZ
@given(rows=ROWS, noise=st.binary(max_size=20), place=st.integers(0, 2_000))
def test_noise_in_a_csv(rows, noise, place, tmp_path_factory):
    """Quotes, ends of lines and other bytes anywhere: how many rows there are is open then."""
    path = tmp_path_factory.mktemp("fuzz") / "log.csv"
    content = _csv(rows).encode("utf-8", "surrogatepass")
    head = content.index(b"\n") + 1
    place = min(head + place, len(content))
    path.write_bytes(content[:place] + noise + content[place:])
    _checked(path, None)


def _column(values: list, field: pa.Field) -> pa.Array:
    """What of the values can be in such a column, and null for the others."""
    found = []
    for value in values:
        try:
            given = datetime.fromisoformat(value) if field.name == "timestamp" else value
            found.append(pa.array([given], field.type))
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            found.append(pa.nulls(1, field.type))
    return pa.concat_arrays(found) if found else pa.nulls(0, field.type)


@FUZZ
@given(rows=ROWS, size=st.sampled_from([1, 4, 100]), noise=st.booleans(), sort=st.booleans())
def test_rows_of_parquet(rows, size, noise, sort, tmp_path_factory):
    columns = {f.name: _column([row.get(f.name) for row in rows], f) for f in SERVICES}
    if noise and rows:
        broken = pa.array([b"\xff", *[b"a"] * (len(rows) - 1)]).view(pa.string())
        columns["user_id"] = broken
    path = tmp_path_factory.mktemp("fuzz") / "log.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=5)
    _checked(path, len(rows), rows=size, sort=sort)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_cells_of_ten_megabytes(tmp_path, suffix):
    long = SECRET * 2_000_000
    row = {"query_id": "a", "attempt": 1, "offered": ["x"], "chosen": None}
    rows = [{**row, "query_id": str(i), "text": long if i % 2 else "short"} for i in range(8)]
    rows += [{**row, "query_id": long, "text": ""}, {**row, "offered": [long], "text": ""}]
    path = tmp_path / f"log{suffix}"
    if suffix == ".parquet":
        schema = pa.schema([SERVICES.field(name) for name in rows[0]])
        pq.write_table(pa.Table.from_pylist(rows, schema), path)
    elif suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        path.write_text(_csv(rows))
    stream = read_services(path)
    assert sum(map(len, stream)) == 4
    assert stream.report.set_aside == {"long text": 4, "long name": 2}
    assert SECRET not in str(stream.report)
