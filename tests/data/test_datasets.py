"""Files of data sets: found where they should be, checked, and downloaded even over bad lines."""

import errno
import hashlib
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from cqbayes.data import routerbench, routerdc7
from typer.testing import CliRunner

from cqbayes import cli, datasets, download
from cqbayes.datasets import Card, File
from cqbayes.errors import InputError

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Server(ThreadingHTTPServer):
    """Serves ``content`` at any path but /absent; drops the line after ``most`` bytes, if any."""

    content, tag, most, length = CONTENT, '"one"', None, True
    kind, odd = "application/octet-stream", None

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked = []


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        if self.path == "/absent":
            return self.send_error(404)
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "/file")
            return self.end_headers()
        if server.odd:
            return self.wfile.write(server.odd)
        start = 0
        given = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if given and self.headers.get("If-Range") in (None, server.tag):
            start = int(given[1])
        size = len(server.content)
        if start >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if server.length:
            self.send_header("Content-Length", str(size - start))
        self.send_header("Content-Type", server.kind)
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        self.wfile.write(server.content[start:][: server.most])
        return None

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with _Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def _file(server, sha256=SHA256, path="/file") -> File:
    return File("scores.bin", f"http://127.0.0.1:{server.server_port}{path}", sha256)


def test_a_download_is_checked_and_kept(server, tmp_path, capsys):
    path = datasets.fetch(_file(server), tmp_path, progress=True)
    assert path.read_bytes() == CONTENT
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scores.bin", "scores.bin.sha256"]
    assert "get scores.bin" in capsys.readouterr().err
    datasets.fetch(_file(server), tmp_path)
    assert server.asked == [None], "it is not fetched again"
    (tmp_path / "other").mkdir()
    moved = datasets.fetch(_file(server, path="/elsewhere"), tmp_path / "other")
    assert moved.read_bytes() == CONTENT


def test_a_line_that_breaks_is_taken_up_again(server, tmp_path):
    server.most = 1_000_000
    assert datasets.fetch(_file(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000000-", "bytes=2000000-"]


def test_a_later_call_goes_on(server, tmp_path):
    server.most = 0
    part = tmp_path / "scores.bin.part"
    part.write_bytes(CONTENT[:1000])
    (tmp_path / "scores.bin.part.etag").write_text('"one"')
    with pytest.raises(InputError, match=r"scores.bin: .*127.0.0.1.* broke off; the same command"):
        datasets.fetch(_file(server), tmp_path)
    assert part.read_bytes() == CONTENT[:1000]
    server.most = None
    assert datasets.fetch(_file(server), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=1000-"


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 7])
def test_a_part_that_is_whole_or_more(server, tmp_path, size):
    (tmp_path / "scores.bin.part").write_bytes((CONTENT + b"nothing")[:size])
    (tmp_path / "scores.bin.part.etag").write_text('"one"')
    assert datasets.fetch(_file(server), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("tag", ['"two"', None])
def test_what_has_changed_meanwhile_is_fetched_anew(server, tmp_path, tag):
    server.tag = tag
    (tmp_path / "scores.bin.part").write_bytes(b"the beginning of something else")
    (tmp_path / "scores.bin.part.etag").write_text('"one"')
    assert datasets.fetch(_file(server), tmp_path).read_bytes() == CONTENT


def test_killed_where_another_version_begins(server, tmp_path, monkeypatch):
    """What is left is then nothing, and not the old beginning under the new version's name."""
    server.tag = '"two"'
    part, tag = tmp_path / "scores.bin.part", tmp_path / "scores.bin.part.etag"
    part.write_bytes(b"the beginning of something else")
    tag.write_text('"one"')
    write = Path.write_text

    def write_then_die(path: Path, text: str) -> None:
        write(path, text)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", write_then_die)
        with pytest.raises(KeyboardInterrupt):
            datasets.fetch(_file(server, None), tmp_path)
    assert datasets.fetch(_file(server, None), tmp_path).read_bytes() == CONTENT


def test_a_server_that_tells_no_length(server, tmp_path):
    server.length = False
    assert datasets.fetch(_file(server), tmp_path).read_bytes() == CONTENT


def test_wrong_checksums(server, tmp_path):
    with pytest.raises(InputError, match=r"scores.bin: expected SHA-256 000000000000..., got"):
        datasets.fetch(_file(server, "0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == [], "what is wrong is not kept"
    # Where none is known, what was found must stay.
    path = datasets.fetch(_file(server, None), tmp_path)
    assert (tmp_path / "scores.bin.sha256").read_text() == f"{SHA256}  scores.bin\n"
    path.write_bytes(CONTENT[:-1])
    for sha256 in (None, SHA256):
        with pytest.raises(InputError, match=r"expected SHA-256 .*; remove the file"):
            datasets.fetch(_file(server, sha256), tmp_path)


def test_no_server_no_file_no_address(server, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"expected a file at 127.0.0.1:.*, got: HTTP 404"):
        datasets.fetch(_file(server, path="/absent"), tmp_path)
    nobody = File("scores.bin", "http://127.0.0.1:9/file")
    with pytest.raises(InputError, match=r"expected an answer of 127.0.0.1:9, got: .*network"):
        datasets.fetch(nobody, tmp_path)
    with pytest.raises(InputError, match="expected a file with an address"):
        datasets.fetch(File("scores.bin"), tmp_path)
    monkeypatch.setattr(download, "PATIENCE", 0.2)
    silent = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)  # takes no connection up
    with silent, pytest.raises(InputError, match="timed out"):
        datasets.fetch(_file(silent), tmp_path)


def test_what_is_no_file(server, tmp_path):
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(InputError, match=r"expected a file at .*, got a web page"):
        datasets.fetch(_file(server, None), tmp_path)
    assert list(tmp_path.iterdir()) == []
    server.kind = "application/octet-stream"
    for odd in (
        b"not\r\nHTTP\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.0 206 OK\r\nContent-Range: bytes 7-8/9\r\n\r\nxy",
    ):
        server.odd = odd
        with pytest.raises(InputError, match=r"expected an answer of .*; the same command") as one:
            datasets.fetch(_file(server, None), tmp_path)
        assert str(one.value).isprintable()
        assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_not_the_network(server, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_copy", full)
    with pytest.raises(InputError, match=r"bin.part: could not be written: No space .* with room"):
        datasets.fetch(_file(server), tmp_path)


def test_killed_before_an_older_part_is_gone(server, tmp_path, monkeypatch):
    (tmp_path / "scores.bin.part").write_bytes(b"of something else")
    (tmp_path / "scores.bin.part.etag").write_text('"two"')
    opened = open

    def killed(path, mode="r", *rest, **more):
        if "w" in mode and str(path).endswith(".part"):
            raise KeyboardInterrupt
        return opened(path, mode, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", killed)
        with pytest.raises(KeyboardInterrupt):
            datasets.fetch(_file(server), tmp_path)
    assert datasets.fetch(_file(server, None), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("note", [b"", b"\xff\xfe", b"x", b"d0ff  scores.bin"])
def test_a_note_without_a_checksum(server, tmp_path, note):
    datasets.fetch(_file(server, None), tmp_path)
    (tmp_path / "scores.bin.sha256").write_bytes(note)
    with pytest.raises(InputError, match=r"expected the SHA-256 of a download, .*remove the note"):
        datasets.fetch(_file(server, None), tmp_path)
    assert datasets.fetch(_file(server), tmp_path).read_bytes() == CONTENT


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
    for place in (tmp_path / file, tmp_path / name / file):
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"something else")
        assert datasets.missing(name) == []
        with pytest.raises(InputError, match="expected SHA-256 724ea976e930"):
            routerdc7.answers()
        place.unlink()
    monkeypatch.delenv("CQBAYES_DATA")
    assert datasets.data_folder().name == "cqbayes"


def test_get(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CQBAYES_DATA", str(tmp_path))
    card = Card(2, "many", "MIT", "nowhere", (_file(server), _file(server)._replace(name="b.bin")))
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


def test_commands(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CQBAYES_DATA", str(tmp_path))
    monkeypatch.setattr(routerbench, "CARD", Card(2, "9", "MIT", "nowhere", (_file(server),)))
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
