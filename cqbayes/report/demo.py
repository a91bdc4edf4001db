"""The demo: the whole loop, with real answers of real LLMs and simulated users."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cqbayes._tools.files import replacing, writable_folder, write_netcdf
from cqbayes._tools.progress import progress_bar
from cqbayes._tools.provenance import provenance
from cqbayes.choice.data import ChoiceData
from cqbayes.datasets.load import load_scores
from cqbayes.datasets.score_table import ScoreTable
from cqbayes.diagnostics.summary import agreement, summary
from cqbayes.environments.best_linear import with_best_linear
from cqbayes.environments.load import capacity
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.scores import from_scores
from cqbayes.errors import InputError
from cqbayes.inference.infer import infer, load_engine
from cqbayes.logs.choice_files import write_choices
from cqbayes.policies import belief
from cqbayes.policies.random import random
from cqbayes.policies.setup import Setup
from cqbayes.policies.wrappers.refit import doubling
from cqbayes.preference import load_model, sizes_of
from cqbayes.report.html import Section, write_report
from cqbayes.simulation.comparison import (
    Results,
    World,
    compare_policies,
    comparison_table,
    thinned,
)
from cqbayes.simulation.loop import simulate
from cqbayes.simulation.regret import growth_exponent, over_seeds

DATA = "paretobandit3"
SIMULATED = (
    "Scores and costs are those of real answers of real LLMs; users, their retrials and the queue "
    "are simulated."
)


class DemoSettings(NamedTuple):
    """Sizes of the demo; those of ``SMOKE`` finish quickly and prove nothing."""

    dim: int = 16
    num_choices: int = 2_000
    num_draws: int = 500
    rounds: int = 4_000
    first_refit: int = 500
    num_seeds: int = 24
    slack: float = 0.05
    refit_draws: int = 150
    seed: int = 0


SMOKE = DemoSettings(
    dim=4,
    num_choices=300,
    num_draws=200,
    rounds=200,
    first_refit=100,
    num_seeds=3,
    refit_draws=50,
)


class DemoResult(NamedTuple):
    """Where the demo's files are, and the numbers that matter."""

    report: Path
    files: list[Path]
    numbers: dict[str, str]


def demo(
    out: str | Path, settings: DemoSettings = DemoSettings(), progress: bool = True
) -> DemoResult:
    """Runs the whole loop and writes a report, pictures and results into the folder ``out``.

    Scores become simulated users; a gateway that routes at random logs their retrials; NUTS and
    Laplace fit the log; their posteriors drive ACQB on held-out queries.

    Raises:
        InputError: if ``out`` cannot be written to.
    """
    folder = writable_folder(out)
    log_key, nuts_key, laplace_key, queue_key = jax.random.split(jax.random.key(settings.seed), 4)
    scores = load_scores(DATA, settings.dim)
    log = simulated_log(log_key, scores.part("train"), settings.num_choices)
    write_choices(
        folder / "retrial_log.parquet", log, list(scores.llms), f"{DATA}, train split. {SIMULATED}"
    )

    model = load_model("disjoint_mnl")
    with progress_bar("fit: Laplace, then NUTS", total=2, show=progress) as advance:
        laplace, laplace_info = infer(laplace_key, model, log, engine="laplace")
        advance(1)
        nuts, nuts_info = infer(nuts_key, model, log, engine="nuts", num_draws=settings.num_draws)
        advance(1)
    gap = agreement(laplace, nuts)

    population = with_best_linear(from_scores(scores.part("test")))
    rate = capacity(population) - settings.slack
    results = compare_policies(
        queue_key,
        World(population, rate),
        _setups(log, settings),
        settings.rounds,
        settings.num_seeds,
        refit_after=doubling(settings.first_refit)(settings.rounds),
        progress=progress,
    )
    return _write(
        folder,
        settings,
        scores,
        float(rate),
        (laplace, nuts),
        (laplace_info, nuts_info),
        gap,
        results,
    )


def simulated_log(key: jax.Array, scores: ScoreTable, num_choices: int) -> ChoiceData:
    """A log of simulated users who see two real answers each time, picked at random.

    The log is the trace of a queue under the random policy. As in real logs, hard queries come back
    again and again.
    """
    population = from_scores(scores)
    queue = retrial_queue(population, capacity(population, 2) - 0.05, slate_size=2)
    policy = random(len(scores.llms), slate_size=2)
    # Some rounds serve nobody: run twice as many rounds as choices, and keep the first services.
    rows = simulate(key, policy, queue, 2 * num_choices, record=True).choices()
    served = np.flatnonzero(np.asarray(rows.weight) > 0)[:num_choices]
    if served.size < num_choices:
        raise InputError(f"log: expected {num_choices} services, got {served.size} from the queue")
    return jax.tree.map(lambda column: column[served], rows)


def _setups(log: ChoiceData, settings: DemoSettings) -> dict[str, tuple[str, Setup]]:
    """ACQB with each posterior, and its rivals; the learners all start from the same log."""
    model, sizes = load_model("disjoint_mnl"), sizes_of(log)
    draws = settings.refit_draws
    online = belief.online(model, sizes, log)
    laplace = belief.refitted(load_engine("laplace").fit, model, sizes, log)
    nuts = belief.refitted(
        load_engine("nuts").fit,
        model,
        sizes,
        log,
        num_warmup=draws,
        num_draws=draws,
        num_chains=1,
    )
    return {
        label: (name, Setup(sizes, 1, how))
        for label, name, how in (
            ("oracle", "oracle", online),
            ("ACQB, NUTS", "acqb", nuts),
            ("ACQB, Laplace", "acqb", laplace),
            ("ACQB, online", "acqb", online),
            ("FIFO, Laplace", "fifo_acqb", laplace),
            ("best single", "best_single", online),
            ("random", "random", online),
        )
    }


def _write(
    folder: Path,
    settings: DemoSettings,
    scores: ScoreTable,
    rate: float,
    posteriors: tuple[Any, Any],
    infos: tuple[Any, Any],
    gap: Any,
    results: Results,
) -> DemoResult:
    # Matplotlib and ArviZ's plots take seconds to import: not before they are needed.
    from cqbayes._tools.figure import save_figure
    from cqbayes.diagnostics.plots import forest_figure, rank_figure
    from cqbayes.simulation.plots import regret_figure, wait_figure

    llms = list(scores.llms)
    where = f"{DATA}, held-out queries, arrival rate {rate:.3f}; simulated users"
    trees = {
        name: posterior.to_arviz(llms=llms)
        for name, posterior in zip(("Laplace + PSIS", "NUTS"), posteriors, strict=True)
    }
    pictures = [
        save_figure(figure, folder / name)
        for name, figure in (
            ("regret.png", regret_figure(results.curves, where)),
            ("waits.png", wait_figure(results.performance, where)),
            ("posterior.png", forest_figure(trees, "Posterior by two engines")),
            ("ranks.png", rank_figure(trees["NUTS"], "Ranks of the NUTS chains")),
        )
    ]
    write_netcdf(thinned(results.curves), folder / "curves.nc")
    summaries = summary(posteriors[1], llms)
    rows = comparison_table(results)
    for name, frame in (("policies.csv", rows), ("posterior.csv", summaries)):
        with replacing(folder / name) as temporary:
            frame.to_csv(temporary)
    numbers = _numbers(infos[1], gap, results)
    facts = provenance(**settings._asdict(), data=DATA, arrival_rate=round(rate, 4))
    report = write_report(
        folder / "report.html",
        "Routing and scheduling LLMs from user retrials",
        f"{SIMULATED} {len(llms)} LLMs, {settings.num_choices:,} logged choices, "
        f"{settings.num_seeds} seeds of {settings.rounds:,} rounds; ± is one standard error.",
        numbers,
        _sections(infos, gap, results, rows, summaries),
        facts,
    )
    files = [
        folder / name
        for name in ("retrial_log.parquet", "curves.nc", "policies.csv", "posterior.csv")
    ]
    return DemoResult(report, [*pictures, *files], numbers)


def _numbers(nuts_info: Any, gap: Any, results: Results) -> dict[str, str]:
    final = results.curves["routing_regret"].isel(round=-1)
    tail = results.performance["queue_length_tail"]
    excess = tail.sel(policy="ACQB, NUTS") - tail.sel(policy="oracle")
    growth = growth_exponent(results.curves["routing_regret"].sel(policy="ACQB, NUTS").values)
    return {
        "worst R-hat of NUTS": f"{float(nuts_info.stats['rhat']):.3f}",
        "gap of NUTS and Laplace means, in Monte Carlo errors (rms)": f"{gap.mean_z:.2f}",
        "routing regret of ACQB with NUTS": str(over_seeds(final.sel(policy="ACQB, NUTS").values)),
        "its growth exponent, 95 % interval": (
            f"{growth.value:.2f} [{growth.low:.2f}, {growth.high:.2f}]"
        ),
        "its queue above the oracle's, last tenth": str(over_seeds(excess.values)),
    }


def _sections(infos: tuple, gap: Any, results: Results, rows: Any, summaries: Any) -> list[Section]:
    failed = "; ".join(f"{name}: {n}" for name, n in results.failures.items() if n) or "none"
    shown = summaries.loc[[name.startswith("intercept") for name in summaries.index]].round(3)
    return [
        Section(
            "Queue lengths and waits",
            "Every policy meets the same arrivals and the same luck. Regret counts departures "
            "lost in expectation, summed over rounds, against the best assortment for the query "
            "that was served (routing) and against the best waiting query too (matching). Waits "
            "are in rounds, of queries that departed: those that wait at the end are not counted. "
            "Best-first scheduling shortens mean waits but lengthens the longest: see p99 and the "
            f"oldest. Refits whose engine reported a failure, not used: {failed}.",
            tables=[rows],
            pictures=[
                ("regret.png", "Regret and queue length against rounds."),
                (
                    "waits.png",
                    "Waiting times of queries that departed; bars are ±2 standard errors.",
                ),
            ],
        ),
        Section(
            "Preferences in the log",
            f"{infos[1]}. {infos[0]}. Means differ by {gap.mean_gap:.3f} posterior standard "
            f"deviations (rms), that is {gap.mean_z:.2f} Monte Carlo standard errors; standard "
            f"deviations have a ratio of {gap.sd_ratio:.3f}. The table shows the intercepts; all "
            "parameters are in posterior.csv.",
            tables=[shown],
            pictures=[
                ("posterior.png", "Posterior of every parameter with ArviZ's credible intervals."),
                (
                    "ranks.png",
                    "Ranks of each chain among all: chains that mix stay inside the grey band.",
                ),
            ],
        ),
    ]
