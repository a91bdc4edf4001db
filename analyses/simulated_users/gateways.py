"""Calls that a gateway sees of simulated users, before they are written in any format.

A user's request is one call; around it stand those that are no user's: an application's titles and
tags, embeddings, health checks, second steps of programs, second records, failures.
"""

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from simulated_users.users import REGENERATE, Asked, Simulated
from simulated_users.worlds import World

Message = dict[str, Any]

CHAT, EMBEDDING, CHECK, STEP, HELPER = "chat", "embedding", "check", "step", "helper"
SYSTEM = {"role": "system", "content": "You are a helpful assistant. Answer in short."}
TOOL = {"id": "call_1", "name": "look_up", "arguments": '{"page": 1}'}
FOUND = "Page 1 of 3: nothing unusual."
EMBEDDER = "embed-small"
# What applications ask after an answer, and how they name it.
TASKS = {
    "title_generation": (
        "### Task:\nGenerate a concise, 3-5 word title for this conversation.\n### Output:\nJSON "
        'format: {{ "title": "..." }}\n### Chat History:\n<chat_history>\nUSER: {}\nASSISTANT: {}\n'
        "</chat_history>"
    ),
    "tags_generation": (
        "### Task:\nGenerate 1-3 broad tags for the themes of the chat history.\n### Output:\nJSON "
        'format: {{ "tags": ["tag1"] }}\n### Chat History:\n<chat_history>\nUSER: {}\nASSISTANT: '
        "{}\n</chat_history>"
    ),
    "follow_up_generation": (
        "### Task:\nSuggest 3-5 relevant follow-up questions that the user might ask next.\n### "
        'Output:\nJSON format: {{ "follow_ups": ["..."] }}\n### Chat History:\n<chat_history>\n'
        "USER: {}\nASSISTANT: {}\n</chat_history>"
    ),
}


class Call(NamedTuple):
    """One call of an LLM, as a gateway sees it.

    Attributes:
        kind: ``chat``, ``embedding``, ``check``, ``step`` or ``helper``.
        id, trace, parent: hexadecimal digits; the parent is the call in which this one was made.
        session, user: names, or None where the record does not say.
        llm: name.
        start, end: seconds, or None where the record does not say.
        order: seconds, known in any case: when the record was written.
        messages: of role and content.
        answer: None where there is none, and for a call of a tool.
        failed: whether it failed.
        attempts: how often the gateway had tried before.
        task: what the application wants, where it says so.
        thumb, copied: what the user said of the answer.
        again: whether a gateway logged it by its second way.
    """

    kind: str
    id: str
    trace: str
    session: str | None
    user: str | None
    llm: str
    start: float | None
    end: float | None
    order: float
    messages: list[Message]
    answer: str | None
    parent: str | None = None
    failed: bool = False
    attempts: int = 0
    task: str | None = None
    thumb: int | None = None
    copied: bool | None = None
    again: bool = False

    @property
    def calls_tool(self) -> bool:
        return self.answer is None and not self.failed and self.kind == CHAT


def answer_to(one: Asked) -> str:
    """An answer that no other one equals."""
    return f"Here is what I found ({one.query}.{one.attempt}): " + "it depends. " * (1 + one.llm)


def with_history(session: list[Asked], stateless: bool) -> Iterator[tuple[Asked, list[Message]]]:
    """Each request of a session with the messages that it holds.

    An answer that was asked for once more takes the place of the one before; what is said again in
    words, the same or others, is another message.
    """
    history: list[Message] = []
    before: Asked | None = None
    for one in session:
        if before is not None and one.how != REGENERATE:
            history += [
                {"role": "user", "content": before.text},
                {"role": "assistant", "content": answer_to(before)},
            ]
        last = {"role": "user", "content": one.text}
        yield one, [last] if stateless else [*history, last]
        before = one


class _Gateway:
    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng

    def happens(self, name: str) -> bool:
        share = getattr(self.world.faults, name)
        return share > 0 and self.rng.random() < share

    def digits(self, bits: int = 64) -> str:
        return f"{self.rng.getrandbits(bits):0{bits // 4}x}"

    def call(self, one: Asked, messages: list[Message], **fields: Any) -> Call:
        found = {
            "kind": CHAT,
            "id": self.digits(),
            "trace": self.digits(128),
            "session": f"s-{one.session}",
            "user": f"user-{one.user}",
            "llm": self.world.llms[one.llm],
            "start": one.start,
            "end": one.end,
            "answer": answer_to(one),
            **fields,
        }
        return Call(order=found["end"], messages=[SYSTEM, *messages], **found)

    def around(self, one: Asked, messages: list[Message], before: float) -> Iterator[Call]:
        """The calls of one request of a user.

        Args:
            one: the request.
            messages: that it holds.
            before: seconds, when the answer before was there.
        """
        trace = self.digits(128)
        if self.happens("outages"):
            start = before + (one.start - before) * 0.4
            end = before + (one.start - before) * 0.7
            yield self.call(one, messages, start=start, end=end, answer=None, failed=True)
        if self.happens("embeddings"):
            start = one.start - 0.4
            said = messages[-1:]
            yield self.call(
                one,
                said,
                kind=EMBEDDING,
                trace=trace,
                start=start,
                end=start + 0.1,
                llm=EMBEDDER,
                answer=None,
            )
        yield from self.of_request(one, messages, trace)
        if self.happens("helpers"):
            yield from self.helpers(one, trace)

    def of_request(self, one: Asked, messages: list[Message], trace: str) -> Iterator[Call]:
        other = self.world.llms[self.rng.randrange(len(self.world.llms))]
        start, attempts = one.start, 0
        if self.happens("resent"):
            end = one.start + one.latency * 0.3
            fields = {"answer": None, "failed": True, "trace": trace, "llm": other}
            yield self.call(one, messages, start=start, end=end, **fields)
            start, attempts = one.start + one.latency * 0.35, 1
        if self.happens("raced"):
            own = [name for place, name in enumerate(self.world.llms) if place != one.llm]
            late = one._replace(latency=one.end - start + self.rng.uniform(0.05, 2.0))
            answer = f"Another answer ({one.query}.{one.attempt})."
            when = {"start": start, "end": start + late.latency}
            loser = self.call(one, messages, llm=self.rng.choice(own), answer=answer, **when)
            yield loser._replace(trace=trace)
        shown = {"thumb": one.thumb, "copied": one.copied or None}
        if self.happens("steps"):
            middle = start + (one.end - start) * 0.4
            asks = self.call(
                one, messages, trace=trace, start=start, end=middle, answer=None, attempts=attempts
            )
            yield asks
            messages = [
                *messages,
                {"role": "assistant", "content": None, "tool": TOOL},
                {"role": "tool", "content": FOUND, "tool": TOOL},
            ]
            yield self.call(one, messages, kind=STEP, trace=trace, start=middle + 0.05, **shown)
            return
        made = self.call(one, messages, trace=trace, start=start, attempts=attempts, **shown)
        yield made
        if self.happens("nested"):
            inner = made._replace(id=self.digits(), parent=made.id, thumb=None, copied=None)
            yield _inside(inner)
        if self.happens("logged_twice"):
            second = made._replace(id=self.digits(), trace=self.digits(128), again=True)
            yield _inside(second._replace(thumb=None, copied=None))

    def helpers(self, one: Asked, trace: str) -> Iterator[Call]:
        """An application asks for a title and tags once a session, and for follow-ups each time."""
        first = one.attempt == 1 and one.how != REGENERATE
        for place, (task, prompt) in enumerate(TASKS.items()):
            if place < 2 and not first:
                continue
            asked = {"role": "user", "content": prompt.format(one.text, answer_to(one))}
            start = one.end + 0.1 + 0.05 * place
            made = self.call(
                one,
                [asked],
                kind=HELPER,
                start=start,
                end=start + self.rng.uniform(0.5, 2.0),
                answer='{"title": "Of many things"}',
                task=task if self.world.marked else None,
            )
            yield made._replace(messages=[asked])

    def checks(self, number: int, start: float, end: float) -> Iterator[Call]:
        """Health checks of all LLMs, one after another at even times."""
        for place in range(number):
            at = start + (end - start) * place / number
            yield Call(
                CHECK,
                self.digits(),
                self.digits(128),
                None,
                None,
                self.world.llms[place % len(self.world.llms)],
                at,
                at + 0.4,
                at + 0.4,
                [{"role": "user", "content": "ping"}],
                "pong",
            )


def _inside(call: Call) -> Call:
    """The same a few milliseconds later, and ending before."""
    assert call.start is not None
    assert call.end is not None
    return call._replace(start=call.start + 0.004, end=call.end - 0.01, order=call.end - 0.01)


def calls_of(world: World, simulated: Simulated, seed: int) -> list[Call]:
    """All calls that a gateway sees, in the order of their ends.

    Args:
        world: its settings.
        simulated: what its users did.
        seed: decides what goes wrong.
    """
    rng = random.Random(f"gateway {seed}")
    gateway = _Gateway(world, rng)
    calls: list[Call] = []
    for session in simulated.sessions:
        before = session[0].start - 30.0
        for one, messages in with_history(session, world.stateless):
            calls += gateway.around(one, messages, before)
            before = one.end
    if world.faults.checks:
        times = [call.order for call in calls]
        number = round(world.faults.checks * len(simulated.asked))
        calls += gateway.checks(number, min(times), max(times))
    found = [_without(call, gateway) for call in calls]
    return sorted(found, key=lambda call: call.order)


def _without(call: Call, gateway: _Gateway) -> Call:
    """The call, where the gateway forgets to say whose it is, or when."""
    if gateway.happens("no_session"):
        call = call._replace(session=None)
    if gateway.happens("no_user"):
        call = call._replace(user=None)
    if gateway.happens("no_time"):
        call = call._replace(end=None, start=None if gateway.rng.random() < 0.5 else call.start)
    return call
