"""WildChat-1M: users' conversations with GPT-3.5 and GPT-4; the data sheet is DATASHEET.md.

The data set has no scores: there is no ``load`` and no ``answers``.
"""

from pathlib import Path

from cqbayes.datasets.files import Card, File, find
from cqbayes.logs import records
from cqbayes.logs.formats import wildchat
from cqbayes.logs.turns import DAY, TurnsOfLog, read_turns

NAME = "wildchat"
REPOSITORY = "allenai/WildChat-1M"
SHARDS = 14
FILES = tuple(
    File(f"data/train-{shard:05d}-of-{SHARDS:05d}.parquet", REPOSITORY) for shard in range(SHARDS)
)
CARD = Card(2, "837,989", "ODC-BY", f"{REPOSITORY} on the Hugging Face hub", FILES)


def requests(path: str | Path | None = None) -> records.Requests:
    """All requests of users, in batches; :mod:`cqbayes.logs.formats.wildchat` says what they hold.

    Args:
        path: folder of the official files, or one of these files;
            :func:`cqbayes.datasets.files.find` finds them if absent.

    Raises:
        InputError: for files that do not exist or differ from ``DATASHEET.md``.
    """
    return records.read_requests(wildchat.IMPORTER, _files() if path is None else path)


def turns(path: str | Path | None = None, *, idle: float = DAY) -> TurnsOfLog:
    """All turns of users, in memory: those of some of the files need less.

    Args:
        path: as in :func:`requests`.
        idle: as in :func:`cqbayes.logs.turns.read_turns`.

    Raises:
        InputError: as :func:`requests`.
    """
    return read_turns(wildchat.IMPORTER, _files() if path is None else path, idle=idle)


def _files() -> list[Path]:
    return [find(NAME, file.name) for file in FILES]
