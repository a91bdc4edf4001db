"""Digests that stand for messages and conversations, whose texts are not kept."""

import hashlib
import json
from typing import Any


def digest(*parts: Any) -> str:
    """32 hexadecimal digits that stand for values of JSON, and for no others.

    Example:
        >>> digest("a", "b") == digest("ab"), digest("a", None) == digest("a")
        (False, False)
    """
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        is_text = isinstance(part, str)
        written = part if is_text else json.dumps(part, default=str)
        # JSON can hold unpaired surrogates.
        data = written.encode("utf-8", "surrogatepass")
        found.update(b"%c%d:" % (b"t" if is_text else b"j", len(data)))
        found.update(data)
    return found.hexdigest()


def chain(before: str | None, *parts: Any) -> str:
    """The digest of a sequence that is longer by one element than the sequence before."""
    return digest(before, *parts)
