"""Experiments as data: the built-in recipes, and the user's own."""

from pathlib import Path

from ..errors import InputError, nearest
from .cifar import CIFAR10
from .detection import DETECTION, DetectionRecipe, find_detection
from .digits import DIGITS
from .imagenet import IMAGENET
from .schema import Recipe, differences, override, read

__all__ = [
    "DETECTION",
    "RECIPES",
    "DetectionRecipe",
    "Recipe",
    "differences",
    "find",
    "find_detection",
    "override",
    "read",
]

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in [*DIGITS, *CIFAR10, *IMAGENET]}


def find(name: str) -> Recipe:
    """Return a built-in recipe by its name, or the recipe in a YAML file by its path.

    Raises:
        InputError: when there is neither.
    """
    if name in RECIPES:
        return RECIPES[name]
    if name.endswith((".yaml", ".yml")) or Path(name).is_file():
        return read(Path(name))
    raise InputError(f"there is no recipe {name!r}{nearest(name, RECIPES)} (residual recipes lists all)")
