"""What is set aside while a log is read: counted by reason, placed, and kept in a file if wanted.

Nothing of a record is in a reason, a count or a message. The quarantine file holds the records
themselves, and so what users wrote.
"""

import json
import os
import secrets
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from cqbayes.errors import InputError
from cqbayes.files import replacing, writable_file

PLACES = 20  # of those set aside for one reason that are remembered


class Report(NamedTuple):
    """What became of the records that were read so far.

    Attributes:
        read: how many; always ``kept`` plus all of ``set_aside``.
        kept: how many have all their turns in the batches, or in the one that is being filled.
        set_aside: how many were not, by the reason; the first that was found.
        places: where the first of those stand, by the reason: ``file:line``, or for Parquet and
            JSON ``file:record``, from 1.
    """

    read: int
    kept: int
    set_aside: dict[str, int]
    places: dict[str, tuple[str, ...]]

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return self._asdict()

    def __str__(self) -> str:
        return counts_table(self.read, self.kept, self.set_aside, self.places)


def counts_table(
    read: int, kept: int, set_aside: Mapping[str, int], places: Mapping[str, tuple[str, ...]]
) -> str:
    """The counts as a table in plain text, the most frequent reason first.

    Example:
        >>> print(counts_table(3, 2, {"weight": 1}, {"weight": ("log.csv:7",)}))
        read       3
        kept       2
        set aside  1
        <BLANKLINE>
        reason  rows  first places
        weight     1  log.csv:7
    """
    width = len(f"{read:,}")
    aside = sum(set_aside.values())
    lines = [
        f"{name:<9}  {count:>{width},}"
        for name, count in (("read", read), ("kept", kept), ("set aside", aside))
    ]
    if not set_aside:
        return "\n".join(lines)
    reasons = sorted(set_aside, key=lambda reason: (-set_aside[reason], reason))
    first = max(len("reason"), *map(len, reasons))
    second = max(len("rows"), *(len(f"{set_aside[reason]:,}") for reason in reasons))
    lines += ["", f"{'reason':<{first}}  {'rows':>{second}}  first places"]
    for reason in reasons:
        some = places.get(reason, ())
        shown = ", ".join(some[:3]) + (", ..." if len(some) > 3 else "")
        lines.append(f"{reason:<{first}}  {set_aside[reason]:>{second},}  {shown}")
    return "\n".join(lines)


class Ledger:
    """Counts records, and writes those that are set aside to a file.

    The file appears whole when :meth:`close` is called, and not at all if it is not.

    Args:
        quarantine: where the records that are set aside are written, as JSON Lines:
            ``{"place": ..., "reason": ..., "expected": ..., "record": ...}``, the third where it is
            known; nowhere if None.
        strict: whether the first of them is refused, and not set aside.
        inputs: files that are read, which the quarantine file must not replace.

    Raises:
        InputError: if the file cannot be written.
    """

    def __init__(
        self,
        quarantine: str | Path | None = None,
        strict: bool = False,
        inputs: tuple[Path, ...] = (),
    ) -> None:
        self.kept = 0
        self.set_aside: Counter[str] = Counter()
        self._places: dict[str, list[str]] = {}
        self._strict = strict
        self._path = None if quarantine is None else writable_file(quarantine, inputs)
        self._temporary: Path | None = None
        self._spool: IO[str] | None = None

    @property
    def read(self) -> int:
        return self.kept + self.set_aside.total()

    @property
    def places(self) -> dict[str, tuple[str, ...]]:
        return {reason: tuple(found) for reason, found in self._places.items()}

    @property
    def report(self) -> Report:
        return Report(self.read, self.kept, dict(self.set_aside), self.places)

    @property
    def is_written(self) -> bool:
        """Whether records are written, so that they are needed."""
        return self._path is not None

    def put_aside(self, reason: str, place: str, record: Any, expected: str | None = None) -> None:
        """Counts a record, and writes it.

        Args:
            reason: why; one of few.
            place: where it stands.
            record: what stands there: a dictionary, a line in bytes, or None where there was more
                than is held in memory.
            expected: what should have been there.

        Raises:
            InputError: under ``strict``, or where the operating system refuses to write.
        """
        if self._strict:
            raise InputError(
                f"{place}: expected {expected or 'a sound record'}, got: {reason}; "
                "set it right, or read without strict, which sets such rows aside"
            )
        self.set_aside[reason] += 1
        places = self._places.setdefault(reason, [])
        if len(places) < PLACES:
            places.append(place)
        if self._path is not None:
            try:
                self._opened(self._path).write(_line(place, reason, record, expected))
            except OSError as error:
                raise _unwritable(self._path, error) from None

    def _opened(self, path: Path) -> IO[str]:
        if self._spool is None:
            # Not the name that `replacing` gives, since others use that one meanwhile. It is known
            # before there is a file, so that `discard` finds what a signal leaves half made.
            self._temporary = path.with_name(f".{os.getpid()}.{secrets.token_hex(4)}.jsonl")
            self._spool = open(  # noqa: SIM115  (closed by close)
                self._temporary, "x", encoding="ascii", opener=_readable_by_its_owner_only
            )
        return self._spool

    def close(self) -> None:
        """Puts the quarantine file in its place, empty if nothing was set aside."""
        if self._path is None:
            return
        try:
            spool = self._opened(self._path)
            spool.close()
            with replacing(self._path) as temporary:
                os.replace(spool.name, temporary)
        except OSError as error:
            raise _unwritable(self._path, error) from None
        self._path = None

    def discard(self) -> None:
        """Removes what was written, unless it is in its place already."""
        try:
            if self._spool is not None:
                self._spool.close()
        finally:
            if self._temporary is not None:
                self._temporary.unlink(missing_ok=True)


def _readable_by_its_owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: could not be written: {error.strerror or error}")


def _line(place: str, reason: str, record: Any, expected: str | None) -> str:
    said = {"place": place, "reason": reason}
    if expected is not None:
        said["expected"] = expected
    try:
        return json.dumps({**said, "record": _plain(record)}) + "\n"
    except RecursionError:  # lists in lists, as deep as can be read but not written
        return _line(place, reason, None, expected)


def _plain(value: Any) -> Any:
    """What JSON can hold: other values become strings."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace").rstrip("\r\n")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and value - value != 0:  # no number, or infinite
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)
