"""Log-densities of preference models: prior, likelihood of every row, posterior.

All are functions of the unconstrained vector of :func:`cqbayes.preference.layout`. A model with
linear utilities, of a clean log or of one that shows choices through a channel, uses the fast
likelihood of :mod:`cqbayes.choice.linear_likelihood`. Other models use automatic differentiation,
row by row. Both ways give the same results.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.infer.util import potential_energy

from cqbayes.choice.ability_likelihood import (
    AbilityRows,
    ability_log_likelihood,
    ability_rows,
)
from cqbayes.choice.data import ChoiceData
from cqbayes.choice.linear_likelihood import (
    Inner,
    LinearRows,
    anchored,
    linear_log_likelihood,
    linear_rows,
)
from cqbayes.preference import Channel, PreferenceModel, Sizes, layout, mnl, outcomes, sizes_of


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
    """Log-posterior density of any model, row by row; ``data`` may have other users or times."""
    prior, form = log_prior(model, sizes), layout(model, sizes)

    def density(vector: Array) -> Array:
        return prior(vector) + jnp.sum(log_likelihoods(model, form.params(vector), data))

    return density


def has_linear_likelihood(model: PreferenceModel) -> bool:
    """Whether :mod:`cqbayes.choice.linear_likelihood` applies to the model."""
    known = model.outcome is mnl or isinstance(model.outcome, Channel)
    return model.linear is not None and known


def _ability_density(
    model: PreferenceModel, data: ChoiceData, rows: AbilityRows
) -> Callable[[Array], Array]:
    """The posterior of a model of abilities."""
    assert model.ability is not None
    prior, form, ability = (
        log_prior(model, sizes_of(data)),
        layout(model, sizes_of(data)),
        model.ability,
    )

    def density(vector: Array) -> Array:
        params = form.params(vector)
        weights, rates = ability.weights(params), ability.rates(params)
        return prior(vector) + ability_log_likelihood(weights, rates, rows)

    return density


class LinearTarget(NamedTuple):
    """The posterior of a model with linear utilities, in parts.

    ``log p(v | data) = log_prior(v) + linear_log_likelihood(inner(v), rows)`` up to a constant.
    """

    log_prior: Callable[[Array], Array]
    inner: Callable[[Array], Inner]
    rows: LinearRows

    def density(self, vector: Array) -> Array:
        return self.log_prior(vector) + linear_log_likelihood(self.inner(vector), self.rows)

    def anchored(self, vector: Array) -> "LinearTarget":
        """The same density up to a constant; its differences from ``vector`` are more precise."""
        return self._replace(rows=anchored(self.rows, self.inner(vector)))


def linear_target(model: PreferenceModel, data: ChoiceData) -> LinearTarget:
    """The parts of the posterior, for a model with :func:`has_linear_likelihood`."""
    assert model.linear is not None
    linear, form = model.linear, layout(model, sizes_of(data))
    channel = model.outcome if isinstance(model.outcome, Channel) else None

    def inner(vector: Array) -> Inner:
        params = form.params(vector)
        return Inner(linear.weights(params), None if channel is None else channel.rates(params))

    return LinearTarget(
        log_prior=log_prior(model, sizes_of(data)),
        inner=inner,
        rows=linear_rows(linear.features, data, clean=channel is None),
    )


def with_terms(model: PreferenceModel, data: ChoiceData) -> ChoiceData:
    """The data with the terms of a model of abilities, where it has them.

    They are counted outside of compiled code, and do not hold for some of the rows alone.
    """
    if model.ability is None or model.outcome is not mnl:
        return data
    terms = ability_rows(model.ability.features, data)
    return eqx.tree_at(lambda d: d.terms, data, terms, is_leaf=lambda x: x is None)


def log_posterior(model: PreferenceModel, data: ChoiceData) -> Callable[[Array], Array]:
    """Unnormalised log-posterior density of the unconstrained vector ``[parameter]``.

    It includes the log-Jacobian of the constraining transforms, as HMC and Laplace need. If
    utilities are linear, its gradient exists in reverse mode only;
    ``model._replace(linear=None)`` gives the same density row by row. Each call of
    ``log_posterior`` brings the rows into their layout: call it once, outside of compiled code and
    loops.
    """
    if has_linear_likelihood(model):
        return linear_target(model, data).density
    if model.ability is not None and data.terms is not None:
        return _ability_density(model, data, data.terms)
    return general_log_posterior(model, sizes_of(data), data)
