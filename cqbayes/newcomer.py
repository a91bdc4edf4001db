"""A new LLM that no data are known of, from what the LLMs of a posterior have in common."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from numpyro import handlers

from cqbayes.errors import InputError
from cqbayes.posterior import Draws, Posterior
from cqbayes.preference import PreferenceModel, layout


def with_newcomer(key: PRNGKeyArray, posterior: Posterior, num_draws: int = 1_000) -> Draws:
    """The posterior with one more LLM, the last, that no data are known of.

    In every draw the newcomer's own parameters come from the prior given that draw's population::

        p(phi_new | data) = integral p(phi_new | psi) p(psi | data) d psi

    with ``psi`` what the LLMs share. This is done in the model's own program: what has the same
    shape with one more LLM is kept, and of what grows the new entry is drawn. Where only some of a
    newcomer's parameters depend on what is shared (the slopes of ``low_rank_mnl`` and
    ``sparse_mnl``, the later blocks of ``drift_mnl``), the others are as the prior has them. A
    model in which LLMs have nothing of their own, such as ``shared_mnl``, knows the newcomer by its
    attributes.

    Args:
        key: for the newcomer, and for draws where the posterior is not draws itself.
        posterior: any, of a model with a population of LLMs.
        num_draws: how many.

    Raises:
        InputError: for a model in which LLMs have nothing in common that a newcomer could inherit.

    Example:
        >>> import cqbayes, jax
        >>> data = cqbayes.choice_data([[1.0], [-1.0]], [[True, True]] * 2, [1, 0])
        >>> posterior, _ = cqbayes.infer(
        ...     jax.random.key(0), cqbayes.load_model("hierarchical_mnl"), data,
        ...     num_warmup=10, num_draws=10, num_chains=1)
        >>> with_newcomer(jax.random.key(1), posterior).sizes.num_llms
        3
    """
    draw_key, extend_key = jax.random.split(key)
    if not _has_population(posterior):
        raise InputError(
            f"{posterior.model.name or 'model'}: expected a model with a population of LLMs that a "
            "new one can be drawn from, such as hierarchical_mnl; in this one LLMs share nothing"
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
    """One vector with one more LLM."""
    larger = sizes._replace(num_llms=sizes.num_llms + 1)
    known = layout(model, sizes).constrain(vector)

    def grown(site: dict[str, Any]) -> Array | None:
        if site["type"] != "sample" or site["name"] not in known:
            return None
        old, shape = known[site["name"]], site["fn"].shape()
        if old.shape == shape:
            return old
        axis = _axis_that_differs(old.shape, shape)
        # Within an event entries may depend on each other: one more would change the others.
        if axis is None or axis >= len(site["fn"].batch_shape):
            raise InputError(
                f"{model.name or 'model'}: expected site {site['name']} to have LLMs in a plate, "
                "independent given the rest; without one nobody can be added"
            )
        # Drawn before it is needed further on, as the program has it: for all, of whom one is kept.
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
    """Whether a newcomer's parameters change with what is known of others; its key being the same.

    Also where there are none: LLMs then differ by attributes alone.
    """
    model, sizes = posterior.model, posterior.sizes
    size = layout(model, sizes).size
    old = jax.eval_shape(layout(model, sizes).params, jax.ShapeDtypeStruct((size,), float))
    params = _newcomers(model, sizes, jax.random.normal(jax.random.key(0), (2, size)))
    own = []
    for small, large in zip(jax.tree.leaves(old), jax.tree.leaves(params), strict=True):
        axis = _axis_that_differs(jnp.shape(small), jnp.shape(large)[1:])
        if axis is not None:
            own.append(np.asarray(jax.lax.slice_in_dim(large, -1, None, axis=1 + axis)))
    return not own or any(not np.array_equal(new[0], new[1]) for new in own)


@eqx.filter_jit
def _newcomers(model: PreferenceModel, sizes: Any, vectors: Array) -> Any:
    """Parameters with one more LLM, the same key for all vectors."""
    form = layout(model, sizes._replace(num_llms=sizes.num_llms + 1))
    return jax.vmap(lambda v: form.params(_extended(model, sizes, jax.random.key(1), v)))(vectors)
