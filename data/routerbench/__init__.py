"""RouterBench: scores and costs of eleven LLMs' answers; the data sheet is DATASHEET.md."""

import ast
import contextlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cqbayes.answers import (
    Answers,
    check_columns,
    complete,
    numbers,
    parquet,
    refuse,
    split_by_hash,
)
from cqbayes.datasets import Card, find, on_hub
from cqbayes.errors import InputError

from .pickled import read_frame

NAME = "routerbench"
FILE = on_hub(
    "withmartian/routerbench",
    "routerbench_0shot.pkl",
    revision="784021482c3f320c6619ed4b3bb3b41a21424fcb",
    sha256="ba4f77f19517610a707c374e99322d7750c30fc4ae7ff5527888595a1e65d36d",
)
CARD = Card(11, "36,497", "none stated", "withmartian/routerbench on the Hugging Face hub", (FILE,))
COST = "|total_cost"


def answers(path: str | Path | None = None, *, drop_incomplete: bool = False) -> Answers:
    """All queries in words, split by a hash of the text: 70 percent train.

    Args:
        path: of the official pickle, or the same table as ``.parquet`` or ``.csv``;
            :func:`cqbayes.datasets.find` where absent. A pickle is decoded without running
            anything in it (:func:`cqbayes.data.routerbench.pickled.read_frame`).
        drop_incomplete: whether queries that lack the score or cost of an LLM are left out.

    Raises:
        InputError: for a file that is not there or is not as ``DATASHEET.md`` says.
    """
    frame = _read(Path(find(NAME, FILE.name) if path is None else path))
    check_columns(NAME, frame.columns, ["sample_id", "prompt", "eval_name"])
    for column in ("sample_id", "eval_name"):
        refuse(NAME, frame[column].isna().to_numpy(), f"a {column} in every row")
    llms = sorted(c.removesuffix(COST) for c in frame.columns if c.endswith(COST))
    if not llms:
        raise InputError(f"{NAME}: expected columns <llm> and <llm>{COST}, got none")
    check_columns(NAME, frame.columns, llms)
    text = np.array([words(prompt) for prompt in frame["prompt"]], object)
    return complete(
        Answers(
            name=NAME,
            llms=tuple(llms),
            query_id=frame["sample_id"].to_numpy(str),
            task=frame["eval_name"].to_numpy(str),
            split=split_by_hash(text),
            text=text,
            score=_matrix(frame, llms),
            cost=_matrix(frame, [llm + COST for llm in llms]),
        ),
        drop_incomplete=drop_incomplete,
    )


def _matrix(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    return np.stack([numbers(NAME, frame[column], column) for column in columns], axis=1)


def words(prompt: object) -> object:
    """What the user asked: prompts of several turns are lists, or look like lists.

    Example:
        >>> words("['Name a colour.', 'Now another.']")
        'Name a colour.\\nNow another.'
    """
    turns = prompt
    if isinstance(prompt, str) and prompt.startswith("[") and prompt.endswith("]"):
        odd = (ValueError, SyntaxError, MemoryError, RecursionError)
        # Escapes that Python does not know are no reason to warn.
        with contextlib.suppress(*odd), warnings.catch_warnings(action="ignore"):
            turns = ast.literal_eval(prompt)
    if isinstance(turns, list | tuple | np.ndarray) and all(isinstance(one, str) for one in turns):
        return "\n".join(turns)
    return prompt


def _read(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        with parquet(NAME, path) as file:
            table = file.read([c for c in file.schema_arrow.names if _kept(c)])
            return table.to_pandas(ignore_metadata=True)
    if path.suffix == ".csv":
        try:
            # Only an empty field is nothing: a query may well read "None".
            return pd.read_csv(path, usecols=_kept, keep_default_na=False, na_values=[""])
        except OSError as error:
            reason = error.strerror or "not readable"
            raise InputError(f"{NAME}: expected a readable file, got: {reason}") from None
        except ValueError:
            raise InputError(f"{NAME}: expected a CSV file, got something else") from None
    if path.suffix in (".pkl", ".pickle"):
        return read_frame(NAME, path)
    raise InputError(f"{NAME}: expected a file .pkl, .parquet or .csv, got {path.suffix!r}")


def _kept(column: str) -> bool:
    return not column.endswith("|model_response")
