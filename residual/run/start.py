"""The network that a run starts from: freshly initialised, or trained weights with a new classifier."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..models import build_model, resolve
from ..models.classifier import Classifier
from ..models.preprocessing import Preprocessing
from ..models.weights import load_weights
from ..randomness import Stream, mix
from ..recipes import Recipe


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    Attributes:
        model: on the CPU.
        options: ``build_model(name, classes=K, **options)`` builds it.
        preprocessing: that of the weights, None for a fresh network.
        note: what was kept of the weights, None for a fresh network.
    """

    model: Classifier
    options: dict[str, Any]
    preprocessing: Preprocessing | None
    note: str | None


def start(recipe: Recipe, classes: tuple[str, ...], channels: int) -> Start:
    """Return the network that a recipe starts from.

    Raises:
        InputError: for a network that does not exist, and weights that are damaged or of another network.
    """
    torch.manual_seed(mix(recipe.seed, Stream.WEIGHTS))
    options = recipe.model.options() | {"in_channels": channels}
    model = build_model(recipe.model.name, classes=len(classes), **options)
    if recipe.model.weights is None:
        return Start(model, options, None, None)
    stored = load_weights(Path(recipe.model.weights))
    network = stored.config["model"]
    if network["name"] != recipe.model.name:
        raise InputError(
            f"{recipe.model.weights} is a {network['name']} and the recipe is for a {recipe.model.name}; "
            "leave model.name to --weights"
        )
    for option in ("shortcut", "variant"):
        theirs, ours = (
            _option(name, o, option)
            for name, o in ((network["name"], network["options"]), (recipe.model.name, options))
        )
        if theirs != ours:
            raise InputError(
                f"{recipe.model.weights} has {option} {theirs} and the recipe {ours}; "
                f"set model.{option}={theirs}, "
                "or leave the network to --weights"
            )
    if stored.model.in_channels != channels:
        raise InputError(
            f"{recipe.model.weights} takes pictures of {stored.model.in_channels} channels, and these have "
            f"{channels}"
        )
    if stored.classes == classes:
        model.load_state_dict(stored.model.state_dict())
        return Start(model, options, stored.preprocessing, f"all of {recipe.model.weights}")
    last = _last_layer(model)
    kept = {k: v for k, v in stored.model.state_dict().items() if not k.startswith(f"{last}.")}
    missing, unexpected = model.load_state_dict(kept, strict=False)
    if unexpected or any(not name.startswith(f"{last}.") for name in missing):
        raise InputError(f"{recipe.model.weights} does not fit {recipe.model.name} as the recipe has it")
    note = f"all of {recipe.model.weights} but its classifier, which starts anew for {len(classes)} classes"
    return Start(model, options, stored.preprocessing, note)


def take_model(recipe: Recipe, weights: Path) -> Recipe:
    """Return a recipe that starts from a weights folder, with its network in place of the recipe's own."""
    network = load_weights(weights).config["model"]
    options = network["options"]
    chosen = {
        "name": network["name"],
        "shortcut": options.get("shortcut"),
        "variant": options.get("variant"),
        "weights": str(weights.resolve()),
    }
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=chosen)})


def _option(name: str, options: dict[str, Any], option: str) -> Any:
    """Return an option of a network, its default where it is not given, None where the network has none."""
    constructor, fixed = resolve(name)
    defaults = {k: v.default for k, v in inspect.signature(constructor).parameters.items()}
    return (defaults | fixed | options).get(option)


def _last_layer(model: Classifier) -> str:
    """Return the name of the layer that gives the scores: the last one with weights."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
