"""Preference models: prior x utility x outcome, and their NumPyro programs.

A model says what we believe about users. Each file of the top-level folder ``models/`` holds one as
``MODEL``; :func:`cqbayes.catalogue.load_model` finds it by name.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.util import potential_energy

from cqbayes.choice import MNL, ChoiceData

Sites = dict[str, Array]


class Sizes(NamedTuple):
    """How large a model's arrays are: known before any data are seen."""

    num_llms: int
    dim: int


class DisjointLinear(NamedTuple):
    """Says that utilities are ``u_j = w_j . z(x)`` with independent Gaussian priors on ``w_j``.

    Engines that need this form (the online Gaussian) look for it.

    Attributes:
        features: ``context [dim] -> z [feature]``.
        prior_sd: ``Sizes -> [feature]``, prior standard deviations; prior means are 0.
        to_params: ``w [llm, feature] -> params``.
    """

    features: Callable[[Array], Array]
    prior_sd: Callable[[Sizes], Array]
    to_params: Callable[[Array], Any]


class PreferenceModel(NamedTuple):
    """A belief about users, written for one query; the library maps it over rows.

    Attributes:
        prior: ``Sizes -> params``, with NumPyro sample sites inside. Plates name the dimensions.
        utility: ``(params, context [dim]) -> utilities [llm]``, log-odds against a retry.
        outcome: ``(utilities, offered) -> NumPyro distribution`` of the choice.
        linear: the disjoint linear form, where the model has it.
    """

    prior: Callable[[Sizes], Any]
    utility: Callable[[Any, Float[Array, " dim"]], Float[Array, " llm"]]
    outcome: Callable[[Array, Array], numpyro.distributions.Distribution] = MNL
    linear: DisjointLinear | None = None


def sizes_of(data: ChoiceData) -> Sizes:
    """The sizes that a model needs for these data."""
    return Sizes(num_llms=data.num_llms, dim=data.dim)


def utilities(model: PreferenceModel, params: Any, context: Array) -> Array:
    """Utilities ``[..., llm]`` of contexts ``[..., dim]``."""
    flat = jax.vmap(model.utility, in_axes=(None, 0))(
        params, context.reshape(-1, context.shape[-1])
    )
    return flat.reshape(*context.shape[:-1], flat.shape[-1])


def program(model: PreferenceModel) -> Callable[..., Array]:
    """The model as a NumPyro program, for NumPyro's own tools.

    ``program(model)(data)`` conditions on ``data.choice``; with ``predict=True`` the choice is
    drawn, as ``numpyro.infer.Predictive`` expects.

    Example:
        >>> from numpyro.infer import MCMC, NUTS
        >>> from cqbayes.catalogue import load_model
        >>> mcmc = MCMC(NUTS(program(load_model("disjoint_mnl"))), num_warmup=1, num_samples=1)
    """

    def choices(data: ChoiceData, predict: bool = False) -> Any:
        params = model.prior(sizes_of(data))
        live = data.weight > 0
        rows = data.cleared()
        utility = utilities(model, params, rows.context)
        observed = None if predict else rows.choice
        # NumPyro refuses a scale of zero: such rows are masked, and their scale is set to one.
        with (
            numpyro.plate("obs", data.num_obs),
            handlers.scale(scale=jnp.where(live, rows.weight, 1)),
        ):
            distribution = model.outcome(utility, rows.offered)
            if not predict:
                distribution = distribution.mask(live)
            return numpyro.sample("choice", distribution, obs=observed)

    return choices


class Layout(NamedTuple):
    """How a model's sample sites lie in one unconstrained vector."""

    size: int
    unravel: Callable[[Array], Sites]
    constrain: Callable[[Array], Sites]
    to_params: Callable[[Sites], Any]
    dims: dict[str, tuple[str, ...]]


def layout(model: PreferenceModel, sizes: Sizes) -> Layout:
    """Finds a model's sample sites, their supports and dimensions by running its prior once."""
    return _layout(model, sizes, jnp.result_type(float))


@lru_cache(maxsize=128)
def _layout(model: PreferenceModel, sizes: Sizes, precision: jnp.dtype) -> Layout:
    with jax.ensure_compile_time_eval():
        trace = handlers.trace(handlers.seed(model.prior, jax.random.key(0))).get_trace(sizes)
    sites = {
        name: site
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    bijections = {name: biject_to(site["fn"].support) for name, site in sites.items()}
    example = {
        name: jnp.zeros(bijections[name].inverse_shape(jnp.shape(site["value"])), precision)
        for name, site in sites.items()
    }
    flat, unravel = ravel_pytree(example)

    def constrain(vector: Array) -> Sites:
        return {name: bijections[name](value) for name, value in unravel(vector).items()}

    def to_params(values: Sites) -> Any:
        return handlers.substitute(model.prior, data=values)(sizes)

    return Layout(flat.size, unravel, constrain, to_params, {n: _dims(s) for n, s in sites.items()})


def _dims(site: dict[str, Any]) -> tuple[str, ...]:
    plates = sorted(site["cond_indep_stack"], key=lambda frame: frame.dim)
    events = tuple(f"{site['name']}_dim_{i}" for i in range(site["fn"].event_dim))
    return (*(frame.name for frame in plates), *events)


def log_posterior(model: PreferenceModel, data: ChoiceData) -> Callable[[Array], Array]:
    """Unnormalised log-posterior density of the unconstrained vector ``[parameter]``.

    Includes the log-Jacobian of the constraining transforms, so that it is the density that HMC
    and Laplace need.
    """
    form = layout(model, sizes_of(data))
    run = program(model)

    def density(vector: Array) -> Array:
        return jnp.negative(potential_energy(run, (data,), {}, form.unravel(vector)))

    return density
