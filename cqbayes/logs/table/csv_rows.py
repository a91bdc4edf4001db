"""Rows of a CSV, with the numbers of their lines.

The reader is Python's, not Arrow's. Arrow's reader gives no line numbers where cells contain line
breaks, and fails where a quote does not close or a row is larger than a block.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cqbayes.logs.formats.importer import MOST_BYTES_OF_RECORD
from cqbayes.logs.records import lines
from cqbayes.logs.table.validation import ENCODING, LINE, RECORD, Rule


class Row(NamedTuple):
    """A row of CSV, or the rule that it breaks, with its bytes in the file."""

    line: int
    cells: list[str] | Rule
    content: bytes | None


class _TooLong(Exception):
    """A row that is too large to hold in memory."""


class _Lines(Iterator[str]):
    """The lines of a file, and those of the row that is being read."""

    def __init__(self, path: Path) -> None:
        self._lines = lines(path, blank=True)
        self.start_row()
        self._is_first = True

    def start_row(self) -> None:
        self.number, self.content, self.is_text = 0, bytearray(), True

    def __next__(self) -> str:
        number, line = next(self._lines)
        self.number = self.number or number
        if line is None or len(self.content) + len(line) > MOST_BYTES_OF_RECORD:
            raise _TooLong
        self.content += line
        try:
            return line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            self.is_text = False
            return line.decode("utf-8", "replace")


def csv_rows(path: Path) -> Iterator[Row]:
    """Rows that are not blank; the first is the header."""
    # The limit is shared by the whole process, so it is never lowered here.
    csv.field_size_limit(max(csv.field_size_limit(), MOST_BYTES_OF_RECORD))
    source = _Lines(path)
    reader = csv.reader(source, strict=True)
    count = None
    while True:
        source.start_row()
        try:
            cells = next(reader, None)
        except _TooLong:
            yield Row(source.number, RECORD, None)
            continue
        except csv.Error:
            yield Row(source.number, LINE, bytes(source.content))
            continue
        if cells is None:
            return
        if not cells or (len(cells) == 1 and not cells[0].strip()):
            continue
        count = count or len(cells)
        content = bytes(source.content)
        found = ENCODING if not source.is_text else LINE if len(cells) != count else cells
        yield Row(source.number, found, content)
