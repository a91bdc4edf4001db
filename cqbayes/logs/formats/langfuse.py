"""Langfuse: generations of LLMs in traces, with scores.

JSON Lines, or ``.json`` files. A record is

- a trace with its observations and scores, as ``GET /api/public/traces/{traceId}`` gives it, or
  ``{"trace": ..., "observations": [...]}``, as the application downloads it;
- a trace without observations, an observation or a score, as the API gives it (``startTime``),
  versions 1 and 2, as the export to blob storage writes it (``start_time``), or as a table is
  exported from the application, with a column a score (``"user-feedback": [0]``): all names are
  read in both spellings;
- a session with its traces, or several of all these in a page ``{"data": [...], "meta": {...}}``.

Each trace, observation and score that a line holds is a record of its own. What is read, and
nothing else:

=============================  =====================================================================
``type``                       ``GENERATION`` is a request to an LLM, unless its LLM makes
                               embeddings; other types are spans
``model``                      the LLM; ``providedModelName`` in version 2
``input``                      messages in any shape; of a trace, only for the user's own words
``output``                     string, message or response
``startTime``, ``endTime``     ISO 8601, in UTC if without a zone; or else ``latency`` in seconds
``costDetails.total``          dollars; or else ``totalCost`` or ``calculatedTotalCost``
``level``                      ``ERROR`` is a failure
``sessionId``, ``userId``      of the observation, or else of the trace; or else by the names in
                               ``SESSIONS`` and ``USERS`` in the ``metadata`` of either
``parentObservationId``        the observation in which this one happened
``name``, ``tags``             what a request is for, with the trace's, ``promptName`` and the task
                               in ``metadata``
``scores``                     ``name``, ``value`` or ``stringValue``, ``dataType``, ``source``,
                               ``observationId``
=============================  =====================================================================

**Scores** of source ``API``, which is what applications send, become ``feedback`` where they are
called ``user-feedback`` or alike, and ``accepted`` where ``accepted``, ``copied`` or ``merged``
(:func:`cqbayes.logs.formats.messages.opinion`); those of judges and of annotators do not. A score
without an ``observationId`` is of the trace.

**Transport.** A failed generation shows by ``level`` ``ERROR``; what follows it in the same trace
was sent by the application. **The format does not say** which generations a user saw, nor which an
application made for itself.

References:
    ``fern/apis/server/definition/{commons,trace,observations,sessions}.yml`` and
    ``worker/src/features/database-read-stream`` of langfuse/langfuse;
    https://langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields;
    https://langfuse.com/docs/observability/features/user-feedback.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cqbayes.logs.formats.exchanges import (
    Asked,
    answer_of,
    asked_of,
)
from cqbayes.logs.formats.fields import (
    elapsed,
    identifier,
    inner,
    marks,
    mentioned,
    number,
    opened,
    opinion,
    short,
    when,
)
from cqbayes.logs.formats.importer import Importer, Request, SetAside
from cqbayes.logs.formats.messages import read_messages

GENERATION = "GENERATION"
EMBEDDINGS = re.compile(r"embed", re.IGNORECASE)
OF_APPLICATIONS = (None, "API")  # not EVAL and ANNOTATION
SESSIONS = (
    "session_id",
    "sessionId",
    "langfuse_session_id",
    "session.id",
    "gen_ai.conversation.id",
    "conversation_id",
    "chat_id",
    "thread_id",
)
OWNERS = ("user_api_key_user_id",)
USERS = ("user_id", "userId", "langfuse_user_id", "user.id", "trace_user_id")
# Fields of a trace that its observations take over.
OF_TRACE = ("session_id", "user_id", "tags", "trace_name", "trace_metadata", "trace_id")

# Why records are set aside.
NO_RECORD = "neither a trace nor an observation nor a score"
NO_MODEL = "no model"


def _unpacked(record: Mapping[str, Any]) -> Iterable[Any]:
    for key in ("data", "traces"):
        several = record.get(key)
        if isinstance(several, list) and not isinstance(record.get("type"), str):
            return _all_of(several, record.get("id") if key == "traces" else None)
    trace = record.get("trace")
    if isinstance(trace, Mapping) and isinstance(record.get("observations"), list):
        scores = [*_listed(trace.get("scores")), *_listed(record.get("scores"))]
        record = {**trace, "observations": record["observations"], "scores": scores}
    observations = record.get("observations")
    if not isinstance(observations, list):
        return (record,)
    return _of_trace(record, observations)


def _all_of(several: Iterable[Any], session: Any) -> Iterator[Any]:
    for one in several:
        if not isinstance(one, Mapping):
            yield one
        elif session is None:
            yield from _unpacked(one)
        else:
            yield from _unpacked({**one, "sessionId": session})


def _of_trace(trace: Mapping[str, Any], observations: Iterable[Any]) -> Iterator[Any]:
    """A trace and its observations: each a record, which has what it needs of the others."""
    scores: dict[Any, list[Any]] = {}
    ids = {short(one.get("id")) for one in observations if isinstance(one, Mapping)}
    for score in _listed(trace.get("scores")):
        of = short(_field(score, "observation_id")) if isinstance(score, Mapping) else None
        scores.setdefault(of if of in ids else None, []).append(score)
    yield {**trace, "observations": None, "scores": scores.pop(None, [])}
    shared = {
        "session_id": _field(trace, "session_id"),
        "user_id": _field(trace, "user_id"),
        "tags": trace.get("tags"),
        "trace_name": trace.get("name"),
        "trace_metadata": trace.get("metadata"),
        "trace_id": trace.get("id"),
    }
    for one in observations:
        if not isinstance(one, Mapping):
            if not isinstance(one, str):  # an identifier of an observation that is elsewhere
                yield one
            continue
        own = {key: _first(_field(one, key), shared[key]) for key in OF_TRACE}
        yield {**one, **own, "scores": scores.get(short(one.get("id")), [])}


def _requests(record: Mapping[str, Any], ticks: Mapping[str, int]) -> list[Request]:
    if isinstance(record.get("type"), str):
        return [_of_observation(record)]
    if "name" in record and any(_field(record, key) is not None for key in ("data_type", "source")):
        return [_of_score(record)]
    if record.get("id") is None or not any(
        key in record for key in ("timestamp", "name", "userId", "sessionId", "scores", "user_id")
    ):
        raise SetAside(NO_RECORD)
    return _of_lone_trace(record)


def _of_observation(observation: Mapping[str, Any]) -> Request:
    start, end = (when(_field(observation, key)) for key in ("start_time", "end_time"))
    level = observation.get("level")
    failed = level == "ERROR" if isinstance(level, str) else None
    request = _identified(observation)._replace(
        id=identifier(observation.get("id")),
        trace=identifier(_field(observation, "trace_id")),
        parent=identifier(_field(observation, "parent_observation_id")),
        start=start,
        end=end,
        failed=failed,
        **_opinions(observation),
    )
    if str(observation["type"]).upper() != GENERATION:
        return request._replace(kind="span", call=short(observation["type"]))
    model = identifier(observation.get("model"), _field(observation, "provided_model_name"))
    if model is None:
        raise SetAside(NO_MODEL)
    cost, latency = _cost(observation), elapsed(start, end)
    if end is None:
        latency = number(observation.get("latency"))
    request = request._replace(llm=model, cost=cost, latency=latency)
    if EMBEDDINGS.search(model):
        return request._replace(call="embedding")
    answer = answer_of(None if failed else observation.get("output"))
    asked = asked_of(read_messages(observation.get("input")))
    return request._replace(response_chars=answer.chars, answer=answer.digest, **asked._asdict())


def _of_lone_trace(trace: Mapping[str, Any]) -> list[Request]:
    """A span with the user's own words, where the trace states them, and its scores."""
    own = identifier(trace.get("id"))
    asked = _words(trace.get("input"))
    span = _identified(trace)._replace(
        kind="span",
        trace=own,
        start=when(trace.get("timestamp")),
        message=None if asked is None else asked.message,
    )
    scores = [_of_score(one) for one in _listed(trace.get("scores")) if isinstance(one, Mapping)]
    columns = _in_columns(trace)
    if columns:
        scores.append(Request(kind="score", **columns))
    return [span, *(one if one.trace else one._replace(trace=own) for one in scores)]


def _words(value: Any) -> Asked | None:
    try:
        return asked_of(read_messages(value))
    except SetAside:
        return None


def _of_score(score: Mapping[str, Any]) -> Request:
    return Request(
        kind="score",
        id=identifier(_field(score, "observation_id")),
        trace=identifier(_field(score, "trace_id")),
        session=identifier(_field(score, "session_id")),
        start=when(score.get("timestamp")),
        **_opinion(score),
    )


def _identified(record: Mapping[str, Any]) -> Request:
    """A request with only what says whose it is and what it is for."""
    metadata = [inner(record, "metadata"), inner(record, "trace_metadata")]
    # What came from OpenTelemetry has its attributes below, or in names with dots.
    below = [inner(one, "attributes") for one in metadata]
    dotted = [
        {key.removeprefix("attributes."): value for key, value in one.items()} for one in metadata
    ]
    client = [inner(one, "requester_metadata") for one in metadata]
    holders = [*dotted, *below, *client]
    tasks = [one.get(key) for one in holders for key in ("task", "tags")]
    names = (record.get("name"), _field(record, "trace_name"), _field(record, "prompt_name"))
    return Request(
        owner=mentioned(holders, OWNERS),
        session=identifier(_field(record, "session_id")) or mentioned(holders, SESSIONS),
        user=identifier(_field(record, "user_id")) or mentioned(holders, USERS),
        marks=marks(*names, record.get("tags"), _field(record, "trace_tags"), *tasks),
    )


def _opinions(record: Mapping[str, Any]) -> dict[str, Any]:
    """Opinions of users in scores, which stand in a list, or in columns of their own."""
    found = _in_columns(record)
    for score in _listed(record.get("scores")):
        if isinstance(score, Mapping):
            found |= _opinion(score)
    return found


def _in_columns(record: Mapping[str, Any]) -> dict[str, Any]:
    """Opinions in columns named after scores; nothing where a column holds two opinions."""
    found: dict[str, Any] = {}
    for key, value in {**record, **inner(record, "scores")}.items():
        if opinion(key, 1):
            values = opened(value)
            said = [opinion(key, one) for one in (values if isinstance(values, list) else [value])]
            found |= said[0] if said and all(one == said[0] for one in said) else {}
    return found


def _opinion(score: Mapping[str, Any]) -> dict[str, Any]:
    if score.get("source") not in OF_APPLICATIONS:
        return {}
    # The value of a categorical score is 0 where nobody has given its categories numbers.
    is_category = _field(score, "data_type") == "CATEGORICAL"
    value = _field(score, "string_value") if is_category else score.get("value")
    return opinion(score.get("name"), value)


def _cost(observation: Mapping[str, Any]) -> float | None:
    return number(
        inner(observation, "cost_details").get("total"),
        inner(observation, "costDetails").get("total"),
        _field(observation, "total_cost"),
        _field(observation, "calculated_total_cost"),
        inner(observation, "usage").get("totalCost"),
    )


def _listed(value: Any) -> list[Any]:
    found = opened(value)
    return found if isinstance(found, list) else []


def _first(*values: Any) -> Any:
    return next((one for one in values if one not in (None, "", [])), None)


def _field(record: Mapping[str, Any], name: str) -> Any:
    """A field by its name in the export to blob storage, or else in the API."""
    found = record.get(name)
    return record.get(_camel(name)) if found is None else found


@functools.cache
def _camel(name: str) -> str:
    return re.sub("_(.)", lambda found: found[1].upper(), name)


IMPORTER = Importer(
    "Langfuse",
    _requests,
    transport=(
        "a failed generation shows by level ERROR; what follows it in the same trace was sent by "
        "the application"
    ),
    unpack=_unpacked,
    signs=(
        *(("observations", own) for own in ("id", "scores", "timestamp", "trace")),
        *(("type", own) for own in ("traceId", "trace_id", "startTime", "start_time")),
        ("data", "meta"),
        ("traceId", "name", "dataType"),
        ("trace_id", "name", "data_type"),
    ),
)
