"""Fits on rows spread over devices, to be run by test_sharding.py: prints what it finds as JSON.

Arguments: number of processes, this process's number, port, output file.
"""

import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
from cqbayes.models.disjoint_mnl import disjoint_mnl

from cqbayes.choice.data import choice_data
from cqbayes.inference import laplace
from cqbayes.inference.infer import infer
from cqbayes.inference.sharding import row_mesh, shard_rows
from cqbayes.posterior.log_densities import log_posterior
from cqbayes.preference import layout, sizes_of


def simulated(num_obs: int = 50_000, num_llms: int = 4, dim: int = 6):
    """Simulated choices, the same in every process."""
    rng = np.random.default_rng(0)
    context = rng.normal(size=(num_obs, dim)) / np.sqrt(dim)
    offered = np.argsort(rng.random((num_obs, num_llms)), axis=1) < 2
    utility = context @ rng.normal(size=(dim, num_llms))
    noise = rng.gumbel(size=(num_obs, 1 + num_llms))
    noise[:, 1:] += np.where(offered, utility, -np.inf)
    return context, offered, noise.argmax(axis=1)


def part_of(columns, processes: int, number: int):
    size = len(columns[0]) // processes
    return choice_data(*(column[number * size : (number + 1) * size] for column in columns))


def found(data, model) -> dict[str, list[float]]:
    size = layout(model, sizes_of(data)).size
    vector = jax.numpy.linspace(-1, 1, size)
    value, slope = jax.jit(
        lambda vector, data: jax.value_and_grad(log_posterior(model, data))(vector)
    )(vector, data)
    general = model._replace(linear=None)
    _, plain = jax.jit(
        lambda vector, data: jax.value_and_grad(log_posterior(general, data))(vector)
    )(vector, data)
    gaussian, info = jax.jit(lambda data: laplace.fit(jax.random.key(0), model, data))(data)
    assert int(info.status) == 0, str(info)
    return {
        "value": [float(value)],
        "slope": np.asarray(slope).tolist(),
        "plain": np.asarray(plain).tolist(),
        "mode": np.asarray(gaussian.location).tolist(),
        "covariance": np.asarray(gaussian.factor @ gaussian.factor.T).ravel().tolist(),
    }


def communication(data, model) -> dict[str, int]:
    """Numbers in the largest result of each kind of collective in the compiled Laplace fit."""
    fit = jax.jit(lambda data: laplace.fit(jax.random.key(0), model, data)[0].location)
    text = fit.lower(data).compile().as_text()
    sizes: dict[str, int] = {}
    kinds = "all-reduce|all-gather|all-to-all|collective-permute"
    for shape, kind in re.findall(rf"= \w+\[([\d,]*)\]\S* ({kinds})\(", text):
        numbers = int(np.prod([int(n) for n in shape.split(",") if n] or [1]))
        sizes[kind] = max(sizes.get(kind, 0), numbers)
    return sizes


if __name__ == "__main__":
    processes, number, port, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    if processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"localhost:{port}", processes, number)
    model = disjoint_mnl()
    mine = part_of(simulated(), processes, number)
    data = shard_rows(mine, row_mesh())
    report = {
        "devices": jax.device_count(),
        "spread": len({s.device for s in data.context.addressable_shards}),
        "sharded": found(data, model),
        "communication": communication(data, model),
    }
    if processes == 1:
        report["single"] = found(mine, model)
        _, info = infer(jax.random.key(1), model, data, engine="laplace")
        report["verdict"] = info.verdict.name
    Path(out).write_text(json.dumps(report))
