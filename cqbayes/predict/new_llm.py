"""A new LLM without data: its parameters, drawn from what the LLMs of a posterior share."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from numpyro import handlers

from cqbayes.errors import InputError
from cqbayes.posterior.posteriors import Draws, Posterior
from cqbayes.preference import PreferenceModel, layout


def with_new_llm(key: PRNGKeyArray, posterior: Posterior, num_draws: int = 1_000) -> Draws:
    """The posterior with one more LLM, the last one, for which there are no data.

    In every draw, the parameters ``phi_new`` of the new LLM come from the prior, given the
    parameters ``psi`` that the LLMs share in this draw::

        p(phi_new | data) = integral p(phi_new | psi) p(psi | data) d psi

    The model's own program does this, run with one more LLM: a site of the same shape keeps its
    value, and a site that grows keeps its old entries and gets a new one from the prior. In some
    models only a part of an LLM's parameters depends on shared ones (the slopes of ``low_rank_mnl``
    and ``sparse_mnl``, the later blocks of ``drift_mnl``); the other part of the new LLM then comes
    from the prior alone. In a model without parameters of single LLMs, such as ``shared_mnl``, the
    new LLM differs by its attributes only.

    Args:
        key: JAX key for the new LLM, and for draws unless the posterior already consists of draws.
        posterior: any posterior of a model whose LLMs share parameters.
        num_draws: number of draws.

    Raises:
        InputError: for a model whose LLMs share nothing.

    Example:
        >>> import cqbayes, jax
        >>> data = cqbayes.choice_data([[1.0], [-1.0]], [[True, True]] * 2, [1, 0])
        >>> posterior, _ = cqbayes.infer(
        ...     jax.random.key(0), cqbayes.load_model("hierarchical_mnl"), data,
        ...     num_warmup=10, num_draws=10, num_chains=1)
        >>> with_new_llm(jax.random.key(1), posterior).sizes.num_llms
        3
    """
    draw_key, extend_key = jax.random.split(key)
    if not _has_population(posterior):
        raise InputError(
            f"{posterior.model.name or 'model'}: expected a model with a population of LLMs from "
            "which a new LLM can be drawn, such as hierarchical_mnl, got one whose LLMs share "
            "nothing"
        )
    vectors = posterior.draws(draw_key, num_draws)
    keys = jax.random.split(extend_key, vectors.shape[:2])
    return Draws(
        vectors=_extend(posterior.model, posterior.sizes, keys, vectors),
        model=posterior.model,
        sizes=posterior.sizes._replace(num_llms=posterior.sizes.num_llms + 1),
        effective=getattr(posterior, "effective", None),
    )


@eqx.filter_jit
def _extend(model: PreferenceModel, sizes: Any, keys: Array, vectors: Array) -> Array:
    return jax.vmap(jax.vmap(lambda key, vector: _extended(model, sizes, key, vector)))(
        keys, vectors
    )


def _extended(model: PreferenceModel, sizes: Any, key: PRNGKeyArray, vector: Array) -> Array:
    """The unconstrained vector with one more LLM."""
    larger = sizes._replace(num_llms=sizes.num_llms + 1)
    known = layout(model, sizes).constrain(vector)

    def grown(site: dict[str, Any]) -> Array | None:
        if site["type"] != "sample" or site["name"] not in known:
            return None
        old, shape = known[site["name"]], site["fn"].shape()
        if old.shape == shape:
            return old
        axis = _axis_that_differs(old.shape, shape)
        # Entries of one event may depend on each other: a new entry would change the old ones.
        if axis is None or axis >= len(site["fn"].batch_shape):
            raise InputError(
                f"{model.name or 'model'}: expected site {site['name']} to have LLMs in a plate, "
                "got LLMs inside an event; only a plate can take a new LLM"
            )
        # A draw for all LLMs at this point of the program; only the entry of the new LLM is kept.
        new = site["fn"].sample(site["kwargs"]["rng_key"])
        return jnp.concatenate([old, jax.lax.slice_in_dim(new, -1, None, axis=axis)], axis=axis)

    program = handlers.substitute(handlers.seed(model.prior, key), substitute_fn=grown)
    trace = handlers.trace(program).get_trace(larger)
    sites = {name: site["value"] for name, site in trace.items()}
    return layout(model, larger).unconstrain(sites)


def _axis_that_differs(one: tuple[int, ...], other: tuple[int, ...]) -> int | None:
    if len(one) != len(other):
        return None
    differs = [axis for axis, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    return differs[0] if len(differs) == 1 else None


def _has_population(posterior: Posterior) -> bool:
    """Whether the LLMs of the posterior's model share parameters that a new LLM can inherit.

    The test draws a new LLM twice with the same key, but with different parameters of the other
    LLMs: its own parameters must differ. True also for a model without parameters of single LLMs,
    in which LLMs differ by their attributes only.
    """
    model, sizes = posterior.model, posterior.sizes
    size = layout(model, sizes).size
    old = jax.eval_shape(layout(model, sizes).params, jax.ShapeDtypeStruct((size,), float))
    params = _params_with_new_llm(model, sizes, jax.random.normal(jax.random.key(0), (2, size)))
    own = []
    for small, large in zip(jax.tree.leaves(old), jax.tree.leaves(params), strict=True):
        axis = _axis_that_differs(jnp.shape(small), jnp.shape(large)[1:])
        if axis is not None:
            own.append(np.asarray(jax.lax.slice_in_dim(large, -1, None, axis=1 + axis)))
    return not own or any(not np.array_equal(new[0], new[1]) for new in own)


@eqx.filter_jit
def _params_with_new_llm(model: PreferenceModel, sizes: Any, vectors: Array) -> Any:
    """Parameters with one more LLM for each vector, drawn with the same key for all vectors."""
    form = layout(model, sizes._replace(num_llms=sizes.num_llms + 1))
    return jax.vmap(lambda v: form.params(_extended(model, sizes, jax.random.key(1), v)))(vectors)
