# %% [markdown]
# # How fast is a log read, and at what memory?
#
# Logs are generated (nobody's data: simulated). One of services streams through reading, validation
# and into minibatches of choice data; one of turns, with text, through the detection of retrials
# into minibatches; and one of a gateway's requests, as JSON Lines, becomes turns in memory: process
# CPU seconds and the most memory that the process held, at two sizes, so that it shows whether
# memory grows with the log. The rival of the first is pandas, which reads the
# file whole and does the same in memory, at a size that fits. Each is measured in a process of its
# own.
#
#     python analyses/benchmarks/logs.py [--quick | --rows N] [--json FILE]
#
# Fifty million rows take about 3 GB in a temporary folder (`$TMPDIR`), which is removed.

# %%
import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from cqbayes import (
    choice_data,
    codes_of,
    load_importer,
    minibatches,
    provenance,
    read_services,
    replacing,
)
from cqbayes._tools.tables import unit_rows
from cqbayes.logs.choices import Codes
from cqbayes.logs.retrials import chains
from cqbayes.logs.schema import TURNS
from cqbayes.logs.turns import read_turns

try:
    import resource
except ModuleNotFoundError:
    sys.exit("logs.py: expected a system that says how much memory a process held, as Unix does")

DIM = 8
LLMS = [f"llm-{i}" for i in range(8)]
PIECE = 500_000  # rows that are generated at a time
SIZE = 8_192  # of a minibatch
MOST_OF_PEER = 2_000_000  # also of requests, which become turns in memory
Row = dict[str, object]


# %%
def generated(rows: int) -> Iterator[pa.Table]:
    """A simulated log: queries of one to three attempts in a row, and 1 row in 1,000 is unsound."""
    rng = np.random.default_rng(0)
    first = 0
    for start in range(0, rows, PIECE):
        count = min(PIECE, rows - start)
        attempts = rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1], size=count)
        query = np.repeat(np.arange(count), attempts)[:count]
        begins = np.flatnonzero(np.diff(query, prepend=-1))
        attempt = np.arange(count) - begins[query] + 1
        is_last = np.append(query[1:] != query[:-1], True)
        pair = np.argsort(rng.random((count, len(LLMS))), axis=1)[:, :2]
        names = pa.array(LLMS).take(pa.array(pair.ravel()))
        taken = np.where(rng.random(count) < 0.001, (pair.max(axis=1) + 1) % len(LLMS), pair[:, 0])
        moment = 1_700_000_000_000_000 + 50_000 * np.arange(start, start + count)
        vectors = rng.normal(size=count * DIM).astype(np.float32)
        columns = {
            "query_id": pa.array((first + query).astype(str)),
            "attempt": pa.array(attempt, pa.int32()),
            "user_id": pa.array(((first + query) % 10_000).astype(str)),
            "timestamp": pa.array(moment).cast(pa.timestamp("us", "UTC")),
            "offered": pa.ListArray.from_arrays(np.arange(0, 2 * count + 1, 2, np.int32), names),
            "chosen": pa.array(np.array(LLMS)[taken], mask=~is_last),
            "embedding": pa.FixedSizeListArray.from_arrays(vectors, DIM),
            "propensity": pa.array(np.full(count, 0.1)),
        }
        first += int(query[-1]) + 1
        yield pa.table(columns)


def generated_turns(rows: int) -> Iterator[pa.Table]:
    """A simulated log of conversations of about four turns of about 90 characters.

    One turn in four asks for the same as the one before, with some words changed.
    """
    rng = np.random.default_rng(0)
    words = np.array(
        [f"{a}{b}" for a in ("re", "con", "ex", "pro") for b in ["port", "tract", "ceed"]]
    )
    said = [" ".join(rng.choice(words, 12)) for _ in range(10_000)]
    asked = pa.array([*said, *(f"no, {text[20:]} {rng.choice(words)}" for text in said)])
    for start in range(0, rows, PIECE):
        count = min(PIECE, rows - start)
        begins = rng.random(count) < 0.25
        begins[0] = True
        session = np.cumsum(begins) - 1
        first = np.flatnonzero(begins)
        again = ~begins & (rng.random(count) < 0.25)
        topic = rng.integers(0, len(said), count)
        topic[again] = topic[np.flatnonzero(again) - 1]
        moment = 1_700_000_000_000_000 + 30_000_000 * np.arange(start, start + count)
        columns = {
            "session_id": pa.array(np.char.add(f"{start}-", session.astype(str))),
            "turn": pa.array(np.arange(count) - first[session], pa.int32()),
            "timestamp": pa.array(moment).cast(pa.timestamp("us", "UTC")),
            "model": pa.array(LLMS).take(pa.array(rng.integers(0, len(LLMS), count))),
            "text": asked.take(pa.array(topic + len(said) * again)),
            "guessed": pa.array(np.zeros(count, bool)),
            "repeated": pa.array(np.zeros(count, bool)),
        }
        absent = {
            field.name: pa.nulls(count, field.type) for field in TURNS if field.name not in columns
        }
        yield pa.table({**columns, **absent}).select(TURNS.names).cast(TURNS)


def write_requests(path: Path, pieces: Iterator[pa.Table]) -> None:
    """Turns as LiteLLM logs them, each request with all messages before it."""
    answer = {"role": "assistant", "content": "port contract exceed " * 10}
    with path.open("w") as file:
        for piece in pieces:
            said: list[dict[str, str]] = []
            for turn in piece.to_pylist():
                start = turn["timestamp"].timestamp()
                said = [*(said if turn["turn"] else []), {"role": "user", "content": turn["text"]}]
                payload = {
                    "call_type": "acompletion",
                    "session_id": turn["session_id"],
                    "model": turn["model"],
                    "messages": said,
                    "response": {"choices": [{"message": answer}]},
                    "status": "success",
                    "startTime": start,
                    "endTime": start + 5,
                }
                file.write(json.dumps(payload) + "\n")
                said = [*said, answer]


def write(path: Path, pieces: Iterator[pa.Table]) -> None:
    """Writes a log piece by piece."""
    writer = None
    for piece in pieces:
        writer = writer or pq.ParquetWriter(path, piece.schema, compression="zstd")
        writer.write_table(piece)
    assert writer is not None
    writer.close()


# %%
def streamed(path: Path) -> int:
    """Ours, with the codes from a pass of their own; says how many rows came out."""
    return _counted(read_services(path), codes_of(read_services(path), time="W"))


def detected(path: Path) -> int:
    """Ours, from turns: what was asked again is detected on the way; contexts are not measured."""
    turns = pq.ParquetFile(path).iter_batches(65_536)
    return _counted(chains.services_of_turns(turns), Codes(tuple(LLMS)), context=_ones)


def interpreted(path: Path) -> int:
    """Ours, from a gateway's requests to turns, which are held in memory."""
    return read_turns(load_importer("litellm"), path).turns.num_rows


def _counted(stream: Iterable[pa.RecordBatch], codes: Codes, **options: Any) -> int:
    parts = minibatches(stream, SIZE, codes=codes, **options)
    return sum(int((data.weight > 0).sum()) for data in parts)


def _ones(text: list[str]) -> np.ndarray:
    return np.ones((len(text), 1))


def in_memory(path: Path) -> int:
    """The rival: pandas, with the rules that the generated log can break."""
    frame = pd.read_parquet(path)
    offered = frame["offered"].tolist()
    chosen = frame["chosen"].tolist()
    sound = frame["query_id"].notna() & (frame["attempt"] >= 1) & frame["propensity"].between(0, 1)
    among = [not isinstance(c, str) or c in o for c, o in zip(chosen, offered, strict=True)]
    sound &= np.array([0 < len(set(o)) == len(o) for o in offered]) & np.array(among)
    group = frame.groupby("query_id", sort=False)
    sound &= ~frame.duplicated(["query_id", "attempt"])
    sound &= (frame["attempt"] == 1) | (group["attempt"].diff() == 1)
    sound &= ~(group["timestamp"].diff() < pd.Timedelta(0))
    frame = frame[sound]
    names = sorted({name for one in frame["offered"] for name in one})
    place = {name: i for i, name in enumerate(names)}
    matrix = np.zeros((len(frame), len(names)), bool)
    for row, one in enumerate(frame["offered"]):
        matrix[row, [place[name] for name in one]] = True
    choice = frame["chosen"].map(place).fillna(-1).to_numpy(int) + 1
    context = unit_rows("log", np.stack(frame["embedding"].tolist()))
    user = pd.factorize(frame["user_id"], sort=True)[0]
    week = (frame["timestamp"].astype("int64") // 604_800_000_000).to_numpy()
    columns = {
        "user": user,
        "attempt": frame["attempt"].to_numpy(),
        "time": week - week.min(),
    }
    count = 0
    for start in range(0, len(frame), SIZE):
        part = slice(start, start + SIZE)
        optional = {name: column[part] for name, column in columns.items()}
        data = choice_data(context[part], matrix[part], choice[part], **optional)
        count += data.num_obs
    return count


# %%
WAYS = {
    "streamed": streamed,
    "pandas": in_memory,
    "detected": detected,
    "interpreted": interpreted,
}


def measured(way: str, path: Path) -> dict[str, float]:
    """CPU seconds and the most memory in MB, of a process of its own."""
    command = [sys.executable, __file__, "--only", way, "--file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"logs.py: {way} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def only(way: str, path: Path) -> None:
    """What runs in that process; JAX and the libraries are there before the clock starts."""
    jax.numpy.zeros(1).block_until_ready()
    start = time.process_time()
    count = WAYS[way](path)
    seconds = time.process_time() - start
    unit = 1e6 if sys.platform == "darwin" else 1e3
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    print(json.dumps({"seconds": seconds, "megabytes": most, "kept": count}))


def compared(rows: int, folder: Path) -> list[Row]:
    """Ours at a quarter of the rows and at all of them; the rival at what fits."""
    found: list[Row] = []
    two = (rows // 4, rows)
    held = min(rows // 4, MOST_OF_PEER)
    sizes = {"streamed": two, "pandas": (held,), "detected": two, "interpreted": (held // 4, held)}
    for way, each in sizes.items():
        pieces = generated_turns if way in ("detected", "interpreted") else generated
        for size in each:
            suffix = "jsonl" if way == "interpreted" else "parquet"
            path = folder / f"simulated-{size}-{pieces.__name__}.{suffix}"
            if not path.exists():
                (write_requests if way == "interpreted" else write)(path, pieces(size))
            result = measured(way, path)
            found.append({"way": way, "rows": size, "rows_per_second": size / result["seconds"]})
            found[-1] |= result
    return found


def show(found: list[Row]) -> None:
    table = Table(
        title="Simulated logs: streamed from services and detected from turns, in minibatches; "
        "interpreted from requests"
    )
    for column in ("way", "rows", "kept", "rows/s of CPU", "CPU seconds", "most memory, MB"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for row in found:
        cells = [row[n] for n in ("rows", "kept", "rows_per_second", "seconds", "megabytes")]
        table.add_row(str(row["way"]), *(f"{cell:,.0f}" for cell in cells))
    Console().print(table)


# %%
def main() -> None:
    parser = argparse.ArgumentParser(description="Reading a log, against pandas in memory.")
    parser.add_argument("--quick", action="store_true", help="200,000 rows")
    parser.add_argument("--rows", type=int, default=50_000_000, help="rows of the larger log")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        only(arguments.only, arguments.file)
        return
    rows = 200_000 if arguments.quick else arguments.rows
    if rows < 4:
        parser.error("--rows: expected at least 4")
    with tempfile.TemporaryDirectory(prefix="cqbayes-") as folder:
        found = compared(rows, Path(folder))
    show(found)
    if arguments.json:
        with replacing(arguments.json) as temporary:
            temporary.write_text(json.dumps({"rows": found, **provenance()}, indent=1))


if __name__ == "__main__":
    main()
