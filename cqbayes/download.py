"""Downloads that go on where they broke off, with what Python brings along."""

import errno
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from cqbayes.errors import InputError
from cqbayes.progress import bar

# Of writing the part. What refuses a connection comes wrapped, without a number.
_OF_DISKS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.ENOENT,
    errno.EIO,
)
CHUNK = 1 << 18  # bytes
PATIENCE = 30.0  # seconds without a byte


def download(url: str, part: Path, *, progress: bool = False) -> Path:
    """Fetches a file into ``part``, which may hold the beginning of it already.

    A connection that breaks is taken up again as long as something arrives each time. What was
    begun is continued only if the server says, by its ``ETag``, that the file is still the same.

    Args:
        url: of the file.
        part: where it is written to; it stays if the download fails.
        progress: whether to show a bar.

    Raises:
        InputError: where the server cannot be reached, has no such file or answers with a web page,
            and where the part cannot be written.
    """
    while True:
        before = _size(part)
        try:
            if _continue(url, part, progress):
                _tag(part).unlink(missing_ok=True)
                return part
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            raise InputError(
                f"{part.stem}: expected a file at {urlsplit(url).netloc}, got: HTTP {error.code}"
            ) from None
        except InputError:
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in _OF_DISKS:
                raise InputError(
                    f"{part}: could not be written: {error.strerror}; the same command goes on "
                    "later, with room"
                ) from None
            # In one line, whatever a server sent.
            reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        if _size(part) <= before:
            raise InputError(
                f"{part.stem}: expected an answer of {urlsplit(url).netloc}, got: {reason}; "
                "the same command goes on later, with a network"
            )


def _continue(url: str, part: Path, progress: bool) -> bool:
    """Fetches what is missing, as far as it comes; whether all is there."""
    have, tag = _size(part), _tag(part)
    known = tag.read_text() if have and tag.is_file() else ""
    request = urllib.request.Request(url, headers={"User-Agent": "cqbayes"})
    if known:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", known)
    try:
        answer = urllib.request.urlopen(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing is left to send: all is there, or more than there should be.
        if error.headers.get("Content-Range", "") == f"bytes */{have}":
            return True
        part.unlink()
        return _continue(url, part, progress)
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise InputError(
                f"{part.stem}: expected a file at {urlsplit(url).netloc}, got a web page; does "
                "the network want a login?"
            )
        more = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if answer.status == 206 and not more:
            raise ConnectionError("a part that was not asked for")
        start = have if more else 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        with (
            open(part, "ab" if more else "wb") as file,
            bar(f"get {part.stem}", total=total or 1, show=progress) as advance,
        ):
            # Once what was there of another version is gone: killed between, it must not seem new.
            tag.write_text(answer.headers.get("ETag") or "")
            advance(start if total else 0)
            _copy(answer, file.write, advance if total else lambda amount: None)
    # Without a length, the end of the answer is the end of the file.
    return total is None or _size(part) == total


def _copy(
    answer: http.client.HTTPResponse,
    write: Callable[[bytes], int],
    advance: Callable[[float], None],
) -> None:
    while chunk := answer.read(CHUNK):
        write(chunk)
        advance(len(chunk))


def _tag(part: Path) -> Path:
    """Where the version of an unfinished download is kept."""
    return part.with_name(part.name + ".etag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
