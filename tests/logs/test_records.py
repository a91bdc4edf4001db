"""Files of any kind become records, and each record is kept or set aside: a made-up format."""

import gzip
import json
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cqbayes.errors import InputError
from cqbayes.logs import records
from cqbayes.logs.formats import importer as log_format
from cqbayes.logs.formats.importer import Importer, Request, SetAside, load_importer
from cqbayes.logs.records import read_requests
from cqbayes.logs.schema import REQUESTS

SECRET = "sekrit"
NO_NAME = "no name"


def _requests(record: Mapping[str, Any], ticks: Mapping[str, int]) -> list[Request]:
    if not isinstance(record.get("name"), str):
        raise SetAside(NO_NAME)
    one = Request(id=record["name"], text=record.get("text"), marks=("a", "b"))
    return [one] * record.get("times", 1)


def _unpacked(record: Mapping[str, Any]) -> Iterator[Any]:
    if "page" not in record:
        yield record
        return
    if record["page"] is None:
        raise SetAside("no page")
    yield from record["page"]


MADE_UP = Importer(
    "a made-up log", _requests, "", _unpacked, wanted=lambda column: column != "large"
)
ONE, TWO, THREE = ({"name": name} for name in ("one", "two", "three"))


def _names(stream: records.Requests) -> list[str]:
    batches = list(stream)
    assert all(batch.schema == REQUESTS for batch in batches)
    return [row["id"] for batch in batches for row in batch.to_pylist()]


def _text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def _lines(*found: Any) -> str:
    return "".join(json.dumps(one) + "\n" for one in found)


# Which JSON it is


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz"])
@pytest.mark.parametrize(
    "text",
    [
        _lines(ONE, TWO),
        "\ufeff" + _lines(ONE, TWO),
        json.dumps([ONE, TWO]),
        json.dumps([ONE, TWO], indent=1),
        "[" + ",\n".join(map(json.dumps, (ONE, TWO))) + "]\n",
        "".join(json.dumps(one, indent=1) for one in (ONE, TWO)),
        json.dumps({"page": [ONE, TWO]}),
        json.dumps({"page": [ONE, TWO]}, indent=1),
        _lines({"page": [ONE]}, TWO),
    ],
)
def test_what_is_in_a_file_says_which_json_it_is(tmp_path, suffix, text):
    stream = read_requests(MADE_UP, _text(tmp_path / f"log{suffix}", text))
    assert _names(stream) == ["one", "two"]
    assert stream.report[:3] == (2, 2, {})


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("first", ['{"name": "ze', "\0", "[{", '"a": 7}', "<html>"])
def test_a_first_line_that_is_damaged_costs_that_line(tmp_path, suffix, first):
    path = _text(tmp_path / f"log{suffix}", f"{first}\n" + _lines(ONE, TWO))
    stream = read_requests(MADE_UP, path)
    assert _names(stream) == ["one", "two"]
    assert stream.report.places == {log_format.NOT_JSON: (f"log{suffix}:1",)}


def test_json_that_is_damaged(tmp_path):
    cut = json.dumps([ONE, {"name": SECRET}], indent=1)[:-5]
    with pytest.raises(InputError, match=r"log.json: expected JSON, got something else in line 6$"):
        _names(read_requests(MADE_UP, _text(tmp_path / "log.json", cut)))
    (tmp_path / "log.json").write_bytes('[{"name": "ü"}]'.encode("latin-1"))
    with pytest.raises(InputError, match=r"log.json: expected UTF-8, got something else$"):
        _names(read_requests(MADE_UP, tmp_path / "log.json"))
    deep = _text(tmp_path / "log.json", '{"a":' * 100_000)
    with pytest.raises(InputError, match=r"log.json: expected JSON, got something else$"):
        _names(read_requests(MADE_UP, deep))


def test_json_that_is_no_object(tmp_path):
    path = _text(tmp_path / "log.json", json.dumps([ONE, 7, None, [TWO], TWO]))
    stream = read_requests(MADE_UP, path, quarantine=tmp_path / "aside.jsonl")
    assert _names(stream) == ["one", "two"]
    assert stream.report.places == {log_format.NOT_JSON: ("log.json:2", "log.json:3", "log.json:4")}
    aside = [json.loads(line) for line in (tmp_path / "aside.jsonl").read_text().splitlines()]
    assert [one["record"] for one in aside] == [7, None, [TWO]]


def test_an_empty_file_has_no_records(tmp_path):
    for name in ("a.json", "a.jsonl", "a.json.gz"):
        stream = read_requests(MADE_UP, _text(tmp_path / name, "\n"))
        assert (_names(stream), stream.report.read) == ([], 0)


def test_json_lines_called_json_stream_and_an_array_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MOST_BYTES_OF_ARRAY", 300_000)
    row = {"name": "one", "text": "x" * 10_000}
    path = _text(tmp_path / "log.json", _lines(*[row] * 1_000))
    tracemalloc.start()
    try:
        stream = read_requests(MADE_UP, path, rows=5)
        next(stream)
        assert stream.report.read == 5, "nothing is read ahead of what is asked for"
        assert sum(map(len, stream)) == 995
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()
    _text(path, json.dumps([row] * 40))
    with pytest.raises(InputError, match=r"at most 300,000 bytes of other JSON, got more; convert"):
        _names(read_requests(MADE_UP, path))
    _text(path, json.dumps([row] * 29))
    assert len(_names(read_requests(MADE_UP, path))) == 29


# Which files


def test_folders_are_searched_in_order_and_hidden_files_skipped(tmp_path):
    folder = tmp_path / "bucket"
    _text(folder / "2025-06-02" / "a.json", json.dumps(THREE))
    _text(folder / "2025-06-01" / "b.json", json.dumps({"name": None}))
    _text(folder / "2025-06-01" / "a.jsonl", _lines(ONE, TWO))
    pq.write_table(pa.table({"name": ["four"], "large": [SECRET]}), folder / "z.parquet")
    for hidden in (".a.json", ".cache/a.json", "2025-06-02/.ipynb_checkpoints/a.json"):
        _text(folder / hidden, json.dumps({"name": SECRET}))
    (folder / "2025-06-01" / "NOTE.txt").write_text(SECRET)
    (folder / "latest").symlink_to("2025-06-02", target_is_directory=True)
    stream = read_requests(MADE_UP, folder)
    assert _names(stream) == ["one", "two", "three", "four"]
    assert stream.report.places == {NO_NAME: ("2025-06-01/b.json:1",)}
    days = [folder / "2025-06-02", str(folder / "2025-06-01" / "a.jsonl")]
    assert _names(read_requests(MADE_UP, days)) == ["three", "one", "two"]


def test_what_is_no_log_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    for i, name in enumerate(("a.txt", "b.txt", "sub/c.csv", "sub/d", ".e.json")):
        _text(tmp_path / "others" / name, str(i))
    _text(tmp_path / "log.pkl", "")
    _text(tmp_path / "log.csv.gz", "")
    known = r"\.parquet, \.json, \.json\.gz, \.jsonl, \.ndjson, \.jsonl\.gz, \.ndjson\.gz"
    for name, said in {
        "absent": "expected a readable file, got: No such file or directory",
        "absent.jsonl": "expected a readable file, got: No such file or directory",
        "absent.parquet": "expected a readable file, got: No such file or directory",
        "absent.pkl": "expected a readable file, got: No such file or directory",
        "log.pkl": f"expected a file {known}, got '.pkl'",
        "log.csv.gz": f"expected a file {known}, got '.csv.gz'",
        "empty": f"expected files {known}, got none; it is empty",
        "others": f"expected files {known}, got none; there are 2 .txt, 1 .csv, 1 without a suffix",
    }.items():
        for path in (tmp_path / name, [str(tmp_path / name)]):
            with pytest.raises(InputError, match=f"{name}: {said}$"):
                read_requests(MADE_UP, path)
    with pytest.raises(InputError, match=f"^expected files {known}, got none$"):
        read_requests(MADE_UP, [])
    with pytest.raises(InputError, match="rows: expected at least 1, got 0"):
        read_requests(MADE_UP, tmp_path, rows=0)


# Which records


def test_a_part_of_a_record_is_set_aside_alone(tmp_path):
    page = {"page": [ONE, {"name": 1, "text": SECRET}, 7, TWO]}
    path = _text(tmp_path / "log.jsonl", _lines(THREE, page, {"page": None}))
    stream = read_requests(MADE_UP, path, quarantine=tmp_path / "aside.jsonl")
    assert _names(stream) == ["three", "one", "two"]
    assert stream.report == (
        6,
        3,
        {NO_NAME: 1, log_format.NOT_JSON: 1, "no page": 1},
        {
            NO_NAME: ("log.jsonl:2",),
            log_format.NOT_JSON: ("log.jsonl:2",),
            "no page": ("log.jsonl:3",),
        },
    )
    aside = [json.loads(line) for line in (tmp_path / "aside.jsonl").read_text().splitlines()]
    assert [one["record"] for one in aside] == [{"name": 1, "text": SECRET}, 7, {"page": None}]
    with pytest.raises(InputError, match=r"^log.jsonl:2: expected .*, got: no name; ") as refusal:
        _names(read_requests(MADE_UP, path, strict=True))
    assert SECRET not in str(refusal.value)


def test_parquet_is_unpacked_too(tmp_path):
    pq.write_table(pa.table({"page": [[ONE, {"name": None}], [TWO]]}), tmp_path / "a.parquet")
    stream = read_requests(MADE_UP, tmp_path)
    assert _names(stream) == ["one", "two"]
    assert stream.report.places == {NO_NAME: ("a.parquet:1",)}


def test_names_of_files_may_be_in_capitals(tmp_path):
    _text(tmp_path / "a.jsonl", _lines(ONE))
    _text(tmp_path / "B.JSONL", _lines(TWO))
    assert sorted(_names(read_requests(MADE_UP, tmp_path))) == ["one", "two"]


def test_a_record_is_in_one_batch(tmp_path, monkeypatch):
    path = _text(tmp_path / "log.jsonl", _lines(*[{"name": "a", "times": 3, "text": "12345"}] * 7))
    assert [len(batch) for batch in read_requests(MADE_UP, path, rows=5)] == [6, 6, 6, 3]
    monkeypatch.setattr(records, "MOST_CHARS", 20)
    assert [len(batch) for batch in read_requests(MADE_UP, path)] == [6, 6, 6, 3]


def test_an_importer_that_gives_nothing_is_a_mistake(tmp_path):
    path = _text(tmp_path / "log.jsonl", _lines({"name": "a", "times": 0}))
    with pytest.raises(
        AssertionError, match="a made-up log: a record was kept and gave no request"
    ):
        _names(read_requests(MADE_UP, path))


def test_records_that_are_too_deep(tmp_path):
    def deep(record: Mapping[str, Any], ticks: Mapping[str, int]) -> list[Request]:
        return deep(record, ticks)

    path = _text(tmp_path / "log.jsonl", _lines(ONE))
    for broken in (MADE_UP._replace(requests=deep), MADE_UP._replace(unpack=lambda r: deep(r, {}))):
        stream = read_requests(broken, path)
        assert _names(stream) == []
        assert stream.report.set_aside == {records.NESTED: 1}


def test_a_row_holds_the_fields_of_a_request():
    assert Request._fields == tuple(REQUESTS.names)


def test_columns_without_a_value_are_no_damage(tmp_path):
    """Arrow reads those inside of lists as arrays that are too short."""
    said = [
        {
            "model": "m",
            "conversation_hash": str(i),
            "nothing": None,
            "conversation": [
                {"role": role, "content": "Why?", "hashed_ip": None, "timestamp": None}
                for role in ("user", "assistant") * (1 + i % 3)
            ],
        }
        for i in range(300)
    ]
    path = tmp_path / "log.parquet"
    pq.write_table(pa.Table.from_pylist(said), path)
    importer = load_importer("wildchat")
    source = read_requests(importer, path)
    rows = sum(batch.num_rows for batch in source)
    assert source.report.read == source.report.kept == 300
    assert rows == sum(1 + i % 3 for i in range(300))
