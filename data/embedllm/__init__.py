"""EmbedLLM: right and wrong answers of 112 LLMs to benchmark questions; see DATASHEET.md."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from cqbayes._tools.tables import check_columns, numbers, refuse
from cqbayes.datasets.files import Card, File, find
from cqbayes.datasets.scores import SCORES
from cqbayes.datasets.text_scores import TextScores, complete, joined
from cqbayes.errors import InputError

NAME = "embedllm"
REPOSITORY = "RZ412/EmbedLLM"
REVISION = "266ae3e180ccb533c86afc9cfb2f5db99d171aea"
# From the names of splits in the files to the names in this package.
SPLITS = {"train": "train", "val": "train", "test": "test"}
FILES = tuple(File(f"{split}.csv", REPOSITORY, REVISION) for split in SPLITS)
CARD = Card(112, "35,673", "Apache-2.0", f"{REPOSITORY} on the Hugging Face hub", FILES)
NEEDED = ["prompt_id", "category", "label", "model_name", "prompt"]
ROWS = 100_000  # rows in memory at a time: files have gigabytes, with each prompt 112 times


def answers(path: str | Path | None = None, *, drop_incomplete: bool = False) -> TextScores:
    """Texts of the queries and scores of the LLMs' answers, of both splits.

    The validation split counts as training data. A question that occurs in several variants of a
    benchmark has a label for each variant; its score is the mean of these labels.

    Args:
        path: folder of the official files ``train.csv``, ``val.csv`` and ``test.csv``;
            :func:`cqbayes.datasets.files.find` finds them if absent.
        drop_incomplete: whether to leave out questions that some LLMs answered less often than
            others.

    Raises:
        InputError: for files that do not exist or differ from ``DATASHEET.md``.
    """
    return joined([_read(_file(path, part), part, drop_incomplete) for part in SPLITS])


def _file(path: str | Path | None, part: str) -> Path:
    return find(NAME, f"{part}.csv") if path is None else Path(path) / f"{part}.csv"


def _read(path: Path, part: str, drop_incomplete: bool) -> TextScores:
    where = f"{NAME}: {path.name}"
    queries: dict[str, int] = {}
    llms: dict[str, int] = {}
    texts, tasks, first = [], [], []
    cells: list[np.ndarray] = []
    for rows in _chunks(where, path):
        query = _places(queries, where, rows, "prompt_id")
        llm = _places(llms, where, rows, "model_name")
        label = numbers(where, rows["label"], "label")
        refuse(where, ~((label >= 0) & (label <= 1)), SCORES, rows.index.to_numpy())
        cells.append(np.stack([query, llm, label]))
        # Each prompt occurs 112 times; only the first row of a prompt gives its text.
        fresh = np.unique(query, return_index=True)[1]
        fresh = fresh[query[fresh] >= len(texts)]
        texts += rows["prompt"].iloc[fresh].tolist()
        tasks += rows["category"].iloc[fresh].tolist()
        first += rows.index[fresh].tolist()
    query, llm, label = np.concatenate(cells, axis=1)
    place, shape = (query * len(llms) + llm).astype(int), (len(queries), len(llms))
    asked = np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape)
    right = np.bincount(place, label, minlength=asked.size).reshape(shape)
    # A repeated row gives one LLM more rows than the other LLMs.
    uneven = (asked != asked[:, :1]).any(axis=1)
    if not drop_incomplete:
        expected = (
            f"each prompt_id equally often with each of {len(llms)} LLMs (drop_incomplete=True "
            "leaves other prompts out)"
        )
        refuse(where, uneven, expected, first)
    score = np.where(uneven[:, None], np.nan, right / np.maximum(asked, 1))
    order = np.argsort(list(llms))
    return complete(
        TextScores(
            name=NAME,
            llms=tuple(sorted(llms)),
            query_id=np.array(list(queries)),
            task=np.array(tasks, str),
            split=np.full(len(texts), SPLITS[part]),
            text=np.array(texts, object),
            score=score[:, order],
        ),
        drop_incomplete=drop_incomplete,
        where=where,
        row=np.array(first),
    )


def _chunks(where: str, path: Path) -> Iterator[pd.DataFrame]:
    """The needed columns, some rows at a time."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            check_columns(where, pd.read_csv(file, nrows=0).columns, NEEDED)
        # A question may read "None": only an empty field counts as missing.
        yield from pd.read_csv(
            path,
            usecols=NEEDED,
            dtype={name: object for name in NEEDED if name != "label"},
            keep_default_na=False,
            na_values=[""],
            chunksize=ROWS,
        )
    except OSError as error:
        reason = error.strerror or "not readable"
        raise InputError(f"{where}: expected a readable file, got: {reason}") from None
    except InputError:
        raise
    except ValueError:
        raise InputError(f"{where}: expected a CSV file, got something else") from None


def _places(known: dict[str, int], where: str, rows: pd.DataFrame, column: str) -> np.ndarray:
    """Codes of the names in a column, in the order of their first row; adds names to ``known``."""
    codes, found = pd.factorize(rows[column])
    refuse(where, codes < 0, f"a {column} in every row", rows.index.to_numpy())
    return np.array([known.setdefault(name, len(known)) for name in found])[codes]
