"""The cheapest engine that can be trusted: laplace, else hmc, else nuts, if need be at length.

It says which and why. Models of too many parameters for a dense covariance go to nuts at once.
"""

import jax
from jaxtyping import PRNGKeyArray

from cqbayes.choice import ChoiceData
from cqbayes.inference import Engine, InferenceInfo, Status, hmc, laplace, nuts, run_engine
from cqbayes.posterior import Draws, Gaussian, Posterior
from cqbayes.preference import PreferenceModel, layout, sizes_of

LONGER = {"num_warmup": 1_000, "num_draws": 2_000}  # of nuts, where its defaults were too short
KHAT_LIMIT = 0.5  # below it importance sampling converges at the rate of plain Monte Carlo


def fit(
    key: PRNGKeyArray,
    model: PreferenceModel,
    data: ChoiceData,
    start: Posterior | None = None,
    max_iterations: int = 60,
) -> tuple[Posterior, InferenceInfo]:
    """The Laplace fit, or NUTS where there are too many parameters for one.

    Args:
        key, model, data, start: as in every engine.
        max_iterations: of the Laplace fit.
    """
    if layout(model, sizes_of(data)).size > laplace.MOST_PARAMETERS:
        return nuts.fit(key, model, data, start)
    return laplace.fit(key, model, data, start, max_iterations)


def check(
    key: PRNGKeyArray,
    posterior: Posterior,
    info: InferenceInfo,
    model: PreferenceModel,
    data: ChoiceData,
) -> tuple[Posterior, InferenceInfo]:
    """Checks the fit, and escalates until an engine vouches for its own result."""
    keys = jax.random.split(key, 4)
    if isinstance(posterior, Draws):
        size = posterior.vectors.shape[-1]
        reason = (
            f"{size} parameters are more than the {laplace.MOST_PARAMETERS} that laplace and hmc "
            "take: their covariance is a dense matrix"
        )
        found, info = nuts.check(keys[2], posterior, info, model, data)
        return _at_length(keys[3], found, info, model, data, reason)
    assert isinstance(posterior, Gaussian)
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
    return _at_length(keys[3], found, info, model, data, reason)


def _at_length(
    key: PRNGKeyArray,
    found: Posterior,
    info: InferenceInfo,
    model: PreferenceModel,
    data: ChoiceData,
    reason: str,
) -> tuple[Posterior, InferenceInfo]:
    """What nuts found, or finds in a longer run where its first was too short."""
    if info.verdict == Status.POOR_MIXING:
        reason += f"; nuts at first: {info.verdict.meaning}"
        found, info = run_engine(nuts.ENGINE, key, model, data, found, LONGER)
    return found, info.because(reason)


ENGINE = Engine(fit, check)
