"""What the README shows runs as it stands, and so does every example in a docstring."""

import doctest
import importlib
import pkgutil
import re

import pytest
from conftest import ROOT

import cqbayes
from cqbayes import catalogue

README = (ROOT / "README.md").read_text()
MODULES = [
    info.name
    for info in pkgutil.walk_packages(cqbayes.__path__, "cqbayes.")
    if not info.name.startswith("cqbayes.data")
] + [f"cqbayes.models.{name}" for name in catalogue.names("models")]


@pytest.mark.slow
def test_the_loop_in_25_lines(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 25
    exec(compile(block, "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert "laplace: ok" in said
    assert "acqb" in said or "policy" in said


def test_names_in_other_blocks_are_there():
    """They are not run, since they need data or hours, but what they import and call exists."""
    for block in re.findall(r"```text\n(.*?)```", README, flags=re.DOTALL):
        imports = [line for line in block.splitlines() if line.startswith("from ")]
        exec("\n".join(imports), {})
        # Modules of the package are there only once somebody has imported them.
        assert set(re.findall(r"\bcqbayes\.([\w.]+)\(", block)) <= set(cqbayes.__all__)


def test_pictures_and_files_that_it_names_exist():
    for name in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"`((?:tests|analyses|data)/[^`*]+)`", README):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    failures, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failures == 0
