# %% [markdown]
# # What do a hundred labels buy?
#
# Real dialogues whose answers people rated, given to two LLMs of known preference: how well does a
# fit find that preference from next requests alone, and how sure is it?
#
# - **Real**, from `$CQBAYES_DATA`: requests and ratings of `sgd`, `redial` and `realhumaneval`,
#   whole dialogues. **Invented**: which LLM gave an answer. The detector has not seen the domain;
#   the five numbers of how far domains differ are those of the package. In `--smoke`, and where
#   files are absent, wordings are made up too.
# - **rule**: an answer counts as not taken where the next request shares some words with the one
#   before, but few, as gateways ship it. **trusted**: where the detector finds that probable.
#   **scored**: the detector's scores are evidence, with all doubt, as `cqbayes.fit` has it.
#   **labelled**: the same, and 100 labels, drawn by `cqbayes.label`; the labels are the ratings.
# - Logs of one domain share dialogues, and those of `realhumaneval`, a small one, all of them: they
#   differ in which LLM answered. So errors over logs are too small.
# - The truth is acceptance of a fresh query, on average over contexts. Intervals hold 90 percent.
#   ± is one standard error over logs.
#
# - `--plain 0.7 0.3`: users complain plainly of one LLM and quietly of the other. *warned* is the
#   share of logs in which the verdict finds that, from labels.
#
#     python analyses/labelled_retrials.py [--smoke] [--out FOLDER] [--seed N] [--logs N] [--jobs N]
#         [--plain A B]
#
# A file a log is kept in the folder, and a run that was stopped goes on from there.

# %%
import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.stats import beta

import cqbayes
from cqbayes import (
    TextOptions,
    TurnOptions,
    data_folder,
    progress_bar,
    provenance,
    replacing,
    save_figure,
    scripts_end_in_one_line,
    writable_folder,
)

sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))  # in a notebook, too
from simulated_users.rated_logs import (
    LLMS,
    MADE_UP,
    RatedLog,
    detector_without,
    domains_of,
    rated_log,
)

parser = argparse.ArgumentParser(description="Fits to rated dialogues, with and without labels.")
parser.add_argument("--smoke", action="store_true", help="a tiny run that proves nothing")
parser.add_argument("--out", type=Path, default=Path("out/labelled_retrials"))
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--logs", type=int, help="how many")
parser.add_argument("--labels", type=int, default=100, help="in each log")
parser.add_argument(
    "--plain",
    type=float,
    nargs=2,
    default=(0.5, 0.5),
    help="how plainly users complain of each LLM: share of high scores after answers not taken",
)
parser.add_argument("--jobs", type=int, default=2, help="processes")
settings = parser.parse_args()
scripts_end_in_one_line()
out = writable_folder(settings.out)
num_logs = settings.logs or (1 if settings.smoke else 200)
dialogues = 40 if settings.smoke else 300
data = None if settings.smoke else data_folder()
engine = "laplace" if settings.smoke else "auto"
LEVELS = (0.05, 0.95)
made = provenance(
    analysis="labelled_retrials",
    logs=num_logs,
    labels=settings.labels,
    dialogues=dialogues,
    plain=list(settings.plain),
    seed=settings.seed,
    smoke=settings.smoke,
)
print(json.dumps(made))


# %% [markdown]
# ## Logs and fits


# %%
def by_rule(log: RatedLog) -> dict[str, Any]:
    """Acceptance by the rule of gateways: shares, with the Beta posteriors of uniform priors."""
    law = beta(1 + log.pairs - log.overlapping, 1 + log.overlapping)
    low, high = law.ppf(LEVELS[0]), law.ppf(LEVELS[1])
    return {"mean": law.mean().tolist(), "low": low.tolist(), "high": high.tolist(), "ok": True}


def by_fit(log: RatedLog, seed: int, **options: Any) -> dict[str, Any]:
    """Acceptance by a fit."""
    fitted = cqbayes.fit(
        log.path, format="openai_chat", seed=seed, text=TextOptions(2, log.encoder), **options
    )
    at = fitted.acceptance(seed=seed).sel(llm=list(LLMS))
    low, high = np.asarray(at["overall_interval"], float).T
    mean = np.asarray(at["overall_mean"], float)
    doubts = [one.name for one in fitted.data.doubts]
    return {
        "mean": mean.tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "ok": bool(fitted.ok),
        "sampler": bool(fitted.info.ok),
        "doubts": doubts,
    }


def judge_log(number: int, folder: Path) -> dict[str, Any]:
    """One log, fitted in four ways; or what an earlier call found of the same one."""
    domains = domains_of(data)
    name = sorted(domains)[number % len(domains)]
    path = folder / f"log-{number:03}.json"
    asked = {**made, "number": number, "domain": name}
    del asked["logs"]
    if path.is_file() and (found := json.loads(path.read_text()))["asked"] == asked:
        return found
    detector, seed = detector_without(domains, name), settings.seed * 10_000 + number
    with tempfile.TemporaryDirectory() as temporary:
        log = rated_log(
            Path(temporary) / "log.jsonl",
            domains[name],
            dialogues,
            seed,
            tuple(settings.plain),
            detector,
        )
        labels = Path(temporary) / "labels.jsonl"

        def truth(pair: Any) -> str:
            return "says it was bad" if log.retrial[pair.first, pair.second] else "neither"

        how: dict[str, Any] = {"format": "openai_chat", "detector": detector, "seed": seed}
        cqbayes.label(log.path, truth, labels=labels, number=settings.labels, **how)
        ways = {
            "rule": by_rule(log),
            "trusted": by_fit(
                log, seed, turns=TurnOptions(detector=detector), trust_labels=True, engine="laplace"
            ),
            "scored": by_fit(log, seed, turns=TurnOptions(detector=detector), engine=engine),
            "labelled": by_fit(
                log, seed, turns=TurnOptions(detector=detector, labels=labels), engine=engine
            ),
        }
    found = {"asked": asked, "truth": log.truth.tolist(), "ways": ways}
    with replacing(path) as whole:
        whole.write_text(json.dumps(found))
    return found


folder = writable_folder(out / "logs")
tasks = [delayed(judge_log)(number, folder) for number in range(num_logs)]
every: list[dict[str, Any]] = []
pool = Parallel(n_jobs=1 if settings.smoke else settings.jobs, return_as="generator_unordered")
with progress_bar("logs", total=num_logs) as advance:
    for found in pool(tasks):
        every.append(found)
        advance(1)
every.sort(key=lambda one: one["asked"]["number"])

# %% [markdown]
# ## Coverage, width, and which LLM is best

# %%
WAYS = ("rule", "trusted", "scored", "labelled")


def with_error(values: np.ndarray) -> str:
    """A mean over logs and its standard error."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{values.mean():.3f} +- {error:.3f}"


def row(way: str, logs: list[dict[str, Any]]) -> dict[str, str]:
    truth = np.array([log["truth"] for log in logs])
    mean, low, high = (
        np.array([log["ways"][way][part] for log in logs]) for part in ("mean", "low", "high")
    )
    found = [log["ways"][way].get("doubts", ()) for log in logs]
    best = np.argmax(mean, axis=1) == np.argmax(truth, axis=1)
    return {
        "way": way,
        "logs": str(len(logs)),
        "covered": with_error(((low <= truth) & (truth <= high)).mean(axis=1)),
        "width": with_error((high - low).mean(axis=1)),
        "error": with_error(np.abs(mean - truth).mean(axis=1)),
        # Of the first LLM's lead: what users who complain of one more plainly make wrong.
        "lead": with_error((mean - truth)[:, 0] - (mean - truth)[:, 1]),
        "warned": f"{np.mean(['unlike_llms' in doubts for doubts in found]):.2f}",
        "best LLM found": with_error(best.astype(float)),
        "ok": f"{np.mean([log['ways'][way]['ok'] for log in logs]):.2f}",
    }


def of(name: str) -> list[dict[str, Any]]:
    return [log for log in every if name in ("all", log["asked"]["domain"])]


wordings = "made-up" if every[0]["asked"]["domain"] in MADE_UP else "real"
names = ["all", *sorted({log["asked"]["domain"] for log in every})]
table = pd.DataFrame([{"domain": name, **row(way, of(name))} for name in names for way in WAYS])
print(f"{len(every)} logs of {wordings} dialogues")
print(table.to_string(index=False))
with replacing(out / "table.csv") as temporary:
    table.to_csv(temporary, index=False)
with replacing(out / "labelled_retrials.json") as temporary:
    temporary.write_text(json.dumps({**made, "data": wordings, "logs": every}, indent=1))

# %%
chart, axes = plt.subplots(1, len(WAYS), figsize=(14, 4), sharex=True, sharey=True)
for axis, way in zip(axes, WAYS, strict=True):
    truth = np.concatenate([log["truth"] for log in every])
    mean, low, high = (
        np.concatenate([log["ways"][way][part] for log in every])
        for part in ("mean", "low", "high")
    )
    fits = (low <= truth) & (truth <= high)
    for inside, colour in ((True, "#0072B2"), (False, "#D55E00")):
        some, name = fits == inside, "covers the truth" if inside else "does not"
        reach = np.maximum([mean - low, high - mean], 0)[:, some]
        axis.errorbar(
            truth[some],
            mean[some],
            yerr=reach,
            fmt="o",
            ms=3,
            lw=1,
            alpha=0.7,
            color=colour,
            label=name,
        )
    axis.axline((0.8, 0.8), slope=1, color="black", lw=1, ls="--")
    axis.set(title=f"{way}: {np.mean(fits):.2f} covered", xlabel="true acceptance")
axes[0].set_ylabel("estimate, 90 percent interval")
handles = {
    name: handle
    for axis in axes
    for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)
}
axes[-1].legend(handles.values(), handles.keys(), loc="lower right", fontsize="small")
domains = ", ".join(names[1:])
chart.suptitle(f"{len(every)} logs of {wordings} dialogues ({domains}) with invented LLMs")
chart.tight_layout()
save_figure(chart, out / "labelled_retrials.png")
