# %% [markdown]
# # Is a log believed exactly as far as it deserves?
#
# Users are simulated, so that it is known how often each LLM's answer to a fresh query is taken.
# What they do is written as a gateway or a data set writes it, with what gateways get wrong, and
# read and fitted by `cqbayes.fit` as anybody would. The fit should be right, or say that it may not
# be.
#
# - **Simulated**: LLMs, users and logs, all of it. Acceptance differs by LLM, topic and difficulty
#   of the query. Who did not take an answer regenerates it, says the same words again, says it in
#   other words, or leaves in silence, perhaps to come back in a new session; some give thumbs or
#   copy. Sessions have 1.2 to 6 queries. LLMs are picked at random.
# - **Logs** are in the shapes of seven importers, two in five without faults. The others have
#   double records, titles, tags, embeddings, health checks, steps of programs, nested, raced,
#   failed and resent requests, records without session, user or time, in any order.
# - **Real**: only what users say, where `rated_dialogues.parquet` is in `$CQBAYES_DATA`: requests
#   and how people asked again who were not satisfied. Elsewhere wordings are made up.
# - **Wrong** is a fit with a truth more than 0.03 outside its 90 percent interval; the truth is the
#   acceptance of a first attempt, averaged over queries. None should be *ok and wrong*.
# - **Explicit** are worlds in which all that users did is in the log, but for who left in silence:
#   there a fit must be ok, and near the truth. Where users say it in other words, or a next query
#   goes on from the one before, or records lack a session, it may say that it was not checked.
#
#     python analyses/log_recovery.py [--smoke] [--out FOLDER] [--seed N] [--worlds N] [--jobs N]
#
# 200 worlds of 2,000 sessions take hours on two cores. A file a world is kept in the folder, and a
# run that was stopped goes on from there; after a change of the package, choose another folder.

# %%
import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from cqbayes import (
    data_folder,
    progress_bar,
    provenance,
    replacing,
    save_figure,
    scripts_end_in_one_line,
    writable_folder,
)

sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))  # in a notebook, too
from simulated_users.judgement import MARGIN, Judged, judge_once

parser = argparse.ArgumentParser(description="Logs of simulated users, read and fitted.")
parser.add_argument("--smoke", action="store_true", help="a tiny run that proves nothing")
parser.add_argument("--out", type=Path, default=Path("out/log_recovery"))
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--worlds", type=int, help="how many logs")
parser.add_argument("--sessions", type=int, help="in each log")
parser.add_argument("--engine", default="auto")
parser.add_argument("--jobs", type=int, default=2, help="processes")
settings = parser.parse_args()
scripts_end_in_one_line()
out = writable_folder(settings.out)
num_worlds = settings.worlds or (3 if settings.smoke else 200)
num_sessions = settings.sessions or (60 if settings.smoke else 2_000)
data = None if settings.smoke else data_folder()
engine = "laplace" if settings.smoke else settings.engine
made = provenance(
    analysis="log_recovery",
    worlds=num_worlds,
    sessions=num_sessions,
    engine=engine,
    seed=settings.seed,
    smoke=settings.smoke,
)
print(json.dumps(made))

# %% [markdown]
# ## Worlds, logs and fits

# %%
folder = writable_folder(out / "worlds")
tasks = [
    delayed(judge_once)(number, settings.seed, num_sessions, folder, data, engine)
    for number in range(num_worlds)
]
every: list[Judged] = []
pool = Parallel(n_jobs=1 if settings.smoke else settings.jobs, return_as="generator_unordered")
with progress_bar("logs", total=num_worlds) as advance:
    for judged in pool(tasks):
        every.append(judged)
        advance(1)
every.sort(key=lambda one: one.seed)

# %% [markdown]
# ## What comes of it
#
# Coverage is of the intervals of all LLMs in fits that are ok; the LLMs of one log share their
# errors. Errors are mean distances of estimates from the truth.


# %%
def row(group: Iterable[Judged]) -> dict[str, str]:
    """What the table says of some worlds."""
    those = list(group)
    fine = [one for one in those if one.ok]
    explicit = [one for one in those if one.world.explicit]
    covered = np.concatenate([one.covered for one in fine]) if fine else np.zeros(0)
    errors = [one.error for one in explicit if not np.isnan(one.error)]
    return {
        "worlds": str(len(those)),
        "ok": str(len(fine)),
        "ok and wrong": str(sum(one.wrong for one in fine)),
        "covered, ok": f"{covered.mean():.2f} of {covered.size}" if fine else "",
        "explicit": str(len(explicit)),
        "of these ok": str(sum(one.ok for one in explicit)),
        "their error": f"{np.mean(errors):.3f}" if errors else "",
        "largest": f"{np.max(errors):.3f}" if errors else "",
    }


def rows_by(name: str, labels: Callable[[Judged], Iterable[str]]) -> list[dict[str, str]]:
    known = sorted({label for one in every for label in labels(one)})
    return [
        {"by": name, "what": label, **row(one for one in every if label in labels(one))}
        for label in known
    ]


def leaving(one: Judged) -> tuple[str, ...]:
    return (f"{one.world.leaves:.0%} of the unhappy leave",)


table = pd.DataFrame(
    [
        {"by": "all", "what": "", **row(every)},
        *rows_by("format", lambda one: (f"{one.world.format}, {one.world.shape}",)),
        *rows_by("behaviour", lambda one: (one.world.behaviour,)),
        *rows_by("leaving", leaving),
        *rows_by("next queries", lambda one: ("related" if one.world.related else "not related",)),
        *rows_by("difficulty", lambda one: (f"sd {one.world.difficulty_sd:g}",)),
        *rows_by("fault", lambda one: one.world.troubled or ("none",)),
    ]
)
print(f"Simulated users, {num_sessions:,} sessions a log")
print(table.to_string(index=False))
doubts = Counter(name for one in every for name in one.doubts)
print("\nnot ok because of, and in how many worlds: ")
for name, count in doubts.most_common():
    print(f"{count:>5}  {name}")
wrong = [one for one in every if one.ok and one.wrong]
for one in wrong:
    away = float(np.max(one.outside))
    print(f"ok and wrong: seed {one.seed}, {one.world.format}, {one.world.behaviour}, {away:.3f}")

# %%
with replacing(out / "table.csv") as temporary:
    table.to_csv(temporary, index=False)
with replacing(out / "log_recovery.json") as temporary:
    found = {**made, "doubts": doubts, "logs": [one.as_json() for one in every]}
    temporary.write_text(json.dumps(found, indent=1))

# %% [markdown]
# ## Truth and estimate

# %%
COLOURS = {"ok": "#0072B2", "ok and wrong": "#D55E00", "said not to be ok": "#999999"}


def verdict(one: Judged) -> str:
    return ("ok and wrong" if one.wrong else "ok") if one.ok else "said not to be ok"


chart, axes = plt.subplots(1, 2, figsize=(11, 5), sharex=True, sharey=True)
for axis, explicit in zip(axes, (True, False), strict=True):
    for name, colour in COLOURS.items():
        those = [one for one in every if verdict(one) == name and one.world.explicit == explicit]
        if not those:
            continue
        truth, mean, low, high = (
            np.concatenate([getattr(one, part) for one in those])
            for part in ("truth", "mean", "low", "high")
        )
        # The mean of a skewed posterior may lie outside an interval of equal tails.
        reach = np.maximum([mean - low, high - mean], 0)
        label = f"{name}: {len(those)}"
        axis.errorbar(
            truth, mean, yerr=reach, fmt="o", ms=3, lw=1, alpha=0.7, color=colour, label=label
        )
    axis.plot([0, 1], [0, 1], color="black", lw=1, ls="--")
    axis.fill_between(
        [0, 1], [-MARGIN, 1 - MARGIN], [MARGIN, 1 + MARGIN], color="black", alpha=0.08, lw=0
    )
    axis.set(
        title="all that users did is in the log" if explicit else "some of it is not",
        xlabel="true acceptance of a fresh query",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axis.legend(frameon=False, loc="upper left", fontsize=8)
    axis.grid(alpha=0.25)
axes[0].set(ylabel="estimate, 90% interval")
chart.suptitle(f"Simulated: {len(every)} logs of {num_sessions:,} sessions each", fontsize=10)
chart.tight_layout()
print(save_figure(chart, out / "log_recovery.png"))
