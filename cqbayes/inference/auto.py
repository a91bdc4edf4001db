"""The cheapest engine that can be trusted: laplace, else hmc, else nuts, if need be at length.

It says which and why.
"""

import jax
from jaxtyping import PRNGKeyArray

from cqbayes.choice import ChoiceData
from cqbayes.inference import Engine, InferenceInfo, Status, hmc, laplace, nuts, run_engine
from cqbayes.posterior import Gaussian, Posterior
from cqbayes.preference import PreferenceModel

LONGER = {"num_warmup": 1_000, "num_draws": 2_000}  # of nuts, where its defaults were too short
KHAT_LIMIT = 0.5  # below it importance sampling converges at the rate of plain Monte Carlo


def check(
    key: PRNGKeyArray,
    posterior: Gaussian,
    info: InferenceInfo,
    model: PreferenceModel,
    data: ChoiceData,
) -> tuple[Posterior, InferenceInfo]:
    """Checks the Laplace fit, and escalates until an engine vouches for its own result."""
    keys = jax.random.split(key, 4)
    found, info = laplace.check(keys[0], posterior, info, model, data)
    khat = float(info.stats.get("khat", float("inf")))
    if info.ok and khat < KHAT_LIMIT:
        return found, info.because(f"k-hat {khat:.2f} is below {KHAT_LIMIT}")
    reason = (
        f"laplace found: {info.verdict.meaning}"
        if not info.ok
        else f"k-hat of laplace was {khat:.2f}"
    )
    # Whitening needs a mode and its curvature; a k-hat that is merely poor leaves both.
    if info.verdict in (Status.OK, Status.POOR_APPROXIMATION):
        found, info = run_engine(hmc.ENGINE, keys[1], model, data)
        if info.ok:
            return found, info.because(reason)
        reason += f"; hmc found: {info.verdict.meaning}"
    found, info = run_engine(nuts.ENGINE, keys[2], model, data)
    if info.verdict == Status.POOR_MIXING:
        reason += f"; nuts at first: {info.verdict.meaning}"
        found, info = run_engine(nuts.ENGINE, keys[3], model, data, found, LONGER)
    return found, info.because(reason)


ENGINE = Engine(laplace.fit, check)
