"""Labels of people: whether a next request says that the answer before it was not taken.

No log tells its own rate of retrials. A sample of its pairs that people read does, and what the
scores of the detector are worth in it.

**Which pairs.** Those whose outcome is inferred, drawn at random in each class of scores, as many
of a class as are asked for: of ``N_k`` pairs of class ``k`` each is drawn with probability ``n_k /
N_k``. Every pair has a random number that depends on the seed and its digest alone, and the ones
with the smallest numbers are drawn. So a sample that is stopped at any place is one, another
labeller gets the same pairs, and more can be labelled later. Classes are taken in turn, so that
``n_k`` is about in proportion to the root of ``N_k``: rare classes say more.

**What is kept** is one line of JSON a label, with a digest of the pair and no text. A later label
of the same pair by the same labeller takes the place of an earlier one.

Needs the extra ``logs``.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from cqbayes._tools.files import writable_file
from cqbayes.errors import InputError
from cqbayes.logs.retrials.chains import Rule, Said, inferred_pairs
from cqbayes.logs.retrials.detector import CLASSES

Kind = Literal["asks again", "says it was bad", "neither", "unclear"]
RETRIALS = ("asks again", "says it was bad")
UNCLEAR = "unclear"
ME = "me"
MOST_BYTES = 256 << 20  # of a file of labels
START = b'{"pair": "'  # of each of its lines


class Label(NamedTuple):
    """What one person said of one pair of requests.

    Attributes:
        pair: digest of the pair.
        kind: what the second request is; None takes an earlier label back.
        by: who says so.
        score_class: class of the pair's score, from 0.
        of: how many pairs the log has in that class.
    """

    pair: str
    kind: Kind | None
    by: str = ME
    score_class: int = 0
    of: int = 0


class Labels(NamedTuple):
    """Labels of a log.

    Attributes:
        kinds: of each pair, what each labeller said, ``unclear`` too, the first labeller first.
        classes: of each pair, the class of its score when it was drawn.
    """

    kinds: Mapping[str, Mapping[str, Kind]]
    classes: Mapping[str, int] = MappingProxyType({})

    @property
    def retrial(self) -> dict[str, bool]:
        """Of each pair whether it is a retrial, as the first labeller says who finds it clear.

        Disputed pairs are not left out: those that remained would have fewer errors than the
        labellers make.
        """
        said = {
            pair: [kind in RETRIALS for kind in by.values() if kind != UNCLEAR]
            for pair, by in self.kinds.items()
        }
        return {pair: one[0] for pair, one in said.items() if one}

    @property
    def said(self) -> dict[str, Said]:
        """The same, for :func:`cqbayes.logs.retrials.chains.services_of_turns`."""
        return {pair: Said(bad, self.classes[pair]) for pair, bad in self.retrial.items()}

    @property
    def agreement(self) -> tuple[int, int]:
        """How often two labellers disagree whether it is a retrial, and how often two said."""
        disagreed = both = 0
        for by in self.kinds.values():
            said = [kind in RETRIALS for kind in by.values() if kind != UNCLEAR]
            if len(said) > 1:
                both += 1
                disagreed += len(set(said)) > 1
        return disagreed, both

    @property
    def counts(self) -> dict[str, int]:
        """How many labels there are of each kind."""
        found = Counter(kind for by in self.kinds.values() for kind in by.values())
        return {kind: found[kind] for kind in get_args(Kind) if found[kind]}


def error_of_labels(labels: Labels) -> tuple[float, float]:
    """Two numbers of a Beta, of how often a label is wrong.

    One labeller is taken to be wrong one time in a hundred, give or take as much: nothing tells.
    Two tell: in each dispute one of two labels is wrong.

    Example:
        >>> error_of_labels(labels_of([Label("a", "neither"), Label("a", "asks again", "you")]))
        (2.0, 100.0)
    """
    disagreed, both = labels.agreement
    return 1.0 + disagreed, 99.0 + 2 * both - disagreed


def labels_of(said: Iterable[Label]) -> Labels:
    """Labels in the order in which they were given.

    Example:
        >>> found = labels_of([Label("a", "neither"), Label("b", "neither"), Label("a", None),
        ...                    Label("b", "asks again"), Label("b", "neither", by="you")])
        >>> found.retrial, found.agreement, found.counts
        ({'b': True}, (1, 1), {'asks again': 1, 'neither': 1})
    """
    kinds: dict[str, dict[str, Kind]] = {}
    classes = {}
    for one in said:
        by = kinds.setdefault(one.pair, {})
        if one.kind is None:
            by.pop(one.by, None)
        else:
            by[one.by] = one.kind
            classes[one.pair] = one.score_class
    kinds = {pair: by for pair, by in kinds.items() if by}
    return Labels(kinds, {pair: classes[pair] for pair in kinds})


def read_labels(path: str | Path) -> Labels:
    """Labels of a file, as :func:`label_pairs` writes them.

    A last line that a killed process left unfinished counts for nothing.

    Raises:
        InputError: for a file that cannot be read, and for a line that is no label.
    """
    if not _exists(path):
        raise InputError(f"{path}: expected a file of labels, got none; cqbayes label makes one")
    return labels_of(_read(path)[0])


def _exists(path: str | Path) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a name that cannot be one
        return False


def _read(path: str | Path) -> tuple[list[Label], bytes]:
    """Labels in order, and the unfinished line behind them; none where there is no file."""
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return [], b""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not readable"
        raise InputError(f"{path}: expected labels that can be read, got: {reason}") from None
    if len(content) > MOST_BYTES:
        raise InputError(f"{path}: expected at most {MOST_BYTES >> 20} MiB of labels, got more")
    *lines, tail = content.split(b"\n")
    found = [_label(line, f"{path}, line {i}") for i, line in enumerate(lines, 1)]
    if tail and not START.startswith(tail[: len(START)]):
        raise InputError(f"{path}, line {len(lines) + 1}: expected a label, got another text")
    with suppress(InputError):
        found.append(_label(tail, ""))
    return found, tail


def _label(line: bytes, where: str) -> Label:
    try:
        said = json.loads(line)
        found = Label(said["pair"], said["label"], said["by"], said["class"], said["of"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{where}: expected a label, got another text") from None
    right = (
        all(isinstance(text, str) for text in (found.pair, found.by))
        and (found.kind is None or found.kind in get_args(Kind))
        and type(found.score_class) is type(found.of) is int
    )
    if not right:
        kinds = ", ".join(get_args(Kind))
        raise InputError(f"{where}: expected a label that is one of {kinds}, got another")
    return found


class Drawn(NamedTuple):
    """Pairs of a log in the order in which they are to be labelled.

    Attributes:
        pair: digests.
        score_class: of the scores.
        first, second: the requests.
        sizes: how many pairs each class has.
    """

    pair: list[str]
    score_class: Int[np.ndarray, " pair"]
    first: pa.Array
    second: pa.Array
    sizes: Int[np.ndarray, " class"]


def draw_pairs(turns: pa.Table, rule: Rule, seed: int = 0) -> Drawn:
    """All pairs of a log whose outcome is inferred; the first so many are the sample.

    Args:
        turns: of ``TURNS``, with the turns of a session together and in order.
        rule: how outcomes are decided.
        seed: decides which pairs come first.
    """
    batches = list(inferred_pairs(turns.to_batches(), rule))
    pair = [one for batch in batches for one in batch.pair]
    none = [pa.nulls(0, pa.large_string())]
    first, second = (
        pa.concat_arrays(
            [getattr(batch, name).cast(pa.large_string()) for batch in batches] or none
        )
        for name in ("first", "second")
    )
    probability = np.concatenate([batch.probability for batch in batches] or [np.zeros(0)])
    place = rule.detector.classes(probability)
    sizes = np.bincount(place, minlength=CLASSES)
    random = np.array([_random(seed, one) for one in pair], np.uint64)
    by_random = np.lexsort((random, place))
    starts = np.cumsum(sizes) - sizes
    rank = np.empty(len(pair), int)
    rank[by_random] = np.arange(len(pair)) - starts[place[by_random]]
    # The j-th of a class comes when j / sqrt(N_k) is reached: about in proportion to the root.
    order = np.lexsort((-place, (rank + 0.5) / np.sqrt(np.maximum(sizes, 1))[place]))
    rows = pa.array(order)
    pair = [pair[i] for i in order]
    return Drawn(pair, place[order], first.take(rows), second.take(rows), sizes)


def _random(seed: int, pair: str) -> int:
    said = hashlib.blake2b(f"{seed}/{pair}".encode(), digest_size=8)
    return int.from_bytes(said.digest(), "big")


class Question(NamedTuple):
    """A pair to be labelled.

    Attributes:
        first, second: the requests, in words.
        number: how many pairs this labeller has labelled.
        of: how many are asked for.
    """

    first: str
    second: str
    number: int
    of: int


UNDO = "undo"
STOP = "stop"


def label_pairs(
    drawn: Drawn,
    path: str | Path,
    answer: Callable[[Question], str],
    *,
    number: int = 100,
    by: str = ME,
) -> Labels:
    """Asks for labels of the first pairs, and writes each down as it comes.

    Labels that are in the file already are not asked for again, so that a run that was stopped goes
    on from there.

    Args:
        drawn: pairs in order, as :func:`draw_pairs` gives them.
        path: JSON Lines; new labels are appended.
        answer: says what the second request is: a :data:`Kind`, or ``undo``, which takes back the
            labeller's last label, or ``stop``. It may show the texts to a person.
        number: how many pairs the labeller is to label in all. Once they are, nothing is asked.
        by: the labeller's name.

    Returns:
        All labels of the file.

    Raises:
        InputError: for an answer that is none, a file that cannot be written, or no pairs.

    Example:
        >>> import tempfile
        >>> drawn = Drawn(["a"], np.zeros(1, int), pa.array(["Why?"]), pa.array(["No!"]),
        ...               np.array([1, 0, 0, 0]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     label_pairs(drawn, folder + "/labels.jsonl", lambda _: "says it was bad").counts
        {'says it was bad': 1}
    """
    if not drawn.pair:
        raise InputError("labels: expected requests that follow an answer, got none to label")
    said, tail = _read(path)
    place = {pair: i for i, pair in enumerate(drawn.pair)}
    mine = [one for one in _last_of_each(said) if one.by == by and one.pair in place]
    done = {one.pair for one in mine}
    left = [i for i in reversed(range(len(drawn.pair))) if drawn.pair[i] not in done]
    number = min(number, len(drawn.pair))
    with _appended(writable_file(path), tail) as write:
        while left and len(mine) < number:
            i = left[-1]
            first, second = drawn.first[i].as_py(), drawn.second[i].as_py()
            kind = answer(Question(first, second, len(mine), number))
            if kind == STOP:
                break
            if kind == UNDO:
                if mine:
                    last = mine.pop()._replace(kind=None)
                    left.append(place[last.pair])
                    write(last)
                    said.append(last)
                continue
            if kind not in get_args(Kind):
                raise InputError(
                    f"label: expected one of {', '.join((*get_args(Kind), UNDO, STOP))}, got "
                    f"{kind!r}"
                )
            k = int(drawn.score_class[i])
            label = Label(drawn.pair[i], kind, by, k, int(drawn.sizes[k]))  # pyright: ignore
            write(label)
            said.append(label)
            mine.append(label)
            left.pop()
    return labels_of(said)


def _last_of_each(said: list[Label]) -> list[Label]:
    """The label of each pair by each labeller that counts, in the order in which they came."""
    found: dict[tuple[str, str], Label] = {}
    for one in said:
        found.pop((one.pair, one.by), None)
        if one.kind is not None:
            found[one.pair, one.by] = one
    return list(found.values())


@contextmanager
def _appended(path: Path, tail: bytes) -> Iterator[Callable[[Label], None]]:
    """Writes labels at the end of a file, each to the disk before the next one.

    Args:
        path: of the file.
        tail: its last line, where that is not ended: ended now, or cut off where it is no label.
    """
    with _said_in_one_line(path):
        file = path.open("ab")
    with file:
        if tail:
            try:
                _label(tail, "")
                end = b"\n"
            except InputError:
                end = b""
            with _said_in_one_line(path):
                file.truncate(file.tell() - (0 if end else len(tail)))
                file.write(end)

        def write(one: Label) -> None:
            said = {
                "pair": one.pair,
                "label": one.kind,
                "by": one.by,
                "class": one.score_class,
                "of": one.of,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            with _said_in_one_line(path):
                file.write(json.dumps(said).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

        yield write


@contextmanager
def _said_in_one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or "not writable"
        raise InputError(f"{path}: expected a file to write labels to, got: {reason}") from None
