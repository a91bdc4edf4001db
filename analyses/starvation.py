# %% [markdown]
# # What does best-first cost those who wait?
#
# ACQB serves the query that is most likely to be satisfied. In the loaded queue the hard ones then
# wait, as in any queue that serves the shortest job first. Measured here, on synthetic truth and on
# real scores of three LLMs (data set `paretobandit3`, users simulated from them), are the mean
# wait, its 99th percentile, the age of the oldest query, attempts, and the price of each remedy in
# queue-length regret:
#
# - `fifo`: the oldest query first, always;
# - `aging`: waiting raises a query's priority, in log-odds a round;
# - `max_wait`: the oldest first as soon as it has waited too long;
# - `escalate`: after so many attempts, the LLM that is best on average;
# - both of the last two.
#
#     python analyses/starvation.py [--smoke] [--out FOLDER]

# %%
import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import pandas as pd

import cqbayes
from cqbayes import (
    Policy,
    Population,
    Sizes,
    acqb,
    aging,
    belief,
    capacity,
    departure_probability,
    escalate,
    fifo,
    from_scores,
    max_wait,
    oracle,
    over_seeds,
    performance,
    progress_bar,
    regrets,
    replacing,
    retrial_queue,
    save_figure,
    scripts_end_in_one_line,
    simulate,
    synthetic,
    writable_folder,
)

parser = argparse.ArgumentParser(description="Starvation under best-first, and its remedies.")
parser.add_argument("--smoke", action="store_true", help="a tiny run that proves nothing")
parser.add_argument("--out", type=Path, default=Path("out/starvation"))
parser.add_argument("--seed", type=int, default=0)
settings = parser.parse_args()
scripts_end_in_one_line()
out = writable_folder(settings.out)
rounds, num_seeds, slack = (300, 3, 0.05) if settings.smoke else (20_000, 64, 0.05)
truth_key, run_key = jax.random.split(jax.random.key(settings.seed))
scores = cqbayes.load_scores("paretobandit3", dim=16)
worlds = {
    "synthetic": (synthetic(truth_key, 5, 5), Sizes(5, 5)),
    "paretobandit3": (from_scores(scores.part("test")), Sizes(3, 16)),
}

# %% [markdown]
# ## The policies


# %%
def best_on_average(population: Population, num_llms: int) -> jax.Array:
    """The LLM of highest mean departure probability, known in hindsight, as an assortment."""
    queries = jax.vmap(population.draw)(jax.random.split(jax.random.key(3), 4_096))
    utility = jax.vmap(population.utility)(queries)
    alone = jnp.eye(num_llms, dtype=bool)
    means = [
        jnp.mean(departure_probability(utility, jnp.broadcast_to(llm, utility.shape)))
        for llm in alone
    ]
    return alone[jnp.argmax(jnp.stack(means))]


def policies(population: Population, sizes: Sizes) -> dict[str, Policy]:
    learner = acqb(belief.online(cqbayes.load_model("disjoint_mnl"), sizes), sizes.num_llms)
    strongest = best_on_average(population, sizes.num_llms)
    few = {
        "oracle": oracle(population),
        "acqb": learner,
        "max_wait 50, escalate 5": escalate(max_wait(learner, 50), 5, strongest),
    }
    if settings.smoke:
        return few
    return few | {
        "fifo": fifo(learner),
        "aging 0.01": aging(learner, 0.01),
        "aging 0.05": aging(learner, 0.05),
        "max_wait 50": max_wait(learner, 50),
        "max_wait 200": max_wait(learner, 200),
        "escalate 5": escalate(learner, 5, strongest),
    }


# %% [markdown]
# ## What those who wait get, and what it costs


# %%
rows = []
with progress_bar(
    "starvation", total=sum(len(policies(*world)) for world in worlds.values())
) as advance:
    for name, (population, sizes) in worlds.items():
        env = retrial_queue(population, capacity(population) - slack)
        traces = {}
        for label, policy in policies(population, sizes).items():
            traces[label] = simulate(run_key, policy, env, rounds, num_seeds=num_seeds, room=256)
            advance(1)
        felt = performance(traces)
        gap = regrets(traces)["queue_length_regret"]
        late = gap.isel(round=slice(-max(1, rounds // 10), None)).mean("round")
        rows += [
            {
                "world": name,
                "policy": label,
                "queue-length regret": over_seeds(late.sel(policy=label).values),
                "mean wait": over_seeds(felt["wait_mean"].sel(policy=label).values),
                "p99 wait": over_seeds(felt["wait_p99"].sel(policy=label).values),
                "oldest": over_seeds(felt["oldest_max"].sel(policy=label).values),
                "attempts": over_seeds(felt["attempts"].sel(policy=label).values),
            }
            for label in traces
        ]
table = pd.DataFrame(rows)
print(table.map(str).to_string(index=False))
with replacing(out / "starvation.csv") as temporary:
    table.map(str).to_csv(temporary, index=False)

# %%
chart, axes = plt.subplots(1, len(worlds), figsize=(11, 4.8), squeeze=False)
learners = table[table["policy"] != "oracle"]
for axis, name in zip(axes[0], worlds, strict=True):
    part = learners[learners["world"] == name]
    price = [cell.value for cell in part["queue-length regret"]]
    tail = [cell.value for cell in part["p99 wait"]]
    axis.errorbar(
        price,
        tail,
        xerr=[cell.error for cell in part["queue-length regret"]],
        yerr=[cell.error for cell in part["p99 wait"]],
        fmt="o",
    )
    for x, y, label in zip(price, tail, part["policy"], strict=True):
        axis.annotate(label, (x, y), textcoords="offset points", xytext=(6, 4), fontsize=8)
    axis.set(title=f"{name} (simulated users)", yscale="log")
    axis.set_xlabel("queue length above the oracle's, last tenth")
    axis.margins(x=0.25)
axes[0, 0].set_ylabel("99th percentile of waits, rounds")
chart.tight_layout()
print(save_figure(chart, out / "starvation.png"))
