"""RealHumanEval: requests of programmers to a coding assistant, one flat row a request.

Parquet, or JSON Lines with the same names, made of the study's chat logs. What is read:

==================  ================================================================================
``programmer_id``   whole number or string
``task_name``       string: the programming task that the programmer was at
``turn``            0, 1, ... : of the programmer's requests at the task
``t_s``             if present: seconds since the programmer's first request
``model``           string: the LLM; a programmer has met only one
``user_text``       string
``response_chars``  if present: characters of the answer
``copied``          if present: whether code of the answer was copied
==================  ================================================================================

``gap_s``, ``sim_prev``, ``n_context_msgs`` and ``kind`` stay unread: later stages measure such
things themselves, the same in all formats. ``kind`` is a rough heuristic on words, but for
``verbatim_retry``, which is the same text as the one before, and that the texts show.

**Times have no date.** ``start`` is 1970-01-01 plus ``t_s``, so order and gaps within one
programmer are right, but dates and the order between programmers have no meaning.

A session is a programmer at a task, ``<programmer_id>/<task_name>``, and ``turn`` its order.
Errors are not recorded: a request that a program sent again cannot be distinguished from a user who
asked again. ``accepted`` is ``copied``.

Reference:
    Mozannar et al., *The RealHumanEval: Evaluating Large Language Models' Abilities to Support
    Programmers*, arXiv:2404.02806.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pyarrow as pa

from cqbayes._tools.tables import check_columns
from cqbayes.logs.formats.fields import (
    count,
    identifier,
    number,
)
from cqbayes.logs.formats.importer import (
    EPOCH,
    MOST_BYTES,
    NO_TIMESTAMP,
    Importer,
    Request,
    SetAside,
    name,
    text,
)
from cqbayes.logs.formats.messages import read_messages

NEEDED = ("programmer_id", "task_name", "turn", "model", "user_text")
OPTIONAL = ("t_s", "response_chars", "copied")

# Why requests are set aside.
NO_PROGRAMMER = "no programmer_id"
NO_TASK = "no task_name"
NO_TURN = "no turn"
NO_MODEL = "no model"
NO_TEXT = "no user_text"
NO_BOOL = "a copied that is neither true nor false"


def _check(where: str, schema: pa.Schema) -> None:
    check_columns(where, schema.names, NEEDED)


def _is_wanted(column: str) -> bool:
    return column in (*NEEDED, *OPTIONAL)


def _requests(record: Mapping[str, Any], ticks: Mapping[str, int]) -> list[Request]:
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
    said = text(record.get("user_text"), MOST_BYTES, NO_TEXT)
    (message,) = read_messages([{"role": "user", "content": said}])
    found = Request(
        session=f"{user}/{name(record, 'task_name', NO_TASK)}",
        user=user,
        start=at,
        place=turn,
        llm=name(record, "model", NO_MODEL),
        accepted=copied,
        response_chars=count(record.get("response_chars"), 2**63 - 1),
        turn=turn,
        text=message.text,
        message=message.digest,
        after=0,
        tools=False,
    )
    return [found]


IMPORTER = Importer(
    "RealHumanEval",
    _requests,
    transport="cannot be told apart: errors are not recorded",
    wanted=_is_wanted,
    check=_check,
    signs=(("programmer_id", "task_name"),),
)
