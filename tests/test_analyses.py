"""Every analysis runs, at a size that proves nothing."""

import importlib.util
import subprocess
import sys

import pytest
from conftest import ROOT

ANALYSES = sorted(path.name for path in (ROOT / "analyses").glob("*.py"))


@pytest.mark.slow
@pytest.mark.analysis
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


def test_a_notebook_gets_its_arguments_from_a_hidden_cell():
    for needed in ("jupytext", "nbclient", "nbconvert"):
        pytest.importorskip(needed)
    path = ROOT / "analyses" / "export" / "to_html.py"
    spec = importlib.util.spec_from_file_location("to_html", path)
    assert spec is not None
    assert spec.loader is not None
    to_html = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(to_html)
    script = ROOT / "analyses" / "starvation.py"
    hidden, title, *_ = to_html.notebook(script, ["--smoke"]).cells
    assert f"sys.argv = {[str(script), '--smoke']!r}" in hidden.source
    assert title.source.startswith("# What does best-first cost")
    made = to_html.to_html(to_html.notebook(script, []), "starvation")
    assert "sys.argv" not in made
    assert "What does best-first cost" in made
    with pytest.raises(to_html.InputError, match=r"expected one of .*starvation"):
        to_html.notebook(script.with_name("absent.py"), [])


def test_bad_input_ends_an_analysis_in_one_line(tmp_path):
    (tmp_path / "taken").write_text("")
    script = ROOT / "analyses" / "bursty_arrivals.py"
    done = subprocess.run(
        [sys.executable, script, "--smoke", "--out", tmp_path / "taken"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("cqbayes: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ANALYSES)
def test_all_of_them_do(name):
    assert "scripts_end_in_one_line()\n" in (ROOT / "analyses" / name).read_text()
