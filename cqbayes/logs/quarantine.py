"""Records that are set aside while a log is read: counts, places and, if wanted, a file.

Reasons, counts and messages contain nothing of a record. The quarantine file holds the records
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

from cqbayes._tools.files import replacing, writable_file
from cqbayes.errors import InputError

PLACES = 20  # that are remembered for each reason


class Report(NamedTuple):
    """Counts of the records that were read so far.

    Attributes:
        read: records that were read; always ``kept`` plus all of ``set_aside``.
        kept: records whose turns are in the batches, or in the batch that is being filled.
        set_aside: records that were not kept, counted by the first reason that was found.
        places: places of the first records set aside, by reason: ``file:line``, or for Parquet and
            JSON ``file:record``, from 1.
    """

    read: int
    kept: int
    set_aside: dict[str, int]
    places: dict[str, tuple[str, ...]]

    def to_dict(self) -> dict[str, Any]:
        """The counts as a dictionary for JSON."""
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

    The file appears as a whole when :meth:`close` is called; otherwise it does not appear.

    Args:
        quarantine: where the records that are set aside are written, as JSON Lines:
            ``{"place": ..., "reason": ..., "expected": ..., "record": ...}``, with ``expected``
            where it is known. None writes no file.
        strict: whether the first such record is an error, instead of being set aside.
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
        """Whether a quarantine file is written, for which whole records are needed."""
        return self._path is not None

    def put_aside(self, reason: str, place: str, record: Any, expected: str | None = None) -> None:
        """Counts a record that is set aside, and writes it to the quarantine file.

        Args:
            reason: why, as one of a few texts.
            place: where the record stands.
            record: a dictionary, a line in bytes, or None where the record is too large for memory.
            expected: what a valid record has there.

        Raises:
            InputError: under ``strict``, or where the operating system refuses to write.
        """
        if self._strict:
            raise InputError(
                f"{place}: expected {expected or 'a valid record'}, got: {reason}; "
                "correct it, or read without strict, which sets such rows aside"
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
            # Not the name that `replacing` gives, since other processes use that name meanwhile.
            # The name is set before the file is made, so that `discard` finds the file also after a
            # signal.
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
        """Removes the unfinished quarantine file; a finished one stays."""
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
