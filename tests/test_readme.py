"""What README and docs/ show runs and is true; every example in a docstring runs, too.

In these pages a ``python`` block runs as it stands, and the ``text`` block after it is what it
prints. A ``py`` block needs data or hours: only its names are looked up.
"""

import ast
import builtins
import contextlib
import doctest
import importlib
import io
import pkgutil
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import ROOT
from typer.testing import CliRunner

import cqbayes
from cqbayes.cli.app import app
from cqbayes.preference import model_names

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
README = PAGES["README.md"]
TUTORIAL = "docs/tutorial.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
FOLDERS = r"analyses|cqbayes|data|docs|models|tests|\.ci"
MODULES = [
    info.name
    for info in pkgutil.walk_packages(cqbayes.__path__, "cqbayes.")
    if not info.name.startswith("cqbayes.data")
] + [f"cqbayes.models.{name}" for name in model_names()]


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and content of a page's blocks."""
    return BLOCK.findall(PAGES[page])


@pytest.fixture
def in_an_empty_folder(tmp_path, monkeypatch) -> Path:
    """Where commands write; docs/ is there as in the checkout."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_shown(shown: str, printed: str) -> None:
    """The same words, and the same numbers but for two units of their last digit.

    Tests turn XLA's optimisation off, and users do not. This changes the last bits of numbers: of
    those that are shown, only k-hat was seen to differ, by one unit of its last digit. Numbers as
    small as rounding errors (``9e-07``) are compared in their order of magnitude.
    """
    said, found = (" ".join(NUMBER.sub("#", text).split()) for text in (shown, printed))
    assert said == found, f"shown:\n{shown}\nprinted:\n{printed}"
    for one, other in zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True):
        decimals = len(one.partition(".")[2])
        bounds = {"rel": 0.9} if "e" in one else {"rel": 1e-4, "abs": 2 * 10.0**-decimals}
        if not decimals:
            bounds = {"abs": 0}  # a count
        assert _value(one) == pytest.approx(_value(other), **bounds), (
            f"shown {one}, printed {other}, in:\n{printed}"
        )


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def run(code: str, page: str) -> str:
    """What a block prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, page, "exec"), {})
    return said.getvalue()


# The README


def test_the_readme_is_short():
    assert len(README.split()) < 900


@pytest.mark.slow
def test_the_command_of_the_readme_prints_what_is_shown(in_an_empty_folder):
    (command, shown) = (content for kind, content in blocks("README.md")[:2])
    done = CliRunner().invoke(app, shlex.split(command)[1:])
    assert done.exit_code == 0, done.output
    assert_shown(shown, done.stdout)


@pytest.mark.slow
def test_the_simulation_of_the_readme_prints_what_is_shown():
    (kind, code), (_, shown) = blocks("README.md")[2:]
    assert kind == "python"
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    assert_shown(shown, run(code, "README.md"))


def test_the_small_log_is_what_its_script_makes(tmp_path):
    script = runpy.run_path(str(ROOT / "docs/examples/make_services.py"))
    shipped = (ROOT / "docs/examples/services.csv").read_bytes()
    script["write"](tmp_path / "services.csv")
    assert (tmp_path / "services.csv").read_bytes() == shipped
    assert len(shipped) < 60_000
    for page in ("README.md", TUTORIAL):
        chances = [f"{chance:.2f}" for chance in script["true_probabilities"]()]
        stated = f"{chances[0]}, {chances[1]} and {chances[2]}"
        assert stated in " ".join(PAGES[page].split())


# Pages


@pytest.mark.slow
@pytest.mark.long
def test_the_loop_in_25_lines():
    (block,) = (content for kind, content in blocks(TUTORIAL) if kind == "python")
    assert len([line for line in block.splitlines() if line.strip()]) <= 25
    said = run(block, TUTORIAL)
    assert "laplace: ok" in said
    assert "acqb" in said or "policy" in said


def runnable() -> list[Any]:
    """Blocks that take no time, each with what it is said to print."""
    found = []
    for page in PAGES.keys() - {"README.md", TUTORIAL}:
        each = blocks(page)
        for number, (kind, code) in enumerate(each):
            if kind == "python":
                found.append(pytest.param(page, code, each[number + 1][1], id=f"{page}-{number}"))
    return sorted(found, key=lambda one: str(one.id))


@pytest.mark.parametrize(("page", "code", "shown"), runnable())
def test_blocks_print_what_is_shown(page, code, shown, in_an_empty_folder):
    assert_shown(shown, run(code, page))


@pytest.mark.parametrize("page", PAGES)
def test_names_in_code_are_there(page):
    """What blocks import and call exists, whether they are run or not."""
    for kind, code in blocks(page):
        if kind not in ("py", "python"):
            assert kind == "text"
            continue
        tree = ast.parse(code)
        known = set(dir(builtins))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                if isinstance(node, ast.ImportFrom) and node.module == "cqbayes":
                    assert {alias.name for alias in node.names} <= set(cqbayes.__all__)
                exec(ast.unparse(node), {})
                known |= {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                known.add(node.id)
            elif isinstance(node, ast.FunctionDef):
                known.add(node.name)
        called = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert called <= known


@pytest.mark.parametrize("page", PAGES)
def test_dotted_names_are_there(page):
    for name in set(re.findall(r"(?<![\w/.])cqbayes(?:\.[a-zA-Z_]\w*)+", PAGES[page])):
        found: Any = cqbayes
        for part in name.split(".")[1:]:
            if not hasattr(found, part):
                importlib.import_module(f"{found.__name__}.{part}")
            found = getattr(found, part)


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_there(page):
    """Every ``cqbayes ...`` of a block or in backticks has that command and these options."""
    lines = [line for kind, text in blocks(page) if kind == "text" for line in text.splitlines()]
    lines += re.findall(r"`(cqbayes [^`]+)`", BLOCK.sub("", PAGES[page]))
    for line in lines:
        words = shlex.split(line) if line.startswith("cqbayes ") else []
        if words:
            command: Any = typer.main.get_command(app)
            for word in words[1:]:
                if not hasattr(command, "commands"):
                    break
                assert word in command.commands, line
                command = command.commands[word]
            options = {name for option in command.params for name in option.opts}
            assert {word for word in words if word.startswith("--")} <= options, line


@pytest.mark.parametrize("page", PAGES)
def test_files_and_links_are_there(page):
    folder = (ROOT / page).parent
    text = BLOCK.sub("", PAGES[page])
    for target in re.findall(r"\]\(((?!http)[^)]+)\)", text):
        name, _, heading = target.partition("#")
        path = folder / name if name else ROOT / page
        assert path.exists(), target
        if heading:
            assert heading in headings(path.read_text(encoding="utf-8")), target
    for name in re.findall(rf"`((?:{FOLDERS})/[^`*<\s]*)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(rf"python ((?:{FOLDERS})/\S+\.py)", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`make (\w+)", text):
        assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), name


def headings(text: str) -> set[str]:
    """Of a page, as links name them."""
    found = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in found}


def test_the_index_has_every_page():
    index = PAGES["docs/index.md"]
    for page in PAGES.keys() - {"README.md", "docs/index.md"}:
        assert f"]({Path(page).name})" in index, page


def test_the_citation_has_the_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {cqbayes.__version__}\n" in citation
    assert "\nlicense: Apache-2.0\n" in citation
    assert "arxiv.org/abs/2602.02061" in citation


# Docstrings


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    failures, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failures == 0
