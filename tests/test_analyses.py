"""Every analysis runs, at a size that proves nothing."""

import subprocess
import sys

import pytest
from conftest import ROOT

ANALYSES = sorted(path.name for path in (ROOT / "analyses").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ANALYSES)
def test_analyses_run(name, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "analyses" / name, "--smoke", "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").glob("*.png"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
