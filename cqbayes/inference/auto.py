"""The cheapest engine that can be trusted: laplace, else hmc, else nuts, else a longer nuts run.

The report names the engine and the reason. A model with too many parameters for a dense covariance
goes to nuts at once.
"""

import jax
from jaxtyping import PRNGKeyArray

from cqbayes.choice.data import ChoiceData
from cqbayes.inference import hmc, laplace, nuts
from cqbayes.inference.engine import Engine, run_engine
from cqbayes.posterior.info import InferenceInfo, Status
from cqbayes.posterior.posteriors import Draws, Gaussian, Posterior
from cqbayes.preference import PreferenceModel, layout, sizes_of

LONGER = {"num_warmup": 1_000, "num_draws": 2_000}  # settings of nuts if its defaults fail
FEW_PARAMETERS = 30
MOST_KHAT_TO_STOP = 0.5  # below it importance sampling converges as fast as plain Monte Carlo


def fit(
    key: PRNGKeyArray,
    model: PreferenceModel,
    data: ChoiceData,
    start: Posterior | None = None,
    max_iterations: int = 60,
) -> tuple[Posterior, InferenceInfo]:
    """The Laplace fit, or draws of NUTS where the model is known not to suit Laplace.

    Args:
        key, model, data, start: as in every engine.
        max_iterations: most Newton steps of the Laplace fit.
    """
    if not model.gaussian or layout(model, sizes_of(data)).size > laplace.MOST_PARAMETERS:
        return nuts.fit(key, model, data, start)
    return laplace.fit(key, model, data, start, max_iterations)


def check(
    key: PRNGKeyArray,
    posterior: Posterior,
    info: InferenceInfo,
    model: PreferenceModel,
    data: ChoiceData,
) -> tuple[Posterior, InferenceInfo]:
    """The result of the first engine whose own checks pass, or of the last one, nuts."""
    keys = jax.random.split(key, 4)
    if isinstance(posterior, Draws):
        size = posterior.vectors.shape[-1]
        reason = (
            f"{size} parameters are more than the {laplace.MOST_PARAMETERS} that laplace and hmc "
            "take: their covariance is a dense matrix"
        )
        if not model.gaussian:
            reason = "posteriors of this model are known to be far from a Gaussian"
        found, info = nuts.check(keys[2], posterior, info, model, data)
        return _at_length(keys[3], found, info, model, data, reason)
    assert isinstance(posterior, Gaussian)
    found, info = laplace.check(keys[0], posterior, info, model, data)
    khat = float(info.stats.get("khat", float("inf")))
    if info.ok and khat < MOST_KHAT_TO_STOP:
        return found, info.because(f"k-hat {khat:.2f} is below {MOST_KHAT_TO_STOP}")
    reason = (
        f"laplace found: {info.verdict.meaning}"
        if not info.ok
        else f"k-hat of laplace was {khat:.2f}"
    )
    # hmc needs a mode and its curvature. With many parameters a poor k-hat does not put these in
    # doubt: a small difference in each is enough. With few, the shape is far from a Gaussian.
    shaped = info.verdict == Status.OK or posterior.location.size > FEW_PARAMETERS
    if info.verdict in (Status.OK, Status.POOR_APPROXIMATION) and shaped:
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
    """The result of nuts; of a longer run if the chains of the first run did not mix."""
    if info.verdict == Status.POOR_MIXING:
        reason += f"; nuts at first: {info.verdict.meaning}"
        found, info = run_engine(nuts.ENGINE, key, model, data, found, LONGER)
    return found, info.because(reason)


ENGINE = Engine(fit, check)
