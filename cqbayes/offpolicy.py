"""Off-policy evaluation: what another policy would have got, from a log with propensities.

A row is one action of the logging policy ``mu``: in a situation ``x`` (all who waited) it served
one query with one assortment, ``a``, and saw the reward ``r``. Wanted is the mean reward of a
target policy ``pi`` in the same situations. With ``w = pi(a | x) / mu(a | x)``::

    replay   sum m r / sum m                       m: whether pi would have done the same
    IPS      mean w r
    SNIPS    sum w r / sum w
    DR       mean [ sum_a pi(a | x) q(x, a) + w (r - q(x, a)) ]        q: a fitted model

Replay takes a log whose propensities are all equal. IPS and DR are unbiased with true propensities;
DR is also consistent with a true model. Standard errors are those of the influence function, summed
within queries where a query has several rows. What cannot be trusted says so in its ``status``.

In a queue a row's situation is the backlog that the logging policy left. The target would have left
another, and meet other situations: none of these estimates knows them. :func:`simulate_policies`
does, with truths drawn from a posterior.

Sources: Li, Chu, Langford and Wang (2011) for replay; Dudik, Erhan, Langford and Li (2014), Doubly
robust policy evaluation and optimization, Statistical Science 29; Swaminathan and Joachims (2015)
for SNIPS; Saito et al. (2021), Open Bandit Dataset and Pipeline. Clusters, checks and the queue are
ours.
"""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from cqbayes.assortment import every_assortment
from cqbayes.belief import fixed
from cqbayes.choice import SILENCE, ChoiceData, Situation
from cqbayes.environments import Environment, Metrics, Population, Query, Survey
from cqbayes.errors import InputError
from cqbayes.policies import Observation, Setup
from cqbayes.policies.thompson import thompson
from cqbayes.posterior import Posterior
from cqbayes.predict import shares
from cqbayes.preference import PreferenceModel, layout
from cqbayes.study import World, run_policies

LEAST_EFFECTIVE = 100  # rows that the weights must be worth
MOST_SHARE = 0.1  # of all weight that one row may have
MOST_OFF = 4  # standard errors of the mean weight from 1
DRAWS_AT_ONCE = 64


class Overlap(IntEnum):
    """Whether a log can tell anything of a target policy."""

    OK = 0
    LOW_OVERLAP = 1
    WEIGHTS_OFF = 2
    UNEQUAL_LOGGING = 3
    NOTHING_SHARED = 4
    NO_SUPPORT = 5

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Overlap.OK: "nothing found wrong",
    Overlap.LOW_OVERLAP: (
        "a few rows carry the weight: neither the estimate nor its standard error is to be trusted"
    ),
    Overlap.WEIGHTS_OFF: (
        "weights do not average to 1: the target acts in ways that the log lacks, or the "
        "propensities are wrong"
    ),
    Overlap.UNEQUAL_LOGGING: (
        "propensities differ, so that rows which match are no fair sample: use IPS"
    ),
    Overlap.NOTHING_SHARED: "the target would have done nothing that was logged",
    Overlap.NO_SUPPORT: "the target does what the logging policy never does",
}

IN_A_QUEUE = (
    "a queue was involved: backlog makes rows depend on each other, and the target would have met "
    "another one; simulate_policies with posterior draws is the remedy"
)


class Evaluation(NamedTuple):
    """A policy's value by one estimator, and whether it can be trusted.

    Attributes:
        estimate: mean reward of the target in the logged situations; NaN only with a status that
            says why.
        standard_error: of the estimate.
        effective_size: ``(sum w)^2 / sum w^2``: how many rows of equal weight the weights are
            worth. In replay with a deterministic target, how many matched.
        max_weight: the largest ``w``.
        status: an :class:`Overlap`.
        note: what is to be said of it, in words.
    """

    estimate: float
    standard_error: float
    effective_size: float
    max_weight: float
    status: Overlap
    note: str

    @property
    def ok(self) -> bool:
        return self.status == Overlap.OK

    def __str__(self) -> str:
        return (
            f"{self.estimate:.4g} ± {self.standard_error:.2g} ({self.status.name.lower()}; "
            f"{self.effective_size:.4g} effective rows, largest weight {self.max_weight:.4g}; "
            f"{self.note})"
        )


class LoggedActions(NamedTuple):
    """What all estimators are made of; :func:`logged_actions` checks and makes it.

    Attributes:
        reward: what the action got.
        propensity: ``mu(a | x)`` of the logged action, query and assortment jointly.
        target: ``pi(a | x)`` of the same.
        unsupported: ``sum_a pi(a | x) [mu(a | x) = 0]``, as far as it is known.
        weight: how much a row counts.
        query: which query was served, from 0: rows of one query are summed before they are squared.
        queue: whether a queue was involved.
        by_context: whether queries were told apart by their contexts.
    """

    reward: np.ndarray
    propensity: np.ndarray
    target: np.ndarray
    unsupported: np.ndarray
    weight: np.ndarray
    query: np.ndarray
    queue: bool
    by_context: bool

    @property
    def ratio(self) -> np.ndarray:
        """``pi / mu``; 0 where the log says that what it did was impossible."""
        possible = self.propensity > 0
        return np.where(possible, self.target / np.where(possible, self.propensity, 1), 0.0)


def logged_actions(
    data: ChoiceData,
    propensity: Any,
    target: Any,
    *,
    values: Any = None,
    query: Any = None,
    queue: bool | None = None,
    unsupported: Any = None,
) -> LoggedActions:
    """Puts together what the estimators need.

    Args:
        data: the log. The reward of a row is 1 where an answer was taken. Rows of weight 0 are
            left out, whatever stands in their other columns.
        propensity: ``[obs]``, the logging policy's probability of the logged action.
        target: ``[obs]``, the target's probability of it: 0 or 1 for a deterministic target.
        values: worth of each LLM's answer ``[llm]``: the reward where it was taken.
        query: ``[obs]``, which query was served. Where absent and a queue was involved, rows of the
            same context are taken for one query.
        queue: whether a queue was involved; where absent, whether ``data.attempt`` or ``query``
            says that a query was served twice.
        unsupported: ``[obs]``, the target's probability of all that the logging policy never does.

    Raises:
        InputError: for columns that do not fit, what is no probability, or silence, whose reward
            nobody knows.

    Example:
        >>> import cqbayes
        >>> data = cqbayes.choice_data([[1.0], [-1.0]], [[1, 0], [0, 1]], [1, 0])
        >>> log = logged_actions(data, [0.5, 0.5], [1.0, 0.0])
        >>> ips(log).estimate, snips(log).estimate, replay(log).estimate
        (1.0, 1.0, 1.0)
    """
    weight = np.asarray(data.weight, np.float64)
    live = weight > 0
    if not live.any():
        raise InputError("off-policy: expected at least one row of positive weight, got none")
    choice = np.where(live, np.asarray(data.choice), 0)
    if (choice == SILENCE).any():
        raise InputError(
            "off-policy: expected outcomes that were seen, got rows of silence (-1); give them "
            "weight 0, or predict from a model of abandonment"
        )
    columns = {
        name: _probabilities(name, column, live)
        for name, column in (
            ("propensity", propensity),
            ("target", target),
            ("unsupported", np.zeros(live.shape) if unsupported is None else unsupported),
        )
    }
    worth = np.ones(data.num_llms) if values is None else np.asarray(values, np.float64)
    if worth.shape != (data.num_llms,) or not np.isfinite(worth).all():
        raise InputError(f"values: expected {data.num_llms} numbers, got shape {worth.shape}")
    again = data.attempt is not None and (np.asarray(data.attempt)[live] > 1).any()
    names = None if query is None else np.asarray(query)
    if names is not None and names.shape != live.shape:
        raise InputError(f"query: expected {len(live)} numbers, got shape {names.shape}")
    if queue is None:
        queue = bool(again) or (names is not None and _repeats(names[live]))
    by_context = queue and names is None
    if by_context:
        names = np.asarray(data.context)
    return LoggedActions(
        reward=np.where(choice > 0, worth[np.maximum(choice, 1) - 1], 0.0),
        weight=np.where(live, weight, 0.0),
        query=np.arange(len(live)) if names is None else _codes(names, live),
        queue=queue,
        by_context=by_context,
        **columns,
    )


def _repeats(names: np.ndarray) -> bool:
    return len(np.unique(names)) < len(names)


def _codes(names: np.ndarray, live: np.ndarray) -> np.ndarray:
    """Numbers from 0 of equal rows among those that live; 0 for the others."""
    codes = np.zeros(len(live), int)
    codes[live] = np.unique(names[live], axis=0, return_inverse=True)[1].reshape(-1)
    return codes


def _probabilities(name: str, values: Any, live: np.ndarray) -> np.ndarray:
    column = np.asarray(values, np.float64)
    if column.shape != live.shape:
        raise InputError(f"{name}: expected {len(live)} probabilities, got shape {column.shape}")
    column = np.where(live, column, 0.0)
    wrong = ~((column >= 0) & (column <= 1 + 1e-6))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{name}: expected probabilities, got {column[row]:.3g} in row {row}")
    return column


def replay(log: LoggedActions) -> Evaluation:
    """Mean reward of the rows in which the target would have done the same.

    Where the target acts at random, a row counts by the probability that it does. Fair only where
    all propensities are equal: ``status`` is ``UNEQUAL_LOGGING`` where they are not.
    """
    matched = log.weight * log.target
    total = matched.sum()
    if total == 0:
        return _judged(log, np.nan, np.zeros_like(matched), log.target)
    estimate = float(matched @ log.reward / total)
    influence = log.target * (log.reward - estimate) * (log.weight.sum() / total)
    live = log.propensity[log.weight > 0]
    unequal = np.ptp(live) > 1e-5 * live.max()
    found = _judged(log, estimate, influence, log.target, mean_is_one=False)
    if unequal and found.status < Overlap.UNEQUAL_LOGGING:
        return _with_status(log, found, Overlap.UNEQUAL_LOGGING)
    return found


def ips(log: LoggedActions) -> Evaluation:
    """Inverse propensity scoring: ``mean w r``. Unbiased, and wide where weights are."""
    each = log.ratio * log.reward
    estimate = _mean(log, each) if (log.weight * log.ratio).any() else np.nan
    return _judged(log, estimate, each - estimate, log.ratio)


def snips(log: LoggedActions) -> Evaluation:
    """Self-normalised: ``sum w r / sum w``, which stays within the rewards.

    The same whatever constant the propensities are multiplied by. Its bias is of order ``1 / n``.
    """
    normaliser = _mean(log, log.ratio)
    if normaliser == 0:
        return _judged(log, np.nan, np.zeros_like(log.ratio), log.ratio)
    estimate = _mean(log, log.ratio * log.reward) / normaliser
    return _judged(log, estimate, log.ratio * (log.reward - estimate) / normaliser, log.ratio)


def doubly_robust(log: LoggedActions, expected_logged: Any, expected_target: Any) -> Evaluation:
    """``mean [ q(x, pi) + w (r - q(x, a)) ]``.

    Unbiased with true propensities whatever ``q``, consistent with a true ``q`` whatever the
    propensities; the better ``q``, the narrower. Fit ``q`` on other rows than these, or the
    standard error is a little too small.

    Args:
        log: of :func:`logged_actions`.
        expected_logged: ``q(x, a)`` of the logged action ``[obs]``, see :func:`expected_reward`.
        expected_target: ``sum_a pi(a | x) q(x, a)``, or ``q`` of one action drawn from the target.

    Raises:
        InputError: for columns that do not fit or are not finite.
    """
    live = log.weight > 0
    expected = {}
    for name, column in (("logged", expected_logged), ("target", expected_target)):
        values = np.asarray(column, np.float64)
        if values.shape != live.shape or not np.isfinite(values[live]).all():
            raise InputError(
                f"expected_{name}: expected {len(live)} finite numbers, got shape {values.shape}"
            )
        expected[name] = np.where(live, values, 0.0)
    each = expected["target"] + log.ratio * (log.reward - expected["logged"])
    estimate = _mean(log, each)
    return _judged(log, estimate, each - estimate, log.ratio)


def _mean(log: LoggedActions, each: np.ndarray) -> float:
    return float(log.weight @ each / log.weight.sum())


def standard_error(log: LoggedActions, influence: np.ndarray) -> float:
    """Of a mean whose rows have these deviations, summed within queries (a sandwich).

    ``sqrt(G / (G - 1) sum_g (sum_{i in g} v_i psi_i)^2) / sum_i v_i`` with ``v`` the rows' weights
    and ``G`` queries; infinite for one query.
    """
    live = log.weight > 0
    sums = np.bincount(log.query[live], (log.weight * influence)[live])
    groups = np.unique(log.query[live]).size
    if groups < 2:
        return np.inf
    return float(np.sqrt(groups / (groups - 1) * np.sum(sums**2)) / log.weight.sum())


def _judged(
    log: LoggedActions,
    estimate: float,
    influence: np.ndarray,
    ratio: np.ndarray,
    mean_is_one: bool = True,
) -> Evaluation:
    carried = log.weight * ratio
    total = carried.sum()
    effective = float(total**2 / np.sum(carried**2)) if total > 0 else 0.0
    status = Overlap.OK
    if effective < LEAST_EFFECTIVE or carried.max() > MOST_SHARE * total:
        status = Overlap.LOW_OVERLAP
    off = _mean(log, ratio) - 1
    if mean_is_one and abs(off) > MOST_OFF * standard_error(log, ratio - 1 - off) + 1e-5:
        status = Overlap.WEIGHTS_OFF
    if total == 0:
        status = Overlap.NOTHING_SHARED
    if _unsupported(log).any():
        status = Overlap.NO_SUPPORT
    error = standard_error(log, influence) if np.isfinite(estimate) else np.nan
    found = Evaluation(estimate, error, effective, float(ratio.max()), status, "")
    return _with_status(log, found, status)


def _with_status(log: LoggedActions, found: Evaluation, status: Overlap) -> Evaluation:
    said = [status.meaning]
    missing = int(_unsupported(log).sum())
    if missing:
        said[0] += f", in {missing} of {int((log.weight > 0).sum())} rows"
    if log.queue:
        how = ", rows of one context taken for one query" if log.by_context else ""
        said += [f"standard errors are by query, not by row{how}", IN_A_QUEUE]
    return found._replace(status=status, note="; ".join(said))


def _unsupported(log: LoggedActions) -> np.ndarray:
    """Rows in which the target has actions that the log cannot have."""
    live = log.weight > 0
    return live & ((log.unsupported > 1e-9) | ((log.propensity == 0) & (log.target > 0)))


def unsupported_mass(target: Any, propensity: Any) -> Float[np.ndarray, " obs"]:
    """``sum_a pi(a | x) [mu(a | x) = 0]``, from probabilities of all actions ``[obs, action]``."""
    target, propensity = np.asarray(target, np.float64), np.asarray(propensity, np.float64)
    if target.shape != propensity.shape:
        raise InputError(
            f"unsupported_mass: expected two arrays of one shape, got {target.shape} and "
            f"{propensity.shape}"
        )
    return np.sum(np.where(propensity > 0, 0.0, target).reshape(len(target), -1), axis=1)


def expected_reward(
    key: PRNGKeyArray,
    posterior: Posterior,
    at: Situation,
    offered: Any,
    *,
    values: Any = None,
    num_draws: int = 1_000,
) -> Float[np.ndarray, " query"]:
    """The model's part of :func:`doubly_robust`: expected reward of assortments, over draws.

    Of what the log **shows**, since that is what the rewards of a log are: with a model of inferred
    retrials that is not what users do.

    Args:
        key, posterior, at, num_draws: as for :func:`cqbayes.predict.shares`.
        offered: the assortments ``[query, llm]``.
        values: worth of each LLM's answer ``[llm]``; 1 each where absent.
    """
    found = shares(key, posterior, at, offered, seen=True, num_draws=num_draws)
    num_llms = posterior.sizes.num_llms
    worth = np.ones(num_llms) if values is None else np.asarray(values, np.float64)
    return found["mean"].values[:, 1 : 1 + num_llms] @ worth


# Propensities


class Propensities(NamedTuple):
    """Probabilities of all actions in one situation, estimated by drawing.

    Attributes:
        probability: of every place and assortment.
        standard_error: of that. Where an action was never drawn it is not 0: it is the standard
            deviation of a Beta(1/2 + drawn, 1/2 + not drawn).
        assortments: what the second axis means.
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

    with ``theta~`` from the posterior, ``Q`` who wait and ``n`` full assortments. The first part
    is estimated from draws by the policy's own rule, the second is exact. Works under ``jit`` and
    ``vmap``, such as over the rounds of a log with the posterior of each.

    Weights ``1 / mu`` of an estimated ``mu`` are too large by a factor of about
    ``1 + (standard error / mu)^2``: take draws enough that this is nothing, and some ``eta``.

    Args:
        key: for the draws.
        posterior: what the logging policy believed.
        context: of the places of the waiting room; what stands in free places means nothing.
        occupied: which places hold a query that could be served.
        slate_size: most LLMs that answer.
        num_draws: how many.
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
    # Half a draw more of either kind: what was never drawn is not known to be impossible.
    drawn, missed = count + 0.5, num_draws - count + 0.5
    spread = jnp.sqrt(drawn * missed / (num_draws + 2)) / (num_draws + 1)
    return Propensities(
        probability=jnp.where(possible, (1 - eta) * count / num_draws + eta * uniform, 0),
        standard_error=jnp.where(possible, (1 - eta) * spread, 0),
        assortments=sets,
    )


# What a queue's log must hold for that


class Watched(NamedTuple):
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


def watched(env: Environment, places: int = 16) -> Environment:
    """The same environment, whose traces hold who waited: what propensities are computed from.

    ``simulate(...).metrics`` is then :class:`Watched`, with arrays ``[seed, round, ...]``.

    Args:
        env: any.
        places: how many places of the waiting room to write down in every round.
    """
    return env._replace(step=Partial(_watched_step, env, places))


def _watched_step(
    env: Environment, places: int, chance: Any, state: Any, action: Any, survey: Survey
) -> tuple[Any, ChoiceData, Watched]:
    seen = env.observe(state)
    room = seen.context.shape[0]

    def first(column: Array) -> Array:
        short = max(0, places - room)
        return jnp.pad(column[:places], [(0, short)] + [(0, 0)] * (column.ndim - 1))

    names = ("context", "identity", "wait", "attempts", "servable")
    columns = {name: getattr(seen, name) for name in names if getattr(seen, name) is not None}
    kept = seen._replace(**{name: first(column) for name, column in columns.items()})
    after, rows, metrics = env.step(chance, state, action, survey)
    return after, rows, Watched(metrics, kept, action.query, metrics.offered)


# The remedy


class _Believed(eqx.Module):
    """A truth that a posterior holds possible: utilities of its draw."""

    params: Any
    model: PreferenceModel = eqx.field(static=True)

    def __call__(self, query: Query) -> Float[Array, " llm"]:
        return self.model.utility(self.params, Situation(query.context))


def posterior_population(
    key: PRNGKeyArray, posterior: Posterior, context: Any, num_truths: int
) -> Population:
    """Populations whose truths are draws of a posterior, on a leading axis of all arrays.

    Queries are drawn from those of the log, with replacement.

    Raises:
        InputError: for a model whose utilities need more than the context.
    """
    model = posterior.model
    if model.needs:
        raise InputError(
            f"{model.name or 'model'}: expected a model whose utilities need the context alone, "
            f"for simulated users have nothing else; this one needs {model.needs[0]}"
        )
    context = np.asarray(context)
    if context.ndim != 2 or context.shape[1] != posterior.sizes.dim or len(context) == 0:
        raise InputError(
            f"context: expected shape (queries, {posterior.sizes.dim}), got {context.shape}"
        )
    form = layout(model, posterior.sizes)
    vectors = jax.vmap(posterior.draw_vector)(jax.random.split(key, num_truths))
    pool = jnp.broadcast_to(jnp.asarray(context, float), (num_truths, *context.shape))
    return Population(
        draw=Partial(_asked_again, pool), utility=_Believed(jax.vmap(form.params)(vectors), model)
    )


def _asked_again(pool: Float[Array, "query dim"], key: PRNGKeyArray) -> Query:
    which = jax.random.randint(key, (), 0, pool.shape[0])
    return Query(pool[which], which.astype(jnp.int32))


def simulate_policies(
    key: PRNGKeyArray,
    posterior: Posterior,
    context: Any,
    setups: Mapping[str, tuple[str, Setup]],
    arrival_rate: float,
    rounds: int,
    *,
    num_truths: int = 32,
    settings: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    progress: bool = False,
) -> xr.Dataset:
    """What policies would get in a queue of their own, as far as a posterior knows the users.

    For each of ``num_truths`` draws, users who choose by it come to the queue, and every policy
    serves them; all policies meet the same users with the same luck. What the log cannot show, the
    backlog of another policy, is so accounted for; what is not, is an error of the model.

    Args:
        key: for truths and queues.
        posterior: of what users do, fitted to the log.
        context: the queries that come, ``[query, dim]``.
        setups: by the name in the results: a policy's own name, and its setup, as
            :func:`cqbayes.study.run_policies` takes them.
        arrival_rate: probability of an arrival in a round.
        rounds: of every run.
        num_truths: draws of the posterior.
        settings, progress: as of :func:`cqbayes.study.run_policies`.

    Returns:
        Dimensions ``policy`` and ``truth``: ``value``, departures per service; ``queue_length``,
        its mean; ``wait``, the mean in rounds. The spread over truths is what is not known of
        users, and the luck of one run, which is less the more rounds there are.

    Raises:
        InputError: for no truths, a model that needs more than contexts, or one without draws.
    """
    if num_truths < 2:
        raise InputError(f"num_truths: expected at least 2, got {num_truths}")
    truth_key, run_key = jax.random.split(key)
    population = posterior_population(truth_key, posterior, context, num_truths)
    world = World(population, jnp.full(num_truths, arrival_rate), per_seed=True)
    asked = dict(setups)
    if "oracle" not in asked:  # regret, which comes with it, is measured against it
        asked["oracle"] = ("oracle", next(iter(asked.values()))[1])
    results = run_policies(
        run_key, world, asked, rounds, num_truths, settings=settings, progress=progress
    )
    found = results.performance.rename(seed="truth")
    return xr.Dataset(
        {
            "value": found["departures"] / found["services"],
            "queue_length": found["queue_length_mean"],
            "wait": found["wait_mean"],
        },
        attrs={"simulated": "users who choose by draws of a posterior", "rounds": rounds},
    ).sel(policy=list(setups))
