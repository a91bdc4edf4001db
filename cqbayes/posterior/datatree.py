"""A posterior as an ArviZ ``DataTree``, with statistics, predictions and data."""

import json
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from numpyro import handlers

from cqbayes.choice.data import OPTIONAL, ChoiceData
from cqbayes.errors import InputError
from cqbayes.posterior.info import InferenceInfo
from cqbayes.posterior.log_densities import general_log_posterior, log_likelihoods
from cqbayes.preference import PreferenceModel, Sites, Sizes, check_data, layout, outcomes, sizes_of

GROUPS = (
    "sample_stats",
    "log_likelihood",
    "log_prior",
    "posterior_predictive",
    "prior",
    "prior_predictive",
    "observed_data",
    "constant_data",
)
MOST_POINTWISE = 20_000_000  # numbers in a group that has one number for every draw and row
MOST_DRAWS = 4_000  # draws that are kept when there are such groups


class Drawable(Protocol):
    """The attributes of a posterior that :func:`to_datatree` uses; every ``Posterior`` has them."""

    @property
    def model(self) -> PreferenceModel: ...

    @property
    def sizes(self) -> Sizes: ...

    def draws(self, key: PRNGKeyArray, num_draws: int) -> Array: ...

    def report(self, vectors: Array) -> Sites: ...


def to_datatree(
    posterior: Drawable,
    *,
    key: PRNGKeyArray | None = None,
    num_draws: int = 1000,
    data: ChoiceData | None = None,
    info: InferenceInfo | None = None,
    llms: list[str] | None = None,
    users: list[str] | None = None,
    groups: Iterable[str] = GROUPS,
) -> Any:
    """The posterior as an ArviZ ``DataTree``.

    The group ``posterior`` is always there. With ``data`` come ``sample_stats`` (the log-density
    ``lp`` and, with ``info``, the engine's statistics of every draw), ``log_likelihood``,
    ``log_prior``, ``posterior_predictive``, ``prior``, ``prior_predictive``, ``observed_data`` and
    ``constant_data``. Some of these groups have a number for every draw and row. Therefore only
    evenly spread draws are kept: 4,000 at most, and fewer if there are many rows; the tree's
    attributes give the number. Rows of weight zero and rows without an offered LLM are left out;
    the coordinate ``obs`` holds the original numbers of the other rows.

    A row's log-likelihood is multiplied by its weight. Leave-one-out leaves out a whole row: if a
    row of weight 3 stands for three equal rows, all three are left out together.

    Args:
        posterior: any posterior.
        key: JAX key for draws; of seed 0 if absent.
        num_draws: draws of the prior, and of the posterior unless it already consists of draws.
        data: the choices that the posterior was fitted to, or other choices to predict.
        info: the engine's report.
        llms: names of the LLMs, for the coordinate ``llm``.
        users: names of the users, for the coordinate ``user``.
        groups: which of the optional groups to make.

    Raises:
        InputError: for names that do not fit, an unknown group, or data of other sizes.
    """
    import arviz_base

    groups = [groups] if isinstance(groups, str) else list(groups)
    unknown = [name for name in groups if name not in GROUPS]
    if unknown:
        raise InputError(f"groups: expected some of {', '.join(GROUPS)}, got {unknown[0]}")
    if num_draws < 1:
        raise InputError(f"num_draws: expected at least 1, got {num_draws}")
    if data is not None:
        _check_fits(posterior, data)
    key = jax.random.key(0) if key is None else key
    keys: dict[str, Array] = dict(
        zip(("draws", *GROUPS), jax.random.split(key, 1 + len(GROUPS)), strict=True)
    )
    vectors = posterior.draws(keys["draws"], num_draws)
    made, step = vectors.shape[:2], 1
    if data is not None:
        data, seen = _rows_that_count(data)
        step = _step(made, data.num_obs)
        vectors = vectors[:, ::step]
    found: dict[str, dict[str, Any]] = {"posterior": posterior.report(vectors)}
    stats = {} if info is None else {n: v[:, ::step] for n, v in _per_draw(info, made).items()}
    if data is not None:
        stats["lp"] = _log_density(posterior, vectors, data)
    if "sample_stats" in groups:
        found["sample_stats"] = stats
    coords = coordinates(posterior, llms, users)
    if data is not None:
        before = _prior_draws(keys["prior"], posterior, num_draws)
        makers = _makers(keys, posterior, vectors, before, data)
        found |= {name: make() for name, make in makers.items() if name in groups}
        coords["obs"] = seen
    tree = arviz_base.from_dict(
        {
            group: {name: np.asarray(value) for name, value in variables.items()}
            for group, variables in found.items()
            if variables
        },
        coords=coords,
        dims=_dims(posterior),
    )
    if step > 1:
        tree.attrs.update(draws_made=made[1], draws_kept=vectors.shape[1])
    effective = getattr(posterior, "effective", None)
    if effective is not None:
        tree.attrs["effective_draws"] = float(effective)
    if data is not None and "log_prior" in groups:
        # Variables of log_prior have the names of sites, but not the dimensions of sites.
        densities = {name: np.asarray(v) for name, v in _log_prior(posterior, vectors).items()}
        tree["log_prior"] = arviz_base.from_dict({"log_prior": densities})["log_prior"]
    if info is not None:
        tree.attrs.update(
            engine=info.engine,
            status=info.verdict.name.lower(),
            reason=info.reason,
            stats=json.dumps(info.scalars),
        )
    return tree


def _makers(
    keys: dict[str, Array], posterior: Drawable, vectors: Array, before: Array, data: ChoiceData
) -> dict[str, Callable[[], dict[str, Any]]]:
    """For each group that needs data, a function that makes the group.

    ``vectors`` are draws of the posterior, ``before`` draws of the prior.
    """
    few = before[:, :: _step(before.shape[:2], data.num_obs)]

    def predicted(group: str, vectors: Array) -> dict[str, Any]:
        return {"choice": _predicted(keys[group], posterior, vectors, data)}

    return {
        "log_likelihood": lambda: {"choice": _pointwise(posterior, vectors, data)},
        "posterior_predictive": lambda: predicted("posterior_predictive", vectors),
        "prior": lambda: posterior.report(before),
        "prior_predictive": lambda: predicted("prior_predictive", few),
        "observed_data": lambda: {"choice": data.choice},
        "constant_data": lambda: _constant(data),
    }


def coordinates(
    posterior: Drawable, llms: list[str] | None = None, users: list[str] | None = None
) -> dict[str, Any]:
    """Coordinates of the dimensions that are not empty, such as the names of the LLMs."""
    sizes = posterior.sizes
    coords = {
        "llm": _names("llms", llms, sizes.num_llms, "llm"),
        "feature": [f"x{k}" for k in range(sizes.dim)],
        "attribute": [f"a{k}" for k in range(sizes.num_attributes)],
        "user": _names("users", users, sizes.num_users, "user"),
        "time": np.arange(sizes.num_times),
        **{name: list(values) for name, values in posterior.model.coords},
    }
    return {name: values for name, values in coords.items() if len(values)}


def _rows_that_count(data: ChoiceData) -> tuple[ChoiceData, np.ndarray]:
    """Rows of positive weight that offer an LLM, and their numbers.

    Other rows are idle rounds and padding; ArviZ would count them as observations.
    """
    seen = np.flatnonzero(np.asarray((data.weight > 0) & jnp.any(data.offered, axis=-1)))
    return jax.tree.map(lambda column: column[seen], data), seen


def _names(what: str, names: list[str] | None, count: int, prefix: str) -> list[str]:
    if names is None:
        return [f"{prefix}{i}" for i in range(count)]
    if not len(names) == len(set(names)) == count:
        came = f"{len(names)}, {len(set(names))} of them different"
        raise InputError(f"{what}: expected {count} different names, got {came}")
    return [str(name) for name in names]


_OF_DATA = {
    "choice": ("obs",),
    "context": ("obs", "feature"),
    "offered": ("obs", "llm"),
    "weight": ("obs",),
    "attributes": ("obs", "llm", "attribute"),
    "user_code": ("obs",),
    "attempt_number": ("obs",),
    "time_block": ("obs",),
    "failures": ("obs", "llm"),
}


def _dims(posterior: Drawable) -> dict[str, list[str]]:
    sites = layout(posterior.model, posterior.sizes).dims
    return {name: list(dims) for name, dims in (_OF_DATA | sites).items()}


def _check_fits(posterior: Drawable, data: ChoiceData) -> None:
    """Refuses data with another number of LLMs, features or attributes than the posterior."""
    if not isinstance(data, ChoiceData):
        raise InputError(f"data: expected ChoiceData, got {type(data).__name__}")
    check_data(posterior.model, data)
    expected, found = posterior.sizes, sizes_of(data)
    needed = ["num_llms", "dim"]
    needed += ["num_attributes"] if "attributes" in posterior.model.needs else []
    for name in needed:
        if getattr(expected, name) != getattr(found, name):
            raise InputError(
                f"data: expected {name} of {getattr(expected, name)} as in the posterior, "
                f"got {getattr(found, name)}"
            )


def _per_draw(info: InferenceInfo, shape: tuple[int, ...]) -> dict[str, Any]:
    return {name: value for name, value in info.stats.items() if np.shape(value) == shape}


def _step(shape: tuple[int, ...], num_obs: int) -> int:
    """The step between two kept draws of a chain, for draws of shape ``[chain, draw]``."""
    most = max(1, min(MOST_DRAWS, MOST_POINTWISE // max(1, num_obs)) // shape[0])
    return -(-shape[1] // most)


@eqx.filter_jit
def _log_density(posterior: Drawable, vectors: Array, data: ChoiceData) -> Array:
    density = general_log_posterior(posterior.model, posterior.sizes, data)
    return _over_draws(density, vectors)


def _over_draws(function: Any, *columns: Any) -> Any:
    """``function`` of every draw, one draw at a time, since there are many rows."""
    return jax.lax.map(lambda chain: jax.lax.map(lambda draw: function(*draw), chain), columns)


@eqx.filter_jit
def _pointwise(
    posterior: Drawable, vectors: Array, data: ChoiceData
) -> Float[Array, "chain draw obs"]:
    form = layout(posterior.model, posterior.sizes)
    return _over_draws(lambda v: log_likelihoods(posterior.model, form.params(v), data), vectors)


@eqx.filter_jit
def _predicted(
    key: PRNGKeyArray, posterior: Drawable, vectors: Array, data: ChoiceData
) -> Int[Array, "chain draw obs"]:
    form = layout(posterior.model, posterior.sizes)
    rows = data.cleared()

    def predict(vector: Array, key: PRNGKeyArray) -> Array:
        distribution = outcomes(posterior.model, form.params(vector), rows)
        return jnp.asarray(distribution.sample(key)).astype(jnp.int16)  # saves memory

    return _over_draws(predict, vectors, jax.random.split(key, vectors.shape[:2]))  # pyright: ignore


def _prior_draws(
    key: PRNGKeyArray, posterior: Drawable, num_draws: int
) -> Float[Array, "chain draw parameter"]:
    form = layout(posterior.model, posterior.sizes)

    def one(key: PRNGKeyArray) -> Array:
        trace = handlers.trace(handlers.seed(posterior.model.prior, key))
        sites = trace.get_trace(posterior.sizes)
        return form.unconstrain({name: site["value"] for name, site in sites.items()})

    return jax.vmap(one)(jax.random.split(key, num_draws))[None]


@eqx.filter_jit
def _log_prior(posterior: Drawable, vectors: Array) -> dict[str, Array]:
    """Log prior density of every site, summed over its elements."""
    form = layout(posterior.model, posterior.sizes)

    def one(vector: Array) -> dict[str, Array]:
        values = form.constrain(vector)
        run = handlers.trace(handlers.substitute(posterior.model.prior, data=values))
        sites = run.get_trace(posterior.sizes)
        return {name: jnp.sum(sites[name]["fn"].log_prob(values[name])) for name in values}

    return jax.vmap(jax.vmap(one))(vectors)


def _constant(data: ChoiceData) -> dict[str, Any]:
    # A variable must not have the name of a coordinate.
    renamed = {"user": "user_code", "attempt": "attempt_number", "time": "time_block"}
    optional = {renamed.get(name, name): getattr(data, name) for name in OPTIONAL}
    columns = {"context": data.context, "offered": data.offered, "weight": data.weight, **optional}
    return {name: column for name, column in columns.items() if column is not None}
