"""SPROUT: scores and token counts of thirteen LLMs' answers; the data sheet is DATASHEET.md."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cqbayes._tools.tables import check_columns, numbers, parquet, refuse
from cqbayes.datasets.files import Card, File, find
from cqbayes.datasets.text_scores import TextScores, complete, joined
from cqbayes.errors import InputError

NAME = "sprout"
REPOSITORY = "CARROT-LLM-Routing/SPROUT"
# From the names of splits in the files to the names in this package.
SPLITS = {"train": "train", "validation": "train", "test": "test"}
SHARDS = {"train": 3, "validation": 1, "test": 1}
FILES = tuple(
    File(f"data/{split}-{shard:05d}-of-{shards:05d}.parquet", REPOSITORY)
    for split, shards in SHARDS.items()
    for shard in range(shards)
)
CARD = Card(13, "about 44,000", "none stated", f"{REPOSITORY} on the Hugging Face hub", FILES)
NEEDED = ("key", "dataset", "prompt")
TOKENS = ("num_input_tokens", "num_output_tokens")


def answers(
    path: str | Path | None = None,
    *,
    prices: Mapping[str, tuple[float, float]] | None = None,
    drop_incomplete: bool = False,
) -> TextScores:
    """Texts of the queries and scores of the LLMs' answers, of both splits.

    The validation split counts as training data.

    Args:
        path: folder of the official Parquet files ``train-*``, ``validation-*`` and ``test-*``;
            :func:`cqbayes.datasets.files.find` finds them if absent.
        prices: for each LLM, dollars for a million input tokens and for a million output tokens.
            The data have token counts only: without prices there are no costs.
        drop_incomplete: whether to leave out queries without a score of every LLM.

    Raises:
        InputError: for files that do not exist or differ from ``DATASHEET.md``, and for an LLM
            without a price.
    """
    return joined(
        [
            _read(file, official, prices, drop_incomplete)
            for official in SPLITS
            for file in _files(path, official)
        ]
    )


def _files(path: str | Path | None, official: str) -> list[Path]:
    if path is None:
        return [find(NAME, file.name) for file in FILES if file.name.startswith(f"{official}-")]
    found = sorted(Path(path).glob(f"{official}-*.parquet"))
    if not found:
        raise InputError(f"{NAME}: expected files {official}-*.parquet in {path}, got none")
    # The name of each file gives the number of files.
    total = found[0].stem.split("-of-")[-1]
    if total.isdecimal() and len(found) != int(total):
        raise InputError(
            f"{NAME}: expected {int(total)} files {official}-*.parquet in {path}, got {len(found)}"
        )
    return found


def _read(
    path: Path,
    official: str,
    prices: Mapping[str, tuple[float, float]] | None,
    drop_incomplete: bool,
) -> TextScores:
    where = f"{NAME}: {path.name}"
    with parquet(where, path) as file:
        schema = file.schema_arrow
        check_columns(where, schema.names, NEEDED)
        llms = sorted(field.name for field in schema if _is_llm(field))
        if not llms:
            raise InputError(f"{where}: expected a struct column with a score for each LLM")
        parts = ("score",) if prices is None else ("score", *TOKENS)
        for llm in llms:
            fields = [field.name for field in schema.field(llm).type]
            check_columns(f"{where}: {llm}", fields, parts)
        # The LLMs' answers are nearly all of the file; they are not read.
        wanted = [*NEEDED, *(f"{llm}.{part}" for llm in llms for part in parts)]
        table = file.read(wanted)

    def matrix(part: str) -> np.ndarray:
        field = pc.struct_field  # pyright: ignore[reportAttributeAccessIssue]
        columns = [field(table[llm], part).to_pandas() for llm in llms]
        return np.stack([numbers(where, column, part) for column in columns], axis=1)

    key, task = (table[column].to_pandas().astype(object) for column in ("key", "dataset"))
    refuse(where, key.isna().to_numpy(), "a key in every row")
    return complete(
        TextScores(
            name=NAME,
            llms=tuple(llms),
            # Keys are unique only within a split.
            query_id=np.array([f"{official}/{one}" for one in key]),
            task=task.to_numpy(str),
            split=np.full(len(key), SPLITS[official]),
            text=table["prompt"].to_pandas().to_numpy(object),
            score=matrix("score"),
            cost=None if prices is None else _cost(where, llms, prices, *map(matrix, TOKENS)),
        ),
        drop_incomplete=drop_incomplete,
        where=where,
    )


def _is_llm(field: pa.Field) -> bool:
    kind = field.type
    return pa.types.is_struct(kind) and kind.get_field_index("score") >= 0


def _cost(
    where: str,
    llms: list[str],
    prices: Mapping[str, tuple[float, float]],
    read: np.ndarray,
    written: np.ndarray,
) -> np.ndarray:
    without = [llm for llm in llms if llm not in prices]
    if without:
        raise InputError(f"{where}: expected a price of each LLM, got none of {', '.join(without)}")
    dollars = np.array([prices[llm] for llm in llms], float) / 1e6
    return read * dollars[:, 0] + written * dollars[:, 1]
