"""Shapes and types are checked at run time in tests, and only there."""

import gc
import hashlib
import os
import signal

from jaxtyping import install_import_hook

# Before JAX is imported. Most of the time of tests is compilation: without optimisation, and
# without the emitters that fuse loops, it takes half as long, and what is compiled is hardly
# slower. Processes that tests start inherit these flags.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
    ]
)

# A shell's background jobs ignore Ctrl-C, and hand that down to processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

with install_import_hook("cqbayes", "typechecker.check"):
    pass

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from cqbayes._tools.jit_cache import forget_when_many
from cqbayes.choice.data import ChoiceData, choice_data
from cqbayes.preference import PreferenceModel

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_code():
    """A process that has compiled thousands of programs runs out of memory maps."""
    yield
    forget_when_many()
    # What stays are millions of objects, which the collector would look through again and again.
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--part", metavar="K/N", help="of the selected tests, those of the K-th of N parts"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what make whole runs as long; with --part, keeps one part, by tests' names alone."""
    lines = (Path(__file__).parent / "whole.txt").read_text().splitlines()
    listed = {line for line in lines if line and not line.startswith("#")}
    for item in items:
        if {item.nodeid, item.nodeid.split("[")[0]} & listed:
            item.add_marker("long")
    if not config.getoption("file_or_dir"):  # all were collected
        names = {name for item in items for name in (item.nodeid, item.nodeid.split("[")[0])}
        # But for files that are skipped whole, where an extra is not installed.
        collected = {name.split("::")[0] for name in names}
        skipped = {
            name
            for name in listed
            if (file := name.split("::")[0]) not in collected and (ROOT / file).is_file()
        }
        if absent := sorted(listed - names - skipped):
            raise pytest.UsageError(f"tests/whole.txt: no test is called {absent[0]}")
    wanted = config.getoption("--part")
    if wanted is None:
        return
    part, parts = map(int, wanted.split("/"))
    if not 1 <= part <= parts:
        raise pytest.UsageError(f"--part: expected K/N with 1 <= K <= N, got {wanted}")
    kept, left = [], []
    for item in items:
        # Cases of one file that share a fixture stay together: it is made once.
        file, _, case = item.nodeid.partition("[")
        digest = hashlib.sha256(f"{file.split('::')[0]}[{case}".encode()).digest()
        (kept if digest[0] % parts == part - 1 else left).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


@pytest.fixture(scope="session")
def disjoint_mnl() -> Callable[..., PreferenceModel]:
    from cqbayes.models.disjoint_mnl import disjoint_mnl

    return disjoint_mnl


@pytest.fixture(scope="session")
def choices() -> Callable[..., tuple[ChoiceData, np.ndarray]]:
    """Simulated choices under random assortments, drawn by NumPy, and the true weights.

    Weights are ``[llm, 1 + dim]`` with the intercept first. Written apart from the package, so
    that a wrong likelihood there is not repeated here. With ``full``, the data have the optional
    columns too; choices do not depend on them.
    """

    def make(
        seed: int,
        num_obs: int,
        num_llms: int = 4,
        dim: int = 3,
        slate_size: int = 3,
        full: bool = False,
    ) -> tuple[ChoiceData, np.ndarray]:
        rng = np.random.default_rng(seed)
        weights = rng.normal(size=(num_llms, 1 + dim))
        context = rng.normal(size=(num_obs, dim))
        context /= np.linalg.norm(context, axis=1, keepdims=True)
        utility = weights[:, 0] + context @ weights[:, 1:].T
        offered = np.zeros((num_obs, num_llms), bool)
        for row in offered:
            row[rng.permutation(num_llms)[:slate_size]] = True
        odds = np.concatenate([np.ones((num_obs, 1)), np.exp(utility) * offered], axis=1)
        ends = np.cumsum(odds / odds.sum(axis=1, keepdims=True), axis=1)
        choice = (rng.random((num_obs, 1)) > ends).sum(axis=1)
        optional = {
            "attributes": rng.normal(size=(num_llms, 2)),
            "user": rng.integers(0, 6, num_obs),
            "attempt": rng.integers(1, 8, num_obs),
            "time": np.arange(num_obs) * 3 // num_obs,
            "failures": rng.poisson(0.5, (num_obs, num_llms)),
        }
        return choice_data(context, offered, choice, **(optional if full else {})), weights

    return make


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(20260202)
