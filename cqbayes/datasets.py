"""Where the files of data sets are, and how to get those that are published.

A folder of ``data/`` says in its ``CARD`` what it is made of. Files lie in ``$CQBAYES_DATA``, or in
the user's data folder; in a folder of the data set's name there, or beside one another.
"""

import hashlib
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import platformdirs

from cqbayes import catalogue
from cqbayes.download import download
from cqbayes.errors import InputError
from cqbayes.files import writable_folder, write_bytes

HUB = "https://huggingface.co/datasets"


class File(NamedTuple):
    """One file of a data set.

    Attributes:
        name: of the file.
        url: where it is published; None for one that cannot be downloaded.
        sha256: what it must have; None where that is not known: then what was found when it was
            downloaded is kept beside it, and must stay.
    """

    name: str
    url: str | None = None
    sha256: str | None = None


class Card(NamedTuple):
    """What a data set is, in short; its ``DATASHEET.md`` has the rest.

    Attributes:
        llms, queries: how many.
        licence: of the data.
        source: whose they are, or where they come from.
        files: what it is read from; none where all is in the package.
    """

    llms: int
    queries: str
    licence: str
    source: str
    files: tuple[File, ...] = ()


def on_hub(repository: str, path: str, revision: str = "main", sha256: str | None = None) -> File:
    """A file of a data set on the Hugging Face hub.

    Example:
        >>> on_hub("someone/scores", "data/test.csv").url
        'https://huggingface.co/datasets/someone/scores/resolve/main/data/test.csv'
    """
    return File(path.split("/")[-1], f"{HUB}/{repository}/resolve/{revision}/{path}", sha256)


def card(name: str) -> Card:
    """The ``CARD`` of ``data/<name>/``.

    Raises:
        InputError: names the data sets that there are.
    """
    return catalogue.load_card(name)


def data_folder() -> Path:
    """Where files of data sets are: ``$CQBAYES_DATA``, or the user's data folder."""
    folder = os.environ.get("CQBAYES_DATA") or platformdirs.user_data_path("cqbayes")
    return Path(folder).expanduser()


def find(name: str, filename: str) -> Path:
    """The path of a data set's file, whose checksum is right as far as one is known.

    Raises:
        InputError: where it is not there, and then how to get it, or has another checksum.
    """
    path = _place(name, filename)
    file = _file(name, filename)
    if path is None:
        raise InputError(
            f"{name}: expected {filename} in {data_folder()} or its folder {name}; "
            f"{_remedy(name, file)}"
        )
    check_sha256(path, file.sha256)
    return path


def missing(name: str) -> list[str]:
    """Names of the files of a data set that are not there."""
    return [file.name for file in card(name).files if _place(name, file.name) is None]


def lacking(name: str) -> list[str]:
    """What it takes to make contexts of a data set and is not there: files, or the extra embed."""
    has_encoder = not catalogue.has_text(name) or find_spec("sentence_transformers")
    return missing(name) or ([] if has_encoder else ["cqbayes[embed]"])


def state(name: str) -> str:
    """Whether the files of a data set are there, in a few words."""
    files = card(name).files
    if not files:
        return "in the package"
    if not missing(name):
        return "there"
    return "to be had: cqbayes data get" if files[0].url else "not there"


def _place(name: str, filename: str) -> Path | None:
    folder = data_folder()
    places = (folder / name / filename, folder / filename)
    return next((path for path in places if path.is_file()), None)


def _file(name: str, filename: str) -> File:
    return next(file for file in card(name).files if file.name == filename)


def _remedy(name: str, file: File) -> str:
    if file.url:
        return f"get it: cqbayes data get {name}"
    return (
        f"it cannot be downloaded ({card(name).source}): set CQBAYES_DATA to a folder that has it"
    )


def check_sha256(path: Path, expected: str | None) -> None:
    """Refuses a file with another checksum than is known, or was found when it was downloaded.

    Raises:
        InputError: names the file and what to do.
    """
    noted = _note(path)
    if expected is None and noted.is_file():
        expected = _noted(noted)
    if expected is None:
        return
    found = sha256_of(path)
    if found != expected:
        raise InputError(
            f"{path}: expected SHA-256 {expected[:12]}..., got {found[:12]}...; remove the file "
            "and get it again"
        )


def _note(path: Path) -> Path:
    """Where the checksum of a download is kept."""
    return path.with_name(path.name + ".sha256")


def _noted(note: Path) -> str:
    """The checksum in a note.

    Raises:
        InputError: where there is none.
    """
    found = re.match(rb"[0-9a-f]{64}\b", note.read_bytes())
    if found is None:
        raise InputError(
            f"{note}: expected the SHA-256 of a download, got something else; remove the note and "
            "the file, and get it again"
        )
    return found[0].decode()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file of any size.

    Raises:
        InputError: where it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, got: {error.strerror}") from None


def get(name: str, folder: str | Path | None = None, *, progress: bool = False) -> list[Path]:
    """Downloads what is not there of a data set; what was begun goes on.

    Args:
        name: of the data set.
        folder: where to put the files; ``data_folder() / name`` where absent.
        progress: whether to show bars.

    Returns:
        Paths of all its files.

    Raises:
        InputError: for a data set that cannot be downloaded, without a network, or for a checksum
            other than the one that is known.
    """
    known = card(name)
    if not known.files:
        raise InputError(f"{name}: nothing to get, it is in the package")
    if any(file.url is None for file in known.files):
        raise InputError(f"{name}: {_remedy(name, known.files[0])}")
    target = writable_folder(data_folder() / name if folder is None else folder)
    return [fetch(file, target, progress=progress) for file in known.files]


def fetch(file: File, folder: Path, *, progress: bool = False) -> Path:
    """One file of a data set in a folder, downloaded if it is not there.

    Raises:
        InputError: as :func:`get`; what has a wrong checksum is not kept.
    """
    if file.url is None:
        raise InputError(f"{file.name}: expected a file with an address, got one without")
    path = folder / file.name
    if path.is_file():
        check_sha256(path, file.sha256)
        return path
    part = download(file.url, path.with_name(path.name + ".part"), progress=progress)
    found = sha256_of(part)
    if file.sha256 is not None and found != file.sha256:
        part.unlink()
        raise InputError(
            f"{file.name}: expected SHA-256 {file.sha256[:12]}..., got {found[:12]}...; what was "
            "published has changed, or was damaged on its way: get it again"
        )
    # The note first: a file without one has not been checked.
    write_bytes(f"{found}  {file.name}\n".encode(), _note(path))
    part.replace(path)
    return path
