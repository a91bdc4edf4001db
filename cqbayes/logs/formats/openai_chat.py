"""Chat message arrays in OpenAI's form, one conversation a line.

JSON Lines as they are written for fine-tuning and by applications, or Parquet. What is read, and
nothing else:

==============  ====================================================================================
``messages``    list of ``role`` (``system``, ``developer``, ``user``, ``assistant``, ``tool``,
                ``function``) and ``content``: a string, null, or a list of parts of type ``text``,
                ``input_text``, ``output_text``, ``image_url`` and others, of which text is read
``model``       if present; else all lines share one LLM called ``unknown``
``id``          if present: of the conversation
``user``        if present, or ``metadata.user_id``
``created``     if present, or ``timestamp``: seconds since 1970, or ISO 8601. Messages may have
                their own, and their own ``model``
``metadata``    if present: an object; ``session_id`` or ``conversation_id`` in it is the session
==============  ====================================================================================

A line is a conversation, and all its turns become rows. **Lines of a request log**, where every
request repeats the messages before it, are not recognised: each line would be a conversation of its
own, or, with a common ``id``, the same turns again. Keep the last line of each conversation, or log
in a format that says which requests belong together.

The format has no errors, no costs and no opinions: a request that a program sent again cannot be
distinguished from a user who asked again. Only a turn without any answer is a hint.

``session_id`` is ``metadata.session_id``, ``metadata.conversation_id`` or ``id``, or else a
digest of the user and of all that the user wrote. The time of a conversation is that of its last
turn.

Reference:
    OpenAI, API reference of chat completions, ``messages``, ``user``, ``created`` and ``metadata``:
    https://platform.openai.com/docs/api-reference/chat.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from cqbayes._tools.tables import check_columns
from cqbayes.logs.formats.importer import Importer, moment
from cqbayes.logs.formats.messages import (
    check_messages,
    conversation,
    digest,
    identifier,
    inner,
    when,
)

NEEDED = ("messages",)
OPTIONAL = ("model", "id", "user", "created", "timestamp")
OF_MESSAGES = ("role", "content", "model", "created", "timestamp")
UNKNOWN = "unknown"


def _check(where: str, schema: pa.Schema) -> None:
    check_columns(where, schema.names, NEEDED)
    check_messages(where, schema, "messages")


def _is_wanted(column: str) -> bool:
    outer, *rest = column.split(".")
    if outer == "messages":
        return any(part in OF_MESSAGES for part in rest)
    return not rest and outer in (*NEEDED, *OPTIONAL)


def _rows(record: Mapping[str, Any], ticks: Mapping[str, int]) -> list[dict[str, Any]]:
    metadata = inner(record, "metadata")
    user = identifier(record.get("user"), metadata.get("user_id"))
    model = identifier(record.get("model"))

    def of_message(message: Mapping[str, Any]) -> dict[str, Any]:
        at = _time(message, ticks, "messages.")
        return {"timestamp": at, "model": identifier(message.get("model")) or model or UNKNOWN}

    rows = conversation(record.get("messages"), of_message)
    rows[-1]["timestamp"] = rows[-1]["timestamp"] or _time(record, ticks)
    session = identifier(
        metadata.get("session_id"), metadata.get("conversation_id"), record.get("id")
    ) or digest(user, [row["text"] for row in rows])
    return [{**row, "session_id": session, "user_id": user} for row in rows]


def _time(record: Mapping[str, Any], ticks: Mapping[str, int], before: str = "") -> Any:
    key = "created" if record.get("created") is not None else "timestamp"
    value = record.get(key)
    return moment(value, ticks[before + key]) if before + key in ticks else when(value)


IMPORTER = Importer(
    "OpenAI chat messages",
    _rows,
    transport="cannot be told apart; a turn without any answer before a repeated one is a hint",
    wanted=_is_wanted,
    check=_check,
    signs=(("messages",),),
)
