"""EmbedLLM: whether 112 LLMs answered benchmark questions right; the data sheet is DATASHEET.md."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from cqbayes.answers import (
    SCORES,
    Answers,
    check_columns,
    complete,
    joined,
    numbers,
    refuse,
)
from cqbayes.datasets import Card, find, on_hub
from cqbayes.errors import InputError

NAME = "embedllm"
REPOSITORY = "RZ412/EmbedLLM"
REVISION = "266ae3e180ccb533c86afc9cfb2f5db99d171aea"
# What the files call a split, and what it is here.
SPLITS = {"train": "train", "val": "train", "test": "test"}
FILES = tuple(on_hub(REPOSITORY, f"{split}.csv", REVISION) for split in SPLITS)
CARD = Card(112, "35,673", "Apache-2.0", f"{REPOSITORY} on the Hugging Face hub", FILES)
NEEDED = ["prompt_id", "category", "label", "model_name", "prompt"]
ROWS = 100_000  # that are in memory at a time: a file of gigabytes has each prompt 112 times


def answers(path: str | Path | None = None, *, drop_incomplete: bool = False) -> Answers:
    """Both splits in words; the validation split is training data.

    A question that stands in several variants of a benchmark has a label for each of them; its
    score is their mean.

    Args:
        path: folder of the official files ``train.csv``, ``val.csv`` and ``test.csv``;
            :func:`cqbayes.datasets.find` where absent.
        drop_incomplete: whether questions are left out that not all LLMs were asked equally often.

    Raises:
        InputError: for files that are not there or are not as ``DATASHEET.md`` says.
    """
    return joined([_read(_file(path, part), part, drop_incomplete) for part in SPLITS])


def _file(path: str | Path | None, part: str) -> Path:
    return find(NAME, f"{part}.csv") if path is None else Path(path) / f"{part}.csv"


def _read(path: Path, part: str, drop_incomplete: bool) -> Answers:
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
        # Of a prompt that is there 112 times, the first is kept.
        fresh = np.unique(query, return_index=True)[1]
        fresh = fresh[query[fresh] >= len(texts)]
        texts += rows["prompt"].iloc[fresh].tolist()
        tasks += rows["category"].iloc[fresh].tolist()
        first += rows.index[fresh].tolist()
    query, llm, label = np.concatenate(cells, axis=1)
    place, shape = (query * len(llms) + llm).astype(int), (len(queries), len(llms))
    asked = np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape)
    right = np.bincount(place, label, minlength=asked.size).reshape(shape)
    # A row that is there twice gives one LLM more rows than the others.
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
        Answers(
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
    """The columns that are needed, some rows at a time."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            check_columns(where, pd.read_csv(file, nrows=0).columns, NEEDED)
        # A question may well read "None": only an empty field is nothing.
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
    """Numbers of the names in a column, in the order in which they come."""
    codes, found = pd.factorize(rows[column])
    refuse(where, codes < 0, f"a {column} in every row", rows.index.to_numpy())
    return np.array([known.setdefault(name, len(known)) for name in found])[codes]
