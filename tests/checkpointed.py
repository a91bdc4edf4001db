"""A simulation that can be killed: ``python checkpointed.py KIND FOLDER OUT``.

Built here alone, so that the test and the processes that it kills run the same thing.
"""

import os
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.synthetic import synthetic
from cqbayes.inference.infer import load_engine
from cqbayes.policies import belief
from cqbayes.policies.acqb import acqb
from cqbayes.policies.policy import Policy
from cqbayes.policies.random import random
from cqbayes.policies.wrappers.explore import explore, inverse_root
from cqbayes.policies.wrappers.refit import every, refit
from cqbayes.preference import Sizes, load_model
from cqbayes.simulation.checkpoint import Checkpoint
from cqbayes.simulation.loop import Trace, simulate

ROUNDS = 240


def compiling_once(folder: Path) -> dict[str, str]:
    """The environment of processes that share compiled code: most of their time goes there."""
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def policy_of(kind: str, c: float) -> Policy:
    model, sizes = load_model("disjoint_mnl"), Sizes(3, 2)
    if kind == "random":
        return explore(random(3), inverse_root(c), 3, 1)
    if kind == "online":
        return acqb(belief.online(model, sizes), 3, c=c)
    return refit(acqb(belief.refitted(load_engine(kind).fit, model, sizes), 3, c=c), every(70))


def run(kind: str, checkpoint: Checkpoint | None, **changes: Any) -> Trace:
    """A queue whose room has to grow."""
    population = synthetic(jax.random.key(1), 3, 2)
    env = retrial_queue(population, changes.pop("arrival_rate", 0.6))
    policy = policy_of(kind, changes.pop("c", 0.5))
    settings = {"rounds": ROUNDS, "num_seeds": 2, "record": True, "room": 8, **changes}
    key = settings.pop("key", jax.random.key(2))
    return simulate(key, policy, env, checkpoint=checkpoint, **settings)


def arrays(trace: Trace) -> dict[str, np.ndarray]:
    """All numbers of a trace, by their place."""
    return {str(place): np.asarray(leaf) for place, leaf in enumerate(jax.tree.leaves(trace))}


if __name__ == "__main__":
    kind, folder, out = sys.argv[1:]
    content = arrays(run(kind, None if folder == "none" else Checkpoint(folder, every=1)))
    temporary = Path(out).with_suffix(".part.npz")
    np.savez(temporary, **content)
    temporary.rename(out)
