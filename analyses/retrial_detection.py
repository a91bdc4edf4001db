# %% [markdown]
# # Does a user's next request show that the answer before it was not taken?
#
# Logs do not say so. This trains the detector that comes with the package (`cqbayes.logs.retrials`)
# and scores it in domains that it was not trained on: each domain is left out in turn.
#
# - **Real**, from `$CQBAYES_DATA`, three domains of pairs of consecutive requests of a user:
#   - `sgd` and `redial` (`rated_dialogues.parquet`): dialogues about tasks and about films. Three
#     or more people rated how satisfied the user is; 2.4 of 5 or less is a retrial.
#   - `realhumaneval` (`realhumaneval_retries.parquet`): programmers and a coding assistant. A
#     retrial is a request that asks again for what the one before asked for, amended or not, by one
#     reading of a language model (`cqbayes/logs/retrials/retrial_labels.json`).
# - **The labels are not the truth**, and not one thing: how satisfied a user is, and whether a
#   request is the same one.
# - **Simulated**, in `--smoke` and where a file is absent: words that are drawn, some of which only
#   retrials have. They say nothing about users.
# - ± is one standard error by a bootstrap over dialogues or programmers. Text is never shown.
# - **Seeds**: `--seed` decides bootstraps and what is simulated. Training has no randomness.
#
#     python analyses/retrial_detection.py [--smoke] [--out FOLDER] [--seed N] [--ship PATH]
#     python analyses/retrial_detection.py --redraw [--out FOLDER]

# %%
import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import xarray as xr
from scipy.special import expit
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from cqbayes import (
    InputError,
    data_folder,
    progress_bar,
    provenance,
    replacing,
    save_figure,
    scripts_end_in_one_line,
    writable_folder,
    write_netcdf,
)
from cqbayes.logs.retrials.detector import (
    CLASSES,
    ENDS,
    PENALTY,
    Labelled,
    classes_of,
    elsewhere,
    features,
    load_detector,
    save_detector,
    train_detector,
)
from cqbayes.logs.retrials.pairs import closeness

sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))  # in a notebook, too
from simulated_users.labelled import CODING, RATED, labelled_domains

parser = argparse.ArgumentParser(description="Trains and scores the detector of retrials.")
parser.add_argument("--smoke", action="store_true", help="a tiny run that proves nothing")
parser.add_argument("--out", type=Path, default=Path("out/retrial_detection"))
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--ship", type=Path, help="write the detector trained on all domains here")
parser.add_argument("--redraw", action="store_true", help="only tables and pictures, from results")
settings = parser.parse_args()
scripts_end_in_one_line()
out = writable_folder(settings.out)
samples = 50 if settings.smoke else 500
RULE = (0.0, 0.45)  # overlaps of words between these, both excluded, count as dissatisfaction
SOURCES = (
    "Pairs of consecutive requests of three domains. sgd: {sgd} pairs of Schema-Guided Dialogue "
    "(CC BY-SA 4.0), and redial: {redial} pairs of ReDial (CC BY 4.0), where three or more people "
    "rated the user's satisfaction 2.4 of 5 or less on average, by the ratings of User "
    "Satisfaction Simulation (Sun et al., SIGIR 2021), which state no licence. realhumaneval: "
    "{realhumaneval} pairs of RealHumanEval (CC0), where the second request asks again for what "
    "the first asked for, amended or not, as read by a language model."
)
LABELS = (20, 40) if settings.smoke else (50, 100, 200, 400, 800)  # of the domain left out
DRAWS = 2 if settings.smoke else 16
SIMULATED = "Simulated words, which say nothing about users."

# %% [markdown]
# ## The pairs


# %%
def simulated(seed: int, num: int = 300) -> dict[str, Labelled]:
    """Words of which some are of one domain, and some of retrials. Simulated."""
    rng = np.random.default_rng(seed)
    found = {}
    for domain in ("one", "two", "three"):
        retrial = rng.random(num) < 0.25
        common = np.array([f"{domain}{i % 20}" if i < 20 else f"word{i}" for i in range(50)])
        first = [" ".join(rng.choice(common, 6)) for _ in range(num)]
        second = []
        for one, bad in zip(first, retrial, strict=True):
            fresh = " ".join(rng.choice(common, 6))
            sign = rng.random() < (0.5 if bad else 0.05)
            second.append(one + " now" if bad and sign else f"wrong {fresh}" if sign else fresh)
        group = np.char.add(np.repeat(np.arange(num // 5), 5).astype(str), "/a")
        found[domain] = Labelled(pa.array(first), pa.array(second), retrial, group)
    return found


def opens(pairs: Labelled) -> np.ndarray:
    """Which pairs are the first of a group: their first request opens a dialogue."""
    return np.append(True, pairs.group[1:] != pairs.group[:-1])


def overlap(pairs: Labelled) -> np.ndarray:
    """Jaccard overlap of the words of two requests."""
    one, two = (
        [set(re.findall(r"\w+", text.lower())) for text in texts.to_pylist()]
        for texts in (pairs.first, pairs.second)
    )
    return np.array([len(a & b) / max(len(a | b), 1) for a, b in zip(one, two, strict=True)])


def in_classes(score: np.ndarray) -> np.ndarray:
    return np.bincount(np.digitize(score, ENDS), minlength=CLASSES)


# %% [markdown]
# ## Labels of a domain that was left out
#
# They tell what scores mean there; `cqbayes.fit` learns that. They could also change the weights of
# words: the most probable weights where the prior is normal around those of the detector, with the
# variance that training has around 0. Pairs are labelled in half of the dialogues, drawn by class
# of score as `cqbayes label` does, weighted by inclusion, and judged in the other half.


# %%
def drawn(score: np.ndarray, number: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Which pairs are labelled, and for how many each stands."""
    place = classes_of(score)
    size = np.bincount(place, minlength=CLASSES)
    by_random = np.lexsort((rng.random(len(score)), place))
    rank = np.empty(len(score))
    rank[by_random] = np.arange(len(score)) - (np.cumsum(size) - size)[place[by_random]]
    some = np.lexsort((-place, (rank + 0.5) / np.sqrt(size)[place]))[:number]
    of_class = np.bincount(place[some], minlength=CLASSES)
    return some, (size / np.maximum(of_class, 1))[place[some]]


def what_labels_change(
    columns: Any, score: np.ndarray, retrial: np.ndarray, some: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Change of each pair's score, by Newton's method in the span of the labelled pairs."""
    mine = columns[some]
    inside, ones = (mine @ mine.T).toarray(), np.ones(len(some))
    weight, shift, part = weight / weight.mean(), np.zeros(len(some)), ones
    for _ in range(50):
        chance = expit(score[some] + shift)
        curve = np.maximum(weight * chance * (1 - chance), 1e-9)
        target = shift + weight * (retrial[some] - chance) / curve
        left, right = np.linalg.solve(
            inside / PENALTY + np.diag(1 / curve), np.stack([target, ones], 1)
        ).T
        level = left.sum() / right.sum()  # how frequent retrials are: free
        part = left - level * right
        before, shift = shift, inside @ part / PENALTY + level
        if np.abs(shift - before).max() < 1e-6:
            break
    return columns @ (mine.T @ part) / PENALTY


def told(place: np.ndarray, retrial: np.ndarray) -> float:
    """Share of the variance of outcomes that classes tell, less what chance tells."""
    size, rate = np.bincount(place), retrial.mean()
    of_class = np.bincount(place, retrial) / np.maximum(size, 1)
    spread = rate * (1 - rate)
    chance = ((size > 0).sum() - 1) * spread / len(place)
    return float((size @ np.square(of_class - rate) / len(place) - chance) / spread)


def with_labels(pairs: Labelled, score: np.ndarray, seed: int) -> np.ndarray:
    """AUC and what classes tell, without and with other weights: ``[labels, draw, 4]``.

    With other weights, each class is halved at the median change of its scores: who is labelled
    depends on the old class, and still on nothing else.
    """
    columns = features({"": pairs})
    whose = np.unique([str(one).split("/")[0] for one in pairs.group], return_inverse=True)[1]
    found = np.full((len(LABELS), DRAWS, 4), np.nan)
    for (i, draw), _ in np.ndenumerate(found[..., 0]):
        rng = np.random.default_rng([seed, i, draw])
        here = rng.permutation(whose.max() + 1)[whose] < (whose.max() + 1) / 2
        if LABELS[i] > 0.8 * here.sum():
            continue
        some, weight = drawn(score[here], LABELS[i], rng)
        some = np.flatnonzero(here)[some]
        if len(np.unique(pairs.retrial[some])) < 2:
            continue
        change = what_labels_change(columns, score, pairs.retrial, some, weight)[~here]
        old, retrial = score[~here], pairs.retrial[~here]
        place, each = classes_of(old), np.ones(len(old))
        middle = np.array([np.median([0.0, *change[place == k]]) for k in range(CLASSES)])
        found[i, draw] = (
            area(old, retrial, each),
            area(old + change, retrial, each),
            told(place, retrial),
            told(2 * place + (change > middle[place]), retrial),
        )
    return found


def area(score: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    """AUC of weighted pairs; ties count half."""
    place = rankdata(score, "dense") - 1
    yes, no = (np.bincount(place, weight * of, place.max() + 1) for of in (truth, ~truth))
    below = np.cumsum(no) - no / 2
    return float(np.sum(yes * below) / max(yes.sum() * no.sum(), 1e-12))


# %% [markdown]
# ## Each domain left out


# %%
def run_all() -> None:
    """All fits, and all that tables and pictures need, into files."""
    domains = {} if settings.smoke else labelled_domains(data_folder())
    real = len(domains) == 3
    if settings.ship is not None and not real:
        raise InputError(f"--ship: expected a real run with {RATED} and {CODING} in $CQBAYES_DATA")
    if real:
        trained_on = SOURCES.format(**{name: len(one.first) for name, one in domains.items()})
    else:
        print("simulated words instead of real requests")
        domains, trained_on = simulated(settings.seed), SIMULATED
    parts = []
    # On more threads, sums of this size take several times as long.
    with (
        threadpool_limits(1),
        progress_bar("training", total=2 * len(domains) + 1) as advance,
    ):
        for name, pairs in domains.items():
            apart = elsewhere(domains, name)
            advance(1)
            others = {other: one for other, one in domains.items() if other != name}
            without = train_detector(others, trained_on="", cross=False)
            first = pairs.first.filter(pa.array(opens(pairs)))
            opening = without.score(pa.nulls(len(first), pa.string()), first)
            advance(1)
            parts.append(
                xr.Dataset(
                    {
                        "domain_of": ("pair", np.full(len(pairs.retrial), name)),
                        "retrial": ("pair", pairs.retrial.astype("i1")),
                        # Whose they are: a programmer has several sessions.
                        "whose": ("pair", np.array([str(g).split("/")[0] for g in pairs.group])),
                        "score": ("pair", apart.score),
                        "overlap": ("pair", overlap(pairs)),
                        "closeness": ("pair", closeness(pairs.first, pairs.second)),
                        "strength": ("domain", [apart.strength]),
                        "tilt": ("domain", [apart.tilt]),
                        "levels": (("domain", "class"), [apart.levels]),
                        "opening": (("domain", "class"), [in_classes(opening)]),
                        "labelled": (
                            ("domain", "labels", "draw", "figure"),
                            [with_labels(pairs, apart.score, settings.seed)],
                        ),
                    },
                    coords={"domain": [name], "labels": list(LABELS)},
                )
            )
        detector = train_detector(domains, trained_on=trained_on)
        advance(1)
    save_detector(out / "detector.zip", detector)
    if settings.ship is not None:
        save_detector(settings.ship, detector)
    by_pair = [name for name in parts[0].data_vars if "pair" in parts[0][name].dims]
    data = xr.merge(
        [
            xr.concat(
                [part[by_pair].drop_vars("domain", errors="ignore") for part in parts], "pair"
            ),
            xr.concat([part.drop_vars(by_pair) for part in parts], "domain"),
        ]
    )
    data.attrs["provenance"] = json.dumps(
        provenance(
            analysis="retrial_detection",
            data="real" if real else "simulated",
            pairs={name: len(one.first) for name, one in domains.items()},
            seed=settings.seed,
            smoke=settings.smoke,
        )
    )
    write_netcdf(data, out / "results.nc")


if not settings.redraw:
    run_all()
with xr.open_dataset(out / "results.nc", engine="h5netcdf") as opened:
    results = opened.load()
detector = load_detector(out / "detector.zip")
made = json.loads(results.attrs["provenance"])
names = [str(name) for name in results["domain"].values]
print(json.dumps(made))
print(detector.trained_on)
print(
    f"detector: strength elsewhere {detector.strength[0]:.2f}, standard deviation of its log "
    f"{detector.strength[1]:.2f}; tilt {detector.tilt:.2f}; weight of closeness "
    f"{detector.close:.2f}; {np.mean(detector.weights != 0):.2f} of the buckets used"
)

# %% [markdown]
# ## Scores
#
# AUC: how often a retrial has a higher score than another pair; AP: average precision, which a
# score that knows nothing has as large as the share of retrials. Strength: by what the score is to
# be multiplied to be the evidence; 1 is right, below 1 it says too much. Tilt: see below.
#
# The rule that gateways ship calls a next request dissatisfied if it shares words with the one
# before, but few: a Jaccard overlap above 0 and below 0.45. Who sends the same again gives no sign
# by it. Beside it stands the detector where it flags the same share.


# %%
class Domain(NamedTuple):
    """What is known of the pairs of a domain that was left out."""

    retrial: np.ndarray
    times: np.ndarray  # how often each pair is drawn, in each bootstrap sample
    score: np.ndarray
    overlap: np.ndarray
    closeness: np.ndarray

    def with_error(self, of: Callable[[np.ndarray], float], most: int = samples) -> str:
        """A figure of weighted pairs, and its standard error."""
        drawn = [of(one.astype(float)) for one in self.times[:most]]
        return f"{of(np.ones(len(self.retrial))):.3f} ± {np.std(drawn, ddof=1):.3f}"


def domain(name: str) -> Domain:
    mine = results.isel(pair=np.flatnonzero(results["domain_of"].values == name))
    _, whose = np.unique(mine["whose"].values, return_inverse=True)
    number = whose.max() + 1
    rng = np.random.default_rng(made["seed"])
    times = rng.multinomial(number, np.full(number, 1 / number), samples)[:, whose]
    columns = (mine[of].values for of in ("score", "overlap", "closeness"))
    return Domain(mine["retrial"].values > 0, times, *columns)


def average_precision(score: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    place = rankdata(-score, "dense") - 1
    yes, every = (np.bincount(place, weight * of, place.max() + 1) for of in (truth, truth | True))
    precision = np.cumsum(yes) / np.maximum(np.cumsum(every), 1e-12)
    return float(np.sum(yes * precision) / max(yes.sum(), 1e-12))


def slope(score: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    """That of a logistic regression in which both kinds weigh a half, by Newton's method."""
    kinds = [max((weight * of).sum(), 1e-12) for of in (~truth, truth)]
    weight = weight / np.where(truth, kinds[1], kinds[0])
    x, beta = np.stack([np.ones_like(score), score]), np.zeros(2)
    for _ in range(8):
        chance = 1 / (1 + np.exp(-beta @ x))
        beta += np.linalg.solve(
            (x * weight * chance * (1 - chance)) @ x.T, x @ (weight * (truth - chance))
        )
    return float(beta[1])


def flags(called: np.ndarray, of: Domain) -> dict[str, str]:
    """Precision and recall of pairs that are called retrials, and the share of those."""
    shares = {
        "precision": (of.retrial, called),
        "recall": (called, of.retrial),
        "flagged": (called, np.ones(len(called))),
    }
    return {
        name: of.with_error(
            lambda w, what=what, among=among: np.average(what, weights=w * among + 1e-12)
        )
        for name, (what, among) in shares.items()
    }


def ranks(score: np.ndarray, of: Domain) -> dict[str, str]:
    """How well a score orders the pairs."""
    return {
        "AUC": of.with_error(lambda w: area(score, of.retrial, w)),
        "AP": of.with_error(lambda w: average_precision(score, of.retrial, w)),
    }


def scores(name: str, of: Domain) -> list[dict[str, str | int]]:
    """One row a method."""
    by_rule = (of.overlap > RULE[0]) & (of.overlap < RULE[1])
    as_many = rankdata(-of.score, "ordinal") <= by_rule.sum()
    strength = of.with_error(lambda w: slope(of.score, of.retrial, w), 100)
    worth = {"strength": strength, "tilt": f"{float(results['tilt'].sel(domain=name)):+.2f}"}
    methods = {
        "detector": ranks(of.score, of) | worth | flags(as_many, of),
        "overlap of words": ranks(of.overlap, of),
        "closeness alone": ranks(of.closeness, of),
        "rule of gateways": flags(by_rule, of),
    }
    about = {"left out": name, "pairs": len(of.retrial), "retrials": f"{of.retrial.mean():.3f}"}
    return [about | {"method": method} | found for method, found in methods.items()]


known = {name: domain(name) for name in names}
rows = [row for name, of in known.items() for row in scores(name, of)]
table = pd.DataFrame(rows).fillna("")
print(table.to_string(index=False))
with replacing(out / "scores.csv") as temporary:
    table.to_csv(temporary, index=False)

# %% [markdown]
# ## Calibration
#
# Of each class of scores, the evidence that the labels show in the domain left out,
# `log(f1 / f0)` with `f1` and `f0` the shares of retrials and of others in the class, against what
# the detector says, `strength * level`, with that domain's strength. Half a pair is added to each
# count. *Scaled* is what the model `next_request` makes of it, if it knows `f0`: shares that add up
# to 1, `strength * level - log sum f0 exp(strength * level)`. Where all scores of a domain are
# lower than those in training, as in coding, this is right and the other is not.
#
# And **tilt**, in the last three columns: requests after answers that were taken against requests
# that open a session, which can say nothing of an answer: log of the ratio of their shares in each
# class. A tilt is a line through 0; how far the ratios are from any line, it does not say.


# %%
def shares(place: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Of each class."""
    count = np.bincount(place, weight, CLASSES) + 0.5
    return count / count.sum()


def evidence(place: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Of each class, by the labels."""
    return np.log(shares(place, weight * truth) / shares(place, weight * ~truth))


def by_class(name: str, of: Domain) -> pd.DataFrame:
    """What labels show and what the detector says of each class of scores."""
    one = results.sel(domain=name)
    level, opening = one["levels"].values, one["opening"].values
    place, each = np.digitize(of.score, ENDS), np.ones(len(of.score))
    taken, first = shares(place, each * ~of.retrial), (opening + 0.5) / (opening + 0.5).sum()
    said = float(one["strength"]) * level
    drawn = [evidence(place, of.retrial, times.astype(float)) for times in of.times]
    return pd.DataFrame(
        {
            "left out": name,
            "level": level,
            "retrials": np.bincount(place, of.retrial, CLASSES).astype(int),
            "others": np.bincount(place, ~of.retrial, CLASSES).astype(int),
            "evidence": evidence(place, of.retrial, each),
            "error": np.std(drawn, axis=0, ddof=1),
            "said": said,
            "scaled": said - np.log(np.sum(taken * np.exp(said))),
            "after taken": taken,
            "opening": first,
            "log ratio": np.log(taken / first),
        }
    )


classes = {name: by_class(name, of) for name, of in known.items()}
table = pd.concat(classes.values())
print(table.round(3).to_string(index=False))
with replacing(out / "classes.csv") as temporary:
    table.to_csv(temporary, index=False)

# %%
chart, axes = plt.subplots(
    1, len(names), figsize=(3.4 * len(names), 3.8), sharex=True, sharey=True, layout="constrained"
)
for axis, (name, one) in zip(axes, classes.items(), strict=True):
    axis.axline((0, 0), slope=1, color="0.6", lw=1)
    for column, colour, label in (
        ("said", "#0072B2", "strength x level"),
        ("scaled", "#E69F00", "scaled"),
    ):
        axis.errorbar(
            one[column],
            one["evidence"],
            yerr=2 * one["error"],
            fmt="o",
            color=colour,
            capsize=3,
            label=label,
        )
    axis.set(xlabel="evidence that the detector says", title=f"{name}, left out")
axes[0].set_ylabel("evidence by the labels, ±2 SE")
axes[0].legend(frameon=False, fontsize=8)
chart.suptitle(f"Evidence of classes of scores, {made['data']} requests")
print(save_figure(chart, out / "evidence.png"))

# %% [markdown]
# ## What labels of a domain would change
#
# Gain in AUC by other weights, and the share of what outcomes are that classes of scores tell,
# beyond chance, in dialogues without labels. ± is one standard error over draws of labels, which
# come from one domain, so over domains nothing is known.


# %%
def over_draws(values: np.ndarray) -> str:
    return f"{values.mean():+.4f} ± {values.std(ddof=1) / np.sqrt(len(values)):.4f}"


rows = []
for name in names:
    for labels in results["labels"].values:
        found = results["labelled"].sel(domain=name, labels=labels).values
        found = found[np.isfinite(found).all(axis=1)]
        if len(found) > 1:
            rows.append(
                {
                    "left out": name,
                    "labels": labels,
                    "draws": len(found),
                    "AUC": f"{found[:, 0].mean():.3f}",
                    "gain": over_draws(found[:, 1] - found[:, 0]),
                    "told": f"{found[:, 2].mean():.3f}",
                    "gain of that": over_draws(found[:, 3] - found[:, 2]),
                }
            )
table = pd.DataFrame(rows)
print(table.to_string(index=False))
with replacing(out / "labels.csv") as temporary:
    table.to_csv(temporary, index=False)
