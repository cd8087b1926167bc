"""The house's rules: imports point downwards, one word has one meaning, and tests mirror the rooms."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT as PROJECT

ROOT = PROJECT / "residual"
TESTS = PROJECT / "tests"

#: A room may import from the storeys below its own (a higher number) only.
STOREYS = [
    {"__main__", "api"},
    {"cli"},
    {"reproduce"},
    {"inference", "run"},
    {"localization"},
    {"detection"},
    {"training", "evaluation", "analysis"},
    {"models", "data"},
    {"recipes", "environment", "device", "recording", "table", "download", "tensors"},
    {"distributed", "randomness", "files", "signals", "terminal", "class_names", "busy"},
    {"errors", "torchrun", "__init__"},
]
STOREY = {room: number for number, rooms in enumerate(STOREYS) for room in rooms}

FILES = sorted(ROOT.rglob("*.py"))

#: Words that are said otherwise here: image, and flip.
OTHER_WORDS = re.compile(r"pictur|photo|mirror", re.IGNORECASE)
#: Folders of tests that are about no single room.
OF_ALL_ROOMS = ("__pycache__", "hostile")
#: Names that others gave.
THEIRS = {"imagenet_classes.txt"}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms that a file imports from, relative imports resolved, type-only ones included."""
    package = ("residual", *path.relative_to(ROOT).parts[:-1])
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            names = [(*module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        rooms |= {name[1] for name in names if name[0] == "residual" and len(name) > 1}
    return {room if room in STOREY else "__init__" for room in rooms}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return  # the package's own face: it offers what users call by name
    for other in imported_rooms(path) - {room}:
        assert STOREY[other] > STOREY[room], f"{path} imports {other}, which is not below {room}"


def test_every_room_has_a_storey() -> None:
    assert {room_of(path) for path in FILES} <= STOREY.keys()


def test_the_check_sees_relative_imports() -> None:
    assert "data" in imported_rooms(ROOT / "run" / "sources.py")
    assert "randomness" in imported_rooms(ROOT / "data" / "resident.py")


def test_no_two_classes_share_a_name() -> None:
    named = Counter(
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in named.items() if count > 1] == []


def test_one_word_one_meaning() -> None:
    pages = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *(PROJECT / "docs").rglob("*")]
    found = [
        f"{path.relative_to(PROJECT)}: {line.strip()}"
        for path in [*ROOT.rglob("*"), *pages]
        if path.suffix in (".py", ".md", ".jinja", ".txt") and path.name not in THEIRS
        for line in path.read_text(encoding="utf-8").splitlines()
        if OTHER_WORDS.search(line)
    ]
    assert found == []


def names_for(path: Path) -> set[str]:
    """Return the names that a test file about a module may have.

    The room's name comes first where rooms have modules of one name, and may always do so.
    """
    room, module = path.relative_to(ROOT).parts[0], path.stem
    if module == "__init__":
        return {f"test_{room}.py"}
    alone = len([p for p in FILES if p.stem == module and len(p.relative_to(ROOT).parts) == 2]) == 1
    return {f"test_{room}_{module}.py"} | ({f"test_{module}.py"} if alone else set())


def test_tests_mirror_the_rooms() -> None:
    """A test file in a folder is about the module of that room whose name it has."""
    rooms = (
        path for path in TESTS.iterdir() if path.is_dir() and path.name not in ("__pycache__", "hostile")
    )
    for folder in sorted(rooms):
        known = {name for path in (ROOT / folder.name).glob("*.py") for name in names_for(path)}
        assert {path.name for path in folder.glob("test_*.py")} <= known, folder.name


def test_test_files_have_names_of_their_own() -> None:
    """Python knows them by these alone."""
    names = Counter(path.name for path in TESTS.rglob("*.py"))
    assert [name for name, count in names.items() if count > 1] == []
