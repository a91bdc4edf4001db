"""Drifting multinomial logit: parameters that walk from one block of time to the next.

::

    sigma_b, sigma_theta ~ HalfNormal(drift_sd)            intercept_drift, theta_drift []
    b_j0       ~ Normal(0, intercept_sd),   b_jt       = b_j(t-1)     + sigma_b e_jt
    theta_jk0  ~ Normal(0, prior_sd),       theta_jkt  = theta_jk(t-1) + sigma_theta e_jkt
    e          ~ Normal(0, 1)                              intercept_step [time, llm]
    u_jt       = b_jt + x . theta_jt                       theta_step [time, llm, feature]
    y | x, S   ~ MNL(u_t, S)

Providers change their LLMs without notice. In this model old choices count less than new ones, and
the data decide how much less. ``intercept [time, llm]`` and ``theta [time, llm, feature]`` are
reported; ``*_step`` are the standardised steps, and the first step, to block 0, starts from 0. A
block of time after the data gets the parameters of the last block, the best guess of the present.

Source: a dynamic generalised linear model, West, Harrison and Migon (1985), with a random walk;
sampled non-centred.
"""

from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import HalfNormal, Normal

from cqbayes.choice.data import Situation
from cqbayes.preference import PreferenceModel, Sizes, preference_model


@preference_model
def drift_mnl(
    prior_sd: float = 1.0, intercept_sd: float = 1.5, drift_sd: float = 0.3
) -> PreferenceModel:
    """The drifting MNL; data need ``time``, in blocks such as weeks.

    Args:
        prior_sd: prior standard deviation of each slope in the first block, in log-odds per unit
            of context.
        intercept_sd: prior standard deviation of each intercept in the first block, in log-odds.
        drift_sd: scale of the half-normal prior of the change from one block to the next.

    Example:
        >>> params = {"theta": jnp.zeros((2, 3, 2)), "intercept": jnp.arange(6.0).reshape(2, 3)}
        >>> MODEL.utility(params, Situation(jnp.ones(2), time=jnp.array(1))).tolist()
        [3.0, 4.0, 5.0]
    """

    def prior(sizes: Sizes) -> dict[str, Any]:
        intercept_drift = numpyro.sample("intercept_drift", HalfNormal(drift_sd))
        theta_drift = numpyro.sample("theta_drift", HalfNormal(drift_sd))
        with (
            numpyro.plate("time", sizes.num_times, dim=-2),
            numpyro.plate("llm", sizes.num_llms, dim=-1),
        ):
            intercept_step = numpyro.sample("intercept_step", Normal(0, 1))
            slopes = Normal(0, 1).expand([sizes.dim]).to_event(1)
            theta_step = numpyro.sample("theta_step", slopes)
        paths = {
            "intercept": _walk(intercept_step, intercept_sd, intercept_drift),
            "theta": _walk(theta_step, prior_sd, theta_drift),
        }
        return {name: numpyro.deterministic(name, path) for name, path in paths.items()}

    def utility(params: dict[str, Array], at: Situation) -> Float[Array, " llm"]:
        now = {name: path.at[at.time].get(mode="clip") for name, path in params.items()}
        return now["theta"] @ at.context + now["intercept"]

    slopes = ("time", "llm", "feature")
    return PreferenceModel(
        prior,
        utility,
        needs=("time",),
        dims=(("intercept", slopes[:2]), ("theta", slopes), ("theta_step", slopes)),
    )


def _walk(step: Any, start_sd: float, drift: Any) -> Array:
    return jnp.cumsum(jnp.concatenate([start_sd * step[:1], drift * step[1:]]), axis=0)


MODEL = drift_mnl()
