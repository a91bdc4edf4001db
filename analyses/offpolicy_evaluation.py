# %% [markdown]
# # What would another policy have got? From the log of ACQB in a queue
#
# ACQB serves a queue and learns as it goes. Its log says who waited in every round, and from its
# posterior of that round follow the true propensities of what it did, jointly over query and LLM.
# Four other policies are evaluated from such logs by replay, IPS, SNIPS and a doubly robust
# estimate, against two truths that a simulation knows:
#
# - **in the logged rooms**: the mean departure probability of what the policy would have done with
#   those who waited *then*. This is what the estimators estimate;
# - **in its own queue**: departures per service where the policy serves from the start. This is
#   what one wants to know, and no reweighting of rows can give it: another policy leaves another
#   backlog. `simulate_policies`, users being drawn from the posterior of one log, can.
#
# **Simulated**: all of it (`synthetic`: linear utilities, contexts in the unit ball). The first
# third of every log fits the model of the doubly robust estimate and makes the greedy and the
# Thompson target; only the rest is evaluated.
#
#     python analyses/offpolicy_evaluation.py [--smoke] [--out FOLDER] [--seed N]

# %%
import argparse
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import cqbayes
from cqbayes import (
    Setup,
    Sizes,
    acqb,
    belief,
    best_single,
    capacity,
    doubly_robust,
    greedy,
    inverse_root,
    ips,
    logged_actions,
    over_seeds,
    progress_bar,
    provenance,
    random,
    replacing,
    replay,
    retrial_queue,
    save_figure,
    scripts_end_in_one_line,
    simulate,
    simulate_policies,
    snips,
    synthetic,
    thompson,
    thompson_propensities,
    writable_folder,
)
from cqbayes.inference.online import update
from cqbayes.offpolicy.propensities import with_observations
from cqbayes.posterior.online_gaussian import prior

parser = argparse.ArgumentParser(description="Off-policy evaluation of a simulated ACQB log.")
parser.add_argument("--smoke", action="store_true", help="a tiny run that proves nothing")
parser.add_argument("--out", type=Path, default=Path("out/offpolicy_evaluation"))
parser.add_argument("--seed", type=int, default=0)
settings = parser.parse_args()
scripts_end_in_one_line()
out = writable_folder(settings.out)
rounds, seeds, draws, truths = (90, 2, 40, 2) if settings.smoke else (1_800, 24, 400, 24)
NUM_LLMS, DIM, PLACES, C, LOAD = 3, 2, 32, 3.0, 0.6
model, sizes = cqbayes.load_model("disjoint_mnl"), Sizes(NUM_LLMS, DIM)
world_key, log_key, mu_key, pi_key, own_key, remedy_key = jax.random.split(
    jax.random.key(settings.seed), 6
)
population = synthetic(world_key, NUM_LLMS, DIM)
rate = LOAD * float(capacity(population))
env = retrial_queue(population, rate)
made = provenance(
    analysis="offpolicy_evaluation",
    rounds=rounds,
    logs=seeds,
    arrival_rate=round(rate, 4),
    exploration=C,
    seed=settings.seed,
    smoke=settings.smoke,
)
print(json.dumps(made))

# %% [markdown]
# ## The logs, and the propensities of what was done

# %%
logging = acqb(belief.online(model, sizes), NUM_LLMS, c=C)
trace = simulate(
    log_key,
    logging,
    with_observations(env, PLACES),
    rounds,
    num_seeds=seeds,
    room=PLACES,
    record=True,
)
assert trace.rows is not None
rows = jax.tree.map(jnp.asarray, trace.rows)
seen, place = trace.metrics.seen, trace.metrics.place
if seen.queue_length.max() > PLACES:
    raise SystemExit(f"more than {PLACES} waited: their places were not written down")
occupied = jnp.asarray(np.arange(PLACES) < seen.queue_length[..., None])
context = jnp.asarray(seen.context)
begin = rounds // 3


@eqx.filter_jit
def beliefs(one: Any) -> Any:
    """ACQB's posterior before every round of a log: its updates, once more."""

    def step(posterior: Any, row: Any) -> tuple[Any, Any]:
        return update(posterior, jax.tree.map(lambda x: x[None], row), 1), posterior

    last, before = jax.lax.scan(step, prior(model, sizes), one)
    return before, last


before, last = jax.vmap(beliefs)(rows)
early = jax.tree.map(lambda x: x[:, begin], before)  # what a third of a log tells


@eqx.filter_jit
def probabilities(key: Any, posteriors: Any, etas: Any, room: Any, there: Any) -> Any:
    """Thompson sampling's ``[round, place, llm]`` of one log, a posterior a round."""

    def one(given: tuple) -> Any:
        key, posterior, eta, context, there = given
        return thompson_propensities(
            key, posterior, context, there, num_draws=draws, eta=eta
        ).probability

    keys = jax.random.split(key, rounds)
    return jax.lax.map(one, (keys, posteriors, etas, room, there), batch_size=16)


etas = jax.vmap(inverse_root(C))(jnp.arange(1, rounds + 1))
tables: dict[str, list] = {"mu": [], "Thompson": []}
with progress_bar("propensities", total=2 * seeds) as advance:
    for s in range(seeds):
        path, fixed = (jax.tree.map(lambda x, s=s: x[s], p) for p in (before, early))
        still = jax.tree.map(lambda x: jnp.broadcast_to(x, (rounds, *x.shape)), fixed)
        for name, key, beliefs_of, eta in (
            ("mu", mu_key, path, etas),
            ("Thompson", pi_key, still, jnp.zeros(rounds)),
        ):
            found = probabilities(
                jax.random.fold_in(key, s), beliefs_of, eta, context[s], occupied[s]
            )
            tables[name].append(np.asarray(found, np.float64))
            advance(1)
mu = np.stack(tables["mu"])

# %% [markdown]
# ## The targets, what they would have done, and what is true of it

# %%
waiting = np.asarray(occupied)
queue = np.maximum(waiting.sum(axis=-1), 1)[..., None, None]


@jax.jit
def accepted(posteriors: Any, context: Any) -> Any:
    """The model's acceptance probabilities ``[seed, round, place, llm]``, over its draws."""

    def one_log(posterior: Any, room: Any) -> Any:
        def drawn(key: Any) -> Any:
            params = posterior.draw(key)
            return jax.nn.sigmoid(params["intercept"] + room @ params["theta"].T)

        keys = jax.random.split(jax.random.key(1), 100)
        return jax.lax.map(drawn, keys).mean(axis=0)

    return jax.vmap(one_log)(posteriors, context)


def single(score: np.ndarray) -> np.ndarray:
    """All probability on the place and LLM of the highest score among those that wait."""
    flat = np.where(waiting[..., None], score, -np.inf).reshape(seeds, rounds, -1)
    table = np.zeros_like(flat)
    np.put_along_axis(table, flat.argmax(axis=-1)[..., None], 1.0, axis=-1)
    return table.reshape(score.shape) * waiting[..., None]


centre = jax.vmap(lambda p: p.mean())(early)
believed = np.asarray(
    centre["intercept"][:, None, None] + jnp.einsum("srpk,sjk->srpj", context, centre["theta"])
)
q = np.asarray(accepted(early, context), np.float64)
theta = np.asarray(population.utility.args[0])
true = 1 / (1 + np.exp(-(np.asarray(context) @ theta.T)))
alone = best_single(population, NUM_LLMS)
best = np.asarray(alone.select.args[0])
age = np.where(waiting, seen.wait, -1)[..., None]
targets = {
    "random": waiting[..., None] * np.ones(NUM_LLMS) / (queue * NUM_LLMS),
    "best single, FIFO": single(np.where(best, age, -np.inf)),
    "greedy": single(believed),
    "Thompson": np.stack(tables["Thompson"]),
}
ESTIMATORS = ["replay", "IPS", "SNIPS", "DR", "model alone"]


def at_logged(table: np.ndarray, s: int) -> np.ndarray:
    """Of what was done in the rounds that are evaluated."""
    llm = trace.metrics.offered[s].argmax(axis=-1)
    return table[s, np.arange(rounds), place[s], llm][begin:]


records, status = [], []
for s in range(seeds):
    data = jax.tree.map(lambda x, s=s: x[s, begin:], rows)
    served = np.asarray(data.weight) > 0
    for name, target in targets.items():
        log = logged_actions(data, at_logged(mu, s), at_logged(target, s))
        in_rooms = np.sum(target * true, axis=(2, 3))[s, begin:][served].mean()
        model_says = np.sum(target * q, axis=(2, 3))[s, begin:]
        results = {
            "replay": replay(log),
            "IPS": ips(log),
            "SNIPS": snips(log),
            "DR": doubly_robust(log, at_logged(q, s), model_says),
        }
        if s == 0:
            for which, result in results.items():
                status.append((name, which, result))
        for which, result in results.items():
            records.append(
                (s, name, which, result.estimate, result.standard_error, in_rooms, result.ok)
            )
        direct = model_says[served].mean()
        records.append((s, name, "model alone", direct, np.nan, in_rooms, True))
columns = ["log", "target", "estimator", "estimate", "error", "truth", "ok"]
found = pd.DataFrame(records, columns=columns)

# %% [markdown]
# ## In their own queue, by simulation; and by simulation with draws of the first log's posterior

# %%
early_policies = {
    "greedy": eqx.filter_vmap(lambda p: greedy(belief.fixed(p)))(early),
    "Thompson": eqx.filter_vmap(lambda p: thompson(belief.fixed(p)))(early),
}
own: dict[str, Any] = {}
contenders = {"random": (random(NUM_LLMS), False)}
if not settings.smoke:
    contenders["best single, FIFO"] = (alone, False)
    contenders |= {name: (policy, True) for name, policy in early_policies.items()}
for name, (policy, per_seed) in contenders.items():
    done = simulate(
        own_key, policy, env, rounds, num_seeds=seeds, room=128, policy_per_seed=per_seed
    ).metrics
    own[name] = over_seeds(done.departed.sum(axis=1) / done.served.sum(axis=1))

first, whole = (jax.tree.map(lambda x: x[0], p) for p in (early, last))
known = np.asarray(rows.context[0])[np.asarray(rows.weight[0]) > 0]
setup = Setup(sizes, 1, belief.fixed(first))
setups = {"random": ("random", setup)}
if not settings.smoke:
    setups |= {"greedy": ("greedy", setup), "Thompson": ("thompson", setup)}
remedy = simulate_policies(
    remedy_key, whole, np.unique(known, axis=0), setups, rate, rounds, num_truths=truths
)["value"]

# %% [markdown]
# ## What comes of it
#
# `mean` is over the logs ± its standard error; `bias` is the mean deviation from the truth in the
# logged rooms in standard errors over logs; `covered` is how often a 95 percent interval of one
# log holds it, with a binomial error; `ok` says in how many logs the estimate vouches for itself.
# Replay is unfair on a log like this, says so, and is shown for that.

# %%
lines = []
for (name, which), part in found.groupby(["target", "estimator"], sort=False):
    gap = over_seeds((part["estimate"] - part["truth"]).to_numpy())
    held = ((part["estimate"] - part["truth"]).abs() < 1.96 * part["error"]).mean()
    lines.append(
        {
            "target": name,
            "estimator": which,
            "mean": over_seeds(part["estimate"].to_numpy()),
            "truth in logged rooms": f"{part['truth'].mean():.3f}",
            "bias, se": f"{gap.value / gap.error:+.1f}" if gap.error else "",
            "rms error": f"{np.sqrt(((part['estimate'] - part['truth']) ** 2).mean()):.3f}",
            "covered": "" if which == "model alone" else f"{held:.2f}",
            "ok": f"{part['ok'].mean():.0%}",
            "in its own queue": own.get(name, ""),
        }
    )
table = pd.DataFrame(lines).map(str)
print(f"binomial error of a coverage of 0.95: {np.sqrt(0.95 * 0.05 / seeds):.2f}")
print(table.to_string(index=False))
with replacing(out / "table.csv") as temporary:
    table.to_csv(temporary, index=False)
print("\nOne log, in its own words:")
for name, which, result in status:
    print(f"{name}, {which}: {result}")
print("\nOwn queue, with users drawn from the posterior of the first log (mean, sd over draws):")
for name in setups:
    values = remedy.sel(policy=name).values
    print(f"{name}: {values.mean():.3f}, {values.std(ddof=1):.3f}; by simulation {own[name]}")

# %%
COLOURS = ["#999999", "#E69F00", "#56B4E9", "#0072B2", "#009E73"]
chart, axis = plt.subplots(figsize=(10, 4.8))
for number, (which, colour) in enumerate(zip(ESTIMATORS, COLOURS, strict=True)):
    for position, name in enumerate(targets):
        part = found[(found["target"] == name) & (found["estimator"] == which)]
        x = position + 0.14 * (number - 2)
        axis.plot([x] * len(part), part["estimate"], "o", ms=3, alpha=0.35, color=colour)
        mean = over_seeds(part["estimate"].to_numpy())
        axis.errorbar(
            x,
            mean.value,
            yerr=2 * mean.error,
            fmt="D",
            ms=6,
            capsize=4,
            color=colour,
            mec="black",
            label=which if position == 0 else None,
        )
for position, name in enumerate(targets):
    truth = found[found["target"] == name]["truth"].mean()
    said = position == 0
    axis.hlines(
        truth,
        position - 0.4,
        position + 0.4,
        color="black",
        label="truth in the logged rooms" if said else None,
    )
    if name in own:
        axis.hlines(
            own[name].value,
            position - 0.4,
            position + 0.4,
            color="#D55E00",
            ls="--",
            label="truth in its own queue" if said else None,
        )
axis.set(
    xticks=range(len(targets)),
    xticklabels=list(targets),
    ylabel="departures per service",
    title=f"Simulated: {seeds} logs of ACQB, {rounds - begin:,} rounds each evaluated; "
    "diamonds are means ±2 standard errors",
)
axis.title.set_fontsize(10)
axis.grid(axis="y", alpha=0.25)
axis.legend(fontsize=8, frameon=False, bbox_to_anchor=(1.01, 1), loc="upper left")
chart.tight_layout()
print(save_figure(chart, out / "offpolicy_evaluation.png"))
