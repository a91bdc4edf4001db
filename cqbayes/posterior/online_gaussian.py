"""A Gaussian of independent blocks, one per LLM, which :mod:`cqbayes.inference.online` updates.

A block is a location ``m_j`` and a square root ``F_j`` of its covariance. What a service says of it
is along the features ``z`` of the query alone (:func:`blocks_along`), and enters by Potter's
square-root update (:func:`potter_update`), so that no variance ever falls below zero.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cqbayes.errors import InputError
from cqbayes.posterior.log_densities import has_linear_likelihood
from cqbayes.posterior.posteriors import Posterior
from cqbayes.preference import PreferenceModel, Sizes


class OnlineGaussian(Posterior):
    """Independent Gaussians, one per LLM: means ``[llm, feature]`` and square roots."""

    location: Float[Array, "llm feature"]
    factor: Float[Array, "llm feature feature"]
    model: PreferenceModel = eqx.field(static=True)
    sizes: Sizes = eqx.field(static=True)

    def draw(self, key: PRNGKeyArray, spread: float | Array = 1.0) -> Any:
        noise = jax.random.normal(key, self.location.shape, self.location.dtype)
        weights = self.location + spread * jnp.einsum("jkl,jl->jk", self.factor, noise)
        return _linear(self.model).to_params(weights)

    def draw_vector(self, key: PRNGKeyArray) -> Float[Array, " parameter"]:
        # In the order of the model's own layout: a linear model's sites are its params.
        return ravel_pytree(self.draw(key))[0]

    @property
    def centre(self) -> Float[Array, " parameter"]:
        return ravel_pytree(self.mean())[0]

    def vector_at(self, noise: Float[Array, " parameter"]) -> Float[Array, " parameter"]:
        """The vector that standard normal ``noise`` stands for."""
        deviation = jnp.einsum("jkl,jl->jk", self.factor, noise.reshape(self.location.shape))
        return ravel_pytree(_linear(self.model).to_params(self.location + deviation))[0]

    def mean(self) -> Any:
        return _linear(self.model).to_params(self.location)

    def draws(self, key: PRNGKeyArray, num_draws: int) -> Float[Array, "chain draw parameter"]:
        return jax.vmap(self.draw_vector)(jax.random.split(key, num_draws))[None]


def _linear(model: PreferenceModel) -> Any:
    if model.linear is None or model.linear.prior_sd is None or not has_linear_likelihood(model):
        raise InputError(
            "engine online: expected a disjoint linear model such as disjoint_mnl; "
            "use laplace or nuts for this one"
        )
    return model.linear


def prior(model: PreferenceModel, sizes: Sizes) -> OnlineGaussian:
    """The prior as an online Gaussian.

    Raises:
        InputError: if the model's utilities are not disjoint and linear.
    """
    deviation = _linear(model).prior_sd(sizes)
    factor = jnp.broadcast_to(jnp.diag(deviation), (sizes.num_llms, *jnp.diag(deviation).shape))
    location = jnp.zeros(factor.shape[:2])
    return OnlineGaussian(location=location, factor=factor, model=model, sizes=sizes)


class Along(NamedTuple):
    """Blocks of some LLMs along ``z``.

    Attributes:
        llm: whose blocks.
        blocks: their square roots ``F_j``.
        phi: ``F_j^T z``.
        mean: ``m_j . z``.
        variance: ``|phi|^2``.
    """

    llm: Int[Array, " slate"]
    blocks: list[Float[Array, "feature feature"]]
    phi: Float[Array, "slate feature"]
    mean: Float[Array, " slate"]
    variance: Float[Array, " slate"]


def blocks_along(
    location: Float[Array, "llm feature"],
    root: Float[Array, "llm feature feature"],
    llm: Int[Array, " slate"],
    z: Float[Array, " feature"],
) -> Along:
    """The blocks of the LLMs ``llm`` along ``z``."""
    # Block by block: gathered, or multiplied as one einsum, they are slower on CPUs.
    blocks = [jax.lax.dynamic_index_in_dim(root, j, keepdims=False) for j in llm]
    phi = jnp.stack([z @ block for block in blocks])
    return Along(llm, blocks, phi, location[llm] @ z, jnp.sum(phi**2, axis=-1))


def potter_update(
    location: Float[Array, "llm feature"],
    root: Float[Array, "llm feature feature"],
    along: Along,
    gain: Float[Array, " slate"],
    shrinkage: Float[Array, " slate"],
) -> tuple[Float[Array, "llm feature"], Float[Array, "llm feature feature"]]:
    """Locations and square roots after ``m_j += gain_j F_j phi``, ``F_j -= g_j F_j phi phi^T``.

    With ``g = (1 - r) / s`` the variance ``s`` along ``z`` becomes ``r^2 s``. Where ``gain`` and
    ``g`` are 0 nothing changes, wherever the place points.

    Source: Potter's form of Sherman and Morrison; Bierman, Factorization methods for discrete
    sequential estimation, 1977.
    """
    direction = jnp.stack([block @ phi for block, phi in zip(along.blocks, along.phi, strict=True)])
    less = (shrinkage[:, None] * direction)[:, :, None] * along.phi[:, None, :]
    return (
        location.at[along.llm].add(gain[:, None] * direction),
        root.at[along.llm].add(-less),
    )
