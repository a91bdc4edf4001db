"""WildChat: conversations of many users with GPT-3.5 and GPT-4.

The format is that of ``allenai/WildChat-1M``: Parquet, or JSON Lines with the same names. What is
read, and nothing else:

======================  ============================================================================
``conversation_hash``   string
``model``               string: the one LLM that answered all of the conversation
``conversation``        list of structs: ``role`` (``user`` or ``assistant``), ``content`` and,
                        if present, ``turn_identifier``, ``hashed_ip``, ``language``, ``timestamp``;
                        also as JSON in a text
``timestamp``           if present: of the conversation's last turn, UTC
``language``            if present: of the conversation
``hashed_ip``           if present: of the conversation's user
======================  ============================================================================

**WildChat labels no retrials.** The only explicit sign of a retrial in the format is a user who
sends the same text as before. Users who ask again in other words, or in a new conversation, do not
show, and a text that is sent again does not mean that the answer was bad. The format does not
distinguish a request that a program sent again after an error from a user who asked again; a
message without any answer before one that is sent again is only a hint of the former.

A row is a message of a user. What it says in its own way:

==================  ============================================================================
``session``         ``conversation_hash``, and after a ``/`` the ``turn_identifier`` of the
                    first message, if any: conversations of the same content share a hash
``user``            ``hashed_ip`` of the message, or else of the conversation
``start``           of the message; official files have none
``end``             of its last answer, when that was complete, or else, for the last message, of
                    the conversation; a last message without an answer has that as its start
``language``        of the message, or else of the conversation
==================  ============================================================================

A time without a zone is UTC; in JSON, a whole number is milliseconds since 1970, which is what
pandas writes.

Reference:
    Zhao et al., *WildChat: 1M ChatGPT Interaction Logs in the Wild*, ICLR 2024,
    arXiv:2405.01470.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from cqbayes._tools.tables import check_columns
from cqbayes.logs.formats.conversations import check_messages, requests_of
from cqbayes.logs.formats.fields import opened
from cqbayes.logs.formats.importer import (
    LONG_RECORD,
    MOST_BYTES,
    MOST_BYTES_OF_NAME,
    MOST_MESSAGES,
    TICKS,
    Importer,
    Request,
    SetAside,
    moment,
    name,
    optional_name,
    text,
)
from cqbayes.logs.formats.messages import read_messages

NEEDED = ("conversation_hash", "model", "conversation")
OPTIONAL = ("timestamp", "language", "hashed_ip")
NEEDED_OF_MESSAGES = ("role", "content")
OPTIONAL_OF_MESSAGES = ("turn_identifier", *OPTIONAL)

# Why conversations are set aside.
NO_HASH = "no conversation_hash"
NO_MODEL = "no model"
NO_CONVERSATION = "no conversation, or an empty one"
NO_MESSAGE = "a message without content, or of another role than user and assistant"
NO_STRING = "a language or hashed_ip that is no string"
NO_IDENTIFIER = "a turn_identifier that is neither a whole number nor a string"


def _check(where: str, schema: pa.Schema) -> None:
    check_columns(where, schema.names, NEEDED)
    check_messages(where, schema, "conversation", in_text=True)


def _is_wanted(column: str) -> bool:
    """Moderation scores and headers are a large part of the file, and are not read."""
    outer, *rest = column.split(".")
    if outer == "conversation":
        return not rest or rest[-1] in (*NEEDED_OF_MESSAGES, *OPTIONAL_OF_MESSAGES)
    return not rest and outer in (*NEEDED, *OPTIONAL)


def _requests(record: Mapping[str, Any], ticks: Mapping[str, int]) -> list[Request]:
    conversation = name(record, "conversation_hash", NO_HASH)
    model = name(record, "model", NO_MODEL)
    address = optional_name(record, "hashed_ip", NO_STRING)
    language = optional_name(record, "language", NO_STRING)
    last = moment(record.get("timestamp"), ticks.get("timestamp", TICKS["ms"]))
    said = opened(record.get("conversation"))
    if not isinstance(said, list) or not said:
        raise SetAside(NO_CONVERSATION)
    if len(said) > MOST_MESSAGES:
        raise SetAside(LONG_RECORD)
    for message in said:
        if not isinstance(message, Mapping) or message.get("role") not in ("user", "assistant"):
            raise SetAside(NO_MESSAGE)
        text(message.get("content"), MOST_BYTES, NO_MESSAGE)

    def time(message: Mapping[str, Any]) -> datetime | None:
        return moment(message.get("timestamp"), ticks.get("conversation.timestamp", TICKS["ms"]))

    def fields(
        question: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        ends = [time(answer) for answer in answers]
        return {
            "user": optional_name(question, "hashed_ip", NO_STRING) or address,
            "language": optional_name(question, "language", NO_STRING) or language,
            "start": time(question),
            "end": next((end for end in reversed(ends) if end), None),
        }

    session = conversation + _identifier(said[0])
    found = requests_of(read_messages(said), fields, session=session, llm=model)
    if found[-1].start is None and found[-1].end is None:
        is_answered = found[-1].response_chars is not None
        found[-1] = found[-1]._replace(**{"end" if is_answered else "start": last})
    return found


def _identifier(message: Mapping[str, Any]) -> str:
    value = message.get("turn_identifier")
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return "/" + text(value, MOST_BYTES_OF_NAME, NO_IDENTIFIER)


IMPORTER = Importer(
    "WildChat",
    _requests,
    transport="cannot be told apart; a turn without any answer before a repeated one is a hint",
    wanted=_is_wanted,
    check=_check,
    signs=(("conversation_hash", "conversation"),),
)
