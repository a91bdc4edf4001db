"""Functions of the policies that need to know their horizon."""

import math

from cqbayes.errors import InputError


def horizon_of(name: str, horizon: int | None) -> int:
    """The horizon of a run, checked.

    Raises:
        InputError: if it is None, or below one round.
    """
    if horizon is None:
        raise InputError(
            f"{name}: expected a horizon, the number of rounds of the run, got none; "
            "pass horizon=rounds"
        )
    if horizon < 1:
        raise InputError(f"{name}: expected a horizon of at least one round, got {horizon}")
    return horizon


def exploration_rounds(
    num_llms: int, num_features: int, slate_size: int, horizon: int, factor: float = 1.0
) -> int:
    """``tau = min(T, ceil(factor n log(T) N / K))``: ``n log T`` services of each of N LLMs.

    The order ``n log T`` is from the papers. Their factors depend on the slackness and on the
    contexts' covariance, which a policy does not know.

    Example:
        >>> exploration_rounds(num_llms=5, num_features=5, slate_size=1, horizon=5_000)
        213
    """
    rounds = math.ceil(factor * num_features * math.log(horizon) * num_llms / slate_size)
    return min(horizon, max(rounds, 0))
