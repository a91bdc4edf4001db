"""The simulator's benchmark runs, at a size that proves nothing, where its rivals are installed."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

SIMULATOR = ROOT / "analyses" / "benchmarks" / "simulator.py"


@pytest.mark.slow
def test_the_simulator_is_measured_against_all_its_rivals(tmp_path):
    for package in ("numba", "simpy", "ciw"):
        pytest.importorskip(package, reason=f"{package} is not installed; the extra bench has it")
    out = tmp_path / "rows.json"
    done = subprocess.run(
        [sys.executable, SIMULATOR, "--smoke", "--json", out], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    named = {"measure", "ours", "peer", "peer_name", "ratio", "target", "meets"}
    assert all(row.keys() == named and row["ours"] > 0 and row["ratio"] > 0 for row in rows)
    rivals = {"plain NumPy", "tuned NumPy", "numba", "room 64", "target", "SimPy", "Ciw"}
    assert {row["peer_name"] for row in rows} == rivals


def test_a_missing_rival_is_named_in_one_line(tmp_path):
    (tmp_path / "numba.py").write_text("raise ModuleNotFoundError('absent', name='numba')")
    done = subprocess.run(
        [sys.executable, SIMULATOR],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "simulator.py: expected the package numba, found none; make bench installs it, and so does "
        "pip install 'cqbayes[bench]'\n"
    )
