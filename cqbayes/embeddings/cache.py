"""A cache of embeddings on disk, under hashes of the texts: one SQLite file.

Processes may share the file, and may be killed at any time.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from cqbayes._tools.files import cache_folder, writable_folder
from cqbayes.errors import InputError

AT_ONCE = 500  # keys in one query: SQLite has a limit


class Cache:
    """A context manager that stores vectors in ``folder/embeddings.sqlite``.

    Raises:
        InputError: for a folder that cannot be written to, or a file that is no such cache.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.path = writable_folder(folder or cache_folder()) / "embeddings.sqlite"

    def __enter__(self) -> "Cache":
        with ExitStack() as unless_whole:
            try:
                self._file = sqlite3.connect(self.path, timeout=60)
                unless_whole.callback(self._file.close)
                self._file.execute("PRAGMA journal_mode=WAL")
                self._file.execute(
                    "CREATE TABLE IF NOT EXISTS embedding "
                    "(key BLOB PRIMARY KEY, vector BLOB NOT NULL)"
                )
                self._file.execute("SELECT key, vector FROM embedding LIMIT 0")
            except sqlite3.DatabaseError as error:
                raise self._refused(error) from None
            unless_whole.pop_all()
        return self

    def _refused(self, error: sqlite3.DatabaseError) -> InputError:
        # If the file is locked, or this process has no right to it, the file itself is fine.
        sound = isinstance(error, sqlite3.OperationalError) and "no such" not in str(error)
        remedy = "" if sound else "; delete the file"
        return InputError(f"{self.path}: expected a cache of embeddings, got: {error}{remedy}")

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The vectors of those ``keys`` that the cache holds."""
        found: dict[bytes, np.ndarray] = {}
        for start in range(0, len(keys), AT_ONCE):
            part = keys[start : start + AT_ONCE]
            marks = ",".join("?" * len(part))
            try:
                rows = self._file.execute(
                    f"SELECT key, vector FROM embedding WHERE key IN ({marks})", part
                ).fetchall()
            except sqlite3.DatabaseError as error:
                raise self._refused(error) from None
            whole = ((key, vector) for key, vector in rows if len(vector) % 4 == 0)
            found.update({key: np.frombuffer(vector, "<f4") for key, vector in whole})
        return found

    def put(self, vectors: Mapping[bytes, np.ndarray]) -> None:
        """Stores all vectors, or none if the disk is full."""
        rows = [(key, np.asarray(v, "<f4").tobytes()) for key, v in vectors.items()]
        try:
            with self._file:
                self._file.executemany("INSERT OR REPLACE INTO embedding VALUES (?, ?)", rows)
        except sqlite3.OperationalError as error:
            raise InputError(f"{self.path}: could not be written: {error}") from error
        except sqlite3.DatabaseError as error:
            raise self._refused(error) from None
