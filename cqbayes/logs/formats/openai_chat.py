"""Chat message arrays in OpenAI's form, one conversation a line.

JSON Lines as they are written for fine-tuning and by applications, or Parquet. What is read, and
nothing else:

==============  ====================================================================================
``messages``    list of ``role`` (``system``, ``developer``, ``user``, ``assistant``, ``tool``,
                ``function``) and ``content``: a string, null, or a list of parts; also as JSON in a
                string, and in the other shapes of :mod:`cqbayes.logs.formats.messages`
``model``       if present, of an answer, of the user's message, or else of the line; else it is
                called ``unknown``
session         if present: ``session_id``, ``conversation_id``, ``thread_id`` or ``chat_id``, of
                ``metadata`` or of the line, or else the line's ``id``
user            if present: ``user``, ``user_id``, ``end_user`` or ``safety_identifier``, of the
                line or of ``metadata``
time            if present: ``created``, ``created_at`` or ``timestamp``, of messages, and of the
                line: seconds since 1970, or ISO 8601
``metadata``    if present: an object, also as JSON in a string
==============  ====================================================================================

Names of sessions and users may be written like ``sessionId`` too.

A line is a conversation, and a row is a message of a user. Its ``start`` is the time of that
message and its ``end`` the time of its last answer; the line's time is the start of the last
message where that has no other. Without a name, the session is a digest of all the conversation,
with its LLMs, answers and times: the same line again is the same session, and two LLMs that were
asked the same words are two. **Lines of a request log**, where every request repeats the messages
before it, share rows if they share a name, and these are then counted once; without a name each
line is a session of its own: give them one, or keep the last line of each conversation.

The format has no errors, no costs and no opinions: a request that a program sent again cannot be
distinguished from a user who asked again. Only a message without any answer is a hint.

Reference:
    OpenAI, API reference of chat completions, ``messages``, ``user``, ``created`` and ``metadata``:
    https://platform.openai.com/docs/api-reference/chat.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from cqbayes._tools.tables import check_columns
from cqbayes.logs.formats.conversations import check_messages, requests_of
from cqbayes.logs.formats.digests import digest
from cqbayes.logs.formats.fields import (
    identifier,
    inner,
    when,
)
from cqbayes.logs.formats.importer import Importer, Request, moment
from cqbayes.logs.formats.messages import (
    BESIDE,
    read_messages,
)

NEEDED = ("messages",)
SESSIONS = ("session_id", "conversation_id", "thread_id", "chat_id")
SESSIONS += ("sessionId", "conversationId", "threadId", "chatId")
USERS = ("user", "user_id", "userId", "end_user", "safety_identifier")
TIMES = ("created", "created_at", "timestamp")
OPTIONAL = ("model", "id", "metadata", *SESSIONS, *USERS, *TIMES)
OF_MESSAGES = ("role", "content", "refusal", "model", *BESIDE, *TIMES)
UNKNOWN = "unknown"


def _check(where: str, schema: pa.Schema) -> None:
    check_columns(where, schema.names, NEEDED)
    check_messages(where, schema, "messages", in_text=True)


def _is_wanted(column: str) -> bool:
    outer, *rest = column.split(".")
    if outer == "messages":
        return not rest or any(part in OF_MESSAGES for part in rest)
    return outer == "metadata" or (not rest and outer in OPTIONAL)


def _requests(record: Mapping[str, Any], ticks: Mapping[str, int]) -> list[Request]:
    metadata = inner(record, "metadata")
    user = identifier(*_of(record, USERS), *_of(metadata, USERS))
    model = identifier(record.get("model"))

    def fields(
        question: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        said = [answer.get("model") for answer in reversed(answers)]
        ends = [_time(answer, ticks, "messages.") for answer in answers]
        return {
            "llm": identifier(*said, question.get("model"), model) or UNKNOWN,
            "start": _time(question, ticks, "messages."),
            "end": next((end for end in reversed(ends) if end), None),
        }

    found = requests_of(read_messages(record.get("messages")), fields, user=user)
    if found[-1].start is None and found[-1].end is None:
        found[-1] = found[-1]._replace(start=_time(record, ticks))
    session = identifier(*_of(metadata, SESSIONS), *_of(record, SESSIONS), record.get("id"))
    if session is None:
        session = digest("conversation", found)
    return [one._replace(session=session) for one in found]


def _of(record: Mapping[str, Any], names: Iterable[str]) -> list[Any]:
    return [record.get(name) for name in names]


def _time(record: Mapping[str, Any], ticks: Mapping[str, int], before: str = "") -> datetime | None:
    key = next((key for key in TIMES if record.get(key) is not None), TIMES[0])
    value = record.get(key)
    return moment(value, ticks[before + key]) if before + key in ticks else when(value)


IMPORTER = Importer(
    "OpenAI chat messages",
    _requests,
    transport="cannot be told apart; a turn without any answer before a repeated one is a hint",
    wanted=_is_wanted,
    check=_check,
    signs=(("messages",),),
)
