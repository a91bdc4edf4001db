"""The plan of the house: rooms in order, no circles, little on the landing, and light doors."""

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import cqbayes

HOUSE = Path(cqbayes.__file__).parent
# Bottom up: a room imports from rooms before it, and from itself.
ORDER = """
    errors _tools choice preference posterior inference predict embeddings datasets environments
    policies simulation offpolicy sweep diagnostics logs report cli
"""
PLACE = {room: number for number, room in enumerate(ORDER.split())}


@cache
def modules() -> dict[str, Path]:
    """Every file of the package, by its dotted name inside it."""
    found = {}
    for path in HOUSE.rglob("*.py"):
        parts = path.relative_to(HOUSE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(code: str, names: set[str]) -> set[str]:
    """Files that code imports, wherever it does: at the top, in a function, for types only."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the whole path"
            wanted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in wanted:
            parts = name.split(".")[1:] if name.split(".")[0] == "cqbayes" else []
            while parts and ".".join(parts) not in names:
                parts = parts[:-1]  # a name inside a file
            if parts:
                found.add(".".join(parts))
    return found


@cache
def arrows() -> dict[str, set[str]]:
    """From each file to those that it imports, but for its own parent packages."""
    names = set(modules())
    return {
        name: {
            other
            for other in imports_of(path.read_text(), names)
            if other != name and not name.startswith(f"{other}.")
        }
        for name, path in modules().items()
        if name  # the door at the top opens every room, and nobody inside may use it
    }


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Files that import each other, in order; none where there is no circle."""
    done: set[str] = set()

    def follow(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            found = follow(other, [*path, name])
            if found:
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := follow(name, []))), [])


def test_a_circle_would_be_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    lazy = (
        "def f():\n    from cqbayes.logs.read import Log\nif TYPE_CHECKING:\n    import cqbayes.cli"
    )
    assert imports_of(lazy, {"logs", "logs.read", "cli"}) == {"logs.read", "cli"}


def test_no_files_import_each_other():
    assert circle(arrows()) == []


def test_rooms_keep_their_order():
    assert {name.split(".")[0] for name in arrows()} == set(PLACE)
    wrong = [
        f"{name} -> {other}"
        for name, others in arrows().items()
        for other in others
        if PLACE[other.split(".")[0]] > PLACE[name.split(".")[0]]
    ]
    assert wrong == []


def test_nothing_but_doors_stands_on_the_landing():
    landing = sorted(path.name for path in HOUSE.iterdir() if path.is_file())
    assert len(landing) <= 6, landing


def test_every_room_says_what_it_is_for_and_what_it_may_import():
    for name, path in modules().items():
        if path.name == "__init__.py" and name:
            tree = ast.parse(path.read_text())
            assert "May import: " in (ast.get_docstring(tree) or ""), name
            # Nothing else: who enters one file of a room does not wake the others.
            assert len(tree.body) == 1, name


TESTS = Path(__file__).parent
ROOMS = [
    folder for folder in sorted(TESTS.rglob("*")) if folder.is_dir() and list(folder.glob("*.py"))
]


@pytest.mark.parametrize("folder", ROOMS, ids=lambda folder: folder.relative_to(TESTS).as_posix())
def test_tests_are_where_the_name_of_their_module_says(folder):
    """A file's are ``test_<file>.py``, with more in the name if need be; a room's, its name."""
    place = folder.relative_to(TESTS)
    room = TESTS.parent / place if place.parts[0] in ("models", "data") else HOUSE / place
    known = {path.stem for path in room.iterdir() if path.stem != "__init__"} | {folder.name}
    lost = [
        path.name
        for path in folder.glob("test_*.py")
        if not any(f"{path.stem}_".startswith(f"test_{name}_") for name in known)
    ]
    assert lost == []


def loaded(code: str) -> set[str]:
    """What a fresh process has loaded of the package after some code."""
    report = (
        "import json, sys; print(json.dumps([n for n in sys.modules if n.startswith('cqbayes')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {report}"], capture_output=True, text=True, check=True
    )
    return {name.removeprefix("cqbayes.") for name in json.loads(done.stdout.splitlines()[-1])}


def test_the_queue_loads_no_inference():
    found = loaded("import cqbayes.environments, cqbayes.environments.queue")
    rooms = {name.split(".")[0] for name in found - {"cqbayes"}}
    assert "environments" in rooms
    above = set(ORDER[ORDER.index("environments") + 1 :])
    assert (
        rooms & ({"posterior", "inference", "preference", "predict", "embeddings"} | above) == set()
    )


def test_listing_log_formats_loads_them_and_what_they_are_made_of():
    found = loaded("from cqbayes import importer_names; names = importer_names()")
    inside = {name for name in found if name.startswith("logs.")}
    assert {name for name in inside if not name.startswith("logs.formats")} <= {"logs.schema"}
    assert not {name.split(".")[0] for name in found} & {"inference", "embeddings", "simulation"}


@pytest.mark.parametrize("name", cqbayes.__all__)
def test_every_public_name_is_there(name):
    assert getattr(cqbayes, name) is not None
