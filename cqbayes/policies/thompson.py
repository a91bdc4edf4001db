"""Thompson sampling: draw parameters from the posterior, serve what is best under the draw.

::

    theta~_1 .. theta~_M ~ posterior (spread alpha),    u~_j(x) = max_m u_j(x; theta~_m)
    argmax_{x, S} v(x, S; u~)

``M = 1`` is Thompson sampling. The best of several draws is optimistic sampling: each utility is at
least the true one with a probability that does not fall with the number of LLMs.

Source: Oh and Iyengar, Thompson sampling for multinomial logit contextual bandits, NeurIPS 2019.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.choice.assortments import checked_offers
from cqbayes.choice.data import ChoiceData, Situation
from cqbayes.environments.environment import Action, Observation
from cqbayes.errors import InputError
from cqbayes.policies.belief import Belief, Believed
from cqbayes.policies.policy import Policy, best_pair, check_not_negative
from cqbayes.policies.setup import Setup
from cqbayes.preference import utilities


def thompson(
    belief: Belief,
    slate_size: int = 1,
    alpha: float | None = None,
    *,
    best_of: int = 1,
    memory: bool = True,
    values: Float[Array, " llm"] | None = None,
) -> Policy:
    """Serves ``argmax_{x, S} v(x, S; theta~)`` with ``theta~`` drawn from the posterior.

    Args:
        belief: how the posterior is kept; see :mod:`cqbayes.policies.belief`.
        slate_size: maximum number of LLMs that answer one query.
        alpha: scales the draw's deviation from the posterior mean; 0 is greedy. Where absent, the
            belief's own: 1, or 0.5 with memory, where no draw is needed to try another LLM.
        best_of: number of posterior draws; each utility is the largest over them.
        memory: whether the belief sees which LLMs answered a query in vain, if it can.
        values: worth of each LLM's answer, in [0, 1]; 1 each where absent.

    Raises:
        InputError: for no draws, an ``alpha`` that is not a number of at least 0, a slate that
            cannot be filled, or values that are not in [0, 1].
    """
    values = checked_offers(slate_size, values)
    if alpha is None:
        alpha = belief.spread if memory else 1.0
    check_not_negative("thompson", alpha=alpha)
    if best_of < 1:
        raise InputError(f"best_of: expected at least one draw, got {best_of}")
    return Policy(
        init=belief.init,
        select=Partial(_select, slate_size, best_of, memory, jnp.asarray(alpha, float), values),
        update=Partial(_update, belief.update, slate_size, memory),
        refit=belief.refit if memory or belief.refit is None else Partial(_refit, belief.refit),
    )


def _select(
    slate_size: int,
    best_of: int,
    memory: bool,
    alpha: Array,
    values: Array | None,
    key: PRNGKeyArray,
    state: Believed,
    seen: Observation,
) -> Action:
    failures = seen.failures
    if not memory and failures is not None:
        failures = jnp.zeros_like(failures)
    if failures is None and "failures" in state.posterior.model.needs:
        raise InputError(
            "observation: expected failures, vain answers of each LLM to each waiting query, since "
            "the belief remembers them; got none"
        )
    situation = Situation(context=seen.context, attempt=seen.attempts + 1, failures=failures)

    def drawn(key: PRNGKeyArray) -> Array:
        params = state.posterior.draw(key, alpha)
        return utilities(state.posterior.model, params, situation)

    if best_of == 1:
        utility = drawn(key)
    else:
        utility = jnp.max(jax.vmap(drawn)(jax.random.split(key, best_of)), axis=0)
    return best_pair(utility, seen, slate_size, values)


def _update(
    update: Callable[..., Believed],
    slate_size: int,
    memory: bool,
    key: PRNGKeyArray,
    state: Believed,
    rows: ChoiceData,
) -> Believed:
    return update(slate_size, key, state, rows if memory else _forgotten(rows))


def _refit(
    refit: Callable[..., Believed], key: PRNGKeyArray, state: Believed, history: ChoiceData
) -> Believed:
    return refit(key, state, _forgotten(history))


def _forgotten(rows: ChoiceData) -> ChoiceData:
    """The rows as if each were the first of its query."""
    if rows.failures is None:
        return rows
    return eqx.tree_at(lambda r: r.failures, rows, jnp.zeros_like(rows.failures))


def build(setup: Setup) -> Policy:
    return thompson(setup.belief, setup.slate_size, values=setup.values)
