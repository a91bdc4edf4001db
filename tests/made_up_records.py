"""Reading made-up records of one log format, and what such records are made of."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from cqbayes.logs.formats.digests import (
    chain,
    digest,
)
from cqbayes.logs.formats.importer import Request
from cqbayes.logs.records import Requests, read_requests

START = datetime(2025, 6, 1, 12, tzinfo=UTC)


def read(tmp_path, importer, *found: Any) -> Requests:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in found))
    return read_requests(importer.IMPORTER, path)


def all_rows(stream: Requests) -> list[dict[str, Any]]:
    rows = [row for batch in stream for row in batch.to_pylist()]
    assert stream.report.set_aside == {}
    return rows


def rows_of(tmp_path, importer, *found: Any) -> list[dict[str, Any]]:
    return all_rows(read(tmp_path, importer, *found))


def user(content: Any, **rest: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **rest}


def reason_of(tmp_path, importer, found: Any) -> str:
    stream = read(tmp_path, importer, found)
    assert list(stream) == []
    (reason,) = stream.report.set_aside
    return reason


def said(*contents: Any) -> list[dict[str, Any]]:
    """A user and an assistant by turns."""
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": one} for i, one in enumerate(contents)]


def assistant(content: Any, **rest: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **rest}


def nested(depth: int) -> dict[str, Any]:
    """Responses in responses, which no API gives."""
    return {"output": [nested(depth - 1)]} if depth else {}


TOOL_STEP = [
    *said("Weather in Paris?"),
    {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function"}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "rainy"},
]
ANTHROPIC_STEP = [
    *said("Weather in Paris?", [{"type": "tool_use", "id": "toolu_1", "name": "weather"}]),
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1"}]},
]
ANTHROPIC_TURN = [
    *ANTHROPIC_STEP[:-1],
    {
        "role": "user",
        "content": [*ANTHROPIC_STEP[-1]["content"], {"type": "text", "text": "And in Rome?"}],
    },
]
SAID = [{"role": "system", "content": "Be kind."}, *said("Why?", "So.", "Why? ")]
# What an importer says of a request with these messages, without its ids and what it is for.
WHY = digest("Why?")
OF_REQUEST = {
    **Request(
        session="s",
        user="ann",
        start=START,
        end=START + timedelta(seconds=2.5),
        llm="gpt-4o",
        failed=False,
        latency=2.5,
        cost=0.00325,
        response_chars=8,
        answer=digest("Because."),
        turn=1,
        text="Why? ",
        message=WHY,
        before=WHY,
        opening=WHY,
        asked=chain(None, WHY),
        history=chain(chain(None, "user", WHY), "assistant", digest("So.")),
        system=chain(None, digest("Be kind.")),
        after=0,
        tools=False,
    )._asdict(),
    "marks": [],
}
