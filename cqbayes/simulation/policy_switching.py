"""Where queue-length regret comes from: each round's mismatch times its long-run effect.

Let ``Q_s(T)`` be the queue at the end of a run that follows the learner up to round ``s`` and the
oracle from then on. ``Q_0`` is the oracle's, ``Q_{T-1}`` the learner's, and so::

    E[Q(T) - Q*(T)] = sum_{s < T} E[Q_s(T) - Q_{s-1}(T)] = sum_{s < T} mismatch_s effect_s

``mismatch_s`` is the departure probability that the learner's choice in round ``s`` lost against
the best waiting pair. ``effect_s`` is the part of this loss that remains at the end: the two runs
of a term differ in one decision, and the oracle then reduces the difference. All runs share
arrivals and luck.

Source: the policy-switching argument of Bae, Kang and Lee, arXiv 2601.19300, as we read it.
"""

import numpy as np
import xarray as xr
from jaxtyping import Float, PRNGKeyArray, Real

from cqbayes._tools.progress import progress_bar
from cqbayes.environments.environment import Environment
from cqbayes.errors import InputError
from cqbayes.policies.policy import Policy
from cqbayes.policies.wrappers.switch import switch
from cqbayes.simulation.loop import simulate
from cqbayes.simulation.regret import jackknife_error

MOST_ROUNDS = 2_000


def policy_switching(
    key: PRNGKeyArray,
    policy: Policy,
    oracle: Policy,
    env: Environment,
    rounds: int,
    num_seeds: int,
    *,
    room: int = 64,
    progress: bool = False,
) -> xr.Dataset:
    """The decomposition of queue-length regret by rounds. It takes as many runs as rounds.

    Args:
        key, policy, env, rounds, num_seeds, room: as in :func:`cqbayes.simulation.loop.simulate`.
        oracle: the policy that takes over.
        progress: whether to show a progress bar.

    Returns:
        ``contribution`` with dimensions ``seed`` and ``round`` (1 to ``rounds - 1``), whose sum
        over rounds is each seed's queue-length regret in the last round; with dimension ``round``
        the mean ``mismatch``, the ``effect``, the ratio of the two means, and ``effect_error``, its
        standard error by the jackknife over seeds. Effects are NaN where nothing was lost. Errors
        are NaN also where nothing was lost without one of the seeds.

    Raises:
        InputError: for fewer than 2 or more than 2,000 rounds, or several services a round.
    """
    if not 2 <= rounds <= MOST_ROUNDS or env.services != 1:
        raise InputError(
            f"switching: expected 2 to {MOST_ROUNDS} rounds of one service, got {rounds} rounds of "
            f"{env.services}; shorten the run, which is repeated once per round"
        )
    lengths, lost = [], np.zeros((num_seeds, rounds - 1))
    with progress_bar("switching", total=rounds, show=progress) as advance:
        for after in range(rounds):
            mixed = switch(policy, oracle, after)
            metrics = simulate(key, mixed, env, rounds, num_seeds=num_seeds, room=room).metrics
            lengths.append(metrics.queue_length[:, -1])
            if after == rounds - 1:
                lost = np.asarray(metrics.best_waiting - metrics.value, np.float64)[:, :-1]
            advance(1)
    contribution = np.diff(np.stack(lengths, axis=1), axis=1)
    effect = _ratio(contribution.sum(axis=0), lost.sum(axis=0))
    return xr.Dataset(
        {
            "contribution": (("seed", "round"), contribution, {"units": "queries"}),
            "mismatch": ("round", lost.mean(axis=0), {"units": "departures"}),
            "effect": ("round", effect, {"units": "queries per departure"}),
            "effect_error": (
                "round",
                _error(contribution, lost),
                {"units": "queries per departure"},
            ),
        },
        coords={"seed": np.arange(num_seeds), "round": np.arange(1, rounds)},
    )


def _ratio(
    above: Real[np.ndarray, "*rest"], below: Float[np.ndarray, "*rest"]
) -> Float[np.ndarray, "*rest"]:
    """NaN where nothing was lost."""
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)


def _error(
    contribution: Real[np.ndarray, "seed round"], lost: Float[np.ndarray, "seed round"]
) -> Float[np.ndarray, " round"]:
    """Standard error of the ratio of their means, NaN for a single seed."""
    above, below = (x.sum(axis=0) - x for x in (contribution, lost))
    return jackknife_error(_ratio(above, below))
