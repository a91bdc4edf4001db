"""WildChat: conversations of many users with GPT-3.5 and GPT-4, one row a turn of a user.

The format is that of ``allenai/WildChat-1M``: Parquet, or JSON Lines with the same names. What is
read, and nothing else:

======================  ============================================================================
``conversation_hash``   string
``model``               string: the one LLM that answered all of the conversation
``conversation``        list of structs: ``role`` (``user`` or ``assistant``), ``content`` and,
                        if present, ``turn_identifier``, ``hashed_ip``, ``language``, ``timestamp``
``timestamp``           if present: of the conversation's last turn, UTC
``language``            if present: of the conversation
``hashed_ip``           if present: of the conversation's user
======================  ============================================================================

**WildChat labels no retrials.** The only explicit sign of a retrial in the format is a user who
sends the same text as before: ``repeated``. Users who ask again in other words, or in a new
conversation, do not show, and ``repeated`` does not mean that the answer was bad. The format does
not distinguish a request that a program sent again after an error from a user who asked again; a
turn without any answer (``response_chars`` null) before a repeated one is only a hint of the
former.

==================  ============================================================================
``session_id``      ``conversation_hash``, and after a ``/`` the ``turn_identifier`` of the
                    first message, if any: conversations of the same content share a hash
``turn``            0, 1, ... over the user's messages of the conversation, as they stand there
``user_id``         ``hashed_ip`` of the message, or else of the conversation
``timestamp``       of the message, or else of its answer, when that was complete (official
                    files have no other), or else, for the last turn, of the conversation; UTC
``model``           the LLM
``text``            what the user wrote; may be empty
``response_chars``  characters of the answer; null where there is none before the next turn
``language``        of the message, or else of the conversation
``repeated``        whether the text is that of the turn before, white space folded
==================  ============================================================================

Columns without a source are null. A time without a zone is UTC; in JSON, a whole number is
milliseconds since 1970, which is what pandas writes.

Reference:
    Zhao et al., *WildChat: 1M ChatGPT Interaction Logs in the Wild*, ICLR 2024,
    arXiv:2405.01470.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from cqbayes._tools.tables import check_columns
from cqbayes.logs.formats.importer import (
    LONG_RECORD,
    MOST_BYTES,
    MOST_BYTES_OF_NAME,
    MOST_MESSAGES,
    TICKS,
    Importer,
    SetAside,
    folded,
    moment,
    name,
    optional_name,
    text,
)
from cqbayes.logs.formats.messages import check_messages

NEEDED = ("conversation_hash", "model", "conversation")
OPTIONAL = ("timestamp", "language", "hashed_ip")
NEEDED_OF_MESSAGES = ("role", "content")
OPTIONAL_OF_MESSAGES = ("turn_identifier", *OPTIONAL)

# Why conversations are set aside.
NO_HASH = "no conversation_hash"
NO_MODEL = "no model"
NO_CONVERSATION = "no conversation, or an empty one"
NO_USER = "no turn of a user"
NO_MESSAGE = "a message without content, or of another role than user and assistant"
NO_STRING = "a language or hashed_ip that is no string"
NO_IDENTIFIER = "a turn_identifier that is neither a whole number nor a string"


def _check(where: str, schema: pa.Schema) -> None:
    check_columns(where, schema.names, NEEDED)
    check_messages(where, schema, "conversation")


def _is_wanted(column: str) -> bool:
    """Moderation scores and headers are a large part of the file, and are not read."""
    outer, *rest = column.split(".")
    if outer == "conversation":
        return rest[-1] in (*NEEDED_OF_MESSAGES, *OPTIONAL_OF_MESSAGES)
    return not rest and outer in (*NEEDED, *OPTIONAL)


def _rows(record: Mapping[str, Any], ticks: Mapping[str, int]) -> list[dict[str, Any]]:
    conversation = name(record, "conversation_hash", NO_HASH)
    model = name(record, "model", NO_MODEL)
    address = optional_name(record, "hashed_ip", NO_STRING)
    language = optional_name(record, "language", NO_STRING)
    last = moment(record.get("timestamp"), ticks.get("timestamp", TICKS["ms"]))
    messages = record.get("conversation")
    if not isinstance(messages, list) or not messages:
        raise SetAside(NO_CONVERSATION)
    if len(messages) > MOST_MESSAGES:
        raise SetAside(LONG_RECORD)
    session = conversation + _identifier(messages[0])
    rows: list[dict[str, Any]] = []
    before = None
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") not in ("user", "assistant"):
            raise SetAside(NO_MESSAGE)
        content = text(message.get("content"), MOST_BYTES, NO_MESSAGE)
        at = moment(message.get("timestamp"), ticks.get("conversation.timestamp", TICKS["ms"]))
        if message["role"] == "user":
            now = folded(content)
            rows.append(
                {
                    "session_id": session,
                    "turn": len(rows),
                    "user_id": optional_name(message, "hashed_ip", NO_STRING) or address,
                    "timestamp": at,
                    "model": model,
                    "text": content,
                    "response_chars": None,
                    "language": optional_name(message, "language", NO_STRING) or language,
                    "repeated": now == before,
                }
            )
            before = now
        elif rows:  # what is said before the user has said anything answers nothing
            row = rows[-1]
            row["response_chars"] = (row["response_chars"] or 0) + len(content)
            row["timestamp"] = row["timestamp"] or at
    if not rows:
        raise SetAside(NO_USER)
    rows[-1]["timestamp"] = rows[-1]["timestamp"] or last
    return rows


def _identifier(message: Any) -> str:
    value = message.get("turn_identifier") if isinstance(message, Mapping) else None
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return "/" + text(value, MOST_BYTES_OF_NAME, NO_IDENTIFIER)


IMPORTER = Importer(
    "WildChat",
    _rows,
    transport="cannot be told apart; a turn without any answer before a repeated one is a hint",
    wanted=_is_wanted,
    check=_check,
    signs=(("conversation_hash", "conversation"),),
)
