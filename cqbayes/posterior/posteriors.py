"""Posteriors: distributions of a model's parameters given data.

A posterior is a pytree with a method that draws parameters. A policy works with any kind of
posterior.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.preference import PreferenceModel, Sites, Sizes, layout


class Posterior(eqx.Module):
    """Abstract base: a distribution of the parameters of ``model`` at ``sizes``."""

    model: eqx.AbstractVar[PreferenceModel]
    sizes: eqx.AbstractVar[Sizes]

    @abc.abstractmethod
    def draw(self, key: PRNGKeyArray, spread: float | Array = 1.0) -> Any:
        """One draw of ``params``; ``spread`` scales the deviation from the mean (ACQB's alpha)."""

    @abc.abstractmethod
    def draw_vector(self, key: PRNGKeyArray) -> Float[Array, " parameter"]:
        """One draw of the unconstrained vector; a sampler can start there."""

    @abc.abstractmethod
    def mean(self) -> Any:
        """Posterior mean as ``params`` (the mean is taken of the unconstrained values)."""

    @property
    @abc.abstractmethod
    def centre(self) -> Float[Array, " parameter"]:
        """Mean of the unconstrained vector; a search can begin there."""

    @abc.abstractmethod
    def draws(self, key: PRNGKeyArray, num_draws: int) -> Float[Array, "chain draw parameter"]:
        """Draws of the unconstrained vector; :class:`Draws` returns all draws that it holds."""

    def report(self, vectors: Float[Array, "chain draw parameter"]) -> Sites:
        """All sites of unconstrained vectors, for people to read: ``[chain, draw, ...]`` each."""
        form = layout(self.model, self.sizes)
        return jax.vmap(jax.vmap(form.reported))(vectors)

    def sites(self, key: PRNGKeyArray, num_draws: int) -> Sites:
        """Draws of all sites, ``[chain, draw, ...]`` each."""
        return self.report(self.draws(key, num_draws))

    def to_arviz(self, **options: Any) -> Any:
        """An ArviZ ``DataTree``; see :func:`cqbayes.posterior.datatree.to_datatree`."""
        from cqbayes.posterior.datatree import to_datatree

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
        """The vector ``location + factor noise``, for standard normal ``noise``."""
        return self.location + self.factor @ noise

    def mean(self) -> Any:
        form = layout(self.model, self.sizes)
        return form.params(self.centre)

    def draws(self, key: PRNGKeyArray, num_draws: int) -> Float[Array, "chain draw parameter"]:
        noise = jax.random.normal(key, (1, num_draws, self.location.size), self.location.dtype)
        return self.location + noise @ self.factor.T


class Draws(Posterior):
    """Equally weighted draws of the unconstrained vector, ``[chain, draw, parameter]``.

    ``effective`` is the number of independent draws that they are worth. It is set for resampled
    draws only: these repeat, but look independent once shuffled, so it cannot be estimated from the
    draws.
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
