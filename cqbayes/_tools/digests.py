"""What a policy or an environment is made of, in words that can be compared and kept in a file.

Arrays are known by a digest, functions by their names and by what they close over. Of a user's own
functions, which no version number stands for, the text of their file is looked at too: whatever is
edited there makes another function. Other files that they use are not.
"""

import dataclasses
import functools
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import jax
import numpy as np

from cqbayes.errors import InputError

MOST_DIFFERENCES = 3
MOST_SHOWN = 60  # characters of a value
_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic, np.dtype)


def fingerprint(name: str, thing: Any) -> dict[str, str]:
    """Everything in a pytree with functions, by path.

    Arguments of ``Partial`` go by their names in the function, so that a path can be understood.

    Raises:
        InputError: for a user's own function whose source cannot be read.

    Example:
        >>> from cqbayes.policies.wrappers.explore import inverse_root
        >>> fingerprint("schedule", inverse_root(0.5))["schedule.c"]
        'float32 0.5'
    """
    return dict(_walk(name, thing, frozenset()))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first few entries that are not the same, in one line; empty where all are.

    Example:
        >>> differences({"rounds": 10, "key": 1}, {"rounds": 20, "key": 1})
        'rounds was 10, is 20'
    """
    found = [
        f"{name} was {_shown(before.get(name, 'absent'))}, is {_shown(now.get(name, 'absent'))}"
        for name in {**before, **now}
        if before.get(name, "absent") != now.get(name, "absent")
    ]
    more = len(found) - MOST_DIFFERENCES
    return "; ".join([*found[:MOST_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])])


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def _walk(path: str, thing: Any, around: frozenset[int]) -> Iterator[tuple[str, str]]:
    if isinstance(thing, jax.Array | np.ndarray):
        yield path, _array(thing)
    elif isinstance(thing, _PLAIN):
        yield path, repr(thing)
    else:
        yield path, _name(thing)
        if id(thing) not in around:  # functions may close over themselves
            for part, inside in _parts(thing):
                yield from _walk(f"{path}.{part}", inside, around | {id(thing)})


def _array(values: Any) -> str:
    if jax.dtypes.issubdtype(values.dtype, jax.dtypes.prng_key):
        values = jax.random.key_data(values)
    values = np.asarray(values)
    if values.ndim == 0:
        return f"{values.dtype} {values.item()}"
    digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
    return f"{values.dtype}{list(values.shape)} {digest[:16]}"


def _name(thing: Any) -> str:
    if isinstance(thing, functools.partial):
        return _name(thing.func)
    named = inspect.unwrap(thing) if callable(thing) else thing
    named = named if hasattr(named, "__qualname__") else type(named)
    return f"{named.__module__}.{named.__qualname__}"


def _parts(thing: Any) -> list[tuple[str, Any]]:
    """What is directly inside, by name."""
    if isinstance(thing, functools.partial):
        # Twice wrapped, the inner one's arguments come first.
        inner = _parts(thing.func) if isinstance(thing.func, functools.partial) else []
        return inner + _arguments(thing) + _captured(thing.func)
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):
        return list(zip(getattr(thing, "_fields"), thing, strict=True))  # noqa: B009
    if isinstance(thing, Mapping):
        return [(str(name), thing[name]) for name in sorted(thing, key=str)]
    if isinstance(thing, list | tuple | set | frozenset):
        items = thing if isinstance(thing, list | tuple) else sorted(thing, key=repr)
        return [(str(place), inside) for place, inside in enumerate(items)]
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return [(field.name, getattr(thing, field.name)) for field in dataclasses.fields(thing)]
    if inspect.ismethod(thing):
        return [("self", thing.__self__), *_captured(thing.__func__)]
    if callable(thing):
        return _captured(thing)
    leaves, _ = jax.tree_util.tree_flatten_with_path(thing)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves if leaf is not thing]


def _arguments(thing: functools.partial) -> list[tuple[str, Any]]:
    try:
        names = list(inspect.signature(thing.func).parameters)
    except (TypeError, ValueError):  # a function that is not Python's
        names = []
    names += [str(place) for place in range(len(names), len(thing.args))]
    return [*zip(names, thing.args, strict=False), *sorted(thing.keywords.items())]


def _captured(function: Any) -> list[tuple[str, Any]]:
    """What a function closes over, its defaults, and where it stands if it is the user's own."""
    function = inspect.unwrap(function) if callable(function) else function
    if not inspect.isfunction(function):
        return []
    closed = sorted(inspect.getclosurevars(function).nonlocals.items())
    listed = [(f"default {i}", value) for i, value in enumerate(function.__defaults__ or ())]
    named = sorted((function.__kwdefaults__ or {}).items())
    return [*closed, *listed, *named, *([("code", _code(function))] if _is_own(function) else [])]


def _is_own(function: FunctionType) -> bool:
    """Whether no version of a package says what a function does."""
    package = (function.__module__ or "").partition(".")[0]
    installed = {"site-packages", "dist-packages"} & {*Path(function.__code__.co_filename).parts}
    return package != "cqbayes" and package not in sys.stdlib_module_names and not installed


def _code(function: FunctionType) -> str:
    """A digest of the text of a function's file, and of its place there."""
    try:
        text, _ = inspect.findsource(function)
    except (OSError, TypeError):
        raise InputError(
            f"checkpoint: expected functions whose source can be read, {_name(function)} has none; "
            "write it in a file"
        ) from None
    # Of two functions in one file, and even in one line, the place alone tells which it is.
    place = list(function.__code__.co_positions())
    return hashlib.sha256(repr((text, place)).encode()).hexdigest()[:16]
