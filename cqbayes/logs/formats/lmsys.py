"""LMSYS-Chat-1M: conversations of the Vicuna demo and of Chatbot Arena.

The format is that of ``lmsys/lmsys-chat-1m``: Parquet, or JSON Lines with the same names. What is
read, and nothing else:

===================  ===============================================================================
``conversation_id``  string
``model``            string: the one LLM that answered all of the conversation
``conversation``     list of structs: ``content`` and ``role``; also as JSON in a text
``language``         if present: of the conversation
===================  ===============================================================================

``turn`` (how many there are), ``openai_moderation`` and ``redacted`` stay unread. There are no
users and no times, and different conversations have no order. Names of people were replaced by
``NAME_1`` and so on, which changes texts.

**No retrials are labelled**: the same text once more is the only explicit sign, as in WildChat.
Arena's two answers to one question are two conversations without a link.

A row is a message of a user; ``session`` is the ``conversation_id``.

References:
    Zheng et al., *LMSYS-Chat-1M: A Large-Scale Real-World LLM Conversation Dataset*, ICLR 2024,
    arXiv:2309.11998; the fields are those of the ``dataset_info`` at
    https://huggingface.co/datasets/lmsys/lmsys-chat-1m.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from cqbayes._tools.tables import check_columns
from cqbayes.logs.formats.conversations import check_messages, read_conversation
from cqbayes.logs.formats.exchanges import conversation_requests
from cqbayes.logs.formats.importer import Importer, Request, name, optional_name

NEEDED = ("conversation_id", "model", "conversation")
OPTIONAL = ("language",)

# Why conversations are set aside.
NO_ID = "no conversation_id"
NO_MODEL = "no model"
NO_LANGUAGE = "a language that is no string"


def _check(where: str, schema: pa.Schema) -> None:
    check_columns(where, schema.names, NEEDED)
    check_messages(where, schema, "conversation", in_text=True)


def _is_wanted(column: str) -> bool:
    """Moderation scores are a large part of the file, and are not read."""
    return column.split(".")[0] in (*NEEDED, *OPTIONAL)


def _requests(record: Mapping[str, Any], ticks: Mapping[str, int]) -> list[Request]:
    return conversation_requests(
        read_conversation(record.get("conversation")),
        session=name(record, "conversation_id", NO_ID),
        llm=name(record, "model", NO_MODEL),
        language=optional_name(record, "language", NO_LANGUAGE),
    )


IMPORTER = Importer(
    "LMSYS-Chat-1M",
    _requests,
    transport="cannot be told apart: there are no errors and no times",
    wanted=_is_wanted,
    check=_check,
    signs=(("conversation_id", "conversation"),),
)
