"""Requests that an application or a gateway makes for itself: they are no turns of users.

Chat applications ask an LLM for a title, for tags or for follow-up questions, often in the user's
own session; gateways ask whether an LLM is alive. Marks of a record say so, or the text does: it
asks for a title or the like *of a conversation* and holds a transcript, or the words of an earlier
message, or comes too soon after an answer for a person to have read it.
"""

import re
from collections.abc import Iterable

HEALTH = re.compile(r"health[-_ ]?(check|probe)", re.IGNORECASE)
_TASK = re.compile(
    r"(title|tags?|emoji|follow[-_ ]?ups?|autocomplete|query)[-_ ]?(generation|generator)"
    r"|generate[-_ ]?(a[-_ ]?)?(chat[-_ ]?|conversation[-_ ]?)?(title|tags|follow)"
    r"|^(title|chat[-_ ]title|tagging|follow[-_ ]?ups?)$",
    re.IGNORECASE,
)
_WANTED = re.compile(
    r"\b(titles?|name|headline|label|caption|summar\w+|tags?|emoji|follow-?ups?|topics?|keywords?"
    r"|categor\w+|search quer(y|ies)|suggest\w*)\b",
    re.IGNORECASE,
)
_OF = re.compile(
    r"\b(chat|conversation|dialog(ue)?|discussion|thread|messages?|history|exchange|user)\b",
    re.IGNORECASE,
)
# A line that begins with who speaks, as in a transcript, or a tag that holds one.
_TRANSCRIPT = re.compile(
    r"^\W{0,6}(user|human|customer|client|q)\W{0,3}[:>]\s*\S|<(chat_history|conversation|messages)>",
    re.IGNORECASE | re.MULTILINE,
)
SHORTEST_QUOTE = 12  # characters of an earlier message; shorter ones occur by chance
MOST_CHARS = 400  # at either end of a text, where instructions stand


def is_health_check(marks: Iterable[str]) -> bool:
    """Whether marks of a request say that a gateway sent it to see whether an LLM is alive.

    Example:
        >>> is_health_check(["litellm-internal-health-check"])
        True
    """
    return any(HEALTH.search(mark) for mark in marks)


def is_marked_as_task(marks: Iterable[str]) -> bool:
    """Whether marks of a request say that the application asks for a title, tags or the like.

    Example:
        >>> is_marked_as_task(["chat", "title_generation"]), is_marked_as_task(["chat"])
        (True, False)
    """
    return any(_TASK.search(mark) for mark in marks)


def is_of_application(text: str, earlier: Iterable[str], soon: bool) -> bool:
    """Whether a first message asks for a title or the like of a conversation.

    Args:
        text: the message.
        earlier: messages of the same session before it.
        soon: whether it comes during an answer, or too soon after one for a person.

    Example:
        >>> asked = "Name this chat in five words."
        >>> is_of_application(asked, [], soon=False), is_of_application(asked, [], soon=True)
        (False, True)
        >>> is_of_application(asked + "\\nUser: How do I sort?", [], soon=False)
        True
        >>> is_of_application("How do I sort a list? Please name a function.",
        ...                   ["How do I sort a list?"], soon=False)
        False
    """
    ends = text[:MOST_CHARS] + "\n" + text[-MOST_CHARS:]
    if not (_WANTED.search(ends) and _OF.search(ends)):
        return False
    if soon or _TRANSCRIPT.search(text):
        return True
    return any(len(said) >= SHORTEST_QUOTE and said != text and said in text for said in earlier)
