"""What models need of new queries besides contexts: whose they are, when, and what LLMs are like.

``cqbayes fit`` writes beside a posterior what its numbers mean, the users in order, when blocks of
time began, the names of attributes; ``cqbayes predict`` finds by it the numbers of new queries.

Users are written as digests of their identifiers unless something else is asked for: BLAKE2b, with
a random key that stands in the same file. Whoever has an identifier finds its digest; whoever has
the file alone does not see identifiers, but can try those that can be guessed.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import pyarrow as pa

from cqbayes._tools.files import write_bytes
from cqbayes._tools.tables import refuse
from cqbayes.errors import InputError
from cqbayes.logs.choices import block_numbers, first_block
from cqbayes.logs.read import Log
from cqbayes.logs.table.validation import column_numbers, is_null

Users = Literal["hash", "keep", "drop"]
SALT_BYTES = 32
DIGEST_BYTES = 16
COLUMNS = {"user": "user_id", "time": "timestamp", "attempt": "attempt"}  # of a model, of a file


class Attributes(NamedTuple):
    """Numbers for each LLM, by its name, and what they are called."""

    names: tuple[str, ...]
    of: Mapping[str, Sequence[float]]


def read_attributes(path: str | Path) -> Attributes:
    """Attributes of LLMs from a CSV: a column ``llm``, and one for each attribute.

    Raises:
        InputError: for another file, an LLM that is there twice, and what is no finite number.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "attributes.csv"
        ...     _ = path.write_text("llm,price\\na,0.5\\nb,2\\n")
        ...     read_attributes(path)
        Attributes(names=('price',), of={'a': [0.5], 'b': [2.0]})
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except OSError as error:
        reason = error.strerror or "not readable"
        raise InputError(f"{path}: expected a readable file, got: {reason}") from None
    except ValueError:  # of its parser, or not UTF-8
        table = pd.DataFrame()
    if "llm" not in table or table.shape[1] < 2:
        raise InputError(f"{path}: expected a CSV with columns llm and attributes, got others")
    if table["llm"].duplicated().any():
        raise InputError(f"{path}: expected each LLM once, got one twice")
    rest = table.drop(columns="llm")
    try:
        values = rest.to_numpy().astype(np.float64)
    except ValueError:
        values = np.full(rest.shape, np.nan)
    if not np.isfinite(values).all():
        raise InputError(f"{path}: expected finite numbers in all columns but llm, got others")
    of = dict(zip(table["llm"], values.tolist(), strict=True))
    return Attributes(tuple(map(str, rest.columns)), of)


def codes_path(posterior: Path) -> Path:
    """Where it is written what the numbers of a posterior's users and times mean."""
    return posterior.with_name(posterior.name + ".codes.json")


def save_codes(
    posterior: Path,
    log: Log,
    needs: Sequence[str],
    attributes: Attributes | None = None,
    users: Users = "hash",
) -> Path | None:
    """Writes beside a posterior what the numbers mean that its model needs; None for none.

    Args:
        posterior: beside which the file is written.
        log: what was fitted.
        needs: of the model.
        attributes: of the LLMs, with which it was fitted.
        users: how the users' identifiers are written: as they are (``keep``), as digests
            (``hash``), or not at all (``drop``).
    """
    check_users(users)
    path = codes_path(posterior)
    said: dict[str, Any] = {}
    if "user" in needs and log.users is not None:
        said |= _said_of_users(log.users, users)
    if "time" in needs and log.unit is not None:
        said |= {"unit": log.unit, "times": [begin.isoformat() for begin in log.times]}
    if "attributes" in needs and attributes is not None:
        said["attributes"] = attributes.names
    if not said:
        path.unlink(missing_ok=True)  # of an earlier log
        return None
    write_bytes((json.dumps(said) + "\n").encode(), path)
    return path


def check_users(users: str) -> None:
    """Refuses a way to write users that is none.

    Raises:
        InputError: for anything but ``hash``, ``keep`` and ``drop``.
    """
    if users not in get_args(Users):
        raise InputError(f"users: expected one of {', '.join(get_args(Users))}, got {users!r}")


def _said_of_users(names: Sequence[str], how: Users) -> dict[str, Any]:
    if how == "drop":
        return {"users": None, "num_users": len(names)}
    if how == "keep":
        return {"users": list(names)}
    salt = secrets.token_hex(SALT_BYTES)
    return {"users": hashed(names, salt), "salt": salt}


def hashed(names: Iterable[str], salt: str) -> list[str]:
    """Digests of names by BLAKE2b, under a key in hexadecimal.

    Example:
        >>> hashed(["ann", "bob", "ann"], "00" * 32)[0]
        '4cb74a6915aa320472fb00ce9965f135'
    """
    key = bytes.fromhex(salt)
    return [
        hashlib.blake2b(
            name.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES, key=key
        ).hexdigest()
        for name in names
    ]


def columns_of(
    asked: Path,
    count: int,
    cells: Mapping[str, pa.Array],
    posterior: Path,
    model: Any,
    llms: Sequence[str],
    attributes: Attributes | None,
) -> dict[str, Any]:
    """The columns of :func:`cqbayes.predict.predictions.new_queries` that a model needs.

    A user that the log did not have is one as yet unknown, and so is a block of time after its
    last; see the model for what that means. Without a column of attempts, queries are fresh: they
    are at their first.

    Args:
        asked: the file with the queries, for messages.
        count: of the queries.
        cells: its columns, as those of ``SERVICES``.
        posterior: beside which it is written what numbers mean.
        model: what predicts.
        llms: names of the LLMs.
        attributes: theirs.

    Raises:
        InputError: names what is missing.
    """
    known = _known(codes_path(posterior))
    found: dict[str, Any] = {}
    for need in model.needs:
        if need == "attributes":
            found[need] = _attributes(model.name, known, llms, attributes)
            continue
        if need == "failures":  # queries are fresh
            found[need] = np.zeros((count, len(llms)), int)
            continue
        name = COLUMNS[need]
        if need == "attempt" and name not in cells:
            found[need] = np.ones(count, int)
            continue
        if name not in cells:
            raise InputError(
                f"{asked}: expected a column {name}, which {model.name} needs, in .jsonl or "
                ".parquet, got none"
            )
        found[need] = _NUMBERS[need](asked, cells[name], posterior, known)
    if attributes is not None and "attributes" not in found:
        raise InputError(f"attributes: expected a model that uses them, {model.name} uses none")
    return found


def _known(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        times = [datetime.fromisoformat(begin) for begin in found.get("times", [])]
        hashed([""], found.get("salt", ""))  # a key that can be used
        if found.get("users", ()) is None:
            int(found["num_users"])
        return {**found, "times": times}
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        raise InputError(f"{path}: expected what cqbayes fit writes, it is damaged") from None


def _meaning(known: Mapping[str, Any], name: str, posterior: Path) -> Any:
    if name not in known:
        raise InputError(
            f"{codes_path(posterior)}: expected {name} as cqbayes fit writes them for a log that "
            "has them, found none; fit again, or take cqbayes.new_queries in Python"
        )
    return known[name]


def _users(asked: Path, cells: pa.Array, posterior: Path, known: Mapping[str, Any]) -> np.ndarray:
    users, asked_of = _meaning(known, "users", posterior), cells.to_pylist()
    if users is None:
        if any(asked_of):
            raise InputError(
                f"{asked}: expected no user in user_id, since fit left the users of the log out "
                f"({codes_path(posterior)}); without one, it is a user as yet unknown"
            )
        return np.full(len(asked_of), known["num_users"])
    number = {user: place for place, user in enumerate(users)}
    keys = [user or "" for user in asked_of]  # nobody has an empty name
    keys = hashed(keys, known["salt"]) if "salt" in known else keys
    return np.array([number.get(key, len(users)) for key in keys], int)


def _times(asked: Path, cells: pa.Array, posterior: Path, known: Mapping[str, Any]) -> np.ndarray:
    unit, times = _meaning(known, "unit", posterior), known["times"]
    row = np.arange(1, len(cells) + 1)
    refuse(str(asked), is_null(cells), "a time in timestamp", row)
    block = block_numbers(cells, unit) - first_block(unit, times)
    expected = f"a time from {times[0].date()} on, as in the log, in timestamp"
    refuse(str(asked), block < 0, expected, row)
    return np.minimum(block, len(times))


def _attempts(
    asked: Path, cells: pa.Array, posterior: Path, known: Mapping[str, Any]
) -> np.ndarray:
    found = column_numbers(cells, 0)
    row = np.arange(1, len(found) + 1)
    refuse(str(asked), found < 1, "a whole number from 1 in attempt", row)
    return found


_NUMBERS = {"user": _users, "time": _times, "attempt": _attempts}


def _attributes(
    model: str, known: Mapping[str, Any], llms: Sequence[str], attributes: Attributes | None
) -> list[Sequence[float]]:
    if attributes is None:
        raise InputError(
            f"{model}: expected attributes of the LLMs, which it needs: --attributes FILE"
        )
    names = list(known.get("attributes", attributes.names))
    if list(attributes.names) != names:
        raise InputError(
            f"attributes: expected {', '.join(names)} as the posterior was fitted with, in this "
            "order, got others"
        )
    missing = [llm for llm in llms if llm not in attributes.of]
    if missing:
        raise InputError(
            f"attributes: expected those of all LLMs, {len(missing)} of {len(llms)} have none, "
            f"such as {missing[0]}"
        )
    return [attributes.of[llm] for llm in llms]
