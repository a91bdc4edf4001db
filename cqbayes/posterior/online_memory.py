"""Gaussians over what LLMs share and what each has of its own, averaged over a few priors.

The posterior of :mod:`cqbayes.models.failures_mnl` that
:mod:`cqbayes.inference.online_memory` updates. A **member** has its own rates ``can`` and
``cannot`` and its own prior scale of slopes, 0 being a model without contexts, and counts with the
evidence of all rows so far.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.posterior.posteriors import Posterior
from cqbayes.preference import PreferenceModel, Sizes, layout


class OnlineMemory(Posterior):
    """Independent blocks of a shared vector and of one vector an LLM, for every member.

    The shared block lies along ``(1, x, -n_j, -log2(1 + n - n_j))``, an LLM's own along
    ``(1, x, -log2(1 + n - n_j))``. ``root`` are square roots of covariances. ``evidence`` is
    relative to the best member's.
    """

    shared: Float[Array, "member shared"]
    shared_root: Float[Array, "member shared shared"]
    own: Float[Array, "llm member own"]
    own_root: Float[Array, "llm member own own"]
    evidence: Float[Array, " member"]
    can: Float[Array, " member"]
    cannot: Float[Array, " member"]
    model: PreferenceModel = eqx.field(static=True)
    sizes: Sizes = eqx.field(static=True)

    @property
    def share(self) -> Float[Array, " member"]:
        """Posterior probability of each member."""
        return jax.nn.softmax(self.evidence)

    def draw(self, key: PRNGKeyArray, spread: float | Array = 1.0) -> Any:
        member_key, shared_key, own_key = jax.random.split(key, 3)
        # As a deviation from the mean is scaled: at spread 0 it is the likeliest member.
        sharper = (self.evidence - jnp.max(self.evidence)) / jnp.maximum(spread, 1e-6)
        member = jax.random.categorical(member_key, sharper)
        shared, root = self.shared[member], self.shared_root[member]
        shared += spread * (root @ jax.random.normal(shared_key, shared.shape, shared.dtype))
        own, root = self.own[:, member], self.own_root[:, member]
        noise = jax.random.normal(own_key, own.shape, own.dtype)
        own += spread * jnp.einsum("jkl,jl->jk", root, noise)
        return _params(shared, own, self.can[member], self.cannot[member])

    def draw_vector(self, key: PRNGKeyArray) -> Float[Array, " parameter"]:
        return layout(self.model, self.sizes).unconstrain(self.draw(key))

    @property
    def centre(self) -> Float[Array, " parameter"]:
        return layout(self.model, self.sizes).unconstrain(self.mean())

    def mean(self) -> Any:
        """Means over members, each weighed by its share: no member's own."""
        share = self.share
        own = jnp.einsum("m,jmk->jk", share, self.own)
        return _params(share @ self.shared, own, share @ self.can, share @ self.cannot)

    def draws(self, key: PRNGKeyArray, num_draws: int) -> Float[Array, "chain draw parameter"]:
        return jax.vmap(self.draw_vector)(jax.random.split(key, num_draws))[None]


def _params(shared: Array, own: Array, can: Array, cannot: Array) -> dict[str, Array]:
    return {
        "can": can,
        "cannot": cannot,
        "level": shared[0],
        "slope": shared[1:-2],
        "recall": shared[-2],
        "others": shared[-1],
        "own_level": own[:, 0],
        "own_slope": own[:, 1:-1],
        "own_others": own[:, -1],
    }
