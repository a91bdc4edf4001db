# %% [markdown]
# # Can a retrial be told from the next turn?
#
# Logs do not say whether a user's next turn asks for the same thing again. This trains the detector
# that comes with the package (`cqbayes.logs.retrials`) and scores it on programmers that it was not
# trained on.
#
# - **Real**: 667 pairs of consecutive requests to a coding assistant, of 107 programmers
#   (`realhumaneval_retries.parquet` in `$CQBAYES_DATA`; RealHumanEval, CC0).
# - **Labels**, none of them the truth:
#   - *read*: whether the second request asks again for what the first asked for, amended or not; by
#     one reading by a language model (`cqbayes/logs/retrials/retrial_labels.json`). Whether an
#     amended request is the same one is a matter of opinion: 14 percent of the pairs. No second
#     reader.
#   - *read, strictly*: without the amended ones.
#   - *not copied*: no code of the first answer was copied. Who read the answer and went on is a
#     retrial by this label, and who copied it, tried it and came back with its error is none.
#   - *rough*: a rule on the texts that comes with the data; it finds what the features look for.
# - **Simulated**, in `--smoke` and where the file is absent: pairs drawn from the regression of the
#   shipped detector. They say nothing about users.
# - Features and phrases were chosen after these texts had been seen; only weights are
#   cross-validated, so scores elsewhere will be lower. Text is never shown.
# - **Seeds**: `--seed` decides folds, fits and bootstraps.
#
#     python analyses/retrial_detection.py [--smoke] [--out FOLDER] [--seed N] [--ship PATH]
#     python analyses/retrial_detection.py --redraw [--out FOLDER]

# %%
import argparse
import importlib.util
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import xarray as xr
from scipy.stats import rankdata

from cqbayes import (
    data_folder,
    progress_bar,
    provenance,
    reliability,
    replacing,
    save_figure,
    scripts_end_in_one_line,
    writable_folder,
    write_netcdf,
)
from cqbayes.logs.retrials.detector import fit_detector, fit_logistic
from cqbayes.logs.retrials.detector_files import load_detector, save_detector
from cqbayes.logs.retrials.error_rates import error_rates
from cqbayes.logs.retrials.pairs import FEATURES, MEANING, pairs

parser = argparse.ArgumentParser(description="Trains and scores the detector of retrials.")
parser.add_argument("--smoke", action="store_true", help="a tiny run that proves nothing")
parser.add_argument("--out", type=Path, default=Path("out/retrial_detection"))
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--ship", type=Path, help="write the detector trained on all pairs here")
parser.add_argument("--redraw", action="store_true", help="only tables and pictures, from results")
settings = parser.parse_args()
scripts_end_in_one_line()
out = writable_folder(settings.out)
folds, samples = (3, 100) if settings.smoke else (10, 1_000)
THRESHOLD = 0.5
FILE = "realhumaneval_retries.parquet"
READ, STRICT, COPIED, ROUGH = "read", "read, strictly", "not copied", "rough"
ALL, WORDS = "all", "all but embeddings"
SUBSETS = {
    "similarity alone": ["edit", "tokens", "close", MEANING],
    "time gap alone": ["gap"],
    "phrases alone": ["complaint", "amendment", "onward", "fault"],
}
BASE = "base rate"

# %% [markdown]
# ## The pairs


# %%
def turns_of(log: pd.DataFrame) -> pa.Table:
    """The columns of turns that pairs are made of."""
    session = log["programmer_id"].astype(str) + "/" + log["task_name"].astype(str)
    time = pa.array((log["t_s"] * 1e6).astype("int64").tolist())
    return pa.table(
        {
            "session_id": session.tolist(),
            "turn": log["turn"].tolist(),
            "timestamp": time.cast(pa.timestamp("us", "UTC")),
            "text": log["user_text"].tolist(),
            "language": ["English"] * len(log),
            "failed": pa.nulls(len(log), pa.bool_()),
            "repeated": [False] * len(log),
        }
    )


def real_pairs(path: Path) -> xr.Dataset:
    """Features, labels and whose they are."""
    log = pd.read_parquet(path).sort_values(["programmer_id", "t_s"], kind="stable")
    encoder = None
    if importlib.util.find_spec("sentence_transformers"):
        from cqbayes.embeddings.encoder import load_encoder

        encoder = load_encoder()
    else:
        print("no extra embed here: without embeddings")
    found = pairs(turns_of(log), encoder)
    said = json.loads((files("cqbayes.logs.retrials") / "retrial_labels.json").read_text())
    read = np.array([int(digit) for session in said["sessions"] for digit in session])
    rough = log["kind"].iloc[found.second].isin(["complaint", "rephrase", "verbatim_retry"])
    return xr.Dataset(
        {
            "feature": (("pair", "name"), found.features),
            "label": (
                ("label_name", "pair"),
                np.stack(
                    [read > 0, read == 1, ~log["copied"].to_numpy()[found.first], rough]
                ).astype("i1"),
            ),
            "doubtful": ("pair", (read == 2).astype("i1")),
            "group": ("pair", log["programmer_id"].to_numpy()[found.first]),
        },
        coords={"label_name": [READ, STRICT, COPIED, ROUGH]},
        attrs={"data": "RealHumanEval"},
    )


def simulated_pairs(seed: int, num: int = 300) -> xr.Dataset:
    """Pairs whose labels follow the shipped regression. Simulated."""
    rng = np.random.default_rng(seed)
    law = load_detector().embedded or load_detector().plain
    feature = law.centre + law.scale * rng.normal(size=(num, len(law.features)))
    label = rng.random((4, num)) < law.probability(feature)
    return xr.Dataset(
        {
            "feature": (("pair", "name"), feature),
            "label": (("label_name", "pair"), label.astype("i1")),
            "doubtful": ("pair", np.zeros(num, "i1")),
            "group": ("pair", rng.integers(0, 30, num)),
        },
        coords={"label_name": [READ, STRICT, COPIED, ROUGH]},
        attrs={"data": "simulated pairs"},
    )


# %% [markdown]
# ## Out-of-fold probabilities
#
# Folds are of programmers: no pair is scored by a fit that has seen its programmer.


# %%
def fold_of(group: np.ndarray, seed: int) -> np.ndarray:
    _, place = np.unique(group, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(place.max() + 1)
    return shuffled[place] % folds


def held_out(key: Any, feature: np.ndarray, label: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Of each pair, the probability by a fit without its fold."""
    chance = np.zeros(len(label))
    for number in range(folds):
        out_of = fold == number
        one = fit_logistic(key, feature, label, weight=(~out_of).astype(float))
        chance[out_of] = one.probability(feature[out_of])
    return chance


def methods(names: list[str], feature: np.ndarray) -> dict[str, np.ndarray]:
    """The features that each method sees; what it does not see is not known to it."""
    found = {ALL: feature} if MEANING in names else {}
    found[WORDS] = feature[:, : len(FEATURES)]
    for name, wanted in SUBSETS.items():
        found[name] = np.where([n in wanted for n in names], feature, np.nan)
    return found


def run_all() -> None:
    """All fits, and all that tables and pictures need, into a file."""
    path = data_folder() / FILE
    if settings.smoke or not path.is_file():
        if not settings.smoke:
            print(f"no {path}: simulated pairs instead")
        data = simulated_pairs(settings.seed)
    else:
        data = real_pairs(path)
    feature = data["feature"].values
    names = [*FEATURES, MEANING][: feature.shape[1]]
    fold = fold_of(data["group"].values, settings.seed)
    label = {str(n): data["label"].sel(label_name=n).values for n in data["label_name"].values}
    key, ship_key = jax.random.split(jax.random.key(settings.seed))
    seen = methods(names, feature)
    chance = {}
    with progress_bar("cross-validation", total=len(seen) + 4) as advance:
        for name, values in seen.items():
            chance[name] = held_out(key, values, label[READ], fold)
            advance(1)
        base = [label[READ][fold != number].mean() for number in fold]
        chance[BASE] = np.array(base)
        # The same features trained on each of the other labels, and scored by it.
        other = {}
        for name, values in label.items():
            other[name] = held_out(key, seen[WORDS], values, fold)
            advance(1)
    data["chance"] = (("method", "pair"), np.stack(list(chance.values())))
    data["trained_on_it"] = (("label_name", "pair"), np.stack(list(other.values())))
    data = data.assign_coords(method=list(chance), name=names)
    detector = fit_detector(
        ship_key,
        feature,
        label[READ],
        trained_on=f"{len(fold)} pairs of {data.attrs['data']}, {np.unique(data['group']).size} "
        "programmers; whether the second asks again for what the first asked for, amended or not, "
        "as read by a language model",
    )
    errors = error_rates(
        chance[WORDS],
        label[READ],
        data["group"].values,
        doubtful=data["doubtful"].values,
        threshold=THRESHOLD,
        seed=settings.seed,
    )
    detector = detector._replace(errors=errors)
    save_detector(out / "detector.json", detector)
    if settings.ship is not None:
        save_detector(settings.ship, detector)
    data.attrs["provenance"] = json.dumps(
        provenance(
            analysis="retrial_detection",
            data=data.attrs["data"],
            pairs=len(fold),
            folds=folds,
            seed=settings.seed,
            smoke=settings.smoke,
        )
    )
    write_netcdf(data, out / "results.nc")


if not settings.redraw:
    run_all()
with xr.open_dataset(out / "results.nc", engine="h5netcdf") as opened:
    results = opened.load()
detector = load_detector(out / "detector.json")
made = json.loads(results.attrs["provenance"])
print(json.dumps(made))
label = {
    str(n): results["label"].sel(label_name=n).values > 0 for n in results["label_name"].values
}
chance = {str(n): results["chance"].sel({"method": n}).values for n in results["method"].values}
_, group = np.unique(results["group"].values, return_inverse=True)
best = ALL if ALL in chance else WORDS

# %% [markdown]
# ## What the labels say of one another
#
# If copying were acceptance, answers before a retrial would be copied less often than others.

# %%
rng = np.random.default_rng(made["seed"])
times = rng.multinomial(group.max() + 1, np.full(group.max() + 1, 1 / (group.max() + 1)), samples)


def with_error(of: Any) -> tuple[float, float]:
    """A figure of weighted pairs, and its standard error by a bootstrap over programmers."""
    drawn = np.array([of(one[group].astype(float)) for one in times])
    return float(of(np.ones(len(group)))), float(np.nanstd(drawn, ddof=1))


def share(of: np.ndarray, among: np.ndarray) -> tuple[float, float]:
    return with_error(lambda w: np.average(of, weights=w * among + 1e-12))


strict, doubtful = label[STRICT], results["doubtful"].values > 0
for name, among in {
    "asked again": strict,
    "asked again, amended": doubtful,
    "went on": ~strict & ~doubtful,
}.items():
    if among.any():
        copied, error = share(~label[COPIED], among)
        print(f"{name}: {among.sum()} pairs; code copied before {copied:.3f} ± {error:.3f}")
gap = with_error(
    lambda w: (
        np.average(~label[COPIED], weights=w * label[READ] + 1e-12)
        - np.average(~label[COPIED], weights=w * ~label[READ] + 1e-12)
    )
)
print(
    f"copied before a retrial less copied before another request: {gap[0]:+.3f} ± {gap[1]:.3f} "
    "(one standard error, programmers). Were copying acceptance, this would be far below 0"
)

# %% [markdown]
# ## Scores
#
# AUC: how often a retrial gets a higher probability than another pair; average precision; Brier
# score and log-loss of a pair. One standard error, by a bootstrap over programmers.


# %%
def area(chance: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    """AUC of weighted pairs; ties count half."""
    place = rankdata(chance, "dense") - 1
    yes, no = (np.bincount(place, weight * of, place.max() + 1) for of in (truth, ~truth))
    below = np.cumsum(no) - no / 2
    return float(np.sum(yes * below) / max(yes.sum() * no.sum(), 1e-12))


def curve(chance: np.ndarray, truth: np.ndarray, weight: Any = None) -> tuple[Any, Any]:
    """Recall and precision at each threshold, the highest first."""
    weight = np.ones(len(truth)) if weight is None else weight
    place = rankdata(-chance, "dense") - 1
    yes, every = (np.bincount(place, weight * of, place.max() + 1) for of in (truth, truth | True))
    recall = np.cumsum(yes) / max(yes.sum(), 1e-12)
    return recall, np.cumsum(yes) / np.maximum(np.cumsum(every), 1e-12)


def average_precision(chance: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    recall, precision = curve(chance, truth, weight)
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def brier(chance: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    return float(np.average((chance - truth) ** 2, weights=weight))


def log_loss(chance: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    loss = -np.where(truth, np.log(chance), np.log1p(-chance))
    return float(np.average(loss, weights=weight))


SCORES = {"AUC": area, "AP": average_precision, "Brier": brier, "log-loss": log_loss}


def scores(chance: np.ndarray, truth: np.ndarray) -> dict[str, str]:
    found = {}
    for name, score in SCORES.items():
        value, error = with_error(lambda w, score=score: score(chance, truth, w))
        found[name] = f"{value:.3f} ± {error:.3f}"
    return found


rows = [{"method": n, "scored by": READ, **scores(p, label[READ])} for n, p in chance.items()]
# A base rate orders nothing but the folds.
rows[-1] |= {"AUC": "", "AP": ""}
for name, truth in label.items():
    if name != READ:
        own = results["trained_on_it"].sel(label_name=name).values
        rows.append({"method": f"{WORDS}, trained on this label", "scored by": name})
        rows[-1] |= scores(own, truth)
        constant = np.full(len(truth), truth.mean())
        known = {"method": f"its own {BASE}", "scored by": name, **scores(constant, truth)}
        rows.append(known | {"AUC": "", "AP": ""})
        moved = {"method": f"{WORDS}, trained on '{READ}'", "scored by": name}
        # Probabilities are of another label: only their order can be held against this one.
        rows.append(moved | dict(list(scores(chance[WORDS], truth).items())[:2]))
table = pd.DataFrame(rows).fillna("")
print(table.to_string(index=False))
with replacing(out / "scores.csv") as temporary:
    table.to_csv(temporary, index=False)

# %% [markdown]
# ## Weights
#
# Log-odds for one standard deviation of each feature, posterior mean and standard deviation, all
# pairs.

# %%
law = detector.embedded or detector.plain
weights = pd.DataFrame(
    {"mean": law.mean[1:], "sd": np.sqrt(np.diag(law.covariance))[1:]}, index=list(law.features)
)
print(weights.round(2).to_string())

# %% [markdown]
# ## At the threshold
#
# Sensitivity and specificity on programmers that were not seen, and what `misclassified` takes:
# Beta priors as wide as the bootstrap over programmers, Jeffreys' prior and the doubt about amended
# requests make them.
# They hold for turns with a next turn, in logs like this one, as far as the reading is right. Who
# gives up without a word is not among them: see `abandonment`.

# %%
called = chance[WORDS] >= THRESHOLD
for name in (READ, STRICT):
    found, error = share(called, label[name])
    kept, error_kept = share(~called, ~label[name])
    print(
        f"{name}: sensitivity {found:.3f} ± {error:.3f}, specificity {kept:.3f} ± {error_kept:.3f}"
    )
errors = detector.errors
assert errors is not None
for name, (a, b) in {"recognised": errors.recognised, "specificity": errors.specificity}.items():
    mean = a / (a + b)
    print(
        f"{name} ~ Beta({a:.1f}, {b:.1f}): mean {mean:.3f}, standard deviation "
        f"{np.sqrt(mean * (1 - mean) / (a + b + 1)):.3f}"
    )

# %%
chart, axis = plt.subplots(figsize=(6, 4.6), layout="constrained")
colours = ["#0072B2", "#56B4E9", "#009E73", "#E69F00", "#CC79A7"]
for (name, values), colour in zip(chance.items(), colours, strict=False):
    if name != BASE:
        recall, precision = curve(values, label[READ])
        score = average_precision(values, label[READ], np.ones(len(group)))
        axis.plot(recall, precision, color=colour, lw=1.6, label=f"{name}, AP {score:.2f}")
axis.axhline(label[READ].mean(), color="0.5", ls=":", label=f"{BASE} {label[READ].mean():.2f}")
axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
axis.set_title(f"Retrials told from the next turn: {made['data']},\nusers not seen in training")
axis.legend(frameon=False, fontsize=8, loc="lower left")
print(save_figure(chart, out / "precision_recall.png"))

# %% [markdown]
# ## Calibration
#
# Out-of-fold probabilities in eight bins of equal size. Bars are ±2 standard errors of a bootstrap
# over programmers.

# %%
chart, axes = plt.subplots(1, 2, figsize=(9.6, 4.6), sharex=True, sharey=True, layout="constrained")
own = results["trained_on_it"].sel(label_name=COPIED).values
for axis, (title, values, truth) in zip(
    axes,
    [
        (f"label: {READ}", chance[best], label[READ]),
        (f"label: {COPIED} (trained on it)", own, label[COPIED]),
    ],
    strict=True,
):
    found = reliability(values, truth, group, bins=8, seed=made["seed"])
    said, seen, error = (found.table[name] for name in ("predicted", "observed", "error"))
    print(
        f"{title}: {found.inside} of {len(found.table)} bins within 2 standard errors; calibration "
        f"error {found.error:.3f}, by chance alone below {found.by_chance:.3f} in 95 of 100 cases"
    )
    axis.plot([0, 1], [0, 1], color="0.6", lw=1, label="calibrated")
    axis.errorbar(
        said, seen, yerr=2 * error, fmt="o", color="#0072B2", capsize=3, label="pairs, ±2 SE"
    )
    axis.set(xlabel="predicted probability of a retrial", title=title, xlim=(0, 1), ylim=(0, 1))
axes[0].set_ylabel("share of retrials by the label")
axes[0].legend(frameon=False)
chart.suptitle(f"{made['data']}, users not seen in training")
print(save_figure(chart, out / "reliability.png"))
