"""Makes ``services.csv`` beside this file: a simulated log of services with a known truth.

The users are simulated. Contexts ``x`` lie on the unit circle. A service offers one or two LLMs,
drawn at random, as the assortment ``S``. The user::

    takes the answer of LLM j with probability exp(u_j) / (1 + sum_{m in S} exp(u_m))
    asks again otherwise                                      u_j = a_j + b_j . x

A query leaves when the user takes an answer, or after four attempts in vain.

``python docs/examples/make_services.py`` writes the same file every time, and prints how probably a
user takes each LLM's answer alone, on average over the log's services.
"""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

LLMS = ("large", "medium", "small")
INTERCEPT = np.array([1.2, 0.5, -0.4])  # a_j
SLOPES = np.array([[-0.5, 0.3], [-0.9, 0.0], [-1.5, -0.3]])  # b_j; small fails where x_1 is large
QUERIES, MOST_ATTEMPTS, SEED = 300, 4, 0
COLUMNS = ("query_id", "attempt", "timestamp", "offered", "chosen", "embedding")
BEGIN = np.datetime64("2026-01-05T08:00:00")


def services(seed: int = SEED) -> list[dict[str, Any]]:
    """Rows of the long table, one a service, in the order of queries and attempts."""
    rng = np.random.default_rng(seed)
    rows = []
    for query in range(QUERIES):
        angle = rng.uniform(0, 2 * np.pi)
        context = np.array([np.cos(angle), np.sin(angle)]).round(3)
        for attempt in range(1, MOST_ATTEMPTS + 1):
            offered = np.sort(rng.choice(len(LLMS), size=rng.integers(1, 3), replace=False))
            chosen = choose(rng, context, offered)
            time = BEGIN + np.timedelta64(300 * query + 60 * attempt, "s")
            rows.append(
                {
                    "query_id": f"q{query:03d}",
                    "attempt": attempt,
                    "timestamp": f"{time}Z",
                    "offered": "|".join(LLMS[llm] for llm in offered),
                    "chosen": "" if chosen is None else LLMS[chosen],
                    "embedding": f"[{context[0]}, {context[1]}]",
                }
            )
            if chosen is not None:
                break
    return rows


def choose(rng: np.random.Generator, context: np.ndarray, offered: np.ndarray) -> int | None:
    """The LLM whose answer is taken; None if the user asks again."""
    worth = np.exp(INTERCEPT[offered] + SLOPES[offered] @ context)
    weights = np.append(worth, 1.0)
    place = rng.choice(len(weights), p=weights / weights.sum())
    return None if place == len(offered) else int(offered[place])


def true_probabilities(seed: int = SEED) -> np.ndarray:
    """How probably a user takes each LLM's answer alone, on average over the log's services."""
    contexts = np.array([json.loads(row["embedding"]) for row in services(seed)])
    return (1 / (1 + np.exp(-(INTERCEPT + contexts @ SLOPES.T)))).mean(axis=0)


def write(path: Path, seed: int = SEED) -> None:
    """Writes the log as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(services(seed))


if __name__ == "__main__":
    write(Path(__file__).with_name("services.csv"))
    for llm, probability in zip(LLMS, true_probabilities(), strict=True):
        print(f"{llm}: {probability:.2f}")
