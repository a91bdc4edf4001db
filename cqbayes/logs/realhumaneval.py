"""RealHumanEval: requests of programmers to a coding assistant, one flat row a request.

Parquet, or JSON Lines with the same names, made of the study's chat logs. What is read:

==================  ================================================================================
``programmer_id``   whole number or string
``task_name``       string: the programming task that the programmer was at
``turn``            0, 1, ... : of the programmer's requests at the task
``t_s``             where there: seconds since the programmer's first request
``model``           string: the LLM; a programmer has met only one
``user_text``       string
``response_chars``  where there: characters of the answer
``copied``          where there: whether code of the answer was copied
``kind``            where there: ``verbatim_retry`` is a text that is the same as the one before
==================  ================================================================================

``gap_s``, ``sim_prev`` and ``n_context_msgs`` stay unread: later stages measure such things
themselves, the same in all formats. All other values of ``kind`` are a rough heuristic on words,
not labels.

**Times have no date.** ``timestamp`` is 1970-01-01 plus ``t_s``, so order and gaps of one
programmer are right, and no date is, nor any order between programmers.

A session is a programmer at a task. Errors are not recorded: a request that a program sent again
cannot be told from a user who asked again.

Reference:
    Mozannar et al., *The RealHumanEval: Evaluating Large Language Models' Abilities to Support
    Programmers*, arXiv:2404.02806.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from cqbayes.answers import check_columns
from cqbayes.logs import records
from cqbayes.logs.messages import count, identifier, number
from cqbayes.logs.records import (
    EPOCH,
    MOST_BYTES,
    NO_TIMESTAMP,
    Importer,
    SetAside,
    Turns,
    name,
    optional_name,
    text,
)

NEEDED = ("programmer_id", "task_name", "turn", "model", "user_text")
OPTIONAL = ("t_s", "response_chars", "copied", "kind")
VERBATIM = "verbatim_retry"

# Why requests are set aside.
NO_PROGRAMMER = "no programmer_id"
NO_TASK = "no task_name"
NO_TURN = "no turn"
NO_MODEL = "no model"
NO_TEXT = "no user_text"
NO_KIND = "a kind that is no string"
NO_BOOL = "a copied that is neither true nor false"


def turns(path: str | Path | Sequence[str | Path], *, rows: int = 10_000) -> Turns:
    """Turns of users, batch by batch, of requests of RealHumanEval.

    ``session_id`` is ``<programmer_id>/<task_name>``, ``user_id`` the programmer, ``accepted`` is
    ``copied`` and ``timestamp`` 1970-01-01 plus ``t_s``.

    Args:
        path, rows: as in :func:`cqbayes.logs.records.turns`.

    Raises:
        InputError: as there.

    Example:
        >>> import json, pathlib, tempfile
        >>> row = {"programmer_id": 7, "task_name": "sum", "turn": 1, "t_s": 2.5, "model": "gpt-4o"}
        >>> row |= {"user_text": "Why?", "copied": True}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "log.jsonl"
        ...     _ = path.write_text(json.dumps(row))
        ...     [(b["session_id"][0].as_py(), b["accepted"][0].as_py()) for b in turns(path)]
        [('7/sum', True)]
    """
    return records.turns(IMPORTER, path, rows=rows)


def _check(where: str, schema: pa.Schema) -> None:
    check_columns(where, schema.names, NEEDED)


def _is_wanted(column: str) -> bool:
    return column in (*NEEDED, *OPTIONAL)


def _rows(record: Mapping[str, Any], ticks: Mapping[str, int]) -> list[dict[str, Any]]:
    user = identifier(record.get("programmer_id"))
    if user is None:
        raise SetAside(NO_PROGRAMMER)
    turn = count(record.get("turn"), 2**31 - 1)
    if turn is None:
        raise SetAside(NO_TURN)
    copied = record.get("copied")
    if copied is not None and not isinstance(copied, bool):
        raise SetAside(NO_BOOL)
    seconds = number(record.get("t_s"))
    try:
        at = None if seconds is None else EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        raise SetAside(NO_TIMESTAMP) from None
    row = {
        "session_id": f"{user}/{name(record, 'task_name', NO_TASK)}",
        "turn": turn,
        "user_id": user,
        "timestamp": at,
        "model": name(record, "model", NO_MODEL),
        "text": text(record.get("user_text"), MOST_BYTES, NO_TEXT),
        "response_chars": count(record.get("response_chars"), 2**63 - 1),
        "accepted": copied,
        "repeated": turn > 0 and optional_name(record, "kind", NO_KIND) == VERBATIM,
    }
    return [row]


IMPORTER = Importer(
    "RealHumanEval",
    _rows,
    transport="cannot be told apart: errors are not recorded",
    wanted=_is_wanted,
    check=_check,
    signs=(("programmer_id", "task_name"),),
)
