"""Files of data sets: found where they should be, checked, and got from a hub by its library."""

import errno
import hashlib
import inspect
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cqbayes.data import embedllm, routerbench, routerdc7, sprout, wildchat
from typer.testing import CliRunner

from cqbayes.cli import app as cli
from cqbayes.datasets import files as datasets
from cqbayes.datasets.files import Card, File
from cqbayes.errors import InputError

huggingface_hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
CONTENT = np.random.default_rng(0).bytes(10_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Hub:
    """In place of the library's download: writes ``content``, or raises ``error`` half-way."""

    def __init__(self):
        self.content, self.error, self.asked = CONTENT, None, []

    def download(self, *args, **settings):
        given = inspect.signature(_REAL).bind(*args, **settings).arguments
        self.asked.append(given)
        path = Path(given["local_dir"]) / given["filename"]
        path.parent.mkdir(parents=True)
        path.write_bytes(self.content[: len(self.content) // 2])
        with (given["tqdm_class"] or huggingface_hub.utils.tqdm)(total=2, disable=False) as bar:
            bar.update(1)
        if self.error is not None:
            path.unlink()
            path.parent.rmdir()
            raise self.error
        path.write_bytes(self.content)
        return str(path)


_REAL = huggingface_hub.hf_hub_download


@pytest.fixture
def hub(monkeypatch):
    one = _Hub()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", one.download)
    return one


def _file(sha256=SHA256, path="data/scores.bin") -> File:
    return File(path, "someone/scores", "v1", sha256)


def test_a_download_is_checked_and_kept(hub, tmp_path, capsys):
    path = datasets.fetch(_file(), tmp_path, progress=True)
    assert path.read_bytes() == CONTENT
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scores.bin", "scores.bin.sha256"]
    assert "1/2" in capsys.readouterr().err
    (asked,) = hub.asked
    assert asked["repo_id"] == "someone/scores"
    assert asked["filename"] == "data/scores.bin"
    assert asked["revision"] == "v1"
    assert asked["repo_type"] == "dataset"
    datasets.fetch(_file(), tmp_path)
    assert len(hub.asked) == 1, "it is not fetched again"
    (tmp_path / "other").mkdir()
    datasets.fetch(_file(), tmp_path / "other")
    assert capsys.readouterr().err == "", "no bar unless one is asked for"


def test_wrong_checksums(hub, tmp_path):
    with pytest.raises(InputError, match=r"scores.bin: expected SHA-256 000000000000..., got"):
        datasets.fetch(_file("0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == [], "what is wrong is not kept"
    # Where none is known, what was found must stay.
    path = datasets.fetch(_file(None), tmp_path)
    assert (tmp_path / "scores.bin.sha256").read_text() == f"{SHA256}  scores.bin\n"
    path.write_bytes(CONTENT[:-1])
    for sha256 in (None, SHA256):
        with pytest.raises(InputError, match=r"expected SHA-256 .*; remove the file"):
            datasets.fetch(_file(sha256), tmp_path)


def _http(status: int) -> Exception:
    error = OSError(f"{status} Client Error.\n\nMany lines.")
    error.response = SimpleNamespace(status_code=status)
    return error


def _wrapped(cause: Exception) -> Exception:
    error = FileNotFoundError("An error happened while trying to locate the file on the Hub.")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (_http(404), "scores.bin: expected a file in someone/scores on .* hub, got: HTTP 404"),
        (_wrapped(OSError("Name or service\nnot known")), "got: Name or service not known; give"),
        (ConnectionError("the line broke off"), "got: the line broke off; .* with a network"),
        (RuntimeError(), "got: RuntimeError; give the same command again, with a network"),
        (OSError(errno.ENOSPC, "No space left on device"), "written: No space left .* with room"),
    ],
)
def test_what_goes_wrong_is_said_in_one_line_and_does_not_last(hub, tmp_path, error, message):
    hub.error = error
    with pytest.raises(InputError, match=message) as refusal:
        datasets.fetch(_file(), tmp_path)
    assert str(refusal.value).isprintable()
    assert not (tmp_path / "scores.bin").exists()
    hub.error = None
    assert datasets.fetch(_file(), tmp_path).read_bytes() == CONTENT
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scores.bin", "scores.bin.sha256"]


def test_the_library_itself_without_a_network(tmp_path, monkeypatch):
    """What it raises then is its own affair; it is one line here."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"scores.bin: expected an answer .* with a network"):
        datasets.fetch(_file(), tmp_path)


def test_nothing_to_ask_and_nobody_to_ask(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="expected a file of a repository"):
        datasets.fetch(File("scores.bin"), tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"huggingface_hub, found none; pip install 'cqbayes\[em"):
        datasets.fetch(_file(), tmp_path)


@pytest.mark.parametrize("note", [b"", b"\xff\xfe", b"x", b"d0ff  scores.bin"])
def test_a_note_without_a_checksum(hub, tmp_path, note):
    datasets.fetch(_file(None), tmp_path)
    (tmp_path / "scores.bin.sha256").write_bytes(note)
    with pytest.raises(InputError, match=r"expected the SHA-256 of a download, .*remove the note"):
        datasets.fetch(_file(None), tmp_path)
    assert datasets.fetch(_file(), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("module", [embedllm, routerbench, sprout, wildchat])
def test_files_of_hubs_have_an_owner_and_names_of_their_own(module):
    files = module.CARD.files
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", file.repository) for file in files)
    assert len({file.name for file in files}) == len(files)


# Where files are


def test_files_are_found_in_either_place(tmp_path, monkeypatch):
    monkeypatch.setenv("CQBAYES_DATA", str(tmp_path))
    name, file = "routerdc7", routerdc7.FILE.name
    assert datasets.data_folder() == tmp_path
    assert datasets.missing(name) == [file]
    with pytest.raises(InputError, match=r"cannot be downloaded.*set CQBAYES_DATA") as refusal:
        routerdc7.answers()
    assert str(tmp_path) in str(refusal.value)
    with pytest.raises(InputError, match="get it: cqbayes data get routerbench"):
        routerbench.answers()
    assert datasets.missing("routerbench") == ["routerbench_0shot.parquet"]
    for place in (tmp_path / file, tmp_path / name / file):
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"something else")
        assert datasets.missing(name) == []
        with pytest.raises(InputError, match="expected SHA-256 724ea976e930"):
            routerdc7.answers()
        place.unlink()
    monkeypatch.delenv("CQBAYES_DATA")
    assert datasets.data_folder().name == "cqbayes"


def test_get(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("CQBAYES_DATA", str(tmp_path))
    card = Card(2, "many", "MIT", "nowhere", (_file(), _file(path="b.bin")))
    monkeypatch.setattr(routerbench, "CARD", card)
    assert datasets.state("routerbench") == "to be had: cqbayes data get"
    paths = datasets.get("routerbench")
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "routerbench/scores.bin",
        "routerbench/b.bin",
    ]
    assert datasets.state("routerbench") == "there"
    assert datasets.find("routerbench", "b.bin") == paths[1]
    elsewhere = datasets.get("routerbench", tmp_path / "new" / "folder")
    assert elsewhere[0].parent == tmp_path / "new" / "folder"
    with pytest.raises(InputError, match="routerdc7: it cannot be downloaded"):
        datasets.get("routerdc7")
    with pytest.raises(InputError, match="nothing to get, it is in the package"):
        datasets.get("paretobandit3")
    with pytest.raises(InputError, match=r"data set: expected one of .*, got 'nope'"):
        datasets.get("nope")


# The command line


def test_commands(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CQBAYES_DATA", str(tmp_path))
    monkeypatch.setattr(routerbench, "CARD", Card(2, "9", "MIT", "nowhere", (_file(),)))
    shown = CliRunner().invoke(cli.app, ["data", "list"])
    assert shown.exit_code == 0
    assert re.search(r"paretobandit3 +3 +3,609 +Apache-2.0 +in the package\n", shown.output)
    assert re.search(r"routerbench +2 +9 +MIT +to be had: cqbayes data get\n", shown.output)
    assert re.search(r"routerdc7 .* not there\n", shown.output)
    shown = CliRunner().invoke(cli.app, ["data", "get", "routerbench"])
    assert shown.exit_code == 0
    assert str(tmp_path / "routerbench" / "scores.bin") in shown.output
    assert re.search("routerbench .* there\n", CliRunner().invoke(cli.app, ["data", "list"]).output)
    monkeypatch.setattr(sys, "argv", ["cqbayes", "data", "get", "nope"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("cqbayes: data set: expected one of")


def test_the_folder_may_begin_with_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CQBAYES_DATA", "~/here")
    assert datasets.data_folder() == tmp_path / "here"
