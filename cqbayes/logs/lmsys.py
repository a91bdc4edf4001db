"""LMSYS-Chat-1M: conversations of the Vicuna demo and of Chatbot Arena, one row a conversation.

The format is that of ``lmsys/lmsys-chat-1m``: Parquet, or JSON Lines with the same names. What is
read, and nothing else:

===================  ===============================================================================
``conversation_id``  string
``model``            string: the one LLM that answered all of the conversation
``conversation``     list of structs: ``content`` and ``role``
``language``         where there: of the conversation
===================  ===============================================================================

``turn`` (how many there are), ``openai_moderation`` and ``redacted`` stay unread. There are no
users and no times: ``user_id`` and ``timestamp`` are null, and rows of different conversations have
no order. Names of people were made ``NAME_1`` and so on, which changes texts.

**No retrials are labelled**; ``repeated`` is the one explicit sign, as in WildChat. Arena's two
answers to one question stand as two conversations that nothing links.

References:
    Zheng et al., *LMSYS-Chat-1M: A Large-Scale Real-World LLM Conversation Dataset*, ICLR 2024,
    arXiv:2309.11998; the fields are those of the ``dataset_info`` at
    https://huggingface.co/datasets/lmsys/lmsys-chat-1m.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cqbayes.answers import check_columns
from cqbayes.logs import records
from cqbayes.logs.messages import check_messages, conversation
from cqbayes.logs.records import Importer, Turns, name, optional_name

NEEDED = ("conversation_id", "model", "conversation")
OPTIONAL = ("language",)

# Why conversations are set aside.
NO_ID = "no conversation_id"
NO_MODEL = "no model"
NO_LANGUAGE = "a language that is no string"


def turns(path: str | Path | Sequence[str | Path], *, rows: int = 10_000) -> Turns:
    """Turns of users, batch by batch, of conversations of LMSYS-Chat-1M.

    ``session_id`` is the ``conversation_id``; ``turn``, ``text``, ``response_chars`` and
    ``repeated`` come from the messages, ``model`` and ``language`` from the conversation; all else
    is null.

    Args:
        path, rows: as in :func:`cqbayes.logs.records.turns`.

    Raises:
        InputError: as there.

    Example:
        >>> import json, pathlib, tempfile
        >>> said = [{"content": "Why?", "role": "user"}, {"content": "So.", "role": "assistant"}]
        >>> record = {"conversation_id": "a", "model": "vicuna-13b", "conversation": said}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "log.jsonl"
        ...     _ = path.write_text(json.dumps(record))
        ...     [batch["response_chars"].to_pylist() for batch in turns(path)]
        [[3]]
    """
    return records.turns(IMPORTER, path, rows=rows)


def _check(where: str, schema: pa.Schema) -> None:
    check_columns(where, schema.names, NEEDED)
    check_messages(where, schema, "conversation")


def _is_wanted(column: str) -> bool:
    """Moderation scores are a good part of the file, and stay there."""
    return column.split(".")[0] in (*NEEDED, *OPTIONAL)


def _rows(record: Mapping[str, Any], ticks: Mapping[str, int]) -> list[dict[str, Any]]:
    shared = {
        "session_id": name(record, "conversation_id", NO_ID),
        "model": name(record, "model", NO_MODEL),
        "language": optional_name(record, "language", NO_LANGUAGE),
    }
    return [{**row, **shared} for row in conversation(record.get("conversation"))]


IMPORTER = Importer(
    "LMSYS-Chat-1M",
    _rows,
    transport="cannot be told apart: there are no errors and no times",
    wanted=_is_wanted,
    check=_check,
    signs=(("conversation_id", "conversation"),),
)
