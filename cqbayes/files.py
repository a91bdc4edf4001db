"""Files appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cqbayes.errors import InputError


def writable_folder(path: str | Path) -> Path:
    """Makes the folder if needed and makes sure that it can be written to.

    Raises:
        InputError: if it cannot; call this before the work, not after it.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{folder}: expected a folder that can be written to, got: {error.strerror}"
        ) from None
    return folder


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` that takes its place if nothing goes wrong.

    A killed process or a full disk leaves what was at ``path`` before.
    """
    path = Path(path)
    # The suffix stays, since writers choose their format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
