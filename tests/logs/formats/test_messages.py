"""Messages: one conversation in all shapes gives one set of facts; what is none is set aside."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_records import ANTHROPIC_STEP, ANTHROPIC_TURN, TOOL_STEP, assistant, nested, said, user

from cqbayes.logs.formats import importer, messages
from cqbayes.logs.formats.digests import (
    chain,
    digest,
)
from cqbayes.logs.formats.exchanges import (
    Answer,
    Asked,
    answer_of,
    asked_of,
    conversation_requests,
)
from cqbayes.logs.formats.importer import MOST_BYTES, MOST_MESSAGES, Request, SetAside
from cqbayes.logs.formats.messages import read_messages

SYSTEM = {"role": "system", "content": "Be kind."}
TALK = [SYSTEM, *said("Why?", "So.", "How come?")]
WHY, SO, HOW = digest("Why?"), digest("So."), digest("How come?")
FACTS = Asked(
    turn=1,
    text="How come?",
    message=HOW,
    before=WHY,
    opening=WHY,
    asked=chain(None, WHY),
    history=chain(chain(None, "user", WHY), "assistant", SO),
    system=chain(None, digest("Be kind.")),
    after=0,
    tools=False,
)
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGkhIQ=="}}
REASONS = {
    value
    for module in (messages, importer)
    for key, value in vars(module).items()
    if key.isupper() and isinstance(value, str)
}


def _asked(value: Any) -> Asked:
    return asked_of(read_messages(value))


def _asked_or_reason(value: Any) -> Asked | str:
    try:
        return _asked(value)
    except SetAside as reason:
        return str(reason)


# One conversation in all shapes


def _roles(user_role: str, model_role: str, role: str, content: str, make: Any = str) -> list[Any]:
    """The talk without its system's message, in other words for all that is around the texts."""
    spoken = (user_role, model_role, user_role)
    return [
        {role: who, content: make(one["content"])}
        for who, one in zip(spoken, TALK[1:], strict=True)
    ]


def _langchain(kind: str, content: str) -> dict[str, Any]:
    return {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "schema", "messages", kind],
        "kwargs": {"content": content},
    }


def _text(content: str) -> list[dict[str, str]]:
    return [{"text": content}]


KINDS = ("SystemMessage", "HumanMessage", "AIMessage", "HumanMessage")
GEMINI = {
    "model": "gemini",
    "config": {"system_instruction": "Be kind."},
    "contents": _roles("user", "model", "role", "parts", _text),
}
RENDERED = "system: Be kind.\nuser: Why?\nassistant: So.\nuser: How come?"
SHAPES: dict[str, Any] = {
    "an array": TALK,
    "JSON in a text": json.dumps(TALK),
    "JSON in JSON in a text": json.dumps(json.dumps(TALK)),
    "an object": {"messages": TALK, "tools": [], "model": "gpt-4o"},
    "an object in a text": json.dumps({"messages": TALK}),
    "a text in an object": {"messages": json.dumps(TALK)},
    "an object with what is in it already": {"messages": TALK, "history": TALK[:-1]},
    "arguments of a call": {"args": [], "kwargs": {"messages": TALK}},
    "an array in an array": [TALK],
    "roles in capitals": [{**one, "role": one["role"].upper()} for one in TALK],
    "roles of an enumeration": [{**one, "role": f"MessageRole.{one['role']}"} for one in TALK],
    "a developer": [{**SYSTEM, "role": "developer"}, *TALK[1:]],
    "parts": [{**one, "content": [{"type": "text", "text": one["content"]}]} for one in TALK],
    "parts in a text": [
        {**one, "content": json.dumps([{"type": "text", "text": one["content"]}])} for one in TALK
    ],
    "responses": {
        "instructions": "Be kind.",
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "Why?"}],
            },
            {"type": "reasoning", "summary": []},
            {"role": "assistant", "content": [{"type": "output_text", "text": "So."}]},
            {"role": "user", "content": "How come?"},
        ],
    },
    "Anthropic": {"system": [{"type": "text", "text": "Be kind."}], "messages": TALK[1:]},
    "Bedrock": {
        "system": [{"text": "Be kind."}],
        "messages": _roles("user", "assistant", "role", "content", _text),
    },
    "Gemini": GEMINI,
    "Gemini in a text": json.dumps(GEMINI),
    "Gemini over the wire": {
        "systemInstruction": {"parts": [{"text": "Be kind."}]},
        "contents": [
            {"parts": [{"text": "Why?"}]},  # whose role is the user's unless it says another
            *GEMINI["contents"][1:],
        ],
    },
    "OpenTelemetry": [
        {"role": one["role"], "parts": [{"type": "text", "content": one["content"]}]}
        for one in TALK
    ],
    "LangChain": [
        [_langchain(kind, one["content"]) for kind, one in zip(KINDS, TALK, strict=True)]
    ],
    "LangChain by type": [
        {"type": kind.removesuffix("Message").lower(), "data": {"content": one["content"]}}
        for kind, one in zip(KINDS, TALK, strict=True)
    ],
    "LangChain by pairs": [
        ["system", "Be kind."],
        ["human", "Why?"],
        ["ai", "So."],
        ["human", "How come?"],
    ],
    "LangChain with a history": {
        "chat_history": TALK[:-1],
        "input": "How come?",
    },
    "LlamaIndex": [
        {"role": one["role"], "blocks": [{"block_type": "text", "text": one["content"]}]}
        for one in TALK
    ],
    "ShareGPT": [
        {"from": "system", "value": "Be kind."},
        *_roles("human", "gpt", "from", "value"),
    ],
    "Cohere": [
        {"role": "SYSTEM", "message": "Be kind."},
        *_roles("USER", "CHATBOT", "role", "message"),
    ],
    "ChatGPT": [
        {
            "author": {"role": one["role"]},
            "content": {"content_type": "text", "parts": [one["content"]]},
        }
        for one in TALK
    ],
    "roles written out": RENDERED,
    "roles written out, in capitals": "\n\n"
    + RENDERED.replace("system", "System").replace("user", "Human").replace("assistant", "AI"),
    "a prompt with roles": {"prompt": RENDERED.replace("\n", "\n\n") + "\nassistant:"},
    "a template": "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in TALK)
    + "<|im_start|>assistant\n",
    "another template": "<|begin_of_text|>"
    + "".join(
        f"<|start_header_id|>{m['role']}<|end_header_id|>\n\n{m['content']}<|eot_id|>" for m in TALK
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_one_conversation_in_all_shapes(shape):
    assert _asked(SHAPES[shape]) == FACTS


@pytest.mark.parametrize(
    "value",
    [
        "Why?",
        '"Why?"',
        {"prompt": "Why?"},
        {"prompt": [{"type": "text", "text": "Why?"}]},
        {"input": ["Why?"]},
        {"contents": "Why?"},
        {"role": "user", "content": "Why?"},
        [{"type": "text", "text": "Why?"}],
        {"prompt": [{"role": "user", "content": "Why?"}], "messages": []},
        [["Why?"]],
        {"input": "Why?", "system": 7, "prompt": ""},
    ],
)
def test_a_single_question(value):
    found = _asked(value)
    assert (found.turn, found.text, found.message, found.asked) == (0, "Why?", WHY, None)
    assert (found.before, found.opening, found.history, found.system) == (None, WHY, None, None)


# What a user pasted is the user's; what is not recognised is not


@pytest.mark.parametrize(
    "words",
    [
        '{"a": 1}',
        '[{"a": 1}]',
        '[{"type": "invoice", "text": "10 EUR"}]',
        '{"role": "user", "content": "Why?"}',
        "null",
        "User: hello\nAssistant: hi",
        "[see here](there)",
        "abc" * 200,
        "[{" + "[" * 100_000,
        "redacted text",
        "(What was hidden here?) And why?",
        "[unhidden]",
        "hidden",
    ],
)
def test_words_in_a_message_are_the_users(words):
    assert _asked([user(words)]).text == words
    assert _asked(json.dumps([user(words)])).text == words


@pytest.mark.parametrize(
    "words",
    [
        '{"a": 1} What is wrong with this?',
        "[see here](there)",
        "{braces}",
        '"Why?" he asked',
        "A note\nuser: not me",
    ],
)
def test_words_without_a_message_around_them(words):
    assert _asked(words).text == words


CUT = json.dumps(TALK)[:50]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, messages.NO_CONTENT),
        ("", messages.NO_CONTENT),
        (" \n", messages.NO_CONTENT),
        ([], messages.NO_CONTENT),
        ({}, messages.NO_CONTENT),
        ("{}", messages.NO_CONTENT),
        ("[]", messages.NO_CONTENT),
        ("null", messages.NO_CONTENT),
        ("None", messages.NO_CONTENT),
        ({"messages": []}, messages.NO_CONTENT),
        ({"messages": "[]", "model": "x"}, messages.NO_CONTENT),
        ("default-message-value", messages.NO_CONTENT),
        ([user("default-message-value")], messages.NO_CONTENT),
        ([user("redacted-by-litellm")], messages.NO_CONTENT),
        ([user("[REDACTED]")], messages.NO_CONTENT),
        ([user([{"type": "text", "text": "__REDACTED__"}])], messages.NO_CONTENT),
        ([user(None)], messages.NO_CONTENT),
        ([user("{}")], messages.NO_CONTENT),
        ([user("<elided>")], messages.NO_CONTENT),
        ([user("[Scrubbed due to 'password']")], messages.NO_CONTENT),
        ([user("***")], messages.NO_CONTENT),
        ([*said("Why?", "So."), user("")], messages.NO_CONTENT),
        ('{"a": 1}', messages.UNKNOWN_JSON),
        ({"a": 1}, messages.UNKNOWN_JSON),
        ([user("[REDACTED BY THE SDK]")], messages.NO_CONTENT),
        ([user("redacted by admin team")], messages.NO_CONTENT),
        ([user("<fully masked due to failed mask function>")], messages.NO_CONTENT),
        ([user("[content redacted]")], messages.NO_CONTENT),
        ([user("[REDACTED: PII]")], messages.NO_CONTENT),
        ([user("*** MASKED ***")], messages.NO_CONTENT),
        ([user("[Content not recorded]")], messages.NO_CONTENT),
        ({"input": {"question": "Why?"}}, messages.UNKNOWN_JSON),
        ('[{"a": 1}]', messages.UNKNOWN_JSON),
        ([{"content": "Why?"}], messages.UNKNOWN_JSON),
        ("[1, 2, 3]", messages.NO_MESSAGES),
        ({"prompt": [9906, 1917]}, messages.NO_MESSAGES),
        ([user("Why?"), {"type": "event"}], messages.NO_MESSAGES),
        ([user("Why?"), 7], messages.NO_MESSAGES),
        ([user(7)], messages.NO_MESSAGES),
        ([user([7])], messages.NO_MESSAGES),
        ([user([{"type": "text"}])], messages.NO_MESSAGES),
        (7, messages.NO_MESSAGES),
        ([TALK, TALK], messages.NO_MESSAGES),
        (CUT, messages.NO_JSON),
        ("[{'role': 'user', 'content': 'Why?'}]", messages.NO_JSON),
        ("\n".join(json.dumps(one) for one in TALK), messages.NO_JSON),
        ("[" * 100_000, messages.NO_JSON),
        ([SYSTEM], messages.NO_USER),
        ([SYSTEM, assistant("So.")], messages.NO_USER),
        ("system: Be kind.", messages.NO_USER),
        ([user("\ud800")], importer.NOT_UTF8),
        ([user("x")] * (MOST_MESSAGES + 1), importer.LONG_RECORD),
        ([user("ü" * (MOST_BYTES // 2 + 1))], importer.LONG_CELL),
    ],
)
def test_what_holds_no_question(value, reason):
    assert _asked_or_reason(value) == reason


def test_objects_in_objects_end_somewhere():
    value: Any = TALK
    for _ in range(500):
        value = {"messages": value}
    assert _asked_or_reason(value) == messages.NO_MESSAGES
    deep: Any = {"type": "thing"}
    for _ in range(5000):
        deep = {"type": "thing", "inside": deep}
    assert _asked_or_reason([user([deep])]) == messages.NO_MESSAGES


@pytest.mark.parametrize("name", ["tool" * 100_000, "call" * 100_000, "x." * 100_000])
def test_long_names_cost_no_time(name):
    parts = [{name: 1}, {"type": name}]
    assert _asked([user("Why?"), {"role": name, "content": parts}]).tools


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("role", "content", "type", "messages", "parts", "text", "input", "x")),
            inner | st.sampled_from(("user", "text", "tool_result", "assistant")),
        )
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(ANYTHING)
def test_anything_is_read_or_set_aside(value):
    answer_of(value)
    for one in (value, json.dumps(value), [{"role": "user", "content": value}]):
        found = _asked_or_reason(one)
        assert found in REASONS if isinstance(found, str) else found.message or found.tools


# What is no text


def test_pictures_have_digests_and_no_text():
    one, other = [PICTURE], [{**PICTURE, "image_url": {"url": "https://example.com/2.png"}}]
    alone, both = _asked([user(one)]), _asked([user([{"type": "text", "text": "A?"}, *one])])
    assert (alone.text, both.text) == (None, "A?")
    assert len({alone.message, both.message, _asked([user("A?")]).message}) == 3
    assert _asked([user(one), assistant("No."), user(other)]).before == alone.message
    assert _asked([user(one), assistant("No."), user(other)]).message != alone.message


@pytest.mark.parametrize(
    "same",
    [
        [{**PICTURE, "cache_control": {"type": "ephemeral"}}],
        [{**PICTURE, "text": None, "image_url": {**PICTURE["image_url"], "detail": None}}],
        json.dumps([PICTURE]),
        [{"type": "text", "text": ""}, PICTURE],
    ],
)
def test_the_same_picture_once_more(same):
    assert _asked([user(same)]) == _asked([user([PICTURE])])


def test_white_space_and_parts_do_not_make_another_message():
    one = _asked([user("A  question\n")])
    assert one.text == "A  question\n"
    assert one.message == _asked([user([{"type": "text", "text": "A question"}])]).message


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("data:image/png;base64,aGkhIQ==", None),
        ("data:image/svg+xml;utf8,<svg></svg>", None),
        ("aB3/" * 100, None),
        ("\n".join(["aB3/" * 19] * 5 + ["aB3="]), None),
        ("![a](data:image/png;base64,aGkhIQ==) What is this?", "![a]() What is this?"),
        ([{"type": "text", "text": "data:image/png;base64,aGkhIQ=="}], None),
        ("@@@langfuseMedia:type=image/png|id=1|source=base64@@@", None),
        ([{"inline_data": {"mime_type": "image/png", "data": "aGkhIQ=="}}], None),
        ([{"type": "input_audio", "input_audio": {"data": "aGkhIQ=="}}, "Hi"], "Hi"),
    ],
)
def test_data_is_no_text(content, text):
    found = _asked([user(content)])
    assert found.text == text
    assert found.message not in (None, digest(text))


def test_what_stands_beside_a_content():
    pictures = [
        _asked([user("What is this?", images=[image])]) for image in ("aGk=", "aGk=", "aGs=")
    ]
    assert pictures[0] == pictures[1]
    assert pictures[0].message not in (pictures[2].message, digest("What is this?"))
    asked = {"prompt": "What is this?", "images": ["aGk="], "model": "llava"}
    assert _asked(asked) == pictures[0]


@pytest.mark.parametrize(
    "picture",
    [
        lambda name: {"attachments": [{"id": name}]},
        lambda name: {"content": ["A?", {"type": "image", "id": name}]},
        lambda name: {"content": ["A?", {"type": "file", "file": {"file_id": name}}]},
        *(
            lambda name, key=key: {key: name}
            for key in ("image", "image_url", "image_urls", "file", "file_ids", "documents",
                        "media", "video")
        ),
    ],
)  # fmt: skip
def test_another_picture_is_another_message(picture):
    one, same, other = (
        _asked([{"role": "user", "content": "A?", **picture(name)}]) for name in "aab"
    )
    assert one == same
    assert one.message != other.message
    assert one.text == "A?"


# Programs


RESULTS: list[Any] = [
    {"role": "tool", "tool_call_id": "1", "content": "42"},
    {"role": "function", "name": "f", "content": "42"},
    {"role": "observation", "content": "42"},
    {"role": "TOOL", "content": "42"},
    {"type": "function_call_output", "call_id": "1", "output": "42"},
    {"type": "tool", "content": "42"},
    _langchain("ToolMessage", "42"),
    user([{"type": "tool_result", "tool_use_id": "1", "content": "42"}]),
    user([{"type": "tool-result", "toolCallId": "1"}, {"type": "text", "text": " "}]),
    user([{"functionResponse": {"name": "f", "response": {}}}]),
    user([{"toolResult": {"toolUseId": "1", "content": [{"text": "42"}]}}]),
    user(json.dumps([{"type": "tool_result", "tool_use_id": "1", "content": "42"}])),
    {"role": "user", "parts": [{"type": "tool_call_response", "id": "1", "response": "42"}]},
    user(None, tool_call_id="1"),
]
CALLS: list[Any] = [
    assistant(None, tool_calls=[{"id": "1", "type": "function"}]),
    assistant([{"type": "tool_use", "id": "1", "name": "f"}]),
    assistant("", function_call={"name": "f"}),
    {"type": "function_call", "call_id": "1", "name": "f"},
    {"role": "model", "parts": [{"functionCall": {"name": "f"}}]},
    assistant([{"type": "text", "text": "Let me see."}, {"type": "tool-call", "toolCallId": "1"}]),
]


@pytest.mark.parametrize("result", RESULTS)
def test_results_of_tools_under_any_name(result):
    found = _asked([*TALK, CALLS[0], result])
    assert found == FACTS._replace(after=2, tools=True)
    alone = _asked([SYSTEM, result])
    assert (alone.message, alone.turn, alone.after, alone.tools) == (None, None, 1, True)


@pytest.mark.parametrize("call", CALLS)
def test_calls_of_tools_in_any_shape(call):
    found = _asked([*TALK, call])
    assert (found.after, found.tools, found.message) == (1, False, HOW)


@pytest.mark.parametrize(
    ("array", "after", "tools"),
    [
        (TOOL_STEP, 2, True),
        (ANTHROPIC_STEP, 2, True),
        (ANTHROPIC_TURN, 0, False),
        ([*TALK, assistant("Step 1.")], 1, False),
        ([*TALK, assistant("Step 1."), assistant("Step 2.")], 2, False),
        ([*TALK, SYSTEM], 0, False),  # which applications add to the user's words
        ([*TALK, {"role": "model", "parts": [{"text": "Hm.", "thought": True}]}], 0, False),
        ([*TALK, {"role": "model", "parts": [{"text": "So.", "thought": False}]}], 1, False),
        ([*TALK, assistant("")], 0, False),  # the place where the answer will stand
    ],
)
def test_what_comes_after_the_users_last_message(array, after, tools):
    found = _asked(array)
    assert (found.after, found.tools) == (after, tools)


def test_a_question_beside_results_is_the_users():
    found = _asked(ANTHROPIC_TURN)
    assert (found.turn, found.text, found.before) == (
        1,
        "And in Rome?",
        digest("Weather in Paris?"),
    )


# What links requests


def test_a_request_goes_on_from_another():
    words = ("Why?", "So.", "How?", "Thus.", "When?")
    asked = [_asked(said(*words[: 2 * i + 1])) for i in range(3)]
    for before, now, answer in zip(asked, asked[1:], words[1::2], strict=False):
        assert now.asked == chain(before.asked, before.message)
        question = chain(before.history, "user", before.message)
        assert now.history == chain(question, "assistant", answer_of(answer).digest)
        assert now.before == before.message
    again = _asked(said("Why?", "So.", "Why?"))
    assert (again.message, again.asked) != (asked[0].message, asked[0].asked)
    assert asked[1].asked != _asked(said("Why not?", "So.", "How?")).asked


def test_steps_of_a_program_leave_no_trace_in_the_history():
    end = [assistant("Sunny."), user("Thanks")]
    assert _asked([*TOOL_STEP, *end]).history == _asked([TOOL_STEP[0], *end]).history


def test_digests_are_of_values_and_of_no_others():
    values = [
        ("a", "b"),
        ("ab",),
        ("a", None, "b"),
        ("a,b",),
        (["a", "b"],),
        ('["a", "b"]',),
        (1,),
        ("1",),
    ]
    assert len({digest(*one) for one in values}) == len(values)


def test_only_the_last_message_is_bounded():
    long = "ü" * MOST_BYTES
    assert _asked([user(long), assistant(long), user("Why?")]).text == "Why?"


# Answers


@pytest.mark.parametrize(
    "value",
    [
        "So.",
        '"So."',
        assistant("So."),
        json.dumps(assistant("So.")),
        [assistant("So.")],
        [{"type": "text", "text": "So."}],
        {"role": "model", "parts": [{"text": "So."}]},
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "So."}],
            "finish_reason": "stop",
        },
        {"choices": [{"message": assistant("So.")}, {"message": assistant("Another one.")}]},
        json.dumps({"choices": [{"message": assistant("So.")}]}),
        {"choices": [{"text": "So."}]},
        {"content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "So."}]},
        {"candidates": [{"content": {"role": "model", "parts": [{"text": "So."}]}}]},
        {"output": {"message": assistant([{"text": "So."}])}},
        {"message": assistant("So."), "done": True},
        {
            "output": [
                {"type": "reasoning"},
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "So."}],
                },
            ]
        },
        {"generations": [[{"text": "So.", "type": "ChatGeneration"}]]},
        {"messages": [*said("Why?", "So.")]},
        {"text": "So.", "finishReason": "stop", "toolCalls": []},
        {"response": "So."},
        assistant(None, refusal="So."),
    ],
)
def test_one_answer_in_all_shapes(value):
    assert answer_of(value) == Answer(3, SO)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, Answer()),
        ({}, Answer()),
        ("{}", Answer()),
        ([], Answer()),
        ({"data": [1]}, Answer()),
        ({"choices": []}, Answer()),
        ({"choices": [{"message": {"content": 7}}]}, Answer()),
        ("redacted-by-litellm", Answer()),
        ({"choices": [{"message": assistant("redacted-by-litellm")}]}, Answer()),
        (nested(300), Answer()),
        (assistant(None, tool_calls=[{"id": "1"}]), Answer(0, None)),
        ({"choices": [{"message": assistant("", tool_calls=[{"id": "1"}])}]}, Answer(0, None)),
        ('{"a": 1}', Answer(8, digest('{"a": 1}'))),
        ([assistant("One."), assistant("Two.")], Answer(8, digest("One. Two."))),
    ],
)
def test_other_answers(value, expected):
    assert answer_of(value) == expected


# Whole conversations


def test_a_conversation_is_as_its_requests_were():
    found = conversation_requests(
        read_messages([*TALK, assistant("Thus."), user("When?")]), session="s"
    )
    second = Request(session="s", place=1, response_chars=5, answer=digest("Thus."))
    assert found[1] == second._replace(**FACTS._asdict())
    assert found[2].history == chain(
        chain(FACTS.history, "user", HOW), "assistant", digest("Thus.")
    )
    assert [(one.text, one.response_chars) for one in found] == [
        ("Why?", 3),
        ("How come?", 5),
        ("When?", None),
    ]


def test_steps_within_a_conversation_are_part_of_its_answer():
    found = conversation_requests(
        read_messages([*TOOL_STEP, assistant("Sunny."), user(""), assistant("What?")])
    )
    assert [(one.text, one.response_chars, one.answer) for one in found] == [
        ("Weather in Paris?", 6, digest("Sunny.")),
        (None, 5, digest("What?")),
    ]
    assert [one.message for one in found] == [digest("Weather in Paris?"), None]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        ([SYSTEM, assistant("So.")], messages.NO_USER),
        ([user(""), assistant("So.")], messages.NO_CONTENT),
        ([user("[REDACTED]"), assistant("[REDACTED]")], messages.NO_CONTENT),
    ],
)
def test_conversations_without_words(array, reason):
    with pytest.raises(SetAside, match=f"^{reason}$"):
        conversation_requests(read_messages(array))
