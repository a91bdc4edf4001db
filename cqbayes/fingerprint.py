"""What a policy or an environment is made of, in words that can be compared and kept in a file.

Two processes that build the same thing get the same words: arrays are known by a digest, functions
by their names and by what they close over. Of a user's own functions, which no version number
stands for, the code is looked at too, with the constants and functions of its module that it uses.
What a class of the user's own does is not.
"""

import dataclasses
import functools
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import jax
import numpy as np

MOST_DIFFERENCES = 3
MOST_SHOWN = 60  # characters of a value
_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic, np.dtype)
_CONSTANT = (*_PLAIN, jax.Array, np.ndarray, list, tuple, Mapping, set, frozenset)


def fingerprint(name: str, thing: Any) -> dict[str, str]:
    """Everything in a pytree with functions, by path.

    Arguments of ``Partial`` go by their names in the function, so that a path can be understood.

    Example:
        >>> from cqbayes.policies.explore import inverse_root
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
        for name in [*before, *(name for name in now if name not in before)]
        if before.get(name, "absent") != now.get(name, "absent")
    ]
    more = len(found) - MOST_DIFFERENCES
    rest = [f"and {more} more"] if more > 0 else []
    return "; ".join([*found[:MOST_DIFFERENCES], *rest])


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
    if isinstance(thing, list | tuple):
        return [(str(place), inside) for place, inside in enumerate(thing)]
    if isinstance(thing, set | frozenset):
        return [(str(place), inside) for place, inside in enumerate(sorted(thing, key=repr))]
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
    """What a function holds, and if it is the user's own, what it says."""
    function = inspect.unwrap(function) if callable(function) else function
    if not inspect.isfunction(function):
        return []
    return [*_held(function), *_said(function)]


def _held(function: FunctionType) -> list[tuple[str, Any]]:
    """What a function closes over, and its defaults."""
    named = inspect.getclosurevars(function).nonlocals
    defaults = function.__defaults__ or ()
    listed = [(f"default {place}", value) for place, value in enumerate(defaults)]
    return [*sorted(named.items()), *listed, *sorted((function.__kwdefaults__ or {}).items())]


def _said(function: FunctionType) -> list[tuple[str, Any]]:
    """A digest of a user's code, with the functions it calls, and the globals that they use."""
    codes: dict[str, str] = {}
    constants: dict[str, Any] = {}
    todo = [function]
    while todo:
        one = todo.pop()
        name = f"{one.__module__}.{one.__qualname__}"
        if name in codes or not _is_own(one):
            continue
        codes[name] = _words(one.__code__, one.__doc__)
        for used in sorted(_names(one.__code__) & one.__globals__.keys()):
            value = one.__globals__[used]
            helper = inspect.unwrap(value) if callable(value) else None
            if inspect.isfunction(helper):
                todo.append(helper)
                constants |= {f"{used}.{held}": inside for held, inside in _held(helper)}
            elif isinstance(value, _CONSTANT):
                constants[used] = value
    if not codes:
        return []
    digest = hashlib.sha256(repr(sorted(codes.items())).encode()).hexdigest()
    return [("code", digest[:16]), *sorted(constants.items())]


def _is_own(function: FunctionType) -> bool:
    """Whether no version of a package says what a function does."""
    package = (function.__module__ or "").partition(".")[0]
    installed = {"site-packages", "dist-packages"} & {*Path(function.__code__.co_filename).parts}
    return package != "cqbayes" and package not in sys.stdlib_module_names and not installed


def _words(code: CodeType, doc: str | None = None) -> str:
    """What code does, but for where it stands and what its docstring says."""
    consts = code.co_consts[1:] if doc is not None else code.co_consts
    return repr((code.co_code, [_constant(inside) for inside in consts], code.co_names))


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _words(value)
    if isinstance(value, frozenset):  # whose order changes from one process to the next
        return repr(sorted(map(repr, value)))
    return repr(value)


def _names(code: CodeType) -> set[str]:
    """Names that code and the functions in it look up."""
    inside = (_names(const) for const in code.co_consts if isinstance(const, CodeType))
    return {*code.co_names}.union(*inside)
