"""The two tables that all logs become.

**Turns**: one row per request of a user, as platforms keep them. No column says which turn is a
retrial. Every importer makes this table.

==================  ================================================================================
``session_id``      string: requests of one session are one user's, one after another
``turn``            0, 1, ... : how many messages of the user came before in the session
``user_id``         string
``timestamp``       when the request was sent, UTC, or the nearest to it that the format has
``model``           string: the LLM that answered
``text``            string: what the user wrote; may be empty
``response_chars``  characters of the answer
``language``        string
``latency``         seconds from the request to the end of the answer
``cost``            dollars
``failed``          bool: there was no answer, because of an error or a timeout
``regenerated``     bool: the user asked for another answer to the request before
``feedback``        what the user said of the answer: -1 bad, 1 good
``accepted``        bool: whether the user copied, merged or otherwise took the answer
``repeated``        bool: whether the text is that of the turn before, white space folded
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

Null means that nothing is known. Only ``session_id``, ``turn``, ``model`` and ``repeated`` of a
turn, and ``query_id``, ``attempt`` and ``offered`` of a service, are never null.
"""

import pyarrow as pa

TIME = pa.timestamp("us", tz="UTC")

TURNS = pa.schema(
    [
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("turn", pa.int32(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("timestamp", TIME),
        pa.field("model", pa.string(), nullable=False),
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
