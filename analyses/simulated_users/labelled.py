"""Consecutive requests that people labelled: was the answer between them taken?"""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from cqbayes.logs.retrials.detector import Labelled

RATED, CODING = "rated_dialogues.parquet", "realhumaneval_retries.parquet"
DISSATISFIED = 2.4  # mean rating of an answer, as the next request shows it, up to which


def labelled_domains(folder: Path) -> Mapping[str, Labelled]:
    """Pairs of requests of the rated dialogues and of RealHumanEval, as far as files are there."""
    found = {}
    if (folder / RATED).is_file():
        rated = pd.read_parquet(folder / RATED)
        rated = rated[(rated["request"].str.len() > 0) & (rated["next_request"].str.len() > 0)]
        for domain, rows in rated.groupby("domain", sort=False):
            rows = rows.sort_values(["conversation", "turn"], kind="stable")
            found[str(domain)] = Labelled(
                pa.array(rows["request"].tolist()),
                pa.array(rows["next_request"].tolist()),
                rows["rating"].to_numpy() <= DISSATISFIED,
                rows["conversation"].to_numpy(),
            )
    if (folder / CODING).is_file():
        found["realhumaneval"] = _coding(folder / CODING)
    return found


def _coding(path: Path) -> Labelled:
    log = pd.read_parquet(path).sort_values(["programmer_id", "t_s"], kind="stable")
    session = (log["programmer_id"].astype(str) + "/" + log["task_name"].astype(str)).to_numpy()
    first = np.flatnonzero(session[1:] == session[:-1])
    said = json.loads((files("cqbayes.logs.retrials") / "retrial_labels.json").read_text())
    read = np.array([int(digit) for session in said["sessions"] for digit in session])
    text = pa.array(log["user_text"].tolist())
    return Labelled(
        text.take(pa.array(first)), text.take(pa.array(first + 1)), read > 0, session[first]
    )
