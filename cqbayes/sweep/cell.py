"""One cell: a policy and the oracle in the same worlds, as the bytes of a Parquet file.

One row a seed. Curves are lists over the rounds that are kept; the rest is one number per seed, or
one per LLM. The file's metadata hold the cell and what computed it. Nothing in it depends on when
or in which process it was made.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from cqbayes._tools.provenance import provenance
from cqbayes.errors import InputError
from cqbayes.policies.belief import belief_by_name
from cqbayes.policies.setup import Setup
from cqbayes.policies.wrappers.refit import doubling
from cqbayes.preference import Sizes
from cqbayes.simulation.comparison import Results, World, compare_policies, thinned
from cqbayes.simulation.worlds import DEFAULT_SLACK, WorldSettings, world_by_name
from cqbayes.sweep.settings import Cell

LABEL = "cell's policy"  # besides the oracle, which it may be itself


class Attempt(NamedTuple):
    """What became of a cell: its shard, or in one line why there is none."""

    identity: str
    shard: bytes | None
    reason: str = ""


def attempt(cell: str, numbers: str) -> Attempt:
    """Runs a cell and reports what goes wrong rather than raising it.

    Args:
        cell: as JSON.
        numbers: ``float32`` or ``float64``: as in the process that asks, whose JAX this one's may
            not resemble.
    """
    settings = Cell.model_validate_json(cell)
    try:
        jax.config.update("jax_enable_x64", numbers == "float64")
        return Attempt(settings.identity(), run_cell(settings))
    except InputError as error:
        reason = str(error)
    except Exception as error:  # one cell must not stop the others
        reason = f"{type(error).__name__}: {error}"
    return Attempt(settings.identity(), None, reason.strip().splitlines()[0])


def run_cell(cell: Cell) -> bytes:
    """Simulates a cell.

    Returns:
        Regret curves, thinned, and performance per seed, in Parquet.

    Raises:
        InputError: for settings that cannot be run.
    """
    environment = cell.environment
    truth_key, queue_key = jax.random.split(jax.random.key(cell.seed))
    world, sizes, rate = world_of(cell, truth_key)
    belief = belief_by_name(cell.policy.posterior, sizes)
    values = world.queue.get("values")
    setup = Setup(sizes, environment.slate_size, belief, values=values, horizon=cell.rounds)
    # Queue-length regret is that of departures: its yardstick knows of no values.
    yardstick = setup._replace(values=None)
    results = compare_policies(
        queue_key,
        world,
        {"oracle": ("oracle", yardstick), LABEL: (cell.policy.name, setup)},
        cell.rounds,
        cell.num_seeds,
        refit_after=doubling(max(cell.rounds // 16, 1))(cell.rounds),
        settings={LABEL: _arrays(cell.policy.settings)},
    )
    facts = {"mean_arrival_rate": rate, "failures": results.failures.get(LABEL, 0)}
    return _parquet(cell, results, facts)


def world_of(cell: Cell, key: jax.Array) -> tuple[World, Sizes, float]:
    """Where a cell's policy runs, as :func:`cqbayes.simulation.worlds.world_by_name` makes it."""
    fields = dict(cell.environment)
    slack = fields.pop("slack")
    wanted = WorldSettings(**fields, slack=DEFAULT_SLACK if slack is None else slack)
    return world_by_name(key, wanted, cell.num_seeds, cell.rounds)


def warning_of(cell: Cell) -> str | None:
    """What is to be said of a cell's load before it is run, if anything."""
    truth_key, _ = jax.random.split(jax.random.key(cell.seed))
    return world_of(cell, truth_key)[0].warning


def _arrays(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: jnp.asarray(value) if isinstance(value, list) else value
        for name, value in settings.items()
    }


def _parquet(cell: Cell, results: Results, facts: Mapping[str, Any]) -> bytes:
    curves = thinned(results.curves, cell.points).sel(policy=LABEL)
    performance = results.performance.sel(policy=LABEL)
    oracle = results.performance.sel(policy="oracle")
    performance["queue_length_tail_oracle"] = oracle["queue_length_tail"]
    kept = [curves["round"].values] * cell.num_seeds
    columns = {"seed": pa.array(range(cell.num_seeds)), "round": pa.array(kept)}
    columns |= {str(name): _column(values) for name, values in curves.data_vars.items()}
    columns |= {str(name): _column(values) for name, values in performance.data_vars.items()}
    made = provenance(device=jax.default_backend(), numbers=str(jnp.result_type(float)))
    metadata = {
        "cell": cell.json_text(),
        "facts": json.dumps(facts, sort_keys=True),
        "provenance": json.dumps(made, sort_keys=True),
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _column(values: xr.DataArray) -> pa.Array:
    array = values.values
    return pa.array(array) if array.ndim == 1 else pa.array(list(array))
