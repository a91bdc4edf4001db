"""Small logs as gateways write them, each with the right turns, or the reason why there are none.

Each file of ``cases/`` stands for a kind: a second record of a request, a program's step, content
that is not where it was looked for, identity that stands elsewhere.
"""

from pathlib import Path
from typing import Any

import pytest

from cqbayes import TextOptions, load_importer, read_log
from cqbayes.errors import InputError
from cqbayes.logs import traces, turns
from cqbayes.logs.formats import messages
from cqbayes.logs.retrials.chains import services_of_turns
from cqbayes.logs.turns import read_turns

CASES = Path(__file__).parent / "cases"
EGG, RIVER, TABLE = (
    "How do I boil an egg?",
    "Thanks! Which rivers are in Peru?",
    "Book a table for two",
)
SPEND = [(["Sort a list", "Boil an egg", "Name a river in Peru"], f"e{n}") for n in range(6)]


def _log(name: str) -> Path:
    """The log of a case: a file, or a folder of them."""
    path = CASES / name
    files = list(path.iterdir()) if path.is_dir() else [path]
    return files[0] if len(files) == 1 and files[0].is_file() else path


def _format(name: str) -> str:
    kinds = {"otel": "opentelemetry", "langfuse": "langfuse", "openai": "openai_chat"}
    others = {"image_only_turns": "openai_chat", "same_question_other_image": "openai_chat"}
    return others.get(name) or kinds.get(name.partition("_")[0], "litellm")


def _read(name: str) -> tuple[list[tuple[list[str | None], str | None]], Any]:
    """The sessions, in the order of time: texts of their turns, and their user; and all counts."""
    found = read_turns(load_importer(_format(name)), _log(name))
    sessions: dict[str, tuple[list[str | None], str | None]] = {}
    for row in found.turns.to_pylist():
        sessions.setdefault(row["session_id"], ([], row["user_id"]))[0].append(row["text"])
    assert found.report is not None
    assert found.report.read == found.report.kept + sum(found.report.set_aside.values())
    return list(sessions.values()), found


def _retrials(found: Any) -> int:
    """Explicit retrials, as the services show them."""
    stream = services_of_turns(found.turns, next_turn="taken")
    list(stream)
    return stream.report.retried


# name: sessions (texts, user), and what is none of a user's turns
RIGHT: dict[str, tuple[list[tuple[list[str | None], str | None]], dict[str, int]]] = {
    "image_only_turns": ([([None, None, None], None)], {}),
    "langfuse_gemini_contents": ([([EGG, RIVER, TABLE], "u")], {}),
    "langfuse_nested_generations": (
        [(["Boil an egg", "Name a river"], "u")], {traces.NESTED: 2, traces.SPAN: 2},
    ),
    "langfuse_one_bad_generation": (
        [(["Weather in Rome?"], "u"), (["Boil an egg"], "u")], {traces.STEP: 1, traces.SPAN: 2},
    ),
    "langfuse_rendered_roles": (
        [(["Boil an egg", "Name a river in Peru", TABLE], "u")],
        {},
    ),
    "langfuse_ui_batch_export": ([(["Boil an egg"], "ann")], {}),
    "langfuse_ui_download": ([(["Boil an egg"], "ann")], {traces.SPAN: 1, traces.SCORE: 1}),
    "langfuse_vercel_ai_sdk": ([([EGG], "u")], {traces.NESTED: 1, traces.SPAN: 1}),
    "litellm_alias_on_failure": (
        [(["Boil an egg", "Boil an egg", "Name a river in Peru"], "u1")], {},
    ),
    "litellm_cost_null_cached": ([(["Boil an egg", "Name a river in Peru"], "u1")], {}),
    "litellm_exact_duplicates": (
        [(["Boil an egg", "Name a river"], "u1")], {turns.DUPLICATE: 1},
    ),
    "litellm_health_checks": ([], {traces.HEALTH_CHECK: 10}),
    "litellm_key_owner_is_user": ([(["Hello"], None)] * 6, {}),
    "litellm_logged_twice": (
        [(["Sort a list", "Boil an egg", "Name a river"], "u1")], {turns.LOGGED_TWICE: 3},
    ),
    "litellm_placeholder": ([], {}),
    "litellm_title_generation": (
        [(["How do I sort a list in Python?", "And in reverse order?"], "u1")],
        {traces.APPLICATION: 1},
    ),
    "openai_chat_messages_as_string": ([(["Boil an egg", "Name a river"], None)], {}),
    "otel_file_exporter_json": ([(["Boil an egg", "Name a river"], None)], {}),
    "otel_openinference": ([(["Boil an egg"], "u")], {}),
    "otel_operation_of_litellm": ([(["Boil an egg"], None), (["Name a river"], None)], {}),
    "otel_operation_streaming": ([(["Boil an egg"], None), (["Name a river"], None)], {}),
    "otel_program_continues": ([(["Weather in Rome?"], None)], {traces.STEP: 2}),
    "otel_session_on_root": ([(["Hello"], "u1"), (["Hello"], "u2")], {traces.SPAN: 2}),
    "otel_traceloop_multimodal_json": (
        [(["What is this?", "And which city is that?"], "u")], {},
    ),
    "otel_vercel": ([(["Boil an egg"], "u")], {}),
    "regenerated_days_later": ([(["What is on the menu?"], "u1")] * 4, {}),
    "same_question_other_image": ([(["What is this?"] * 3, None)], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_a_case_has_the_right_turns_and_no_retrial(name):
    sessions, aside = RIGHT[name]
    there, found = _read(name)
    assert there == sessions
    assert dict(found.counts.not_turns) == aside
    assert _retrials(found) == (found.turns["feedback"].to_pylist().count(-1.0))


def test_every_case_is_tested():
    others = {"litellm_spend_logs", "litellm_non_chat_calls", "litellm_dated_folders"}
    assert {path.name for path in CASES.iterdir()} == {*RIGHT, *others}


@pytest.mark.parametrize("name", ["content_as_json_string", "content_in_proxy_server_request"])
def test_spend_logs_are_read_where_their_content_is(name):
    there, found = _read(f"litellm_spend_logs/{name}.jsonl")
    assert sorted(there, key=lambda pair: pair[1] or "") == SPEND
    assert sorted(found.turns["cost"].to_pylist())[:7] == pytest.approx([0.001] * 6 + [0.002])
    assert _retrials(found) == 0


def test_spend_logs_without_content_are_set_aside_and_refused():
    path = CASES / "litellm_spend_logs" / "content_not_stored.jsonl"
    found = read_turns(load_importer("litellm"), path)
    assert found.report.set_aside == {messages.NO_CONTENT: 18}
    with pytest.raises(InputError, match=f"18 by '{messages.NO_CONTENT}'"):
        read_log(path, format="litellm", text=TextOptions(encoder="constant"))


def test_placeholders_are_no_content():
    _, found = _read("litellm_placeholder")
    assert found.report.set_aside == {messages.NO_CONTENT: 5}


def test_calls_of_other_types_are_users_requests_where_they_are_chats():
    there, found = _read("litellm_non_chat_calls")
    assert sum(len(texts) for texts, _ in there) + sum(found.counts.not_turns.values()) == 6
    assert _retrials(found) == 0


def test_folders_of_days_are_read():
    there, _ = _read("litellm_dated_folders")
    assert sum(len(texts) for texts, _ in there) == 2


def test_the_failed_attempt_of_an_alias_is_no_llm():
    _, found = _read("litellm_alias_on_failure")
    stream = services_of_turns(found.turns, next_turn="taken")
    llms = {row["offered"][0] for batch in stream for row in batch.to_pylist()}
    assert llms == {"provider/gpt-a"}
    assert stream.report.failed == 1


def test_a_cost_that_is_not_known_is_null_and_one_of_nothing_is_zero():
    _, found = _read("litellm_cost_null_cached")
    assert found.turns["cost"].to_pylist() == [None, 0.0]


@pytest.mark.parametrize("name", ["langfuse_ui_batch_export", "langfuse_ui_download"])
def test_scores_are_found_where_the_export_puts_them(name):
    assert _read(name)[1].turns["feedback"].to_pylist() == [-1.0]


@pytest.mark.parametrize(
    ("name", "session"),
    [("langfuse_ui_download", "s"), ("otel_vercel", "s"), ("otel_openinference", "s")],
)
def test_sessions_are_found_where_they_stand(name, session):
    found = _read(name)[1]
    assert found.turns["session_id"].to_pylist() == [session]
    assert found.counts.guessed_sessions == 0


def test_guessed_sessions_are_counted():
    counts = _read("litellm_key_owner_is_user")[1].counts
    assert (counts.sessions, counts.guessed_sessions) == (6, 6)
