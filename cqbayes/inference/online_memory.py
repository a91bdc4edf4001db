"""Online update of :class:`cqbayes.posterior.online_memory.OnlineMemory`: one row, constant cost.

What a row says of LLM ``j`` it says along one number, ``s_j = w_0 . z_0 + w_j . z_j``, Gaussian
before with mean ``a`` and variance ``v = v_0 + v_j``. Its moments after the row are sums over 15
nodes of Gauss and Hermite; with mean ``a + sqrt(v) m`` and variance ``r v``, each of the two blocks
becomes the one that has its marginal moments along ``z``::

    w <- w + F phi m / sqrt(v)          phi = F^T z,  |phi|^2 = v_0 or v_j
    F <- F - g F phi phi^T              (1 - g |phi|^2)^2 = 1 - |phi|^2 (1 - r) / v

and the sum over nodes itself is the row's evidence for the member. What the row leaves coupled
between the two blocks is forgotten (assumed-density filtering; Minka 2001): sums ``s_j`` of LLMs
that were tried are right, while the shared block alone is believed surer than it is, so that an LLM
which was never tried has somewhat too narrow a prior.

Of several LLMs in one assortment, one after another learns, the others being held at their means.
A row of weight ``w`` has its likelihood to the power ``w``, which is not as good as ``w`` rows.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cqbayes.choice.data import ChoiceData
from cqbayes.inference.online import first_offered
from cqbayes.posterior.online_memory import OnlineMemory
from cqbayes.preference import PreferenceModel, Sizes

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


class Member(NamedTuple):
    """A prior that is averaged over.

    Attributes:
        scale: of the prior standard deviations of slopes; 0 is a model without contexts.
        can, cannot: how often an answer is taken if the LLM can answer the query, and if not.
        recalls: whether vain answers say anything; without, it is a disjoint model of contexts.
    """

    scale: float = 1.0
    can: float = 0.92
    cannot: float = 0.08
    recalls: bool = True


MEMBERS = (
    Member(scale=0.0),
    Member(scale=0.3),
    Member(),
    Member(can=0.97, cannot=0.03),
    Member(scale=2.0, can=0.995, cannot=0.005, recalls=False),
)


def prior(
    model: PreferenceModel, sizes: Sizes, members: tuple[Member, ...] = MEMBERS
) -> OnlineMemory:
    """The prior: all members alike likely."""
    given = dict(model.settings)
    dim, llms = sizes.dim, sizes.num_llms
    scale, can, cannot, recalls = np.array(members, float).T[:, :, None]
    slopes, one = np.ones((1, dim)) * scale, np.ones_like(scale)
    shared_sd = [
        given["level_sd"] * one,
        given["slope_sd"] * slopes,
        given["recall_sd"] * recalls,
        given["others_sd"] * recalls,
    ]
    own_sd = [
        given["own_level_sd"] * one,
        given["own_slope_sd"] * slopes,
        given["own_others_sd"] * recalls,
    ]
    shared = np.zeros((len(members), dim + 3))
    shared[:, -2:-1] = (np.log1p(-cannot) - np.log1p(-can)) * recalls
    diagonal = jax.vmap(jnp.diag)
    own_root = diagonal(jnp.asarray(np.concatenate(own_sd, axis=1), float))
    return OnlineMemory(
        shared=jnp.asarray(shared, float),
        shared_root=diagonal(jnp.asarray(np.concatenate(shared_sd, axis=1), float)),
        own=jnp.zeros((llms, len(members), dim + 2)),
        own_root=jnp.broadcast_to(own_root, (llms, *own_root.shape)),
        evidence=jnp.zeros(len(members)),
        can=jnp.asarray(can[:, 0], float),
        cannot=jnp.asarray(cannot[:, 0], float),
        model=model,
        sizes=sizes,
    )


def update(
    posterior: OnlineMemory, data: ChoiceData, slate_size: int | None = None
) -> OnlineMemory:
    """All rows of ``data``, in their order.

    Args:
        posterior: before.
        data: the rows, with ``failures``.
        slate_size: most LLMs that a row offers; rows that offer more teach nothing. All if absent.
    """
    rows = data.cleared()
    assert rows.failures is not None
    columns = (rows.context, rows.offered, rows.choice, rows.weight, rows.failures)

    def one(posterior: OnlineMemory, row: tuple[Array, ...]) -> tuple[OnlineMemory, None]:
        return _row(posterior, slate_size or data.num_llms, *row), None

    if data.num_obs == 1:
        return one(posterior, tuple(column[0] for column in columns))[0]
    return jax.lax.scan(one, posterior, columns)[0]


def _row(
    posterior: OnlineMemory,
    slate_size: int,
    context: Float[Array, " dim"],
    offered: Bool[Array, " llm"],
    choice: Int[Array, ""],
    weight: Float[Array, ""],
    failures: Int[Array, " llm"],
) -> OnlineMemory:
    llm = first_offered(offered, slate_size)
    learns = (weight > 0) & (jnp.sum(offered) <= slate_size) & (choice >= 0)
    weight = jnp.where(learns, weight, 0)
    own_failures = failures[llm]
    others = jnp.log2(1.0 + jnp.sum(failures) - own_failures)
    one = jnp.ones((1,))
    z_shared = [
        jnp.concatenate([one, context, jnp.stack([-own_failures[k].astype(float), -others[k]])])
        for k in range(slate_size)
    ]
    z_own = [jnp.concatenate([one, context, -others[k][None]]) for k in range(slate_size)]

    shared, shared_root, own, own_root = (
        posterior.shared,
        posterior.shared_root,
        posterior.own,
        posterior.own_root,
    )
    can, cannot = posterior.can[:, None], posterior.cannot[:, None]
    nodes, weights = jnp.asarray(NODES, float), jnp.asarray(WEIGHTS, float)
    there = offered[llm] & (jnp.arange(slate_size) < jnp.sum(offered))
    counts, evidence = weight * there, posterior.evidence
    for k in range(slate_size):
        # Block by block: gathered under a vmap they would be copied whole.
        block = jax.lax.dynamic_index_in_dim(own, llm[k], keepdims=False)
        root = jax.lax.dynamic_index_in_dim(own_root, llm[k], keepdims=False)
        phi_shared = jnp.sum(z_shared[k][:, None] * shared_root, axis=1)
        phi_own = jnp.sum(z_own[k][:, None] * root, axis=1)
        of_shared, of_own = jnp.sum(phi_shared**2, -1), jnp.sum(phi_own**2, -1)
        variance = of_shared + of_own
        deviation = jnp.sqrt(variance)
        at = (shared @ z_shared[k] + block @ z_own[k])[:, None] + deviation[:, None] * nodes
        p = cannot + (can - cannot) * jax.nn.sigmoid(at)
        odds = p / (1 - p)
        competing, other = jnp.zeros(can.shape), jnp.zeros(can.shape)
        for m in range(slate_size):
            if m != k:
                mean = shared @ z_shared[m] + own[llm[m]] @ z_own[m]
                q = cannot + (can - cannot) * jax.nn.sigmoid(mean)[:, None]
                competing += jnp.where(there[m], q / (1 - q), 0)
                other += jnp.where(there[m] & (choice == llm[m] + 1), q / (1 - q), 0)
        done = jnp.where(choice == 0, 1, jnp.where(choice == llm[k] + 1, odds, other))
        log_power = counts[k] * (jnp.log(done) - jnp.log1p(odds + competing))
        peak = jnp.max(log_power, axis=-1)
        mass = jnp.exp(log_power - peak[:, None]) * weights
        total = jnp.sum(mass, -1)
        mean = jnp.sum(mass * nodes, -1) / total
        ratio = jnp.sum(mass * nodes**2, -1) / total - mean**2
        gain = jnp.where(counts[k] > 0, mean / deviation, 0)
        less = jnp.where(counts[k] > 0, (1 - ratio) / variance, 0)

        def moved(location, root, phi, own_variance, gain=gain, less=less):
            shrink = (1 - jnp.sqrt(jnp.maximum(1 - own_variance * less, 0))) / own_variance
            direction = jnp.sum(root * phi[:, None, :], axis=-1)
            narrower = (shrink[:, None] * direction)[:, :, None] * phi[:, None, :]
            return location + gain[:, None] * direction, root - narrower

        shared, shared_root = moved(shared, shared_root, phi_shared, of_shared)
        block, root = moved(block, root, phi_own, of_own)
        own = jax.lax.dynamic_update_index_in_dim(own, block, llm[k], 0)
        own_root = jax.lax.dynamic_update_index_in_dim(own_root, root, llm[k], 0)
        if k == 0:
            evidence = evidence + jnp.where(counts[k] > 0, peak + jnp.log(total), 0)
    return eqx.tree_at(
        lambda p: (p.shared, p.shared_root, p.own, p.own_root, p.evidence),
        posterior,
        # Only differences count: rounding of a large sum would hide what a row adds.
        (shared, shared_root, own, own_root, evidence - jnp.max(evidence)),
    )
