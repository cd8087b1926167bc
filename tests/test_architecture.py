"""The house's one rule: imports point downwards, and rooms of one storey do not know each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "residual"

#: A room may import from the storeys below its own (a higher number) only.
STOREYS = [
    {"__main__"},
    {"cli"},
    {"reproduce"},
    {"inference", "run"},
    {"detection"},
    {"training", "evaluation", "analysis"},
    {"models", "data"},
    {"recipes", "environment", "device"},
    {"distributed", "randomness", "files"},
    {"errors", "__init__"},
]
STOREY = {room: number for number, rooms in enumerate(STOREYS) for room in rooms}


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


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return  # the package's own face: it offers what users call by name
    for other in imported_rooms(path) - {room}:
        assert STOREY[other] > STOREY[room], f"{path} imports {other}, which is not below {room}"


def test_every_room_has_a_storey() -> None:
    assert {room_of(path) for path in ROOT.rglob("*.py")} <= STOREY.keys()


def test_the_check_sees_relative_imports() -> None:
    assert "data" in imported_rooms(ROOT / "run" / "sources.py")
    assert "randomness" in imported_rooms(ROOT / "data" / "resident.py")
