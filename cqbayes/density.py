"""The densities of preference models: prior, likelihood of every row, posterior.

All are functions of the unconstrained vector of :func:`cqbayes.preference.layout`. A model with
linear utilities and the plain outcome goes by the fused likelihood of :mod:`cqbayes.likelihood`,
any other by automatic differentiation, with the same results.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.infer.util import potential_energy

from cqbayes.choice import ChoiceData
from cqbayes.likelihood import LinearRows, anchored, linear_log_likelihood, linear_rows
from cqbayes.preference import PreferenceModel, Sizes, layout, mnl, outcomes, sizes_of


def log_prior(model: PreferenceModel, sizes: Sizes) -> Callable[[Array], Array]:
    """Log prior density of the unconstrained vector, with the Jacobian of its transforms."""
    form = layout(model, sizes)

    def density(vector: Array) -> Array:
        return jnp.negative(potential_energy(model.prior, (sizes,), {}, form.unravel(vector)))

    return density


def log_likelihoods(model: PreferenceModel, params: Any, data: ChoiceData) -> Float[Array, " obs"]:
    """Log-likelihood of every row, times its weight."""
    rows = data.cleared()
    each = outcomes(model, params, rows).log_prob(rows.choice)
    return jnp.where(rows.weight > 0, rows.weight * each, 0)


def general_log_posterior(
    model: PreferenceModel, sizes: Sizes, data: ChoiceData
) -> Callable[[Array], Array]:
    """The posterior of any model, row by row; ``data`` may have other users or times than it."""
    prior, form = log_prior(model, sizes), layout(model, sizes)

    def density(vector: Array) -> Array:
        return prior(vector) + jnp.sum(log_likelihoods(model, form.params(vector), data))

    return density


def fast(model: PreferenceModel) -> bool:
    """Whether the likelihood for linear utilities applies."""
    return model.linear is not None and model.outcome is mnl


class LinearTarget(NamedTuple):
    """The posterior of a model with linear utilities, in parts.

    ``log p(v | data) = log_prior(v) + linear_log_likelihood(weights(v), rows)`` up to a constant.
    """

    log_prior: Callable[[Array], Array]
    weights: Callable[[Array], Array]
    rows: LinearRows

    def density(self, vector: Array) -> Array:
        return self.log_prior(vector) + linear_log_likelihood(self.weights(vector), self.rows)

    def anchored(self, vector: Array) -> "LinearTarget":
        """The same less a constant, with differences from ``vector`` to full precision."""
        return self._replace(rows=anchored(self.rows, self.weights(vector)))


def linear_target(model: PreferenceModel, data: ChoiceData) -> LinearTarget:
    """The parts of the posterior, for a model that :func:`fast` says yes to."""
    assert model.linear is not None
    linear, form = model.linear, layout(model, sizes_of(data))
    return LinearTarget(
        log_prior=log_prior(model, sizes_of(data)),
        weights=lambda vector: linear.weights(form.params(vector)),
        rows=linear_rows(linear.features, data),
    )


def log_posterior(model: PreferenceModel, data: ChoiceData) -> Callable[[Array], Array]:
    """Unnormalised log-posterior density of the unconstrained vector ``[parameter]``.

    Includes the log-Jacobian of the constraining transforms, so that it is the density that HMC
    and Laplace need. Where utilities are linear its gradient is written by hand and exists in
    reverse mode only; ``model._replace(linear=None)`` gives the same by automatic differentiation.
    The rows are laid out here, once: call this outside of what is compiled or repeated.
    """
    if fast(model):
        return linear_target(model, data).density
    return general_log_posterior(model, sizes_of(data), data)
