"""The one loop over rounds: a policy in an environment, many seeds at once.

A segment is one compiled loop, and each round runs under ``vmap`` over seeds. Scheduled refits
happen between segments.

Randomness comes in two streams, one for the world and one for the policy, each keyed by the round.
Two policies that are run with the same key meet the same arrivals, the same contexts and the same
luck, so that differences between them are paired.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from os import cpu_count
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from cqbayes._tools.jit_cache import forget_when_many
from cqbayes._tools.progress import progress_bar
from cqbayes.choice.data import ChoiceData
from cqbayes.environments.environment import Action, Environment, Metrics, Survey
from cqbayes.errors import InputError
from cqbayes.policies.policy import Policy
from cqbayes.simulation.checkpoint import Checkpoint, Checkpoints, run_settings
from cqbayes.simulation.prng import fast_key

MOST_ROUNDS_A_CHUNK = 2_000
MOST_NUMBERS_A_CHUNK = 1 << 24
MOST_ROOM = 1 << 20


class Trace(NamedTuple):
    """What happened in a simulation: NumPy arrays ``[seed, round]``, round 1 first.

    Attributes:
        metrics: the measurements of every round.
        rows: the services as choice data ``[seed, round, ...]``, if they were recorded.
        policy_state: the policy's state after the last round, one per seed.
        room: places in the waiting room at the end.
        services: services per round; so many entries on the axis ``round`` make one round.
    """

    metrics: Metrics
    rows: ChoiceData | None
    policy_state: Any
    room: int
    services: int = 1

    def choices(self) -> ChoiceData:
        """The rows of all seeds as one log; rounds that served nothing have weight zero."""
        if self.rows is None:
            raise InputError("trace: expected recorded rows, got none; simulate with record=True")
        return jax.tree.map(lambda x: jnp.asarray(x.reshape(-1, *x.shape[2:])), self.rows)


class _Run(NamedTuple):
    """Everything that goes from one round to the next."""

    policy: Any
    environment: Any


def simulate(
    key: PRNGKeyArray,
    policy: Policy,
    env: Environment,
    rounds: int,
    *,
    num_seeds: int = 1,
    refit_after: Sequence[int] | None = None,
    room: int = 64,
    record: bool = False,
    policy_per_seed: bool = False,
    env_per_seed: bool = False,
    checkpoint: Checkpoint | None = None,
    progress: bool = False,
    name: str = "rounds",
) -> Trace:
    """The trace of a policy that runs in an environment.

    The load is not checked: a check needs draws of the population, which may be costly, and an
    unstable queue may be wanted. To check the load first, as ``cqbayes simulate`` and sweeps do,
    call ``check_stable(rate, capacity(population))`` of :mod:`cqbayes.environments.load`. A queue
    that grows past ``MOST_ROOM`` queries ends the run.

    Args:
        key: decides all randomness. Give different policies the same key to compare them.
        policy: the policy that serves.
        env: the queue in which queries wait.
        rounds: number of rounds; of services, where the environment has several per round.
        num_seeds: independent repetitions.
        refit_after: rounds after which ``policy.refit`` is called, ascending; where absent, the
            policy's own schedule (:mod:`cqbayes.policies.wrappers.refit`), or never.
        room: places for waiting queries to begin with. A room that overflows is doubled and the
            rounds since the last checkpoint are run again: nothing is ever dropped, and the
            result does not depend on ``room``.
        record: whether to keep the services as choice data.
        policy_per_seed, env_per_seed: whether the arrays in ``policy`` or ``env`` have a leading
            seed axis, as ``equinox.filter_vmap`` makes them.
        checkpoint: a folder that keeps the state of the run. A call with the same arguments goes on
            where an earlier call stopped, with the same result to the bit; so does a call with more
            rounds.
        progress: whether to show a progress bar.
        name: label of the progress bar.

    Returns:
        The trace.

    Raises:
        InputError: for no rounds or seeds, refits out of order, or a checkpoint of another run.

    Example:
        >>> import jax
        >>> from cqbayes.environments.queue import retrial_queue
        >>> from cqbayes.environments.synthetic import synthetic
        >>> from cqbayes.policies.random import random
        >>> env = retrial_queue(synthetic(jax.random.key(0)), arrival_rate=0.3)
        >>> trace = simulate(jax.random.key(1), random(num_llms=5), env, rounds=100, num_seeds=2)
        >>> trace.metrics.queue_length.shape
        (2, 100)
    """
    refit_after = _schedule(policy, refit_after, rounds)
    if rounds < 1 or num_seeds < 1:
        raise InputError(
            f"simulate: expected at least 1 round and 1 seed, got {rounds} and {num_seeds}"
        )
    if refit_after != sorted(set(refit_after)) or any(not 0 < r < rounds for r in refit_after):
        raise InputError(
            f"refit_after: expected ascending rounds between 1 and {rounds - 1}, got {refit_after}"
        )
    forget_when_many()
    keys = jax.vmap(lambda k: jax.random.split(k, 4))(jax.random.split(key, num_seeds))
    world_keys, policy_keys = (jax.vmap(fast_key)(keys[:, i]) for i in range(2))
    begin_keys, refit_keys = keys[:, 2], keys[:, 3]
    axes = (eqx.if_array(0) if policy_per_seed else None, eqx.if_array(0) if env_per_seed else None)
    chunk = _chunk_length(env, world_keys, rounds, axes[1])
    keep_rows = record or bool(refit_after)
    pieces: list[tuple[Metrics, ChoiceData | None]] = []
    done, saved = 0, None
    if checkpoint is not None:
        settings = run_settings(
            key,
            policy,
            env,
            rounds,
            num_seeds=num_seeds,
            refit_after=[int(after) for after in refit_after],
            record=record,
            keep_rows=keep_rows,
            policy_per_seed=policy_per_seed,
            env_per_seed=env_per_seed,
        )
        saved = Checkpoints(checkpoint, settings)
    if saved is not None and saved.moment is not None:
        done, room, _, pieces = saved.moment
        shapes = eqx.filter_eval_shape(_begin, policy, env, begin_keys, room, axes)
        run = saved.restored(shapes)
    else:
        run = _begin(policy, env, begin_keys, room, axes)
    before = done + sum(after for after in refit_after if after < done)
    total = rounds + sum(refit_after)
    with progress_bar(name, total=total, show=progress, done=before) as advance:
        while done < rounds:
            if done in refit_after:
                history = _join([rows for _, rows in pieces])
                run = run._replace(
                    policy=_refit_all(policy, refit_keys, run.policy, history, done, axes[0])
                )
                advance(done)
            until = min([after for after in refit_after if after > done], default=rounds)
            if saved is not None:
                until = min(until, saved.next_stop(done))
            count = min(chunk, until - done)
            given = (world_keys, policy_keys, jnp.array(done + 1), jnp.array(count))
            while True:
                after, outputs = _fitting(
                    env, _run_chunk, policy, env, *given, run, chunk, keep_rows, axes
                )
                if not bool(jnp.any(_overflowed(env, after.environment, axes))):
                    break
                room *= 2
                if room > MOST_ROOM:
                    raise InputError(
                        f"simulate: expected at most {MOST_ROOM} waiting queries, got more; "
                        "lower the load"
                    )
                run = run._replace(environment=_grow(env, run.environment, room, axes))
            run = after
            most = int(jnp.max(jnp.sum(outputs[0].offered, axis=-1)))
            if most > env.slate_size:
                raise InputError(
                    f"policy: expected at most {env.slate_size} LLMs a service, as the environment "
                    f"allows, got {most}"
                )
            # NumPy copies free the device's memory and let long runs be joined once, at the end.
            pieces.append(jax.tree.map(lambda x, n=count: np.asarray(x)[:, :n], outputs))
            done += count
            if saved is not None and done in (rounds, saved.next_stop(done - 1)):
                saved.save(run, pieces, done, room)
            advance(count)
    metrics = _join([metrics for metrics, _ in pieces])
    rows = _join([rows for _, rows in pieces]) if record else None
    return Trace(metrics, rows, jax.tree.map(np.asarray, run.policy), room, env.services)


def _schedule(policy: Policy, refit_after: Sequence[int] | None, rounds: int) -> list[int]:
    if policy.refit is None:
        return []
    if refit_after is None:
        refit_after = () if policy.refit_after is None else policy.refit_after(rounds)
    return list(refit_after)


def _fitting(env: Environment, run: Callable[..., Any], *arguments: Any) -> Any:
    """``run(*arguments)``; refuses a policy made for other numbers of LLMs or dimensions.

    Wrong shapes show while JAX traces the run, so the check costs nothing in later calls.
    """
    try:
        return run(*arguments)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"policy: expected one for {env.num_llms} LLMs and the environment's contexts, "
            f"got shapes that do not fit: {reason}"
        ) from error


def _chunk_length(env: Environment, keys: Array, rounds: int, axis: Any) -> int:
    """The maximum number of rounds that are prepared and kept on the device at once."""
    leaves, structure = jax.tree.flatten(env)
    shapes = tuple(
        jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if eqx.is_array(leaf) else leaf
        for leaf in leaves
    )
    numbers = _numbers_a_round(shapes, structure, keys.shape[0], axis is not None)
    return max(1, min(rounds, MOST_ROUNDS_A_CHUNK, MOST_NUMBERS_A_CHUNK // numbers))


@lru_cache(maxsize=256)
def _numbers_a_round(shapes: tuple, structure: Any, num_seeds: int, per_seed: bool) -> int:
    env = jax.tree.unflatten(structure, shapes)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num_seeds))
    axes = (eqx.if_array(0) if per_seed else None, 0)
    draw = eqx.filter_vmap(lambda env, key: env.chance(key), in_axes=axes)
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter_eval_shape(draw, env, keys)))


def _join(pieces: list[Any]) -> Any:
    return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *pieces)


@eqx.filter_jit
def _begin(policy: Policy, env: Environment, keys: Array, room: int, axes: tuple) -> _Run:
    def one(policy: Policy, env: Environment, key: PRNGKeyArray) -> _Run:
        run = _Run(policy.init(key), env.init(room))
        # With weak types, the first chunk would be another program than the second.
        return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), run)

    return eqx.filter_vmap(one, in_axes=(*axes, 0))(policy, env, keys)


@eqx.filter_jit
def _overflowed(env: Environment, state: Any, axes: tuple) -> Array:
    return eqx.filter_vmap(lambda e, s: e.overflowed(s), in_axes=(axes[1], 0))(env, state)


@eqx.filter_jit
def _grow(env: Environment, state: Any, room: int, axes: tuple) -> Any:
    return eqx.filter_vmap(lambda e, s: e.grow(s, room), in_axes=(axes[1], 0))(env, state)


@eqx.filter_jit
def _run_chunk(
    policy: Policy,
    env: Environment,
    world_keys: Array,
    policy_keys: Array,
    start: Array,
    count: Array,
    run: _Run,
    length: int,
    keep_rows: bool,
    axes: tuple,
) -> tuple[_Run, tuple[Metrics, ChoiceData | None]]:
    """Rounds ``start`` to ``start + count - 1``; outputs ``[seed, length, ...]``, the rest zero."""
    each = partial(eqx.filter_vmap, in_axes=(axes[1], 0))
    select = eqx.filter_vmap(
        lambda policy, key, state, seen: policy.select(key, state, seen), in_axes=(axes[0], 0, 0, 0)
    )
    update = eqx.filter_vmap(
        lambda policy, key, state, rows: policy.update(key, state, rows), in_axes=(axes[0], 0, 0, 0)
    )
    advance = eqx.filter_vmap(
        lambda env, *arguments: env.step(*arguments), in_axes=(axes[1], 0, 0, 0, 0)
    )
    # Waiting queries fill the first places, so hiding the others changes nothing.
    observe = each(lambda env, state: env.observe(state))
    everywhere = eqx.filter_eval_shape(observe, env, run.environment)
    views = _views(everywhere.context.shape[1])

    def step(run: _Run, given: tuple[Any, Array, Array]):
        chance, select_key, update_key = given

        def act_among(places: int, operands: tuple) -> tuple[Action, Survey]:
            keys, run = operands
            shown = each(lambda env, state: env.among(state, places))(env, run.environment)
            action = select(policy, keys, run.policy, observe(env, shown))
            return action, each(lambda env, state: env.survey(state))(env, shown)

        def idle(operands: tuple) -> tuple[Action, Survey]:
            shapes = jax.eval_shape(partial(act_among, views[0]), operands)
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        longest = jnp.max(observe(env, run.environment).queue_length)
        action, survey = jax.lax.switch(
            jnp.searchsorted(jnp.array([0, *views]), longest),
            [idle, *(partial(act_among, places) for places in views)],
            (select_key, run),
        )
        if action.offered.shape[1:] != (env.num_llms,):
            raise InputError(
                f"policy: expected one for {env.num_llms} LLMs, got assortments of shape "
                f"{action.offered.shape[1:]}"
            )
        environment, rows, metrics = advance(env, chance, run.environment, action, survey)
        state = update(policy, update_key, run.policy, rows)
        kept = jax.tree.map(lambda x: x[:, 0], rows) if keep_rows else None
        return _Run(state, environment), (metrics, kept)

    # All random numbers of the chunk at once: one wide computation instead of many narrow ones.
    def prepare(env: Environment, world_key: Array, policy_key: Array) -> tuple[Any, Array, Array]:
        def one(t: Array) -> tuple[Any, Array, Array]:
            chance = env.chance(jax.random.fold_in(world_key, t))
            return chance, *jax.random.split(jax.random.fold_in(policy_key, t))

        return jax.vmap(one)(start + jnp.arange(length))

    given = eqx.filter_vmap(prepare, in_axes=(axes[1], 0, 0), out_axes=1)(
        env, world_keys, policy_keys
    )
    # A loop of ``count`` rounds, not a scan of ``length``: the same compiled code runs any number
    # of rounds, and no round too many.
    like = jax.eval_shape(lambda g: step(run, jax.tree.map(lambda x: x[0], g))[1], given)
    shapes = jax.eval_shape(_side_by_side, like)
    outputs = jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), shapes)

    def body(i: Array, carry: tuple[_Run, Any]) -> tuple[_Run, Any]:
        run, outputs = carry
        run, output = step(run, jax.tree.map(lambda x: x[i], given))
        wide = _side_by_side(output)
        return run, jax.tree.map(lambda all, one: all.at[i].set(one), outputs, wide)

    after, outputs = jax.lax.fori_loop(0, count, body, (run, outputs))
    return after, _apart(jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), outputs), like)


def _side_by_side(tree: Any) -> dict[str, Array]:
    """Leaves ``[seed, ...]`` of one type as one array: one write a round instead of a dozen."""
    columns: dict[str, list[Array]] = {}
    for leaf in jax.tree.leaves(tree):
        columns.setdefault(str(leaf.dtype), []).append(leaf.reshape(leaf.shape[0], -1))
    return {dtype: jnp.concatenate(parts, axis=-1) for dtype, parts in columns.items()}


def _apart(wide: dict[str, Array], like: Any) -> Any:
    """The tree again, of arrays ``[seed, round, ...]``."""
    begin = dict.fromkeys(wide, 0)

    def one(leaf: jax.ShapeDtypeStruct) -> Array:
        dtype, size = str(leaf.dtype), leaf.size // leaf.shape[0]
        at = begin[dtype]
        begin[dtype] = at + size
        column = wide[dtype][..., at : at + size]
        return column.reshape(*column.shape[:2], *leaf.shape[1:])

    return jax.tree.map(one, like)


def _views(room: int) -> list[int]:
    """How many places a policy is shown: 8, 32, 128, ... and at last the whole room."""
    views = [8]
    while views[-1] < room:
        views.append(4 * views[-1])
    return [v for v in views if v < room] + [room]


@eqx.filter_jit
def _refit_one(policy: Policy, key: Array, state: Any, history: ChoiceData) -> Any:
    assert policy.refit is not None
    return policy.refit(key, state, history)


def _refit_all(
    policy: Policy, keys: Array, state: Any, history: ChoiceData, round: int, axis: Any
) -> Any:
    """Refits every seed's policy by itself, on all cores.

    Not under ``vmap``: samplers would all wait in each step for the one with the longest path.
    """

    def one(seed: int) -> Any:
        def pick(x: Any) -> Any:
            return x[seed] if eqx.is_array(x) else x

        mine = policy if axis is None else jax.tree.map(pick, policy)
        key = jax.random.fold_in(keys[seed], round)
        rows = jax.tree.map(lambda x: jnp.asarray(x[seed]), history)
        return jax.block_until_ready(_refit_one(mine, key, jax.tree.map(pick, state), rows))

    first = one(0)  # compiles; the others then share the compiled code
    with ThreadPoolExecutor(cpu_count()) as pool:
        rest = list(pool.map(one, range(1, len(keys))))
    return jax.tree.map(lambda *x: jnp.stack(x), first, *rest)
