# %% [markdown]
# # Do posteriors mean what they say?
#
# Simulation-based calibration of every model with every engine: on logs of a fixed design, and on
# logs that ACQB made in the retrial queue while it learnt. Truths come from the model's own prior,
# so the ranks of the truths among posterior draws are uniform if and only if the posterior is
# right. All data are simulated.
#
# - `p`: of the ranks of all parameters and of the log-likelihood being uniform, corrected for their
#   number, over the fits that their own engine trusts. `p, all` is the same over all fits. About
#   one p-value in a hundred is below 0.01 by chance. `worst` is the quantity farthest off.
# - `failed`: fits whose own engine says that they failed, out of how many, and as what. They are
#   counted here; a user is told not to use them.
# - Pairs that an engine or the collection refuses are listed with the reason it gives.
# - `online` is approximate, and what it loses is reported, not hidden. It keeps every LLM's
#   parameters apart: each by itself is about right, but draws of all of them together fit the log
#   worse than they should, which `log_likelihood` shows.
# - `simuk`: an independent implementation, of NumPyro's own NUTS on the fixed design.
#
#     python analyses/calibration.py [--smoke] [--model NAME] [--engine NAME] [--out FOLDER]
#
# Everything at full size takes a night. `--smoke` shows that it runs, and proves nothing.

# %%
import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import xarray as xr
from rich.console import Console
from rich.table import Table

import cqbayes
from cqbayes import (
    InputError,
    Sizes,
    Status,
    engine_names,
    load_model,
    model_names,
    provenance,
    replacing,
    save_figure,
    scripts_end_in_one_line,
    writable_folder,
)
from cqbayes.diagnostics.calibration import calibrate, figure, of_simuk, simuk_sbc, uniformity
from cqbayes.diagnostics.collection import (
    Collection,
    adaptive_collection,
    fixed_collection,
    random_design,
)

SIZES = Sizes(num_llms=3, dim=2, num_attributes=2, num_users=12, num_times=3)


class Scale(NamedTuple):
    """How much is simulated.

    Attributes:
        replicates: truths, logs and fits of each pair.
        rows: of a log of the fixed design.
        rounds: of the queue, for an adaptive log.
    """

    replicates: int
    rows: int
    rounds: int


NIGHTLY, SMOKE = Scale(replicates=200, rows=300, rounds=300), Scale(20, 60, 60)


# %%
def collections(seed: int, scale: Scale) -> dict[str, Collection]:
    """A fixed design with all optional columns, and ACQB's own logs."""
    keys = jax.random.split(jax.random.key(seed), 2)
    attributes = jax.random.normal(keys[1], (SIZES.num_llms, SIZES.num_attributes))
    # The queue's rows have neither users nor blocks of time.
    shown = SIZES._replace(num_users=0, num_times=0)
    return {
        "fixed": fixed_collection(random_design(keys[0], scale.rows, SIZES)),
        "adaptive": adaptive_collection(shown, scale.rounds, attributes=attributes),
    }


def by_engine(
    seed: int, scale: Scale, collection: Collection, label: str, model: str, engine: str
) -> xr.Dataset:
    """The same seed for every engine: all are fitted to the same logs."""
    return calibrate(
        jax.random.key(seed),
        load_model(model),
        collection,
        partial(cqbayes.infer, engine=engine),
        num_replicates=scale.replicates,
        progress=True,
        name=label,
    )


def by_simuk(seed: int, scale: Scale, model: str) -> xr.Dataset:
    keys = jax.random.split(jax.random.key(seed), 3)
    design = random_design(keys[0], scale.rows, SIZES)
    # A quarter, since it compiles anew for each.
    replicates = max(2, scale.replicates // 4)
    sbc = simuk_sbc(keys[1], load_model(model), design, num_replicates=replicates)
    sbc.run_simulations()
    return of_simuk(keys[2], sbc)


# %%
def judge(calibration: xr.Dataset) -> dict[str, Any]:
    """What the table says of a pair."""
    row: dict[str, Any] = {"replicates": calibration.sizes["replicate"]}
    trusted = "status" in calibration  # simuk says nothing of its fits
    failed: Counter[str] = Counter()
    if trusted:
        status = [Status(int(s)) for s in calibration["status"].values]
        failed = Counter(s.name.lower() for s in status if s != Status.OK)
        row["failed"] = dict(failed)
    if failed.total() < row["replicates"]:
        found = uniformity(calibration, trusted)
        row |= {"p": found.p_value, "worst": found.table["p_value"].idxmin()}
        row["quantities"] = found.table["p_value"].to_dict()
    if failed and bool(calibration["pit"].notnull().all("quantity").any()):
        row["p_all"] = uniformity(calibration, trusted=False).p_value
    return row


def picture(calibration: xr.Dataset, label: str, row: dict[str, Any], path: Path) -> None:
    drawn = figure(calibration, trusted="status" in calibration)
    drawn.suptitle(f"{label}, {row['replicates']} simulated logs, p = {row['p']:.2g}")
    save_figure(drawn, path)
    plt.close(drawn)


def row_of(run: Callable[[], xr.Dataset], label: str, path: Path) -> dict[str, Any]:
    """Runs a pair, draws it, and says what came of it."""
    start = time.perf_counter()
    try:
        found = run()
    except InputError as error:
        return {"refused": str(error)}
    row = judge(found)
    if "p" in row:
        picture(found, label, row, path)
    return row | {"seconds": time.perf_counter() - start}


def failures(row: dict[str, Any]) -> str:
    if "failed" not in row:
        return "not known"
    kinds = ", ".join(f"{count} {kind}" for kind, count in row["failed"].items())
    return f"{kinds or 0} of {row['replicates']}"


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title="Simulation-based calibration (simulated data)")
    for column in ("logs", "model", "engine", "p", "p, all", "worst", "failed", "seconds"):
        number = column in ("p", "p, all", "seconds")
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        named = [row["logs"], row["model"], row["engine"]]
        if "refused" in row:
            table.add_row(*named, "", "", f"refused: {row['refused']}")
            continue
        p, p_all = (f"{row[k]:.2g}" if k in row else "" for k in ("p", "p_all"))
        named += [p, p_all, row.get("worst", "")]
        table.add_row(*named, failures(row), f"{row['seconds']:.0f}")
    Console().print(table)


# %%
def main() -> None:
    parser = argparse.ArgumentParser(description="Calibration of every model with every engine.")
    parser.add_argument("--smoke", action="store_true", help="disjoint_mnl and laplace, tiny")
    parser.add_argument("--model", choices=model_names(), help="this one only")
    parser.add_argument("--engine", choices=[*engine_names(), "simuk"], help="this one only")
    parser.add_argument("--replicates", type=int, help="simulated logs of each pair")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/calibration"))
    given = parser.parse_args()
    scripts_end_in_one_line()
    scale = SMOKE if given.smoke else NIGHTLY
    if given.replicates:
        scale = scale._replace(replicates=given.replicates)
    models = [given.model] if given.model else ["disjoint_mnl"] if given.smoke else model_names()
    engines = [given.engine] if given.engine else ["laplace"] if given.smoke else engine_names()
    if not (given.engine or given.smoke):
        engines.append("simuk")
    out = writable_folder(given.out)

    rows = []
    for logs, collection in collections(given.seed, scale).items():
        for model in models:
            for engine in engines:
                if engine == "simuk" and logs == "adaptive":
                    continue  # it takes a fixed design
                label = f"{logs}-{model}-{engine}"
                run = partial(by_engine, given.seed, scale, collection, label, model, engine)
                if engine == "simuk":
                    run = partial(by_simuk, given.seed, scale, model)
                names_of = {"logs": logs, "model": model, "engine": engine}
                rows.append(names_of | row_of(run, label, out / f"{label}.png"))
                settings = provenance(seed=given.seed, sizes=SIZES, scale=scale._asdict())
                # After every pair: a night that is cut short leaves what it has found.
                with replacing(out / "calibration.json") as temporary:
                    temporary.write_text(json.dumps({"rows": rows, **settings}, indent=1))
            jax.clear_caches()  # the next model's programs are others; these would pile up
    show(rows)


if __name__ == "__main__":
    main()
