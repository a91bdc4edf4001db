"""Langfuse: generations of LLMs in traces, with scores.

JSON Lines, or ``.json`` files. A record is

- a trace with its observations and scores, as ``GET /api/public/traces/{traceId}`` gives it; or
- an observation, as the observations API gives it (``startTime``), versions 1 and 2, or as the
  export to blob storage writes it (``start_time``): all names are read in both spellings;

also several of them in a page ``{"data": [...], "meta": {...}}``. Traces of ``GET
/api/public/traces`` hold only identifiers of observations, so they are set aside. So are scores
without their trace, since each record is read alone: **only traces with their scores have
feedback.** What is read, and nothing else:

=============================  =====================================================================
``type``                       only ``GENERATION`` gives rows
``model``                      the LLM; ``providedModelName`` in version 2
``input``                      string, messages, or an object with ``messages``; also as JSON in a
                               string
``output``                     string, message or response
``startTime``, ``endTime``     ISO 8601, in UTC if without a zone; or else ``latency`` in seconds
``costDetails.total``          dollars; or else ``totalCost`` or ``calculatedTotalCost``
``level``                      ``ERROR`` is a failure
``sessionId``, ``userId``      of the trace, or of the observation
``scores``                     ``name``, ``value`` or ``stringValue``, ``dataType``, ``source``,
                               ``observationId``
=============================  =====================================================================

**Sessions** are ``sessionId``, or else a digest of the user and of the conversation's first
message: conversations of one user that open with the same words then fall together.

**Scores** of source ``API``, which is what applications send, become ``feedback`` where they are
called ``user-feedback`` or alike, and ``accepted`` where ``accepted``, ``copied`` or ``merged``
(:func:`cqbayes.logs.formats.messages.opinion`); those of judges and of annotators do not. A score
without an ``observationId`` is of the trace's last turn.

**Transport.** In a trace, a generation of the same turn as a failed one before it was sent by the
application, not the user: its ``regenerated`` is false. Between traces the failure is the only
sign. **The format does not say** which generations a user saw. Generations that an application
makes for itself, for example to rewrite a question, look like requests; remove them first.

A generation is one request: ``text`` is the last message of the user in its input and ``turn``
how many come before, so rows of a session come scattered, and a request that was sent again has
the same ``turn`` as the one before.

References:
    ``fern/apis/server/definition/{commons,trace,observations}.yml`` of langfuse/langfuse;
    https://langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields;
    https://langfuse.com/docs/observability/features/user-feedback.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cqbayes.logs.formats.importer import EPOCH, LONG_RECORD, MOST_MESSAGES, Importer, SetAside
from cqbayes.logs.formats.messages import (
    answer_chars,
    digest,
    elapsed,
    identifier,
    inner,
    number,
    opinion,
    request,
    unquoted,
    unquoted_answer,
    when,
)

GENERATION = "GENERATION"
OF_APPLICATIONS = (None, "API")  # not EVAL and ANNOTATION

# Why records are set aside.
NO_RECORD = "neither a trace nor an observation"
IDS_ONLY = "a trace that has only identifiers of its observations"
LONE_SCORE = "a score without its trace, which is another record"
NO_MODEL = "no model"


def _unpacked(record: Mapping[str, Any]) -> Iterable[Any]:
    page = record.get("data")
    return page if isinstance(page, list) else (record,)


def _rows(record: Mapping[str, Any], ticks: Mapping[str, int]) -> list[dict[str, Any]]:
    if isinstance(record.get("observations"), list):
        return _of_trace(record)
    if _field(record, "data_type") is not None and "name" in record:
        raise SetAside(LONE_SCORE)
    if not isinstance(record.get("type"), str):
        raise SetAside(NO_RECORD)
    row = _of_observation(record, {})
    return [] if row is None else [row]


def _of_trace(trace: Mapping[str, Any]) -> list[dict[str, Any]]:
    observations = trace["observations"]
    if len(observations) > MOST_MESSAGES:
        raise SetAside(LONG_RECORD)
    if any(isinstance(one, str) for one in observations):
        raise SetAside(IDS_ONLY)
    if not all(isinstance(one, Mapping) for one in observations):
        raise SetAside(NO_RECORD)
    made = [(one, row) for one in observations if (row := _of_observation(one, trace)) is not None]
    made.sort(key=lambda pair: pair[1]["timestamp"] or EPOCH)
    rows = [row for _, row in made]
    _mark_sent_again(rows)
    # Observations should not share an id; of those that do, take the last.
    by_id = {one["id"]: row for one, row in made if isinstance(one.get("id"), str)}
    scores = trace.get("scores")
    for score in scores if isinstance(scores, list) and rows else []:
        if isinstance(score, Mapping):
            _scored(score, by_id, rows[-1]).update(_opinion(score))
    return rows


def _mark_sent_again(rows: list[dict[str, Any]]) -> None:
    failed: set[tuple[str, int]] = set()
    for row in rows:
        turn = (row["session_id"], row["turn"])
        if turn in failed:
            row["regenerated"] = False
        if row["failed"]:
            failed.add(turn)
        else:
            failed.discard(turn)


def _scored(
    score: Mapping[str, Any], by_id: Mapping[str, dict[str, Any]], last: dict[str, Any]
) -> dict[str, Any]:
    """The row that a score is about; an empty new one where there is none."""
    of = _field(score, "observation_id")
    if of is None:
        return last
    return by_id.get(of, {}) if isinstance(of, str) else {}


def _opinion(score: Mapping[str, Any]) -> dict[str, Any]:
    if score.get("source") not in OF_APPLICATIONS:
        return {}
    # The value of a categorical score is 0 where nobody has given its categories numbers.
    is_category = _field(score, "data_type") == "CATEGORICAL"
    value = _field(score, "string_value") if is_category else score.get("value")
    return opinion(score.get("name"), value)


def _of_observation(
    observation: Mapping[str, Any], trace: Mapping[str, Any]
) -> dict[str, Any] | None:
    """A row of ``TURNS``; None where it is no turn of a user."""
    if observation.get("type") != GENERATION:
        return None
    model = identifier(observation.get("model"), _field(observation, "provided_model_name"))
    if model is None:
        raise SetAside(NO_MODEL)
    asked = request(unquoted(observation.get("input")))
    if asked is None:
        return None
    user = identifier(_field(trace, "user_id"), _field(observation, "user_id"))
    session = identifier(_field(trace, "session_id"), _field(observation, "session_id"))
    start = when(_field(observation, "start_time"))
    end = when(_field(observation, "end_time"))
    level = observation.get("level")
    failed = level == "ERROR" if isinstance(level, str) else None
    return {
        "session_id": session or digest(user, asked.opening),
        "turn": asked.turn,
        "user_id": user,
        "timestamp": start,
        "model": model,
        "text": asked.text,
        "response_chars": None
        if failed
        else answer_chars(unquoted_answer(observation.get("output"))),
        "latency": number(observation.get("latency")) if end is None else elapsed(start, end),
        "cost": _cost(observation),
        "failed": failed,
        "repeated": asked.repeated,
    }


def _cost(observation: Mapping[str, Any]) -> float | None:
    details = _field(observation, "cost_details")
    return number(
        details.get("total") if isinstance(details, Mapping) else None,
        _field(observation, "total_cost"),
        _field(observation, "calculated_total_cost"),
        inner(observation, "usage").get("totalCost"),
    )


def _field(record: Mapping[str, Any], name: str) -> Any:
    """A field by its name in the export to blob storage, or else in the API."""
    found = record.get(name)
    return record.get(_camel(name)) if found is None else found


@functools.cache
def _camel(name: str) -> str:
    return re.sub("_(.)", lambda found: found[1].upper(), name)


IMPORTER = Importer(
    "Langfuse",
    _rows,
    transport=(
        "in a trace, what follows a failed generation of the same turn is not regenerated; between "
        "traces it shows only by level ERROR of the one before"
    ),
    unpack=_unpacked,
    signs=(
        *(("observations", own) for own in ("id", "scores", "timestamp")),
        *(("type", own) for own in ("traceId", "trace_id", "startTime", "start_time")),
        ("data", "meta"),
    ),
)
