"""Labels of a log's next requests in one call: :func:`label`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from cqbayes._tools.files import writable_file
from cqbayes.errors import InputError
from cqbayes.logs.formats.importer import importer_names, load_importer
from cqbayes.logs.retrials.chains import Rule
from cqbayes.logs.retrials.detector import Detector, load_detector
from cqbayes.logs.retrials.labels import (
    ME,
    Labels,
    Question,
    draw_pairs,
    label_pairs,
    read_labels,
)
from cqbayes.logs.turns import DAY, read_turns


def label(
    log: str | Path | Sequence[str | Path],
    answer: Callable[[Question], str],
    *,
    format: str,
    labels: str | Path = "labels.jsonl",
    number: int = 100,
    by: str = ME,
    detector: Detector | None = None,
    idle: float = DAY,
    seed: int = 0,
) -> Labels:
    """Asks for labels of pairs of requests of a log, drawn at random, and keeps them in a file.

    Args:
        log: as in :func:`cqbayes.read_log`.
        answer: says what the second request of a pair is, as in :func:`label_pairs`.
        format: of an importer.
        labels: the file. What is in it is not asked for again.
        number: how many pairs are to be labelled in all.
        by: who labels. Two labellers get the same pairs.
        detector, idle: as in :class:`TurnOptions`.
        seed: decides which pairs are drawn.

    Raises:
        InputError: for a log without pairs of requests, or a file of labels that is none.

    Example:
        >>> import json, pathlib, tempfile
        >>> said = [{"role": role, "content": text} for text in ("Why?", "No, wrong", "Thanks")
        ...         for role in ("user", "assistant")]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log, out = (pathlib.Path(folder) / name for name in ("log.jsonl", "labels.jsonl"))
        ...     _ = log.write_text(json.dumps({"id": "a", "model": "m", "messages": said}))
        ...     found = label(log, lambda pair: "says it was bad" if "No" in pair.second else
        ...                   "neither", format="openai_chat", labels=out)
        >>> found.counts
        {'says it was bad': 1, 'neither': 1}
    """
    if format not in importer_names():
        raise InputError(
            f"format: expected an importer's, one of {', '.join(importer_names())}, got {format!r}"
        )
    if number < 1 or not by:
        raise InputError("label: expected at least one pair, and a labeller's name, got none")
    logs = [log] if isinstance(log, str | Path) else log
    writable_file(labels, inputs=tuple(map(Path, logs)))
    if Path(labels).exists():
        read_labels(labels)  # before the work
    turns = read_turns(load_importer(format), log, idle=idle).turns
    rule = Rule(load_detector() if detector is None else detector, idle=idle)
    return label_pairs(draw_pairs(turns, rule, seed), labels, answer, number=number, by=by)
