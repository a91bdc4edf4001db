"""The tables that logs become, one after another.

**Requests**: what a log says, and no more: one row per record, or per message of a user where a
record is a whole conversation. Every importer makes this table, and
:mod:`cqbayes.logs.formats.importer` describes its columns.

**Turns**: one row per request of a user. :mod:`cqbayes.logs.turns` makes them of requests.

==================  ================================================================================
``session_id``      string: requests of one session are one user's, one after another
``turn``            0, 1, ... : place in the session
``guessed``         bool: no one states the session; it was guessed from words, users and times
``user_id``         string
``timestamp``       when the request was sent, UTC, or the nearest to it that the format has
``model``           string: the LLM that answered; null where it is not known whose answer was shown
``text``            string: what the user wrote; null where there are no words (a picture, a file)
``response_chars``  characters of the answer
``language``        string
``latency``         seconds from the request to the end of the answer
``cost``            dollars
``failed``          bool: there was no answer, because of an error or a timeout
``regenerated``     bool: the user asked for another answer to the request before, for sure
``feedback``        what the user said of the answer: -1 bad, 1 good
``accepted``        bool: whether the user copied, merged or otherwise took the answer
``repeated``        bool: the user sent the same words again after the answer, for sure
==================  ================================================================================

**Services**: one row per service, with its outcome. Models are fitted to this table.

=====================  =============================================================================
``query_id``           string: services of one query share it
``attempt``            1 for a query's first service, 2 for the next, ...
``session_id``         string
``user_id``            string
``timestamp``          UTC
``offered``            list of strings: the LLMs whose answers were shown, the assortment
``chosen``             string: the LLM whose answer was taken; null where the user retried
``silent``             bool: neither acceptance nor retry was seen; ``chosen`` is null then
``retry_probability``  where the outcome was inferred: how probable a retrial is
``text``               string: the query in words
``embedding``          list of numbers: the query's embedding; in all rows or in none
``latency``            seconds
``cost``               dollars
``propensity``         in (0, 1]: probability with which this query and assortment were picked
``weight``             not negative; 1 where absent
=====================  =============================================================================

Null means that nothing is known. Only ``session_id``, ``turn``, ``guessed`` and ``repeated`` of a
turn, and ``query_id``, ``attempt`` and ``offered`` of a service, are never null.
"""

import pyarrow as pa

TIME = pa.timestamp("us", tz="UTC")

REQUESTS = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("trace", pa.string()),
        pa.field("parent", pa.string()),
        pa.field("session", pa.string()),
        pa.field("user", pa.string()),
        pa.field("owner", pa.string()),
        pa.field("start", TIME),
        pa.field("end", TIME),
        pa.field("place", pa.int64()),
        pa.field("llm", pa.string()),
        pa.field("call", pa.string()),
        pa.field("marks", pa.list_(pa.string())),
        pa.field("attempts", pa.int64()),
        pa.field("failed", pa.bool_()),
        pa.field("feedback", pa.float64()),
        pa.field("accepted", pa.bool_()),
        pa.field("latency", pa.float64()),
        pa.field("cost", pa.float64()),
        pa.field("language", pa.string()),
        pa.field("response_chars", pa.int64()),
        pa.field("answer", pa.string()),
        pa.field("turn", pa.int64()),
        pa.field("text", pa.string()),
        pa.field("message", pa.string()),
        pa.field("before", pa.string()),
        pa.field("opening", pa.string()),
        pa.field("asked", pa.string()),
        pa.field("history", pa.string()),
        pa.field("system", pa.string()),
        pa.field("after", pa.int64()),
        pa.field("tools", pa.bool_()),
    ]
)

TURNS = pa.schema(
    [
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("turn", pa.int32(), nullable=False),
        pa.field("guessed", pa.bool_(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("timestamp", TIME),
        pa.field("model", pa.string()),
        pa.field("text", pa.string()),
        pa.field("response_chars", pa.int64()),
        pa.field("language", pa.string()),
        pa.field("latency", pa.float64()),
        pa.field("cost", pa.float64()),
        pa.field("failed", pa.bool_()),
        pa.field("regenerated", pa.bool_()),
        pa.field("feedback", pa.float64()),
        pa.field("accepted", pa.bool_()),
        pa.field("repeated", pa.bool_(), nullable=False),
    ]
)

SERVICES = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("session_id", pa.string()),
        pa.field("user_id", pa.string()),
        pa.field("timestamp", TIME),
        pa.field("offered", pa.list_(pa.string()), nullable=False),
        pa.field("chosen", pa.string()),
        pa.field("silent", pa.bool_()),
        pa.field("retry_probability", pa.float64()),
        pa.field("text", pa.string()),
        pa.field("embedding", pa.list_(pa.float32())),
        pa.field("latency", pa.float64()),
        pa.field("cost", pa.float64()),
        pa.field("propensity", pa.float64()),
        pa.field("weight", pa.float64()),
    ]
)
