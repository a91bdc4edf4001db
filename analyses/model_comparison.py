# %% [markdown]
# # Which model of users does a log support?
#
# Real prompts and real scores of three LLMs (data set `paretobandit3`); users are simulated from
# the scores. Several models are fitted to the same choices, and ArviZ is asked
#
# - which one predicts best: leave-one-out cross-validation by PSIS, with standard errors;
# - whether what it predicts is calibrated: retries that were seen against those expected, by the
#   posterior predictive and, before any data, by the prior predictive;
# - how much the prior matters: power-scaling of prior and likelihood (Kallioinen et al. 2024).
#
#     python analyses/model_comparison.py [--smoke] [--out FOLDER]

# %%
import argparse
import warnings
from pathlib import Path

import arviz_base
import arviz_plots
import arviz_stats
import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import cqbayes
from cqbayes import progress_bar, save_figure, scripts_end_in_one_line, writable_folder
from cqbayes.report.demo import simulated_log

parser = argparse.ArgumentParser(description="Compares preference models on one log.")
parser.add_argument("--smoke", action="store_true", help="a tiny run that proves nothing")
parser.add_argument("--out", type=Path, default=Path("out/model_comparison"))
parser.add_argument("--seed", type=int, default=0)
settings = parser.parse_args()
scripts_end_in_one_line()
out = writable_folder(settings.out)
num_choices, dim = (300, 4) if settings.smoke else (3_000, 16)
models = ["disjoint_mnl", "hierarchical_mnl", "low_rank_mnl", "sparse_mnl"]
models = models[:2] if settings.smoke else models

# %% [markdown]
# ## The fits

# %%
scores = cqbayes.load_scores("paretobandit3", dim=dim)
log_key, fit_key = jax.random.split(jax.random.key(settings.seed))
data = simulated_log(log_key, scores.part("train"), num_choices)
llms = list(scores.llms)

trees = {}
with progress_bar("fits", total=len(models)) as advance:
    for name in models:
        posterior, info = cqbayes.infer(fit_key, cqbayes.load_model(name), data, engine="auto")
        print(f"{name}: {info}")
        trees[name] = posterior.to_arviz(data=data, info=info, llms=llms)
        advance(1)

# %% [markdown]
# ## Leave-one-out comparison
#
# `elpd_diff` and `dse`: how much worse than the best, and the standard error of that difference. A
# difference of a few of its errors is a finding, a smaller one is not.

# %%
with warnings.catch_warnings(record=True) as caught:  # ArviZ warns of high k-hats; they are shown
    warnings.simplefilter("always")
    comparison = arviz_stats.compare(trees)
print(pd.DataFrame(comparison).to_string())
for message in {str(warning.message) for warning in caught}:
    print("note:", message)
pd.DataFrame(comparison).to_csv(out / "comparison.csv")
arviz_plots.plot_compare(comparison, backend="matplotlib")
save_figure(plt.gcf(), out / "comparison.png")

# %% [markdown]
# ## Predictive checks: are retries as frequent as is predicted?


# %%
def retries(tree):
    """Whether each choice was a retry, seen and predicted, as ArviZ's checks take it."""
    drawn = {
        group: {"retry": (tree[group]["choice"].values == 0).astype(int)}
        for group in ("posterior_predictive", "prior_predictive")
    }
    seen = (tree["observed_data"]["choice"].values == 0).astype(int)
    return arviz_base.from_dict({**drawn, "observed_data": {"retry": seen}})


best = str(comparison.index[0])
check = retries(trees[best])
for group in ("prior_predictive", "posterior_predictive"):
    with warnings.catch_warnings():  # that it shows observed data besides the prior's: as wanted
        warnings.simplefilter("ignore", UserWarning)
        arviz_plots.plot_ppc_pava(check, group=group, backend="matplotlib")
    save_figure(plt.gcf(), out / f"{group}.png")
    rate = check[group]["retry"].mean(
        "obs" if "obs" in check[group]["retry"].dims else "retry_dim_0"
    )
    low, high = np.quantile(rate, [0.05, 0.95])
    print(f"{group}: retry rate between {low:.3f} and {high:.3f} (90 %)")
print(f"seen: {check['observed_data']['retry'].values.mean():.3f}")

# %% [markdown]
# ## Prior sensitivity
#
# `prior` and `likelihood`: how much the posterior moves when one of them is made a little stronger.
# Above 0.05 it moves noticeably; a prior that moves it where the likelihood does not decides alone.

# %%
shown = [name for name in trees[best]["posterior"].data_vars if "decentered" not in name]
sensitivity = pd.DataFrame(arviz_stats.psense_summary(trees[best], var_names=shown))
print(sensitivity.to_string())
sensitivity.to_csv(out / "sensitivity.csv")
print(f"pictures and tables: {out}")
