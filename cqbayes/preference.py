"""Preference models: prior x utility x outcome, and their NumPyro programs.

A model says what we believe about users. Each file of the top-level folder ``models/`` holds one
model as ``MODEL``; :func:`cqbayes.preference.load_model` finds it by name.
"""

import inspect
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro import handlers
from numpyro.distributions import Distribution, biject_to

from cqbayes._tools import discovery
from cqbayes.choice.channels import Rates, Seen, followed_by
from cqbayes.choice.data import OPTIONAL, SILENCE, ChoiceData, Situation
from cqbayes.choice.mnl import MNL
from cqbayes.errors import InputError

Sites = dict[str, Array]


class Sizes(NamedTuple):
    """Sizes of a model's arrays: known before any choice is seen."""

    num_llms: int
    dim: int
    num_attributes: int = 0
    num_users: int = 0
    num_times: int = 0


class Linear(NamedTuple):
    """Declares that a model's utilities are ``u_j = w_j . z``: the fast likelihood is then used.

    Attributes:
        features: ``Situation -> z [feature]``.
        weights: ``params -> w [llm, feature]``.
        prior_sd: ``Sizes -> [feature]``, prior standard deviations of the weights, the same for
            every LLM. Only for priors under which weights are independent and Gaussian with mean 0.
            The online Gaussian needs it.
        to_params: ``w [llm, feature] -> params``, the inverse of ``weights``. The online Gaussian
            needs it too.
    """

    features: Callable[[Situation], Array]
    weights: Callable[[Any], Array]
    prior_sd: Callable[[Sizes], Array] | None = None
    to_params: Callable[[Array], Any] | None = None


class Ability(NamedTuple):
    """Declares that utilities are those of :func:`cqbayes.choice.ability.recalled_utility`.

    The fast likelihood of :mod:`cqbayes.choice.ability_likelihood` is then used.

    Attributes:
        features: ``Situation -> z [feature]``, of the context alone.
        weights: ``params -> w [llm, feature]``: log-odds of ability are ``w_j . z``.
        rates: ``params ->`` can, cannot, hardness and persists.
    """

    features: Callable[[Situation], Array]
    weights: Callable[[Any], Array]
    rates: Callable[[Any], tuple[Array, Array, Array, Array]]


def mnl(params: Any, utility: Array, offered: Array) -> Distribution:
    """The outcome of a clean log: multinomial logit with retrial."""
    return MNL(utility, offered)


class Channel(NamedTuple):
    """The outcome of a log that hides some choices, or records them wrongly.

    Attributes:
        rates: ``params ->`` the matrix of :mod:`cqbayes.choice.channels`.
        signs: how many signs the log can show that name no LLM: 1 is silence alone.
    """

    rates: Callable[[Any], Rates]
    signs: int = 0

    def __call__(self, params: Any, utility: Array, offered: Array) -> Distribution:
        return Seen(utility, offered, self.rates(params), self.signs)


Outcome = Callable[[Any, Array, Array], Distribution]


class PreferenceModel(NamedTuple):
    """A belief about users, written for one query; the library maps it over rows.

    Attributes:
        prior: ``Sizes -> params``, with NumPyro sample sites inside.
        utility: ``(params, Situation) -> utilities [llm]``, log-odds against a retry.
        outcome: ``(params, utilities, offered) -> NumPyro distribution`` of the choice: ``mnl``, a
            :class:`Channel`, or any other.
        linear: set if utilities are linear in known features.
        ability: set if utilities remember failures by abilities that are linear.
        begin: where searches begin, as ``(site, value)``; others begin where an unconstrained site
            is 0, which can be a saddle.
        needs: optional columns of the data that the utility uses.
        dims: names of the dimensions of sites, as ``(site, (dimension, ...))``. Other sites take
            the names of their plates.
        coords: values along dimensions that only this model has, as ``(dimension, (value, ...))``.
        canonical: for models in which several values of the sites mean the same: a function from
            unconstrained sites to the one of these values that is kept.
        kept: ``(key, params, Situation) -> utilities [llm]`` that a query keeps while it waits, for
            models in which they do not follow from what is known of it: simulated users have them.
        gaussian: False where posteriors are known to be far from a Gaussian: the engine ``auto``
            then does not try one.
        name: name of the model's file in ``models/``; :func:`preference_model` fills it in.
        settings: settings of the model; :func:`preference_model` fills them in.
    """

    prior: Callable[[Sizes], Any]
    utility: Callable[[Any, Situation], Float[Array, " llm"]]
    outcome: Outcome = mnl
    linear: Linear | None = None
    ability: Ability | None = None
    begin: tuple[tuple[str, float], ...] = ()
    needs: tuple[str, ...] = ()
    dims: tuple[tuple[str, tuple[str, ...]], ...] = ()
    coords: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    canonical: Callable[[Sites], Sites] | None = None
    kept: Callable[[PRNGKeyArray, Any, Situation], Float[Array, " llm"]] | None = None
    gaussian: bool = True
    name: str = ""
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def signs(self) -> int:
        """How many signs that name no LLM the outcome gives a probability: 1 is silence alone."""
        return getattr(self.outcome, "signs", 0)

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.settings)
        return f"{self.name or 'PreferenceModel'}({given})"


def nested(base: PreferenceModel) -> PreferenceModel:
    """``base`` as the part of a wrapper whose params hold those of the base as ``"base"``.

    A wrapper replaces its prior, and what it changes.
    """
    inner, linear = base.outcome, base.linear

    def utility(params: Any, at: Situation) -> Array:
        return base.utility(params["base"], at)

    def outcome(params: Any, utility: Array, offered: Array) -> Distribution:
        return inner(params["base"], utility, offered)

    def kept(key: PRNGKeyArray, params: Any, at: Situation) -> Array:
        assert base.kept is not None
        return base.kept(key, params["base"], at)

    if isinstance(inner, Channel):
        outcome = Channel(lambda params: inner.rates(params["base"]), inner.signs)
    elif inner is mnl:
        outcome = mnl  # the same function: other code tests ``outcome is mnl``
    if linear is not None:
        weights = linear.weights
        linear = Linear(linear.features, lambda params: weights(params["base"]))
    return base._replace(
        utility=utility, outcome=outcome, linear=linear, ability=None, kept=base.kept and kept
    )


def shown_through(model: PreferenceModel, rates: Callable[[Any], Rates], signs: int = 0) -> Channel:
    """The outcome of ``model`` as a further channel shows it.

    Args:
        model: a model of a clean log, or of one that a channel shows.
        rates: ``params ->`` the matrix of :mod:`cqbayes.choice.channels`.
        signs: how many signs that name no LLM the further channel shows.

    Raises:
        InputError: for a model with another outcome.
    """
    before = model.outcome
    if before is mnl:
        return Channel(rates, signs)
    if not isinstance(before, Channel):
        raise InputError(
            f"channels: expected a model whose outcome is mnl or a Channel, got one of {model!r}; "
            "write the outcome of both together"
        )
    first = before.rates
    return Channel(lambda p: followed_by(first(p), rates(p)), max(signs, before.signs))


_Settings = ParamSpec("_Settings")


def preference_model(
    factory: Callable[_Settings, PreferenceModel],
) -> Callable[_Settings, PreferenceModel]:
    """A factory of models that returns the same named model for the same settings.

    The same settings then give the same functions, and JAX compiles them once. A stored posterior
    can name its model and settings. Settings are numbers, strings, tuples of these, or models.
    """
    signature = inspect.signature(factory, eval_str=True)
    name = factory.__name__

    @lru_cache(maxsize=256)
    def build(settings: tuple[tuple[str, Any], ...]) -> PreferenceModel:
        made: Any = factory(**dict(settings))  # pyright: ignore[reportCallIssue]
        return made._replace(name=factory.__name__, settings=settings)

    @wraps(factory)
    def model(*args: _Settings.args, **kwargs: _Settings.kwargs) -> PreferenceModel:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            known = ", ".join(signature.parameters)
            raise InputError(f"{name}: expected settings among {known}: {error}") from None
        bound.apply_defaults()
        kinds = signature.parameters
        return build(
            tuple(
                (n, _setting(name, n, v, kinds[n].annotation)) for n, v in bound.arguments.items()
            )
        )

    return model


def _setting(model: str, name: str, value: Any, kind: Any) -> Any:
    """A model's setting, checked by its annotation; numbers must be positive."""
    if isinstance(value, list):
        value = tuple(value)
    elif hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # a scalar of NumPy's or JAX's

    def scale(x: Any) -> bool:
        return isinstance(x, int | float) and not isinstance(x, bool) and 0 < x < float("inf")

    expected = {
        float: ("a positive number", scale),
        int: ("a positive integer", lambda x: scale(x) and isinstance(x, int)),
        bool: ("True or False", lambda x: isinstance(x, bool)),
        PreferenceModel: ("a model, as cqbayes.load_model gives it", _is_model),
        tuple[float, float]: (
            "two positive numbers",
            lambda x: isinstance(x, tuple) and len(x) == 2 and all(map(scale, x)),
        ),
    }.get(kind)
    if expected is not None and not expected[1](value):
        raise InputError(f"{model}: expected {name} to be {expected[0]}, got {value!r}")
    return value


def _is_model(value: Any) -> bool:
    return isinstance(value, PreferenceModel)


def sizes_of(data: ChoiceData) -> Sizes:
    """Sizes of a model's arrays for these data."""
    return Sizes(
        num_llms=data.num_llms,
        dim=data.dim,
        num_attributes=0 if data.attributes is None else data.attributes.shape[-1],
        num_users=data.num_users,
        num_times=data.num_times,
    )


def check_data(model: PreferenceModel, data: ChoiceData) -> None:
    """Raises InputError for data that the model cannot use, or that have no row to learn from.

    Raises:
        InputError: for a missing column, no row of positive weight, or silence that the model
            cannot explain.
    """
    who = model.name or "model"
    missing = [name for name in model.needs if getattr(data, name) is None]
    if missing:
        have = [name for name in OPTIONAL if getattr(data, name) is not None]
        raise InputError(
            f"{who}: expected data with the column {missing[0]}, got "
            f"{', '.join(have) or 'no optional columns'}; see cqbayes.choice_data"
        )
    live = data.weight > 0
    if data.num_obs == 0 or not bool(live.any()):
        raise InputError("data: expected at least one row of positive weight, got none")
    unknown = int(jnp.sum(live & (data.choice < -model.signs)))
    if unknown:
        least = int(jnp.min(jnp.where(live, data.choice, 0)))
        silent = least == SILENCE
        what, wrapper = ("silence", "abandonment") if silent else ("signs", "next_request")
        raise InputError(
            f"{who}: expected choices of 0 (retry) or an LLM, got {unknown} rows of {what} "
            f"({least}); wrap the model in {wrapper}"
        )


def utilities(model: PreferenceModel, params: Any, situation: Situation) -> Array:
    """Utilities ``[..., llm]`` in situations with any leading dimensions."""
    batch = situation.context.shape[:-1]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(batch) :]), situation)
    found = jax.vmap(model.utility, in_axes=(None, 0))(params, flat)
    return found.reshape(*batch, found.shape[-1])


def outcomes(model: PreferenceModel, params: Any, rows: ChoiceData) -> Distribution:
    """The distribution of every row's choice."""
    utility = utilities(model, params, rows.situation)
    return model.outcome(params, utility, rows.offered)


def program(model: PreferenceModel) -> Callable[..., Array]:
    """The model as a NumPyro program, for NumPyro's own tools.

    ``program(model)(data)`` conditions on ``data.choice``; with ``predict=True`` the choice is
    drawn, as ``numpyro.infer.Predictive`` expects.

    Example:
        >>> from numpyro.infer import MCMC, NUTS
        >>> from cqbayes.preference import load_model
        >>> mcmc = MCMC(NUTS(program(load_model("disjoint_mnl"))), num_warmup=1, num_samples=1)
    """

    def choices(data: ChoiceData, predict: bool = False) -> Any:
        params = model.prior(sizes_of(data))
        live = data.weight > 0
        rows = data.cleared()
        observed = None if predict else rows.choice
        # NumPyro refuses a scale of zero: rows of weight zero are masked, and get a scale of one.
        with (
            numpyro.plate("obs", data.num_obs),
            handlers.scale(scale=jnp.where(live, rows.weight, 1)),
        ):
            distribution = outcomes(model, params, rows)
            if not predict:
                distribution = distribution.mask(live)
            return numpyro.sample("choice", distribution, obs=observed)

    return choices


class Layout(NamedTuple):
    """How a model's sample sites lie in one unconstrained vector.

    Attributes:
        size: length of the vector.
        begin: where searches begin.
        unravel: vector to unconstrained sites.
        constrain: vector to sample sites.
        unconstrain: sample sites to vector; other names are ignored.
        canonical: vector to the canonical one of all vectors that mean the same.
        reported: vector to the sample sites and deterministic sites of its canonical vector, for
            people to look at.
        to_params: sample sites to ``params``.
        dims: names of the dimensions of all reported sites.
    """

    size: int
    begin: Float[np.ndarray, " parameter"]
    unravel: Callable[[Array], Sites]
    constrain: Callable[[Array], Sites]
    unconstrain: Callable[[Sites], Array]
    canonical: Callable[[Array], Array]
    reported: Callable[[Array], Sites]
    to_params: Callable[[Sites], Any]
    dims: dict[str, tuple[str, ...]]

    def params(self, vector: Array) -> Any:
        return self.to_params(self.constrain(vector))


def layout(model: PreferenceModel, sizes: Sizes) -> Layout:
    """The layout of a model's sample sites, found by running the model's prior once."""
    return _layout(model, sizes, jnp.result_type(float))


def _prior_trace(model: PreferenceModel, sizes: Sizes) -> dict[str, Any]:
    with jax.ensure_compile_time_eval():
        return handlers.trace(handlers.seed(model.prior, jax.random.key(0))).get_trace(sizes)


@lru_cache(maxsize=256)
def _layout(model: PreferenceModel, sizes: Sizes, precision: jnp.dtype) -> Layout:
    try:
        trace = _prior_trace(model, sizes)
    except AssertionError as error:  # NumPyro raises it, for example for a site that occurs twice
        raise InputError(f"{model!r}: the model cannot be built at {sizes}: {error}") from None
    sites = {
        name: site
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    derived = [name for name, site in trace.items() if site["type"] == "deterministic"]
    bijections = {name: biject_to(site["fn"].support) for name, site in sites.items()}
    known = dict(model.begin)
    with jax.ensure_compile_time_eval():  # the layout is kept, and may be made in a trace
        example = {
            name: jnp.zeros(bijections[name].inverse_shape(jnp.shape(site["value"])), precision)
            for name, site in sites.items()
        }
        flat, unravel = ravel_pytree(example)
        first = {
            name: bijections[name].inv(jnp.full_like(x, known[name])) if name in known else x
            for name, x in example.items()
        }
        begin = np.asarray(ravel_pytree(first)[0])

    def constrain(vector: Array) -> Sites:
        return {name: bijections[name](value) for name, value in unravel(vector).items()}

    def unconstrain(values: Sites) -> Array:
        return ravel_pytree({n: bijections[n].inv(values[n]) for n in sites})[0]

    def to_params(values: Sites) -> Any:
        return handlers.substitute(model.prior, data=values)(sizes)

    def canonical(vector: Array) -> Array:
        if model.canonical is None:
            return vector
        return ravel_pytree(model.canonical(unravel(vector)))[0]

    def reported(vector: Array) -> Sites:
        values = constrain(canonical(vector))
        if derived:
            run = handlers.trace(handlers.substitute(model.prior, data=values))
            trace = run.get_trace(sizes)
            values |= {name: trace[name]["value"] for name in derived}
        return values

    named = dict(model.dims)
    dims = {name: named.get(name) or _plates(trace[name]) for name in [*sites, *derived]}
    for name, found in dims.items():
        shape = jnp.shape(trace[name]["value"])
        if len(found) != len(shape):
            raise InputError(
                f"{model.name or 'model'}: expected names for {len(shape)} dimensions of site "
                f"{name}, got {found}; name them in the model's dims"
            )
    functions = (unravel, constrain, unconstrain, canonical, reported, to_params)
    return Layout(flat.size, begin, *functions, dims)


def _plates(site: dict[str, Any]) -> tuple[str, ...]:
    plates = sorted(site.get("cond_indep_stack", []), key=lambda frame: frame.dim)
    rank = jnp.ndim(site["value"]) - len(plates)
    return (*(frame.name for frame in plates), *(f"{site['name']}_dim_{i}" for i in range(rank)))


def model_names() -> list[str]:
    """Names of the files of ``models/``."""
    return discovery.entry_names("models", "MODEL")


def _model_module(name: str) -> Any:
    return discovery.find_entry("models", "model", name, "MODEL")


def load_model(name: str) -> PreferenceModel:
    """The ``MODEL`` of ``models/<name>.py``.

    Raises:
        InputError: if there is no such model; the message lists the known models.
    """
    return _model_module(name).MODEL


def model_factory(name: str) -> Callable[..., PreferenceModel]:
    """The function of ``models/<name>.py`` that makes the model with given settings.

    Raises:
        InputError: if there is no such model; the message lists the known models.
    """
    return getattr(_model_module(name), name)
