"""Files appear whole or not at all."""

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

from cqbayes.errors import InputError


def cache_folder() -> Path:
    """Where what can be made again is kept: ``$CQBAYES_CACHE``, or the user's cache folder."""
    return Path(os.environ.get("CQBAYES_CACHE") or platformdirs.user_cache_path("cqbayes"))


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


def writable_file(
    path: str | Path, inputs: tuple[Path, ...] = (), folder_too: bool = False
) -> Path:
    """Makes sure that a file can be written at ``path``, and that it is none of the inputs.

    With ``folder_too`` a folder may stand there, as those of Zarr do.

    Raises:
        InputError: if it cannot; call this before the work, not after it.
    """
    path = Path(path)
    if not path.name or (path.is_dir() and not folder_too):
        raise InputError(f"{path}: expected the name of a file to write, got a folder")
    if any(path.resolve() == Path(name).resolve() for name in inputs):
        raise InputError(f"{path}: expected another file than the input, which would be lost")
    writable_folder(path.parent)
    return path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` that takes its place if nothing goes wrong.

    A killed process or a full disk leaves what was at ``path`` before.

    Raises:
        InputError: where the operating system refuses to write.
    """
    path = Path(path)
    # The suffix stays, since writers choose their format by it.
    temporary = path.with_name(f".{os.getpid()}{path.suffix}")
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            _to_disk(path.parent)
    except OSError as error:
        raise InputError(f"{path}: could not be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Waits until a file or folder is on the disk, so that no name outlives a crash alone."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(content: bytes, path: str | Path) -> None:
    """Writes bytes, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def remove_temporaries(folder: Path) -> None:
    """Removes what killed processes left of :func:`replacing` in a folder that is one process's."""
    for path in folder.glob(".*"):
        if path.is_file() and path.name[1:].split(".")[0].isdigit():
            path.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """The same for a folder: what was there is moved aside until the new one is in its place."""
    path = Path(path)
    temporary, before = (path.with_name(f".{os.getpid()}.{kind}") for kind in ("new", "old"))
    try:
        yield temporary
        if path.exists():
            os.replace(path, before)
        os.replace(temporary, path)
    except OSError as error:
        if before.exists() and not path.exists():
            os.replace(before, path)
        raise InputError(f"{path}: could not be written: {error.strerror or error}") from error
    finally:
        for folder in (temporary, before):
            shutil.rmtree(folder, ignore_errors=True)


def write_netcdf(data: Any, path: str | Path) -> None:
    """Writes an xarray ``Dataset`` or ``DataTree``, whole or not at all.

    By way of memory: HDF5 does not survive a disk that fills up under it.
    """
    buffer = io.BytesIO()
    data.to_netcdf(buffer, engine="h5netcdf")
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
