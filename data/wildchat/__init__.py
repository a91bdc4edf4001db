"""WildChat-1M: users' conversations with GPT-3.5 and GPT-4; the data sheet is DATASHEET.md.

It has no scores: there is no ``load`` and no ``answers``.
"""

from pathlib import Path

from cqbayes.datasets import Card, find, on_hub
from cqbayes.logs import records, wildchat

NAME = "wildchat"
REPOSITORY = "allenai/WildChat-1M"
SHARDS = 14
FILES = tuple(
    on_hub(REPOSITORY, f"data/train-{shard:05d}-of-{SHARDS:05d}.parquet") for shard in range(SHARDS)
)
CARD = Card(2, "837,989", "ODC-BY", f"{REPOSITORY} on the Hugging Face hub", FILES)


def turns(path: str | Path | None = None) -> records.Turns:
    """All turns of users, batch by batch: :func:`cqbayes.logs.wildchat.turns`.

    Args:
        path: folder of the official files, or one of them; :func:`cqbayes.datasets.find` where
            absent.

    Raises:
        InputError: for files that are not there or are not as ``DATASHEET.md`` says.
    """
    if path is not None:
        return wildchat.turns(path)
    return wildchat.turns([find(NAME, file.name) for file in FILES])
