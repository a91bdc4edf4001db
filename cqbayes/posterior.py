"""Posteriors: what is believed about a model's parameters after data.

A posterior is a pytree that can be drawn from; a policy does not know which kind it holds.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.preference import PreferenceModel, Sites, Sizes, layout


class Posterior(eqx.Module):
    """Abstract: beliefs about the parameters of ``model`` at ``sizes``."""

    model: eqx.AbstractVar[PreferenceModel]
    sizes: eqx.AbstractVar[Sizes]

    @abc.abstractmethod
    def draw(self, key: PRNGKeyArray, spread: float | Array = 1.0) -> Any:
        """One draw of ``params``; ``spread`` scales its deviation from the mean (ACQB's alpha)."""

    @abc.abstractmethod
    def draw_vector(self, key: PRNGKeyArray) -> Float[Array, " parameter"]:
        """One draw of the unconstrained vector: where a sampler may start."""

    @abc.abstractmethod
    def mean(self) -> Any:
        """Posterior mean as ``params`` (for a transformed site, of its unconstrained value)."""

    @property
    @abc.abstractmethod
    def centre(self) -> Float[Array, " parameter"]:
        """The mean of the unconstrained vector: where a search may begin."""

    @abc.abstractmethod
    def draws(self, key: PRNGKeyArray, num_draws: int) -> Float[Array, "chain draw parameter"]:
        """Draws of the unconstrained vector; a posterior that is draws gives all it has."""

    def report(self, vectors: Float[Array, "chain draw parameter"]) -> Sites:
        """Unconstrained vectors as what people look at: all sites, ``[chain, draw, ...]`` each."""
        form = layout(self.model, self.sizes)
        return jax.vmap(jax.vmap(form.reported))(vectors)

    def sites(self, key: PRNGKeyArray, num_draws: int) -> Sites:
        """Draws of all sites, ``[chain, draw, ...]`` each."""
        return self.report(self.draws(key, num_draws))

    def to_arviz(self, **options: Any) -> Any:
        """An ArviZ ``DataTree``; see :func:`cqbayes.diagnostics.to_datatree`."""
        from cqbayes.diagnostics import to_datatree

        return to_datatree(self, **options)


class Gaussian(Posterior):
    """``Normal(location, factor factor^T)`` over the unconstrained vector ``[parameter]``."""

    location: Float[Array, " parameter"]
    factor: Float[Array, "parameter parameter"]
    model: PreferenceModel = eqx.field(static=True)
    sizes: Sizes = eqx.field(static=True)

    def draw(self, key: PRNGKeyArray, spread: float | Array = 1.0) -> Any:
        form = layout(self.model, self.sizes)
        return form.params(self.draw_vector(key, spread))

    @property
    def centre(self) -> Float[Array, " parameter"]:
        return self.location

    def draw_vector(
        self, key: PRNGKeyArray, spread: float | Array = 1.0
    ) -> Float[Array, " parameter"]:
        noise = jax.random.normal(key, self.location.shape, self.location.dtype)
        return self.location + spread * (self.factor @ noise)

    def vector_at(self, noise: Float[Array, " parameter"]) -> Float[Array, " parameter"]:
        """The vector that standard normal ``noise`` stands for."""
        return self.location + self.factor @ noise

    def mean(self) -> Any:
        form = layout(self.model, self.sizes)
        return form.params(self.centre)

    def draws(self, key: PRNGKeyArray, num_draws: int) -> Float[Array, "chain draw parameter"]:
        noise = jax.random.normal(key, (1, num_draws, self.location.size), self.location.dtype)
        return self.location + noise @ self.factor.T


class Draws(Posterior):
    """Equally weighted draws of the unconstrained vector, ``[chain, draw, parameter]``.

    ``effective`` is how many independent draws they are worth where that cannot be told from the
    draws themselves: resampled draws repeat, and shuffled they look independent.
    """

    vectors: Float[Array, "chain draw parameter"]
    model: PreferenceModel = eqx.field(static=True)
    sizes: Sizes = eqx.field(static=True)
    effective: Float[Array, ""] | None = None

    def draw(self, key: PRNGKeyArray, spread: float | Array = 1.0) -> Any:
        form = layout(self.model, self.sizes)
        vector = self.centre + spread * (self.draw_vector(key) - self.centre)
        return form.params(vector)

    @property
    def centre(self) -> Float[Array, " parameter"]:
        return jnp.mean(self.vectors, axis=(0, 1))

    def draw_vector(self, key: PRNGKeyArray) -> Float[Array, " parameter"]:
        flat = self.vectors.reshape(-1, self.vectors.shape[-1])
        return flat[jax.random.randint(key, (), 0, len(flat))]

    def mean(self) -> Any:
        form = layout(self.model, self.sizes)
        return form.params(self.centre)

    def draws(self, key: PRNGKeyArray, num_draws: int) -> Float[Array, "chain draw parameter"]:
        return self.vectors
