# %% [markdown]
# # How fast is a log read, and at what memory?
#
# A log is generated (nobody's data: simulated), and streams through reading, validation and into
# minibatches of choice data: process CPU seconds and the most memory that the process held, at two
# sizes, so that it shows whether memory grows with the log. The rival is pandas, which reads the
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
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from cqbayes.choice import choice_data
from cqbayes.environments.scores import unit_rows
from cqbayes.files import replacing
from cqbayes.logs import codes_of, minibatches, services
from cqbayes.provenance import provenance

try:
    import resource
except ModuleNotFoundError:
    sys.exit("logs.py: expected a system that says how much memory a process held, as Unix does")

DIM = 8
LLMS = [f"llm-{i}" for i in range(8)]
PIECE = 500_000  # rows that are generated at a time
SIZE = 8_192  # of a minibatch
MOST_OF_PEER = 2_000_000
Row = dict[str, object]
Stage = Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]

# What batches pass through between validation and minibatches.
STAGES: tuple[Stage, ...] = ()


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


def write(path: Path, rows: int) -> None:
    """Writes the log piece by piece."""
    writer = None
    for piece in generated(rows):
        writer = writer or pq.ParquetWriter(path, piece.schema, compression="zstd")
        writer.write_table(piece)
    assert writer is not None
    writer.close()


# %%
def streamed(path: Path) -> int:
    """Ours, with the codes from a pass of their own; says how many rows came out."""
    codes = codes_of(services(path), time="W")
    stream: Iterable[pa.RecordBatch] = services(path)
    for stage in STAGES:
        stream = stage(stream)
    return sum(int((data.weight > 0).sum()) for data in minibatches(stream, SIZE, codes=codes))


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
WAYS = {"streamed": streamed, "pandas": in_memory}


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
    """Ours at a quarter of the rows and at all; the rival at what fits."""
    found: list[Row] = []
    sizes = {"streamed": (rows // 4, rows), "pandas": (min(rows // 4, MOST_OF_PEER),)}
    for way, each in sizes.items():
        for size in each:
            path = folder / f"simulated-{size}.parquet"
            if not path.exists():
                write(path, size)
            result = measured(way, path)
            found.append({"way": way, "rows": size, "rows_per_second": size / result["seconds"]})
            found[-1] |= result
    return found


def show(found: list[Row]) -> None:
    table = Table(title="A simulated log, read, validated and in minibatches")
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
