"""WildChat-1M: users' conversations with GPT-3.5 and GPT-4; the data sheet is DATASHEET.md.

The data set has no scores: there is no ``load`` and no ``answers``.
"""

from pathlib import Path

from cqbayes.datasets.files import Card, File, find
from cqbayes.logs import records
from cqbayes.logs.formats import wildchat

NAME = "wildchat"
REPOSITORY = "allenai/WildChat-1M"
SHARDS = 14
FILES = tuple(
    File(f"data/train-{shard:05d}-of-{SHARDS:05d}.parquet", REPOSITORY) for shard in range(SHARDS)
)
CARD = Card(2, "837,989", "ODC-BY", f"{REPOSITORY} on the Hugging Face hub", FILES)


def turns(path: str | Path | None = None) -> records.Turns:
    """All turns of users, in batches: :func:`cqbayes.logs.formats.wildchat.turns`.

    Args:
        path: folder of the official files, or one of these files;
            :func:`cqbayes.datasets.files.find` finds them if absent.

    Raises:
        InputError: for files that do not exist or differ from ``DATASHEET.md``.
    """
    if path is not None:
        return records.read_turns(wildchat.IMPORTER, path)
    return records.read_turns(wildchat.IMPORTER, [find(NAME, file.name) for file in FILES])
