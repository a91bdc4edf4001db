"""Simulated queues of other policies, with truths drawn from a posterior.

For logs of a queue: the estimators do not know the backlog that another policy would leave
(:mod:`cqbayes.offpolicy.estimators`), a simulation does.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.choice.data import Situation
from cqbayes.environments.environment import Population, Query
from cqbayes.errors import InputError
from cqbayes.policies.setup import Setup
from cqbayes.posterior.posteriors import Posterior
from cqbayes.preference import PreferenceModel, layout
from cqbayes.simulation.comparison import World, compare_policies


class _Believed(eqx.Module):
    """The utilities under one draw of a posterior."""

    params: Any
    secret: Any  # a key's numbers: policies know the model, and the number of a query
    model: PreferenceModel = eqx.field(static=True)

    def __call__(self, query: Query) -> Float[Array, " llm"]:
        at = Situation(query.context)
        if self.model.kept is None:
            return self.model.utility(self.params, at)
        # What a query keeps while it waits is told by its number: as often as it is asked.
        key = jax.random.fold_in(jax.random.wrap_key_data(self.secret), query.identity)
        return self.model.kept(key, self.params, at)


def posterior_population(
    key: PRNGKeyArray, posterior: Posterior, context: Any, num_truths: int
) -> Population:
    """Populations whose truths are draws of a posterior, on a leading axis of all arrays.

    Queries are drawn from those of the log, with replacement. A model that remembers failures draws
    with each arrival which LLMs can answer it, and that stays while the query waits.

    Raises:
        InputError: for a model whose utilities need more than the context, and that does not say
            what a query keeps.
    """
    model = posterior.model
    if model.needs and not (model.needs == ("failures",) and model.kept is not None):
        raise InputError(
            f"{model.name or 'model'}: expected a model whose utilities need the context alone, "
            f"since simulated users have nothing else; got one that needs {model.needs[0]}"
        )
    context = np.asarray(context)
    if context.ndim != 2 or context.shape[1] != posterior.sizes.dim or len(context) == 0:
        raise InputError(
            f"context: expected shape (queries, {posterior.sizes.dim}), got {context.shape}"
        )
    form = layout(model, posterior.sizes)
    vectors = jax.vmap(posterior.draw_vector)(jax.random.split(key, num_truths))
    pool = jnp.broadcast_to(jnp.asarray(context, float), (num_truths, *context.shape))
    arrive = _asked_again if model.kept is None else _asked_anew
    secret = jax.random.key_data(jax.random.split(jax.random.fold_in(key, 1), num_truths))
    users = _Believed(jax.vmap(form.params)(vectors), secret, model)
    return Population(draw=Partial(arrive, pool), utility=users)


def _asked_again(pool: Float[Array, "query dim"], key: PRNGKeyArray) -> Query:
    which = jax.random.randint(key, (), 0, pool.shape[0])
    return Query(pool[which], which.astype(jnp.int32))


def _asked_anew(pool: Float[Array, "query dim"], key: PRNGKeyArray) -> Query:
    """A query of the pool under a number of its own."""
    which_key, number_key = jax.random.split(key)
    which = jax.random.randint(which_key, (), 0, pool.shape[0])
    number = jax.random.randint(number_key, (), 0, jnp.iinfo(jnp.int32).max, jnp.int32)
    return Query(pool[which], number)


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
    """Value, queue length and wait of policies in simulated queues, for draws of a posterior.

    Each of ``num_truths`` draws gives users who choose by it, and every policy serves them in a
    queue of its own. All policies meet the same users with the same luck. So the results account
    for the backlog of another policy, which the log cannot show. They do not account for an error
    of the model.

    Args:
        key: for truths and queues.
        posterior: of users' choices, fitted to the log.
        context: the queries that come, ``[query, dim]``: those of first attempts, since services
            count queries more the harder they are.
        setups: by the name in the results: a policy's own name, and its setup, as
            :func:`cqbayes.simulation.comparison.compare_policies` takes them.
        arrival_rate: probability of an arrival in a round.
        rounds: of every run.
        num_truths: draws of the posterior.
        settings, progress: as of :func:`cqbayes.simulation.comparison.compare_policies`.

    Returns:
        Dimensions ``policy`` and ``truth``: ``value``, departures per service; ``queue_length``,
        its mean; ``wait``, the mean in rounds. The spread over truths has two parts: what is not
        known of users, and the luck of one run, which shrinks with more rounds.

    Raises:
        InputError: for fewer than two truths, a model that needs more than contexts, or one without
            draws.
    """
    if num_truths < 2:
        raise InputError(f"num_truths: expected at least 2, got {num_truths}")
    truth_key, run_key = jax.random.split(key)
    population = posterior_population(truth_key, posterior, context, num_truths)
    world = World(population, jnp.full(num_truths, arrival_rate), per_seed=True)
    asked = dict(setups)
    if "oracle" not in asked:  # compare_policies measures regret against it
        asked["oracle"] = ("oracle", next(iter(asked.values()))[1]._replace(values=None))
    results = compare_policies(
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
