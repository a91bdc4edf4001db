"""Refits on the policy's own schedule: a wrapper.

Between segments, the driver refits any policy that has a ``refit``, with all rows so far. This
wrapper says when::

    refit(acqb(belief.refitted(load_engine("nuts").fit, model, sizes), 5), doubling(250))
"""

from collections.abc import Callable, Sequence

from jax.tree_util import Partial

from cqbayes.errors import InputError
from cqbayes.policies.policy import Policy

Schedule = Callable[[int], Sequence[int]]


def refit(policy: Policy, schedule: Schedule) -> Policy:
    """The same policy, refitted after the rounds ``schedule(rounds)``.

    Raises:
        InputError: if the policy has nothing to refit, as one with an online posterior.
    """
    if policy.refit is None:
        raise InputError(
            "refit: expected a policy whose posterior is refitted; belief.online learns in every "
            "round, belief.refitted and belief.online(relinearise=True) have something to refit"
        )
    return policy._replace(refit_after=schedule)


def doubling(first: int) -> Schedule:
    """The schedule of refits after ``first`` rounds, and each time the number of rounds doubles.

    All rounds count, also those that serve nobody: which rounds will serve is not known beforehand.
    So the n-th refit has at most ``2^(n - 1) first`` services to learn from. A queue that is often
    empty has fewer, and their number may grow by less or more than a factor of two between two
    refits. Where a round has several services, ``rounds`` counts services, as in
    :func:`cqbayes.simulation.loop.simulate`.

    Example:
        >>> doubling(250)(2_500)
        [250, 500, 1000, 2000]
    """
    return Partial(_doubling, _positive("doubling", first))


def every(step: int) -> Schedule:
    """The schedule of refits after every ``step`` rounds.

    Example:
        >>> every(400)(1_600)
        [400, 800, 1200]
    """
    return Partial(_every, _positive("every", step))


def _doubling(first: int, rounds: int) -> list[int]:
    schedule = []
    while first < rounds:
        schedule.append(first)
        first *= 2
    return schedule


def _every(step: int, rounds: int) -> list[int]:
    return list(range(step, rounds, step))


def _positive(name: str, rounds: int) -> int:
    if rounds < 1:
        raise InputError(f"{name}: expected at least one round between refits, got {rounds}")
    return rounds
