"""How the logs of a calibration are made: with a fixed design, or by a policy that learns."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PRNGKeyArray
from numpyro import handlers

from cqbayes.choice.data import ChoiceData, Situation, choice_data
from cqbayes.environments.environment import Action, Environment, Population, Query, Survey
from cqbayes.environments.places import blank_place, pack, unpack
from cqbayes.environments.queue import QueueState, retrial_queue
from cqbayes.environments.rules import Rules
from cqbayes.environments.synthetic import linear
from cqbayes.errors import InputError
from cqbayes.policies import belief
from cqbayes.policies.acqb import acqb
from cqbayes.preference import (
    PreferenceModel,
    Sites,
    Sizes,
    check_data,
    layout,
    mnl,
    program,
    sizes_of,
)
from cqbayes.simulation.loop import simulate


class Collection(NamedTuple):
    """A way to make logs.

    Attributes:
        sizes: of all logs.
        check: ``model -> None``, raises :class:`cqbayes.InputError` for models that it cannot take.
        collect: ``(key, model, truths [replicate, ...]) -> ChoiceData [replicate, obs, ...]``.
    """

    sizes: Sizes
    check: Callable[[PreferenceModel], None]
    collect: Callable[[PRNGKeyArray, PreferenceModel, Sites], ChoiceData]


def random_design(key: PRNGKeyArray, num_obs: int, sizes: Sizes, slate_size: int = 2) -> ChoiceData:
    """Contexts on the unit sphere and assortments of 1 to ``slate_size`` LLMs, all at random.

    The data have the optional columns of ``sizes``, and attempts. All choices are 0: they are drawn
    later.

    Example:
        >>> import jax
        >>> random_design(jax.random.key(0), 50, Sizes(num_llms=3, dim=2)).num_obs
        50
    """
    keys = jax.random.split(key, 7)
    context = jax.random.normal(keys[0], (num_obs, sizes.dim))
    order = jnp.argsort(jax.random.uniform(keys[1], (num_obs, sizes.num_llms)), axis=-1)
    shown = jax.random.randint(keys[2], (num_obs, 1), 1, slate_size + 1)
    shape = (sizes.num_llms, sizes.num_attributes)

    def levels(key: PRNGKeyArray, count: int) -> Array | None:
        # Every level occurs, so that the data have these sizes.
        return jax.random.permutation(key, jnp.arange(num_obs) % count) if count else None

    return choice_data(
        context / jnp.linalg.norm(context, axis=-1, keepdims=True),
        order < shown,
        jnp.zeros(num_obs, int),
        attributes=jax.random.normal(keys[3], shape) if sizes.num_attributes else None,
        user=levels(keys[4], sizes.num_users),
        attempt=jax.random.geometric(keys[5], 0.5, (num_obs,)),
        time=levels(keys[6], sizes.num_times),
    )


def fixed_collection(design: ChoiceData) -> Collection:
    """Logs with the contexts, assortments and optional columns of ``design``; choices are drawn.

    Raises:
        InputError: for weights other than 0 and 1: choices cannot be drawn from a weighted
            likelihood.
    """
    if not bool(jnp.isin(design.weight, jnp.array([0.0, 1.0])).all()):
        raise InputError("design: expected weights of 0 and 1, got others")
    blank = eqx.tree_at(lambda d: d.choice, design, jnp.zeros_like(design.choice))

    return Collection(
        sizes_of(design),
        check=lambda model: check_data(model, blank),
        collect=lambda key, model, truths: _choose(key, model, truths, blank),
    )


@eqx.filter_jit
def _choose(
    key: PRNGKeyArray, model: PreferenceModel, truths: Sites, design: ChoiceData
) -> ChoiceData:
    """Choices by the model's own NumPyro program."""

    def one(key: PRNGKeyArray, truth: Sites) -> Int[Array, " obs"]:
        run: Any = handlers.substitute(handlers.seed(program(model), key), data=truth)
        return run(design, predict=True)

    num = len(next(iter(truths.values())))
    choice = jax.vmap(one)(jax.random.split(key, num), truths)
    rows = jax.tree.map(lambda x: jnp.broadcast_to(x, (num, *x.shape)), design)
    return eqx.tree_at(lambda d: d.choice, rows, choice)


def adaptive_collection(
    sizes: Sizes,
    rounds: int = 200,
    slate_size: int = 2,
    arrival_rate: float = 0.5,
    attributes: Array | None = None,
) -> Collection:
    """Logs that ACQB makes in the retrial queue while it learns from users with the true params.

    Which query is served, and by which LLMs, then depends on earlier choices. The posterior is
    still that of a log with a fixed design, and still calibrated. The density of a log is

    ``p(log | theta) = prod_t p(x_t, S_t | rows before t) p(y_t | x_t, S_t, theta)``

    where ``theta`` enters the second factors only: besides earlier rows, the policy sees only
    contexts and luck, which do not depend on ``theta``. The first factors cancel in the posterior
    (the likelihood principle, Berger and Wolpert 1988). Estimates without a prior, such as
    averages, are biased by adaptive collection. The policy's own posterior, the online Gaussian of
    ``disjoint_mnl``, need be neither exact nor of the right model.

    Args:
        sizes: of the logs.
        rounds: of each queue. Rounds that serve nobody are rows of weight zero.
        slate_size: maximum number of LLMs offered at once.
        arrival_rate: probability of an arrival in a round.
        attributes: of the LLMs ``[llm, attribute]``, for models that need them.
    """
    from cqbayes.preference import load_model

    policy = acqb(belief.online(load_model("disjoint_mnl"), sizes), sizes.num_llms, slate_size)

    def collect(key: PRNGKeyArray, model: PreferenceModel, truths: Sites) -> ChoiceData:
        def world(truth: Sites) -> Environment:
            population = _population(model, sizes, attributes, truth)
            queue = retrial_queue(population, arrival_rate, slate_size)
            return _by_attempt(queue, population) if "attempt" in model.needs else queue

        environments = eqx.filter_vmap(world)(truths)
        num = len(next(iter(truths.values())))
        trace = simulate(
            key, policy, environments, rounds, num_seeds=num, record=True, env_per_seed=True
        )
        rows = jax.tree.map(jnp.asarray, trace.rows)
        if attributes is None:
            return rows
        every = jnp.broadcast_to(attributes, (num, rounds, *attributes.shape))
        return eqx.tree_at(lambda d: d.attributes, rows, every, is_leaf=lambda x: x is None)

    return Collection(sizes, _check_collectable, collect)


def _check_collectable(model: PreferenceModel) -> None:
    """Refuses models that the queue's users cannot follow.

    Where a log hides choices that the policy saw, the collection depends on hidden choices, and the
    argument of :func:`adaptive_collection` does not hold.
    """
    beyond = [name for name in model.needs if name not in ("attributes", *belief.QUEUE_COLUMNS)]
    if beyond:
        raise InputError(
            f"adaptive logs: expected a model of what the queue's rows have, got one whose utility "
            f"depends on {beyond[0]}"
        )
    if model.outcome is not mnl:
        raise InputError(
            "adaptive logs: expected a model of clean logs, since the queue's policy sees every "
            "choice; got a model that hides some"
        )


def _population(
    model: PreferenceModel, sizes: Sizes, attributes: Array | None, truth: Sites
) -> Population:
    params = layout(model, sizes).to_params(truth)
    utility = Partial(_utility, model.utility, attributes, params)
    contexts = linear(jnp.zeros((sizes.num_llms, sizes.dim)))
    return contexts._replace(utility=utility)


def _utility(
    utility: Callable[..., Array],
    attributes: Array | None,
    params: Any,
    query: Query,
    attempt: Int[Array, ""] | int = 1,
) -> Float[Array, " llm"]:
    return utility(params, Situation(query.context, attributes, attempt=jnp.asarray(attempt)))


def _by_attempt(queue: Environment, population: Population) -> Environment:
    """The queue with users whose utility is that of their attempt, and not of their arrival."""
    return queue._replace(step=Partial(_step_by_attempt, queue.step, population))


def _step_by_attempt(
    step: Callable[..., Any],
    population: Population,
    chance: Any,
    state: QueueState,
    action: Action,
    survey: Survey,
) -> Any:
    place = unpack(state.rows[action.query], blank_place(population, Rules()))
    query = Query(place.context, place.identity)
    now: Any = population.utility
    tried = place._replace(utility=now(query, attempt=place.attempts + 1))
    rows = state.rows.at[action.query].set(pack(tried))
    return step(chance, state._replace(rows=rows), action, survey)
