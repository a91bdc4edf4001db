"""Rows spread over devices and over processes give what one device gives."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import ROOT

from cqbayes.errors import InputError
from cqbayes.inference.sharding import row_mesh, shard_rows

SCRIPT = ROOT / "tests" / "sharded.py"


def _run(folder: Path, processes: int, devices: int) -> list[dict]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    running = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(processes), str(i), port, folder / f"{i}.json"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return [json.loads((folder / f"{i}.json").read_text()) for i in range(processes)]


def _assert_same(one: dict[str, list[float]], other: dict[str, list[float]]) -> None:
    for name in one:
        a, b = np.array(one[name]), np.array(other[name])
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max(), rtol=0, err_msg=name)


@pytest.fixture(scope="module")
def four_devices(tmp_path_factory) -> dict:
    return _run(tmp_path_factory.mktemp("devices"), processes=1, devices=4)[0]


@pytest.mark.slow
@pytest.mark.long
def test_four_devices_give_what_one_gives(four_devices):
    assert four_devices["devices"] == four_devices["spread"] == 4
    assert four_devices["verdict"] == "OK"
    _assert_same(four_devices["single"], four_devices["sharded"])


@pytest.mark.slow
def test_devices_exchange_sums_only(four_devices):
    """Of the size of a Hessian at most, where the rows are thousands of times more numbers."""
    sizes = four_devices["communication"]
    assert set(sizes) == {"all-reduce"}
    assert sizes["all-reduce"] <= (4 * 7) ** 2


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_with_their_own_rows_give_the_same(four_devices, tmp_path):
    for report in _run(tmp_path, processes=2, devices=2):
        assert report["devices"] == 4
        assert report["spread"] == 2
        _assert_same(four_devices["single"], report["sharded"])


def test_padding_changes_nothing(choices):
    data, _ = choices(seed=0, num_obs=30)
    spread = shard_rows(data)
    assert spread.num_obs == 1024
    np.testing.assert_array_equal(spread.context[:30], data.context)
    assert float(spread.weight.sum()) == 30


def test_a_mesh_without_rows_is_refused(choices):
    data, _ = choices(seed=0, num_obs=30)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("columns",))
    with pytest.raises(InputError, match="expected an axis called rows"):
        shard_rows(data, mesh)
    assert row_mesh().shape["rows"] == len(jax.devices())
