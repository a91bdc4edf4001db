"""Propensities of Thompson sampling, and traces that hold what they are computed from."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from cqbayes.choice.assortments import every_assortment
from cqbayes.choice.data import ChoiceData
from cqbayes.environments.environment import Environment, Metrics, Observation, Survey
from cqbayes.policies.belief import fixed
from cqbayes.policies.thompson import thompson
from cqbayes.posterior.posteriors import Posterior

DRAWS_AT_ONCE = 64


class Propensities(NamedTuple):
    """Probabilities of all actions in one situation, estimated by drawing.

    Attributes:
        probability: of every place and assortment.
        standard_error: of the probability: the standard deviation of a Beta(1/2 + drawn, 1/2 + not
            drawn), which is not 0 where an action was never drawn.
        assortments: the assortments of the second axis.
    """

    probability: Float[Array, "place assortment"]
    standard_error: Float[Array, "place assortment"]
    assortments: Bool[Array, "assortment llm"]

    def of(
        self, place: Any, offered: Bool[Array, " llm"]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Probability and standard error of one action; 0 and 0 for no such place or assortment."""
        same = jnp.all(self.assortments == offered, axis=-1)
        there = (place >= 0) & (place < len(self.probability))
        which, known = jnp.argmax(same), jnp.any(same) & there
        probability, error = self.probability[place, which], self.standard_error[place, which]
        return jnp.where(known, probability, 0), jnp.where(known, error, 0)


def thompson_propensities(
    key: PRNGKeyArray,
    posterior: Posterior,
    context: Float[Array, "place dim"],
    occupied: Bool[Array, " place"],
    slate_size: int = 1,
    *,
    num_draws: int = 1_000,
    eta: float | Array = 0.0,
    alpha: float = 1.0,
    best_of: int = 1,
    values: Float[Array, " llm"] | None = None,
    attempts: Array | None = None,
) -> Propensities:
    """ACQB's probabilities of every action, jointly over query and assortment::

        mu(x, S) = (1 - eta) P(argmax_{x', S'} v(x', S'; theta~) = (x, S)) + eta / (Q n)

    with ``theta~`` from the posterior, ``Q`` waiting queries and ``n`` full assortments. The first
    part is estimated from draws by the policy's own rule; the second part is exact. The function
    works under ``jit`` and ``vmap``, such as over the rounds of a log with the posterior of each.

    Weights ``1 / mu`` of an estimated ``mu`` are too large by a factor of about
    ``1 + (standard error / mu)^2``: take so many draws that this is negligible, and some ``eta``.

    Args:
        key: for the draws.
        posterior: the posterior of the logging policy.
        context: contexts of the places of the waiting room; those of free places are ignored.
        occupied: which places hold a query that could be served.
        slate_size: maximum number of LLMs that answer.
        num_draws: number of draws.
        eta: probability of forced exploration in that round.
        alpha, best_of, values: as of :func:`cqbayes.policies.acqb.acqb`.
        attempts: services so far of each place, for models that look at them.

    Raises:
        InputError: for too many assortments to enumerate, or settings that the policy refuses.

    Example:
        >>> import cqbayes, jax, jax.numpy as jnp
        >>> data = cqbayes.choice_data([[1.0], [-1.0]], [[True, True]] * 2, [1, 0])
        >>> posterior, _ = cqbayes.infer(
        ...     jax.random.key(0), cqbayes.load_model("disjoint_mnl"), data, engine="online")
        >>> found = thompson_propensities(
        ...     jax.random.key(1), posterior, jnp.zeros((2, 1)), jnp.array([True, False]), eta=0.5)
        >>> round(float(found.probability.sum()), 3), float(found.probability[1].sum())
        (1.0, 0.0)
    """
    num_llms, places = posterior.sizes.num_llms, context.shape[0]
    sets = every_assortment("thompson_propensities", num_llms, slate_size, values is not None)
    sets = jnp.asarray(sets)
    policy = thompson(fixed(posterior), slate_size, alpha, best_of=best_of, values=values)
    none = jnp.zeros(places, jnp.int32)
    seen = Observation(
        round=jnp.array(1),
        queue_length=jnp.array(places),
        context=jnp.where(occupied[:, None], context, 0),
        identity=none,
        wait=none,
        attempts=none if attempts is None else jnp.where(occupied, attempts, 0),
        servable=occupied,
    )
    state = policy.init(key)

    def act(key: PRNGKeyArray) -> tuple[Array, Array]:
        action = policy.select(key, state, seen)
        return action.query, jnp.argmax(jnp.all(sets == action.offered, axis=-1))

    keys = jax.random.split(key, num_draws)
    query, which = jax.lax.map(act, keys, batch_size=min(num_draws, DRAWS_AT_ONCE))
    count = jnp.zeros((places, len(sets))).at[query, which].add(1)
    possible = occupied[:, None] & jnp.ones(len(sets), bool)
    full = jnp.sum(sets, axis=-1) == slate_size
    uniform = jnp.where(possible & full, 1, 0)
    uniform = uniform / jnp.maximum(jnp.sum(uniform), 1)
    # Half a draw is added to each count: an action that was never drawn may be possible.
    drawn, missed = count + 0.5, num_draws - count + 0.5
    spread = jnp.sqrt(drawn * missed / (num_draws + 2)) / (num_draws + 1)
    return Propensities(
        probability=jnp.where(possible, (1 - eta) * count / num_draws + eta * uniform, 0),
        standard_error=jnp.where(possible, (1 - eta) * spread, 0),
        assortments=sets,
    )


class ObservedRound(NamedTuple):
    """A round's metrics, and what the policy saw and did.

    Attributes:
        metrics: as of the environment itself.
        seen: the observation, of the first places only; ``queue_length`` says whether those were
            all.
        place: which place was served.
        offered: which LLMs answered.
    """

    metrics: Metrics
    seen: Observation
    place: Array
    offered: Bool[Array, "*batch llm"]


def with_observations(env: Environment, places: int = 16) -> Environment:
    """The same environment, whose traces also hold what the policy saw and did.

    Propensities are computed from these. ``simulate(...).metrics`` is then an
    :class:`ObservedRound` with arrays ``[seed, round, ...]``.

    Args:
        env: any environment.
        places: how many places of the waiting room to record in every round.
    """
    return env._replace(step=Partial(_observed_step, env, places))


def _observed_step(
    env: Environment, places: int, chance: Any, state: Any, action: Any, survey: Survey
) -> tuple[Any, ChoiceData, ObservedRound]:
    seen = env.observe(state)
    room = seen.context.shape[0]

    def first(column: Array) -> Array:
        short = max(0, places - room)
        return jnp.pad(column[:places], [(0, short)] + [(0, 0)] * (column.ndim - 1))

    names = ("context", "identity", "wait", "attempts", "servable")
    columns = {name: getattr(seen, name) for name in names if getattr(seen, name) is not None}
    kept = seen._replace(**{name: first(column) for name, column in columns.items()})
    after, rows, metrics = env.step(chance, state, action, survey)
    return after, rows, ObservedRound(metrics, kept, action.query, metrics.offered)
