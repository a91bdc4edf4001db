"""Requests become turns: what is a user's, what follows what, and what a user asked again."""

import random
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cqbayes.errors import InputError
from cqbayes.logs import traces, turns
from cqbayes.logs.formats.exchanges import (
    asked_of,
    conversation_requests,
)
from cqbayes.logs.formats.importer import EPOCH, Request
from cqbayes.logs.formats.messages import read_messages
from cqbayes.logs.schema import REQUESTS, TURNS
from cqbayes.logs.turns import turns_of_requests

NOON = EPOCH + timedelta(days=20_000, hours=12)


def at(seconds: float):
    return NOON + timedelta(seconds=seconds)


def messages(*said: str | dict[str, Any]) -> list[dict[str, Any]]:
    """Messages of user and assistant in turn; others as they are given."""
    roles = ("user", "assistant")
    return [
        one if isinstance(one, dict) else {"role": roles[i % 2], "content": one}
        for i, one in enumerate(said)
    ]


def request(start: float | None, *said: Any, lasts: float | None = 5, **rest: Any) -> Request:
    asked = asked_of(read_messages(messages(*said)))
    begun = None if start is None else at(start)
    ended = None if start is None or lasts is None else at(start + lasts)
    facts = {"session": "s", "llm": "gpt-a", "failed": False, "response_chars": 4}
    return Request(start=begun, end=ended, **{**facts, **asked._asdict(), **rest})


def table(*requests: Request) -> pa.Table:
    return pa.Table.from_pylist([one._asdict() for one in requests], REQUESTS)


def found(*requests: Request, **options: Any) -> tuple[list[dict[str, Any]], dict[str, int]]:
    made = turns_of_requests(table(*requests), **options)
    counts = made.counts
    assert counts.requests == len(requests) == counts.turns + sum(counts.not_turns.values())
    assert made.turns.schema == TURNS
    return made.turns.to_pylist(), dict(counts.not_turns)


def again(rows: list[dict[str, Any]]) -> list[int]:
    """Numbers of the rows that are explicit retrials."""
    return [i for i, row in enumerate(rows) if row["regenerated"] or row["repeated"]]


# A user asked again


def test_the_same_request_after_the_answer_is_asked_again():
    rows, aside = found(request(0, "Why?"), request(60, "Why?"))
    assert [row["regenerated"] for row in rows] == [None, True]
    assert not aside


def test_the_same_words_in_a_growing_conversation_are_repeated():
    rows, _ = found(request(0, "Why?"), request(60, "Why?", "So.", "Why? "))
    assert [(row["regenerated"], row["repeated"]) for row in rows] == [(None, False), (None, True)]


def test_a_request_begun_before_the_answer_ended_is_a_second_record():
    rows, aside = found(request(0, "Why?"), request(0.004, "Why?", lasts=4.9))
    assert len(rows) == 1
    assert aside == {turns.LOGGED_TWICE: 1}


def test_a_second_record_gives_what_the_first_does_not_say():
    rows, _ = found(
        request(0, "Why?", cost=None), request(0.004, "Why?", lasts=4.9, cost=0.5, feedback=-1.0)
    )
    assert (rows[0]["cost"], rows[0]["feedback"]) == (0.5, -1.0)


def test_requests_to_two_llms_at_once_say_nothing_of_either():
    raced = [request(0, "Why?"), request(0.2, "Why?", llm="gpt-b", lasts=9)]
    rows, aside = found(*raced, request(6, "Why?"))
    assert [row["model"] for row in rows] == [None, "gpt-a"]
    assert rows[1]["regenerated"], "the first answer had ended, which is the one that was shown"
    assert aside == {turns.RACED: 1}


def test_of_two_at_once_the_one_that_did_not_fail_is_the_turn():
    both = request(0, "Why?", failed=True), request(0.2, "Why?", llm="gpt-b")
    rows, _ = found(*both)
    assert [(row["model"], row["failed"]) for row in rows] == [("gpt-b", False)]


def test_after_a_failure_the_program_asked_again_and_not_the_user():
    rows, aside = found(request(0, "Why?", failed=True), request(6, "Why?"))
    assert [(row["failed"], row["regenerated"]) for row in rows] == [(True, None), (False, None)]
    assert not aside


def test_a_failure_after_an_answer_is_a_user_who_asked_again():
    rows, _ = found(request(0, "Why?"), request(60, "Why?", failed=True), request(70, "Why?"))
    assert [row["regenerated"] for row in rows] == [None, True, None]


def test_what_the_gateway_sends_again_after_an_answer_is_no_turn():
    rows, aside = found(request(0, "Why?"), request(60, "Why?", attempts=1))
    assert [row["model"] for row in rows] == [None]
    assert aside == {turns.BY_GATEWAY: 1}


@pytest.mark.parametrize(("gap", "explicit"), [(86_399, True), (86_401, False)])
def test_after_a_long_pause_the_same_request_is_a_new_one(gap, explicit):
    rows, _ = found(request(0, "Why?"), request(5 + gap, "Why?"))
    assert len(rows) == 2
    assert bool(again(rows)) == explicit


def test_the_pause_can_be_set():
    rows, _ = found(request(0, "Why?"), request(30, "Why?"), idle=20)
    assert not again(rows)
    with pytest.raises(InputError, match="positive number of seconds"):
        turns_of_requests(table(), idle=0)


def test_without_the_end_of_the_answer_asking_again_is_not_believed():
    rows, aside = found(request(0, "Why?", lasts=None), request(60, "Why?"))
    assert [row["model"] for row in rows] == [None], "and what came of the first is not known"
    assert aside == {turns.UNDATED: 1}
    rows, aside = found(request(0, "Why?", lasts=None, latency=5.0), request(60, "Why?"))
    assert again(rows) == [1], "a latency is as good"


def test_an_array_that_holds_the_answer_shows_the_order_without_times():
    one = request(None, "Why?", response_chars=3)
    rows, _ = found(one, request(None, "Why?", "So.", "Why?"))
    assert again(rows) == [1]


def test_a_session_in_which_a_time_is_missing_has_no_order():
    rows, aside = found(request(0, "Why?"), request(None, "How?"), request(60, "Why?"))
    assert not rows
    assert aside == {turns.UNORDERED: 3}


PICTURES = [
    [{"type": "image_url", "image_url": {"url": f"https://example.com/{n}.png"}}] for n in (1, 2)
]


def test_pictures_without_words_are_never_asked_again():
    one, other = ({"role": "user", "content": picture} for picture in PICTURES)
    rows, aside = found(request(0, one), request(60, one))
    assert not again(rows)
    assert aside == {turns.WORDLESS: 1}
    rows, aside = found(request(0, one), request(60, other))
    assert not again(rows)
    assert [row["text"] for row in rows] == [None, None]


def test_the_same_words_about_another_picture_are_another_request():
    words = [{"type": "text", "text": "What is this?"}]
    one, other = ({"role": "user", "content": words + picture} for picture in PICTURES)
    rows, _ = found(request(0, one), request(60, other), request(120, other))
    assert again(rows) == [2]


def test_back_to_an_earlier_place_is_no_verdict_on_the_latest_answer():
    """The user went on from the first answer, and much later asked for another one."""
    rows, _ = found(
        request(0, "Why?"), request(60, "Why?", "So.", "And how?"), request(200, "Why?")
    )
    assert not again(rows)
    assert len(rows) == 3


# Sessions


def test_two_conversations_side_by_side_do_not_speak_of_each_other():
    rows, _ = found(
        request(0, "Why?"),
        request(100, "How?"),
        request(200, "Why?", "So.", "Really?"),
        request(300, "How?", "So.", "And?"),
        request(400, "Why?", "So.", "Really?"),
    )
    threads: dict[str, list[str]] = {}
    for row in rows:
        threads.setdefault(row["session_id"], []).append(row["text"])
    assert sorted(threads.values()) == [["How?", "And?"], ["Why?", "Really?", "Really?"]]
    assert [row["text"] for row in rows if row["regenerated"]] == ["Really?"]


def test_the_same_words_after_another_request_are_a_new_request():
    """A client that sends the last message alone: the user went on, and came back later."""
    rows, _ = found(*(request(60 * n, text) for n, text in enumerate(("Why?", "How?", "Why?"))))
    assert not again(rows)
    assert [row["turn"] for row in rows] == [0, 1, 2]


def placed(place: int, text: str, **rest: Any) -> Request:
    """A row of a table that says the order, and nothing of the conversation."""
    asked = asked_of(read_messages(messages(text)))
    facts = {"session": "s", "llm": "a", "place": place, "response_chars": 3}
    return Request(**{**facts, **asked._asdict(), **rest})


def test_where_the_log_says_the_order_only_neighbours_are_repeated():
    rows, _ = found(*(placed(n, text) for n, text in enumerate(("Why?", "How?", "Why?", "Why?"))))
    assert again(rows) == [3]


def test_a_message_that_nobody_answered_before_the_next_is_no_service():
    rows, _ = found(placed(0, "Why?", response_chars=None), placed(1, "Well?"), placed(2, "Ok"))
    assert [row["failed"] for row in rows] == [True, False, False]
    rows, _ = found(placed(0, "Why?"), placed(1, "Well?", response_chars=None))
    assert [row["failed"] for row in rows] == [False, False], "the answer may not be in the log"


def test_lines_that_repeat_a_conversation_are_one():
    """Each line holds the conversation so far, and only the next one the answer."""
    early = placed(0, "Why?", response_chars=None, start=at(0))
    rows, aside = found(early, placed(0, "Why?", answer="a"), placed(1, "How?", asked="x"))
    assert [(row["text"], row["timestamp"]) for row in rows] == [("Why?", at(0)), ("How?", None)]
    assert aside == {turns.DUPLICATE: 1}


def test_lines_of_a_log_of_requests_without_ids_are_one_conversation():
    def line(number: int, *said: str) -> list[Request]:
        made = messages(*said)
        return conversation_requests(read_messages(made), session=f"digest {number}", llm="a")

    rows, aside = found(
        *line(0, "Why?"),
        *line(1, "Why?", "So.", "How?"),
        *line(2, "Why?", "So.", "How?", "Thus.", "Ok"),
        *line(3, "Why?", "No."),
    )
    texts = [row["text"] for row in rows if row["session_id"] == "digest 2"]
    assert texts == ["Why?", "How?", "Ok"]
    assert len(rows) == 4, "a stranger who asked the same stays"
    assert aside == {traces.EARLIER: 3}


def test_sessions_that_a_gateway_makes_up_for_each_request_are_not_believed():
    said = ["Why?", "So.", "How?", "So.", "When?"]
    rows, _ = found(
        *(request(60 * n, *said[: 2 * n + 1], session=f"s{n}", user="ann") for n in range(3)),
        *(request(900 + n, "Hello", session=f"t{n}") for n in range(2)),
    )
    assert all(row["guessed"] for row in rows)
    assert [row["turn"] for row in rows] == [0, 1, 2, 0, 0]


def test_two_answers_at_one_place_leave_it_open_which_was_shown():
    rows, _ = found(placed(0, "Why?", answer="a"), placed(0, "Why?", answer="b"))
    assert [row["model"] for row in rows] == [None]


def test_users_who_share_a_session_each_have_their_own():
    rows, _ = found(request(0, "Why?", user="ann"), request(60, "Why?", user="bob"))
    assert len({row["session_id"] for row in rows}) == 2
    assert not again(rows)


def test_the_owner_of_a_key_is_no_user():
    strangers = [request(300 * n, "Hello", session=None, owner="app", id=str(n)) for n in range(6)]
    rows, aside = found(*strangers)
    assert len({row["session_id"] for row in rows}) == 6
    assert {row["user_id"] for row in rows} == {None}
    assert all(row["guessed"] for row in rows)
    assert not aside
    assert not again(rows)


def test_in_a_guessed_session_nothing_is_explicit():
    rows, _ = found(*(request(60 * n, "Why?", session=None, user="ann") for n in range(3)))
    assert len({row["session_id"] for row in rows}) == 1
    assert all(row["guessed"] for row in rows)
    assert not again(rows)


def test_a_user_without_a_session_who_comes_back_a_week_later_has_another():
    rows, _ = found(*(request(n * 7 * 86_400, "Menu?", session=None, user="ann") for n in range(4)))
    assert len({row["session_id"] for row in rows}) == 4


def test_answers_tell_whose_conversation_goes_on():
    """Two strangers say the same; what goes on holds the answer to one of them."""
    answer = read_messages([{"role": "assistant", "content": "So."}])[0].digest
    other = read_messages([{"role": "assistant", "content": "No."}])[0].digest
    rows, _ = found(
        request(0, "Why?", session=None, id="1", answer=answer),
        request(50, "Why?", session=None, id="2", answer=other),
        request(90, "Why?", "So.", "How?", session=None, id="3"),
    )
    sessions = [row["session_id"] for row in sorted(rows, key=lambda row: row["timestamp"])]
    assert sessions[2] == sessions[0] != sessions[1]


def test_two_llms_asked_the_same_by_nobody_are_two_conversations():
    rows, aside = found(
        *(request(n, "Why?", session=None, llm=f"gpt-{n}", id=str(n)) for n in range(2))
    )
    assert len({row["session_id"] for row in rows}) == 2
    assert not aside


# Records of a trace


def span(name: str, parent: str | None = None, **rest: Any) -> Request:
    return Request(kind="span", trace="t", id=name, parent=parent, **rest)


def test_a_root_span_says_whose_the_requests_in_it_are():
    rows, aside = found(
        span("root", session="mine", user="ann"),
        span("step", "root"),
        request(0, "Why?", session=None, trace="t", id="llm", parent="step"),
    )
    assert [(row["session_id"], row["user_id"]) for row in rows] == [("mine", "ann")]
    assert aside == {traces.SPAN: 2}


def test_a_request_in_a_request_is_the_same_one():
    rows, aside = found(
        request(0, "Why?", trace="t", id="outer", lasts=9),
        span("between", "outer"),
        request(1, "Why?", trace="t", id="inner", parent="between", feedback=1.0),
    )
    assert [row["feedback"] for row in rows] == [1.0], "what is said of the inner one is kept"
    assert aside == {traces.NESTED: 1, traces.SPAN: 1}


def test_prompts_of_a_program_in_one_trace_are_no_turns():
    rows, aside = found(
        request(0, "Book a table", trace="t"),
        request(8, "Write a plan for: a table", trace="t"),
        request(20, "Write a plan for: a table", trace="t"),
        request(90, "Thanks", trace="u"),
    )
    assert [row["text"] for row in rows] == ["Book a table", "Thanks"]
    assert aside == {traces.OWN_PROMPT: 2}


def test_the_input_that_a_trace_states_is_the_users():
    own = request(9, "Book a table", trace="t")
    rows, aside = found(
        span("root", message=own.message), request(0, "Classify: Book a table", trace="t"), own
    )
    assert [row["text"] for row in rows] == ["Book a table"]
    assert aside == {traces.SPAN: 1, traces.OWN_PROMPT: 1}


def test_a_trace_can_hold_a_conversation():
    rows, aside = found(
        request(0, "Why?", trace="t"),
        request(60, "Why?", trace="t"),
        request(90, "Why?", "So.", "How?", trace="t"),
    )
    assert [row["text"] for row in rows] == ["Why?", "Why?", "How?"]
    assert again(rows) == [1]
    assert not aside


def test_scores_go_to_the_request_they_are_about():
    one, other = request(0, "Why?", trace="t", id="a"), request(60, "How?", trace="u", id="b")
    rows, aside = found(
        one,
        other,
        Request(kind="score", trace="t", id="a", feedback=1.0),
        Request(kind="score", trace="u", feedback=-1.0),
        Request(kind="score", trace="elsewhere", feedback=-1.0),
    )
    assert [row["feedback"] for row in rows] == [1.0, -1.0]
    assert aside == {traces.SCORE: 2, traces.LONE_SCORE: 1}


# Requests that are none of a user


TOOLS = [
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]},
    {"role": "tool", "content": "Sunny"},
]


def test_arrays_that_go_on_after_the_user_are_steps():
    rows, aside = found(
        request(0, "Weather?"),
        request(6, "Weather?", *TOOLS, cost=0.5),
        request(12, "Weather?", *TOOLS, *TOOLS, cost=0.25),
        request(15, "Weather?"),
    )
    assert len(rows) == 1, "the last begins before the last step has ended"
    assert rows[0]["cost"] == 0.75
    assert aside == {traces.STEP: 2, turns.LOGGED_TWICE: 1}
    rows, _ = found(request(0, "Weather?"), request(6, "Weather?", *TOOLS), request(20, "Weather?"))
    assert again(rows) == [1], "after the last step"


def test_a_beginning_of_the_answer_is_no_step():
    """Some clients write the first characters of the answer themselves, in every request."""
    begun = {"role": "assistant", "content": "{"}
    rows, aside = found(request(0, "Why?", begun), request(60, "Why?", begun))
    assert again(rows) == [1]
    assert not aside


TITLE = "Please name this chat in at most five words.\nUser: {}\nAssistant: Use sorted()."


@pytest.mark.parametrize(
    ("text", "start", "marks"),
    [
        (TITLE.format("How do I sort a list?"), 65, ()),
        ("Suggest a title for the conversation: How do I sort a list?", 65, ()),
        ("Give the chat a title.", 5.8, ()),
        ("anything", 65, ("title_generation",)),
    ],
)
def test_titles_are_asked_for_by_the_application(text, start, marks):
    rows, aside = found(
        request(0, "How do I sort a list?"),
        request(start, text, lasts=1, marks=marks),
        request(90, "How do I sort a list?", "Use sorted().", "And backwards?"),
    )
    assert [row["text"] for row in rows] == ["How do I sort a list?", "And backwards?"]
    assert aside == {traces.APPLICATION: 1}


def test_a_user_who_quotes_himself_is_no_application():
    rows, aside = found(
        request(0, "How do I sort a list?"),
        request(60, "How do I sort a list? Name a function and a title."),
    )
    assert len(rows) == 2
    assert not aside


def test_what_begins_during_an_answer_and_leads_nowhere_is_no_turn():
    rows, aside = found(request(0, "Why?"), request(2, "tags", lasts=1), request(60, "Why?"))
    assert again(rows) == [1]
    assert aside == {turns.CONCURRENT: 1}


def test_what_begins_during_an_answer_and_is_gone_on_with_is_a_turn():
    rows, aside = found(
        request(0, "Why?"), request(2, "How?"), request(60, "How?", "So.", "Really?")
    )
    assert {row["text"] for row in rows} == {"Why?", "How?", "Really?"}
    assert not aside


@pytest.mark.parametrize(
    "second",
    [
        request(5.01, "Why?", llm="gpt-shadow"),
        request(5.001, "Why?", lasts=0.001),  # from a cache
        request(5.2, "Why?", system="a guard's"),
        request(5.2, "Why?", "So.", "Why?"),
        request(5.2, "Why?", "So.", "Give this conversation a name"),
    ],
)
def test_nobody_reads_an_answer_and_reacts_at_once(second):
    rows, aside = found(request(0, "Why?"), second)
    assert (len(rows), aside) == (1, {turns.CONCURRENT: 1})
    # And a user who then asks again does so.
    rows, aside = found(request(0, "Why?"), second, request(60, "Why?"))
    assert (again(rows), aside) == ([1], {turns.CONCURRENT: 1})


def test_who_goes_on_before_the_stated_end_has_read_the_answer():
    """Some gateways write the end of what they did after the answer."""
    rows, aside = found(request(0, "Why?", lasts=9), request(8.9, "Why?", "So.", "How?"))
    assert ([row["text"] for row in rows], aside) == (["Why?", "How?"], {})


def test_the_answer_of_a_request_with_three_records_ends_with_the_last():
    three = [request(0, "Why?", lasts=10), request(1, "Why?", lasts=2), request(5, "Why?", lasts=3)]
    rows, aside = found(*three)
    assert (len(rows), aside) == (1, {turns.LOGGED_TWICE: 2})


def test_an_end_before_the_beginning_is_not_believed():
    # The second may be a second record as well: its answer's end is not known.
    rows, _ = found(request(60, "Why?", lasts=-1), request(120, "Why?"))
    assert again(rows) == []


@pytest.mark.parametrize("turned", [False, True])
def test_a_record_that_came_again_when_it_was_whole_completes_the_first(turned):
    early = request(0, "Why?", lasts=None, id="a", response_chars=None, cost=None)
    late = request(0, "Why?", id="a", answer="x", cost=0.5)
    both = [late, early] if turned else [early, late]
    rows, aside = found(*both, request(60, "Why?", id="b"))
    assert again(rows) == [1]
    assert (rows[0]["cost"], rows[0]["response_chars"]) == (0.5, 4)
    assert aside == {turns.DUPLICATE: 1}


def test_who_owns_the_key_is_no_user():
    of = [request(t, "Why?", session=None, user="u", owner="u") for t in (0, 60)]
    rows, _ = found(*of)
    assert [row["user_id"] for row in rows] == [None, None]
    assert len({row["session_id"] for row in rows}) == 2


def test_spans_around_a_request_say_what_it_is_for():
    checks = [
        one
        for t in (0, 300)
        for one in (
            Request(kind="span", id=f"r{t}", trace=f"t{t}", marks=("health_check",), start=at(t)),
            request(t, "ping", id=f"c{t}", trace=f"t{t}", parent=f"r{t}"),
        )
    ]
    rows, aside = found(*checks)
    assert (rows, aside[traces.HEALTH_CHECK]) == ([], 2)


def test_health_checks_and_other_calls_are_counted():
    rows, aside = found(
        request(0, "ping", marks=("litellm-internal-health-check",)),
        Request(call="aembedding", llm="embed", start=at(1)),
        request(2, "Why?", call="aembedding"),
        request(3, "Why?", llm=None),
        request(9, "Why?", call="acompletion"),
    )
    assert len(rows) == 1
    assert aside == {traces.HEALTH_CHECK: 1, traces.OTHER_CALL: 2, traces.NO_LLM: 1}


def test_names_of_other_calls_are_told_if_they_are_plain():
    odd = [Request(call=name) for name in ("aembedding", "my <b>call</b>")]
    assert turns_of_requests(table(*odd)).counts.calls == ("aembedding",)


def test_the_same_record_twice_is_one():
    one = request(0, "Why?", id="a")
    rows, aside = found(one, one, request(60, "Why?", id="b"))
    assert again(rows) == [1]
    assert aside == {turns.DUPLICATE: 1}


# Whatever is in a log


@st.composite
def logs(draw: Any) -> tuple[list[Request], int]:
    """Requests, and how many of them are a user who asks again."""
    made: list[Request] = []
    true = 0
    for session in range(draw(st.integers(1, 3))):
        clock, said = 1_000.0 * session, []
        known = draw(st.booleans())
        who = draw(st.sampled_from([None, f"u{session}"]))
        for turn in range(draw(st.integers(1, 4))):
            text = f"question {turn} of {session}"
            for attempt in range(draw(st.integers(1, 3))):
                lasts = draw(st.floats(0.5, 9))
                shared = {"session": f"s{session}" if known else None, "user": who}
                one = request(
                    clock, *said, text, lasts=lasts, id=f"{session}/{turn}/{attempt}",
                    llm=draw(st.sampled_from(["a", "b"])), **shared,
                    failed=draw(st.integers(0, 5)) == 0,
                )  # fmt: skip
                true += attempt > 0
                made.append(one)
                kind = draw(st.sampled_from(["", "", "twice", "raced", "title", "step", "again"]))
                if kind == "twice":
                    made.append(one)
                elif kind == "again":
                    made.append(one._replace(id=f"{one.id}x", start=one.start + AFTER))
                elif kind == "raced":
                    made.append(one._replace(id=f"{one.id}y", llm="c", start=one.start + AFTER))
                elif kind == "title":
                    title = TITLE.format(text)
                    made.append(request(clock + lasts + 0.1, title, lasts=1, **shared))
                elif kind == "step":
                    step = request(clock + lasts + 1, *said, text, *TOOLS, lasts=1, **shared)
                    made.append(step)
                clock += lasts + draw(st.floats(3, 90))
                if draw(st.integers(0, 9)) == 0:
                    made[-1] = made[-1]._replace(start=None, end=None)
            said += [text, "So."]
    return made, true


AFTER = timedelta(milliseconds=3)


@settings(max_examples=150, deadline=None)
@given(logs(), st.randoms(use_true_random=False))
def test_explicit_retrials_are_never_more_than_the_true_ones(made, rng: random.Random):
    requests, true = made
    rows, _ = found(*requests)
    assert len(again(rows)) <= true
    shuffled = rng.sample(requests, len(requests))
    assert found(*shuffled)[0] == rows, "the order of records in a file makes no difference"


def test_all_true_retrials_are_found_where_nothing_is_missing():
    rows, aside = found(
        *(request(60 * n, "Why?", id=str(n)) for n in range(3)),
        *(request(300 + 60 * n, "Why?", "So.", "How?", id=f"b{n}") for n in range(4)),
    )
    assert again(rows) == [1, 2, 4, 5, 6]
    assert not aside
