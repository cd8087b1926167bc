"""Experiments as data: the built-in recipes, and the user's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, overload

from ..errors import InputError, nearest
from ..files import read_yaml
from .cifar import CIFAR10
from .detection import DETECTION, DetectionRecipe
from .digits import DIGITS
from .imagenet import IMAGENET
from .localization import LOCALIZATION, LocalizationRecipe
from .schema import R, Recipe, TrainingRecipe, differences, override, parse

__all__ = [
    "DETECTION",
    "LOCALIZATION",
    "RECIPES",
    "DetectionRecipe",
    "LocalizationRecipe",
    "Recipe",
    "TrainingRecipe",
    "differences",
    "find",
    "override",
    "read",
]

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in [*DIGITS, *CIFAR10, *IMAGENET]}

#: The built-in recipes of each kind, and the commands that are about them.
KINDS: dict[type[TrainingRecipe], tuple[Mapping[str, Any], str]] = {
    Recipe: (RECIPES, "residual"),
    DetectionRecipe: (DETECTION, "residual detect"),
    LocalizationRecipe: (LOCALIZATION, "residual locate"),
}


@overload
def find(name: str) -> Recipe: ...


@overload
def find(name: str, kind: type[R]) -> R: ...


def find(name: str, kind: type[Any] = Recipe) -> Any:
    """Return a built-in recipe by its name, or the recipe in a YAML file by its path.

    Args:
        kind: of ``KINDS``.

    Raises:
        InputError: when there is neither.
    """
    known, command = KINDS[kind]
    if name in known:
        return known[name]
    if name.endswith((".yaml", ".yml")) or Path(name).is_file():
        return read(Path(name), kind)
    for others, other in KINDS.values():
        if name in others:
            raise InputError(f"{name} is a recipe of {other}: {other} train {name}")
    what = "recipe"
    if kind is not Recipe:
        what = "detection recipe" if kind is DetectionRecipe else "localization recipe"
    raise InputError(f"there is no {what} {name!r}{nearest(name, known)} ({command} recipes lists all)")


@overload
def read(path: Path, *, of_run: bool = False) -> TrainingRecipe: ...


@overload
def read(path: Path, kind: type[R], of_run: bool = False) -> R: ...


def read(path: Path, kind: type[Any] | None = None, of_run: bool = False) -> Any:
    """Return the recipe in a YAML file.

    Args:
        kind: that it is to be of; None for the kind that it is.
        of_run: whether it is a run's, which an earlier version may have written.

    Raises:
        InputError: when it cannot be read, or naming the key that is wrong.
    """
    value = read_yaml(path, "mend it, or print one to start from with residual recipes NAME")
    if of_run and isinstance(value, dict):
        value = _as_it_was_run(value)
    keys = value if isinstance(value, dict) else {}
    found: Any = Recipe
    if "detector" in keys or "localizer" in keys:
        found = DetectionRecipe if "detector" in keys else LocalizationRecipe
    if kind not in (None, found):
        raise InputError(f"{path} is a recipe of {KINDS[found][1]}: {KINDS[found][1]} train {path}")
    return parse(value, str(path), found)


def _as_it_was_run(value: dict[str, Any]) -> dict[str, Any]:
    """Return a run's recipe with what earlier versions did where theirs say nothing.

    Alternating training had four steps of one length, a mini-batch an iteration, and one list of drops.
    """
    if value.get("training") != "alternating" or "steps" in value:
        return value
    schedule = value.get("schedule")
    drops = schedule.get("drops", []) if isinstance(schedule, dict) else []
    return value | {"steps": {"lengths": [1, 1, 1, 1], "head_batches": 1, "head_drops": drops}}
