"""Where the files of data sets are, and how to get those that are published.

A folder of ``data/`` says in its ``CARD`` what it is made of. Files lie in ``$CQBAYES_DATA``, or in
the user's data folder; in a folder of the data set's name there, or beside one another.
"""

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from cqbayes._tools import discovery
from cqbayes._tools.files import writable_folder, write_bytes
from cqbayes.errors import InputError


class File(NamedTuple):
    """One file of a data set.

    Attributes:
        path: of the file in the repository.
        repository: data set on the Hugging Face hub, ``owner/name``; None for a file that cannot
            be downloaded.
        revision: of the repository: a branch, a tag or a commit.
        sha256: what the file must have; None where that is not known: then what was found when it
            was downloaded is kept beside it, and must stay.
        converted: the file that the user makes of this one, where this one is not read itself.

    Example:
        >>> File("data/test.csv", "someone/scores").name
        'test.csv'
    """

    path: str
    repository: str | None = None
    revision: str = "main"
    sha256: str | None = None
    converted: str | None = None

    @property
    def name(self) -> str:
        """What the file is called where it lies."""
        return self.path.split("/")[-1]


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


def data_set_names() -> list[str]:
    """Names of the folders of ``data/``."""
    return discovery.entry_names("data", "CARD")


def data_set_module(name: str) -> Any:
    """The package ``cqbayes.data.<name>``.

    Raises:
        InputError: names the data sets that there are.
    """
    return discovery.find_entry("data", "data set", name, "CARD")


def load_card(name: str) -> Card:
    """The ``CARD`` of ``data/<name>/``: what it is, and which files it needs.

    Raises:
        InputError: names the data sets that there are.
    """
    return data_set_module(name).CARD


def data_folder() -> Path:
    """Where files of data sets are: ``$CQBAYES_DATA``, or the user's data folder."""
    folder = os.environ.get("CQBAYES_DATA") or platformdirs.user_data_path("cqbayes")
    return Path(folder).expanduser()


def find(name: str, filename: str) -> Path:
    """The path of a data set's file, whose checksum is right as far as one is known.

    Raises:
        InputError: where it is not there, and then how to get it, or has another checksum.
    """
    path = place_of(name, filename)
    file = next(file for file in load_card(name).files if file.name == filename)
    if path is None:
        raise InputError(
            f"{name}: expected {filename} in {data_folder()} or its folder {name}; "
            f"{_remedy(name, file)}"
        )
    check_sha256(path, file.sha256)
    return path


def place_of(name: str, filename: str) -> Path | None:
    """Where a file of a data set lies; None where it is not there."""
    folder = data_folder()
    places = (folder / name / filename, folder / filename)
    return next((path for path in places if path.is_file()), None)


def missing(name: str) -> list[str]:
    """Names of the files that a data set is read from and that are not there."""
    read = [file.converted or file.name for file in load_card(name).files]
    return [filename for filename in read if place_of(name, filename) is None]


def state(name: str) -> str:
    """Whether the files of a data set are there, in a few words."""
    files = load_card(name).files
    if not files:
        return "in the package"
    if not missing(name):
        return "there"
    if all(place_of(name, file.name) for file in files):
        return "to be converted"
    return "to be had: cqbayes data get" if files[0].repository else "not there"


def _remedy(name: str, file: File) -> str:
    if file.repository:
        return f"get it: cqbayes data get {name}"
    source = load_card(name).source
    return f"it cannot be downloaded ({source}): set CQBAYES_DATA to a folder that has it"


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
    """Downloads those files of a data set that are not there.

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
    known = load_card(name)
    if not known.files:
        raise InputError(f"{name}: nothing to get, it is in the package")
    if any(file.repository is None for file in known.files):
        raise InputError(f"{name}: {_remedy(name, known.files[0])}")
    target = writable_folder(data_folder() / name if folder is None else folder)
    return [fetch(file, target, progress=progress) for file in known.files]


def fetch(file: File, folder: Path, *, progress: bool = False) -> Path:
    """One file of a data set in a folder, downloaded if it is not there.

    Raises:
        InputError: as :func:`get`; what has a wrong checksum is not kept.
    """
    path = folder / file.name
    if path.is_file():
        check_sha256(path, file.sha256)
        return path
    begun = folder / f".{file.name}.part"
    part = _download(file, begun, progress)
    found = sha256_of(part)
    if file.sha256 is not None and found != file.sha256:
        shutil.rmtree(begun)
        raise InputError(
            f"{file.name}: expected SHA-256 {file.sha256[:12]}..., got {found[:12]}...; what was "
            "published has changed, or was damaged on its way: get it again"
        )
    # The note first: a file without one has not been checked.
    write_bytes(f"{found}  {file.name}\n".encode(), _note(path))
    part.replace(path)
    shutil.rmtree(begun)
    return path


def _download(file: File, folder: Path, progress: bool) -> Path:
    """A file of the Hugging Face hub, as the hub's own library leaves it in a folder.

    Raises:
        InputError: in one line, whatever went wrong: the network, the hub or the disk.
    """
    if file.repository is None:
        raise InputError(f"{file.name}: expected a file of a repository, got one without")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import tqdm
    except ImportError:
        raise InputError(
            "data get: expected the package huggingface_hub, found none; "
            "pip install 'cqbayes[embed]' or 'cqbayes[logs]'"
        ) from None

    class Silent(tqdm):
        def __init__(self, *args: Any, **settings: Any):
            super().__init__(*args, **{**settings, "disable": True})

    try:
        return Path(
            hf_hub_download(
                file.repository,
                file.path,
                repo_type="dataset",
                revision=file.revision,
                local_dir=folder,
                tqdm_class=None if progress else Silent,
            )
        )
    except Exception as error:  # of the hub's library and of those that it calls
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            raise InputError(
                f"{file.name}: expected a file in {file.repository} on the Hugging Face hub, got: "
                f"HTTP {status}"
            ) from None
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(
                f"{folder}: could not be written: {error.strerror}; give the same command again, "
                "with room"
            ) from None
        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        raise InputError(
            f"{file.name}: expected an answer of the Hugging Face hub, got: {reason}; give the "
            "same command again, with a network"
        ) from None
