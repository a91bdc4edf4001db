"""RouterBench: scores and costs of eleven LLMs' answers; the data sheet is DATASHEET.md."""

import ast
import contextlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cqbayes._tools.tables import check_columns, numbers, parquet, refuse
from cqbayes.datasets.files import Card, File, find, place_of
from cqbayes.datasets.text_scores import TextScores, complete, split_by_hash
from cqbayes.errors import InputError

NAME = "routerbench"
CONVERTED = "routerbench_0shot.parquet"
FILE = File(
    "routerbench_0shot.pkl",
    "withmartian/routerbench",
    revision="784021482c3f320c6619ed4b3bb3b41a21424fcb",
    sha256="ba4f77f19517610a707c374e99322d7750c30fc4ae7ff5527888595a1e65d36d",
    converted=CONVERTED,
)
CARD = Card(11, "36,497", "none stated", "withmartian/routerbench on the Hugging Face hub", (FILE,))
COST = "|total_cost"


def answers(path: str | Path | None = None, *, drop_incomplete: bool = False) -> TextScores:
    """All queries in words, split by a hash of the text: 70 percent train.

    Args:
        path: of the official table as ``.parquet`` or ``.csv``; where absent, that of
            ``routerbench_0shot.parquet`` where :mod:`cqbayes.datasets.files` looks for files.
        drop_incomplete: whether queries that lack the score or cost of an LLM are left out.

    Raises:
        InputError: for a file that is not there or is not as ``DATASHEET.md`` says; and for the
            official pickle, with the line that converts it.
    """
    if path is None:
        path = place_of(NAME, CONVERTED) or find(NAME, FILE.name)
    frame = _read(Path(path))
    check_columns(NAME, frame.columns, ["sample_id", "prompt", "eval_name"])
    for column in ("sample_id", "eval_name"):
        refuse(NAME, frame[column].isna().to_numpy(), f"a {column} in every row")
    llms = sorted(c.removesuffix(COST) for c in frame.columns if c.endswith(COST))
    if not llms:
        raise InputError(f"{NAME}: expected columns <llm> and <llm>{COST}, got none")
    check_columns(NAME, frame.columns, llms)
    text = np.array([words(prompt) for prompt in frame["prompt"]], object)
    return complete(
        TextScores(
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
        convert = (
            f"pandas.read_pickle({str(path)!r}).to_parquet({str(path.with_suffix('.parquet'))!r})"
        )
        raise InputError(
            f"{NAME}: expected a Parquet file, got a pickle, and reading a pickle runs the code in "
            f'it; only if you trust the file, convert it: python -c "import pandas; {convert}"'
        )
    raise InputError(f"{NAME}: expected a file .parquet or .csv, got {path.suffix!r}")


def _kept(column: str) -> bool:
    return not column.endswith("|model_response")
