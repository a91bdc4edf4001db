# %% [markdown]
# # What do wrong labels of retrials do to a posterior?
#
# No log of conversations says which turns are retrials: a detector does, and errs. Simulated logs
# in which 0, 10, 20 and 30 percent of the labels are wrong, of retries and of acceptances alike,
# are fitted by the clean model (`disjoint_mnl`), which takes labels at face value, and by
# `misclassified`, which knows how often the detector was wrong on labelled conversations.
#
# - **Simulated**: all of it. Users choose by a disjoint multinomial logit whose parameters are
#   drawn from the model's prior, among two of three LLMs. A retry that is missed is logged as the
#   acceptance of either answer.
# - **Priors** of the errors come from a labelled set of 300 retries and 300 acceptances; how often
#   labels of a log are wrong is drawn from what that set leaves open, so it is never quite what the
#   prior says. At 0 percent no label is wrong, and the prior does not know that for sure.
# - **Coverage** of 90 percent intervals should be 90 percent. Parameters of one log are correlated,
#   so that errors are binomial ones for as many *logs*. **Too close to 0** is
#   `sign(mean) (truth - mean) / sd`, whose mean is 0 under a calibrated posterior, whatever the
#   data.
#
#     python analyses/mislabelled_retrials.py [--smoke] [--out FOLDER] [--seed N]

# %%
import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cqbayes.models.disjoint_mnl import disjoint_mnl
from cqbayes.models.misclassified import misclassified, priors_from_labels

from cqbayes import (
    ChoiceData,
    choice_data,
    load_engine,
    over_seeds,
    progress_bar,
    provenance,
    replacing,
    save_figure,
    scripts_end_in_one_line,
    writable_folder,
)

parser = argparse.ArgumentParser(description="Wrong labels of retrials, simulated.")
parser.add_argument("--smoke", action="store_true", help="a tiny run that proves nothing")
parser.add_argument("--out", type=Path, default=Path("out/mislabelled_retrials"))
parser.add_argument("--seed", type=int, default=0)
settings = parser.parse_args()
scripts_end_in_one_line()
out = writable_folder(settings.out)
rates = [0.3] if settings.smoke else [0.0, 0.1, 0.2, 0.3]
num_logs, num_obs, num_draws = (4, 100, 25) if settings.smoke else (60, 600, 300)
LEVEL, LABELLED, NUM_LLMS, DIM, CHAINS = 0.9, 300, 3, 2, 2
INTERCEPT_SD, PRIOR_SD = 1.5, 2.0
base = disjoint_mnl(prior_sd=PRIOR_SD, intercept_sd=INTERCEPT_SD)
made = provenance(
    analysis="mislabelled_retrials",
    logs=num_logs,
    rows=num_obs,
    labelled=2 * LABELLED,
    seed=settings.seed,
    smoke=settings.smoke,
)
print(json.dumps(made))

# %% [markdown]
# ## Logs and fits


# %%
def one_log(rng: Any, wrong: float, priors: dict) -> tuple[ChoiceData, np.ndarray, float]:
    """A simulated log, its users' parameters, and which share of its labels is wrong."""
    weights = rng.normal(size=(NUM_LLMS, 1 + DIM)) * [INTERCEPT_SD, *[PRIOR_SD] * DIM]
    recognised, kept = (rng.beta(*priors[name]) for name in ("recognised", "specificity"))
    if wrong == 0:
        recognised, kept = 1.0, 1.0
    hit = recognised + (1 - recognised) * (1 - kept)
    context = rng.normal(size=(num_obs, DIM))
    context /= np.linalg.norm(context, axis=1, keepdims=True)
    offered = np.argsort(rng.random((num_obs, NUM_LLMS)), axis=1) < 2
    gain = np.where(offered, weights[:, 0] + context @ weights[:, 1:].T, -np.inf)
    luck = rng.gumbel(size=(num_obs, 1 + NUM_LLMS))
    choice = np.argmax(np.column_stack([np.zeros(num_obs), gain]) + luck, axis=1)
    missed = (choice == 0) & (rng.random(num_obs) >= hit)
    mistaken = (choice > 0) & (rng.random(num_obs) >= kept)
    anyone = np.where(offered, rng.random(offered.shape), -1).argmax(axis=1) + 1
    seen = np.where(missed, anyone, np.where(mistaken, 0, choice))
    truth = np.concatenate([weights[:, 0], weights[:, 1:].ravel()])
    return choice_data(context, offered, seen), truth, float((missed | mistaken).mean())


def fitted(key: Any, model: Any, logs: ChoiceData) -> np.ndarray:
    """Draws ``[log, draw, parameter]`` of all logs, in one compiled HMC."""
    fit = load_engine("hmc").fit

    def one(key: Any, log: ChoiceData) -> Any:
        posterior, info = fit(key, model, log, num_chains=CHAINS, num_draws=num_draws)
        return posterior.sites(key, 1), info.status

    sites, status = jax.jit(jax.vmap(one))(jax.random.split(key, num_logs), logs)
    if np.any(status):
        print(f"{int(np.sum(np.asarray(status) > 0))} fits that do not vouch for themselves")
    flat = (num_logs, CHAINS * num_draws, -1)
    parts = [np.asarray(sites[name]).reshape(flat) for name in ("intercept", "theta")]
    return np.concatenate(parts, axis=-1)


def scores(draws: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """Of every log: which share of its parameters is covered, and how much they are shrunk."""
    low, high = np.quantile(draws, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=1)
    mean, sd = draws.mean(axis=1), draws.std(axis=1)
    return pd.DataFrame(
        {
            "covered": ((low < truth) & (truth < high)).mean(axis=1),
            "shrunk": (np.sign(mean) * (truth - mean) / sd).mean(axis=1),
            "error": np.sqrt(((mean - truth) ** 2).mean(axis=1)),
        }
    )


found, shown = [], {}
with progress_bar("fits", total=2 * len(rates)) as advance:
    for number, wrong in enumerate(rates):
        rng = np.random.default_rng([settings.seed, number])
        right = round((1 - wrong) * LABELLED)
        priors = priors_from_labels(right, LABELLED, right, LABELLED)
        made_logs = [one_log(rng, wrong, priors) for _ in range(num_logs)]
        logs = jax.tree.map(lambda *columns: jnp.stack(columns), *[log for log, _, _ in made_logs])
        truth = np.array([truth for _, truth, _ in made_logs])
        share = float(np.mean([share for _, _, share in made_logs]))
        for name, model in (("clean", base), ("misclassified", misclassified(base, **priors))):
            draws = fitted(jax.random.key(settings.seed), model, logs)
            rows = scores(draws, truth).assign(wrong=wrong, share=share, model=name)
            found.append(rows)
            shown[wrong, name] = (truth.ravel(), draws.mean(axis=1).ravel())
            advance(1)
every = pd.concat(found, ignore_index=True)

# %% [markdown]
# ## What comes of it
#
# Coverage ± its binomial error, and in brackets how many of them it is away from nominal; bias in
# posterior standard deviations ± one standard error over logs, and in brackets in those.

# %%
binomial = np.sqrt(LEVEL * (1 - LEVEL) / num_logs)
lines = []
for (wrong, name), rows in every.groupby(["wrong", "model"], sort=True):
    covered, bias = rows["covered"].mean(), over_seeds(rows["shrunk"].to_numpy())
    away = (covered - LEVEL) / binomial
    lines.append(
        {
            "wrong labels": f"{wrong:.0%}",
            "realised": f"{rows['share'].iloc[0]:.1%}",
            "model": name,
            "coverage of 90%": f"{covered:.3f} ± {binomial:.3f} ({away:+.1f})",
            "too close to 0, sd": f"{bias} ({bias.value / bias.error:+.1f})",
            "rms error, log-odds": over_seeds(rows["error"].to_numpy()),
        }
    )
table = pd.DataFrame(lines).map(str)
print(table.to_string(index=False))
with replacing(out / "table.csv") as temporary:
    table.to_csv(temporary, index=False)

# %%
COLOURS = {"clean": "#D55E00", "misclassified": "#0072B2"}
chart, axes = plt.subplots(1, 3, figsize=(13.5, 4.2))
for offset, (name, colour) in zip((-0.004, 0.004), COLOURS.items(), strict=True):
    groups = [every[(every["wrong"] == w) & (every["model"] == name)] for w in rates]
    at = np.array(rates) + offset
    how: dict[str, Any] = {"fmt": "o-", "color": colour, "capsize": 3, "label": name}
    axes[0].errorbar(at, [g["covered"].mean() for g in groups], yerr=2 * binomial, **how)
    estimates = [over_seeds(g["shrunk"].to_numpy()) for g in groups]
    axes[1].errorbar(at, [e.value for e in estimates], yerr=[2 * e.error for e in estimates], **how)
    truth, mean = shown[rates[-1], name]
    axes[2].plot(truth, mean, "o", ms=3, alpha=0.5, color=colour, label=name)
axes[0].axhline(LEVEL, color="black", lw=1, ls="--")
axes[0].set(title="coverage of 90% intervals", xlabel="share of labels wrong", ylim=(0, 1.02))
axes[1].axhline(0, color="black", lw=1, ls="--")
axes[1].set(title="posterior means too close to 0, in sd", xlabel="share of labels wrong")
reach = np.abs(shown[rates[-1], "clean"][0]).max()
axes[2].plot([-reach, reach], [-reach, reach], color="black", lw=1, ls="--")
axes[2].set(
    title=f"{rates[-1]:.0%} wrong: all parameters of all logs",
    xlabel="truth, log-odds",
    ylabel="posterior mean",
)
for axis in axes:
    axis.grid(alpha=0.25)
axes[0].legend(frameon=False, loc="lower left")
chart.suptitle(
    f"Simulated: {num_logs} logs of {num_obs} services each; bars ±2 standard errors", fontsize=10
)
chart.tight_layout()
print(save_figure(chart, out / "mislabelled_retrials.png"))
