"""What a user installs: a wheel that holds everything, imports that cost little, true metadata."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cqbayes

ROOT = Path(__file__).parent.parent
# Folders of the checkout, and where they are installed.
INSTALLED = {"cqbayes": "cqbayes", "models": "cqbayes/models", "data": "cqbayes/data"}
SHIPPED = {".py", ".typed", ".jinja", ".json", ".parquet", ".md"}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def sources(folder: str) -> list[Path]:
    return sorted(p for p in (ROOT / folder).rglob("*") if p.is_file() and p.suffix in SHIPPED)


def run(*command: str | Path, cwd: Path, stderr: bool = False) -> str:
    """Runs a command apart from this checkout and returns what it prints; shows it if it fails."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stderr if stderr else done.stdout


# The wheel


@pytest.fixture(scope="module")
def workplace() -> Iterator[Path]:
    """A folder outside the checkout, removed at once: an environment is nearly a gigabyte."""
    with tempfile.TemporaryDirectory(prefix="cqbayes-wheel-") as folder:
        yield Path(folder).resolve()


@pytest.fixture(scope="module")
def wheel(workplace: Path) -> Path:
    """Built from the source distribution, which is built from a copy without leftovers."""
    copy = workplace / "source"
    copy.mkdir()
    for name in INSTALLED:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    run(sys.executable, "-m", "build", "--outdir", workplace / "dist", copy, cwd=workplace)
    (built,) = (workplace / "dist").glob("*.whl")
    return built


@pytest.mark.slow
@pytest.mark.wheel
@pytest.mark.xdist_group("wheel")
def test_wheel_holds_everything_inside_the_package(wheel):
    expected = {
        f"{target}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, target in INSTALLED.items()
        for path in sources(folder)
    }
    assert {
        "cqbayes/py.typed",
        "cqbayes/report/report.html.jinja",
        "cqbayes/models/disjoint_mnl.py",
        "cqbayes/data/paretobandit3/scores.parquet",
    } <= expected
    held = set(zipfile.ZipFile(wheel).namelist())
    assert expected - held == set()
    top = {name.split("/")[0] for name in held}
    assert top == {"cqbayes", f"cqbayes-{cqbayes.__version__}.dist-info"}


@pytest.mark.slow
@pytest.mark.wheel
@pytest.mark.xdist_group("wheel")
def test_demo_runs_from_the_wheel_in_an_empty_environment(wheel, workplace):
    environment, elsewhere = workplace / "environment", workplace / "elsewhere"
    elsewhere.mkdir()
    run(sys.executable, "-m", "venv", environment, cwd=elsewhere)
    programs = environment / "bin"
    constraints = ROOT / "constraints.txt"
    pip = [programs / "python", "-m", "pip", "install", "--quiet", "-c", constraints]
    run(*pip, wheel, cwd=elsewhere)
    place = run(programs / "python", "-c", "print(__import__('cqbayes').__file__)", cwd=elsewhere)
    assert Path(place.strip()).is_relative_to(environment)
    assert "demo" in run(programs / "cqbayes", "--help", cwd=elsewhere)
    run(programs / "cqbayes", "demo", "--smoke", "--out", elsewhere / "out", cwd=elsewhere)
    assert "<html" in (elsewhere / "out" / "report.html").read_text()


def test_every_package_is_listed():
    """A package that pyproject.toml does not name is missing from the wheel, silently."""
    found = {
        ".".join([*target.split("/"), *path.parent.relative_to(ROOT / folder).parts])
        for folder, target in INSTALLED.items()
        for path in sources(folder)
        if path.suffix == ".py"
    }
    assert found == set(PYPROJECT["tool"]["setuptools"]["packages"])


# Imports go one way: analyses -> models, data -> cqbayes


def imported(code: str, package: str) -> set[str]:
    """All names that code in ``package`` imports, wherever in the code: modules and members."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")
                base = ".".join([*above[: len(above) - node.level + 1], *filter(None, [base])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def within(names: set[str], *modules: str) -> set[str]:
    return {n for n in names if any(n == m or n.startswith(f"{m}.") for m in modules)}


@pytest.mark.parametrize(
    "code",
    [
        "import cqbayes.data",
        "import numpy, cqbayes.data.mine as mine",
        "from cqbayes import data",
        "from cqbayes.data.mine import load",
        "def f():\n    from ..data import mine",
        "if TYPE_CHECKING:\n    from .. import data",
    ],
)
def test_no_way_to_import_is_overlooked(code):
    assert within(imported(code, "cqbayes.policies"), "cqbayes.data")
    assert not within(imported(code, "cqbayes.policies"), "data", "cqbayes.database")


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("cqbayes", ["cqbayes.models", "cqbayes.data", "models", "data", "analyses", "tests"]),
        ("models", ["cqbayes.data", "models", "data", "analyses", "tests"]),
        ("data", ["cqbayes.models", "models", "data", "analyses", "tests"]),
    ],
)
def test_imports_go_one_way(folder, forbidden):
    wrong = {}
    for path in sources(folder):
        if path.suffix == ".py":
            place = path.parent.relative_to(ROOT / folder).parts
            package = ".".join([*INSTALLED[folder].split("/"), *place])
            wrong[path.name] = within(imported(path.read_text(), package), *forbidden)
    assert {name: names for name, names in wrong.items() if names} == {}


# Imports are late

HEAVY = {"arviz_base", "arviz_plots", "arviz_stats", "jax", "matplotlib", "numpyro", "pandas"}
HEAVY |= {"scipy", "torch", "xarray"}


@pytest.mark.parametrize(
    "code",
    [
        "import cqbayes",
        "import cqbayes.cli.app",
        "import sys; from cqbayes.cli.app import main; sys.argv[1:] = ['--help']; main()",
        "import sys; from cqbayes.cli.app import main; sys.argv[1:] = ['demo', '--help']; main()",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code, tmp_path, record_property):
    report = (
        "import atexit, json, sys, time; start = time.perf_counter()\n"
        "atexit.register(lambda: print(json.dumps({'modules': sorted(sys.modules),"
        " 'seconds': round(time.perf_counter() - start, 3)}), file=sys.stderr))\n"
    )
    lines = run(sys.executable, "-c", report + code, cwd=tmp_path, stderr=True).splitlines()
    result = json.loads(lines[-1])
    record_property("seconds", result["seconds"])
    print(f"{result['seconds']} s: {code}")
    assert "cqbayes" in result["modules"]
    assert HEAVY & {name.split(".")[0] for name in result["modules"]} == set()


# Metadata


def requirements() -> list[Requirement]:
    """All that pyproject.toml asks for, besides the project's own extras."""
    project = PYPROJECT["project"]
    listed = chain(project["dependencies"], *project["optional-dependencies"].values())
    return [r for r in map(Requirement, listed) if r.name != "cqbayes"]


def test_version_is_one():
    assert PYPROJECT["project"]["version"] == cqbayes.__version__


def test_every_dependency_is_justified_and_nothing_else():
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## Dependencies")[1].split("\n## ")[0]
    justified = re.findall(r"^- `([\w.-]+)`: \w", section, flags=re.MULTILINE)
    assert len(justified) == len(set(justified))
    build = {Requirement(line).name for line in PYPROJECT["build-system"]["requires"]}
    assert set(justified) == {r.name for r in requirements()} | build


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_dependency_is_pinned_to_a_version_that_is_allowed(python):
    here = {"python_version": python}
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        pin = Requirement(line) if line and not line.startswith("#") else None
        if pin and (pin.marker is None or pin.marker.evaluate(here)):
            (exactly,) = pin.specifier
            assert (exactly.operator, pins.get(pin.name)) == ("==", None), line
            pins[pin.name] = exactly.version
    for wanted in requirements():
        if wanted.marker is None or wanted.marker.evaluate(here):
            assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), wanted
