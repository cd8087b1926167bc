"""What a run starts from: a fresh network, or trained weights; for all kinds of runs alike.

The command applies --weights first and --set after it, so that a setting is never lost: one that does not fit
the weights is an error.
"""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from ..errors import InputError, plural
from ..models import build_model, last_layer, resolve
from ..models.classifier import Classifier
from ..models.frozen import freeze_stages
from ..models.names import is_name
from ..models.own import OwnNetwork
from ..models.preprocessing import Preprocessing
from ..models.weights import Weights, load_weights
from ..randomness import Stream, mix
from ..recipes import DetectionRecipe, LocalizationRecipe, Recipe, TrainingRecipe
from ..recipes.detection import Detector, starts_from_coco
from ..recipes.localization import Localizer
from ..recipes.schema import Model
from .page import network_of

R = TypeVar("R", bound=TrainingRecipe)
#: What stays the recipe's where a detector goes on from another one: how it learns, and how much it may find.
OF_THE_RECIPE = ("freeze", "regions", "train_proposals", "ignore_cross_boundary_anchors", "max_detections")


def start_from(recipe: R, weights: Path) -> R:
    """Return a recipe that starts from a folder with trained weights, with their network in place of its own.

    A localizer starts from a classifier, its second stage from the localizer, a detector from a classifier or
    a detector. A detector and a localizer bring what their layers and their images are made for: anchors,
    the images' sides, pooling, proposals at test time. How it is to learn stays the recipe's.

    Raises:
        InputError: when there are no such weights, or they cannot be what the recipe starts from.
    """
    started = _started_from(recipe, weights)
    own, theirs = network_of(recipe).name, network_of(started).name
    if own in ("weights", theirs):
        return started
    # What a recipe says of itself is of the network that it had.
    return started.model_copy(update={"description": f"{recipe.name} with {theirs} in place of {own}"})


def _started_from(recipe: R, weights: Path) -> R:
    if isinstance(recipe, Recipe):
        model = recipe.model.model_copy(update=_network(weights).model_dump())
        return cast(R, recipe.model_copy(update={"model": model}))
    # What detects is imported where it is asked for: torchvision's operators take a second and a half.
    if isinstance(recipe, LocalizationRecipe) and recipe.rcnn:
        from ..localization.weights import read_localizer

        config = read_localizer(weights).config
        changes: dict[str, Any] = {
            "localizer": Localizer.model_validate(config.localizer),
            "rcnn": recipe.rcnn.model_copy(update={"localizer": _lasting(weights)}),
            "data": recipe.data.model_copy(update={"size": config.size, "shorter_side": None}),
        }
        return cast(R, recipe.model_copy(update=changes))
    if isinstance(recipe, LocalizationRecipe):
        localizer = recipe.localizer.model_copy(update={"backbone": _network(weights)})
        return cast(R, recipe.model_copy(update={"localizer": localizer}))
    assert isinstance(recipe, DetectionRecipe)
    from ..detection.weights import is_detector, read_detector

    wanted = recipe.detector
    if not is_detector(weights):
        detector = wanted.model_copy(update={"backbone": _network(weights)})
        return cast(R, recipe.model_copy(update={"detector": detector}))
    trained = read_detector(weights).config
    stored = Detector.model_validate(trained.detector)
    if wanted.global_context and not stored.global_context:
        raise InputError(
            f"{recipe.name} has global context and {weights} was trained without; start it from "
            + ("one of coco-resnet101-context" if starts_from_coco(recipe.name) else "a classifier")
        )
    backbone = stored.backbone.model_copy(update={"weights": _lasting(weights)})
    stored = stored.model_copy(update={"backbone": backbone})
    return cast(R, going_on(recipe, stored, (trained.shorter_side, trained.longer_side)))


def going_on(recipe: DetectionRecipe, stored: Detector, sides: tuple[int, int]) -> DetectionRecipe:
    """Return a recipe that goes on from another detector, with what that one's layers are made for.

    Args:
        stored: the other detector; its backbone's weights are itself.
        sides: shorter and longer side of its images.
    """
    wanted = recipe.detector
    kept = stored.model_copy(
        update={
            **{key: getattr(wanted, key) for key in OF_THE_RECIPE},
            "masks": wanted.masks or (stored.masks and recipe.may_have_masks),
        }
    )
    # Anchors are of objects as large as they are at these sides.
    data = recipe.data.model_copy(update={"shorter_side": sides[0], "longer_side": sides[1]})
    return recipe.model_copy(update={"detector": kept, "data": data})


@dataclass(frozen=True)
class Start:
    """A classifier to be trained, on the CPU.

    Attributes:
        options: ``build_model(name, classes=K, **options)`` builds it.
        preprocessing: that of the weights, None for a fresh network.
        note: what was kept of the weights, None for a fresh network.
    """

    model: Classifier
    options: dict[str, Any]
    preprocessing: Preprocessing | None
    note: str | None


def start_classifier(
    recipe: Recipe, classes: tuple[str, ...], channels: int, known: Preprocessing | None = None
) -> Start:
    """Return the network that a recipe starts from; its classifier starts anew where the classes differ.

    Args:
        known: the preprocessing of the weights, of a run whose checkpoint has all that it took from them.

    Raises:
        InputError: for a network that does not exist, and weights that are damaged or of another network.
    """
    torch.manual_seed(mix(recipe.seed, Stream.WEIGHTS))
    options = recipe.model.options() | {"in_channels": channels}
    model = build_model(recipe.model.name, classes=len(classes), **options)
    if recipe.model.weights is None:
        if recipe.model.freeze:
            raise InputError(
                f"{recipe.name}: model.freeze keeps what weights have learned; name some with --weights"
            )
        return Start(model, options, None, None)
    if known:
        freeze_stages(model, recipe.model.freeze)
        return Start(model, options, known, None)
    stored = trained_network(recipe.model, channels)
    freeze_stages(model, recipe.model.freeze)
    if stored.classes == classes:
        model.load_state_dict(stored.model.state_dict())
        return Start(model, options, stored.preprocessing, f"all of {recipe.model.weights}")
    anew = _of_classifier(model, recipe.model.name, options)
    own = {name: tensor.shape for name, tensor in model.state_dict().items() if name not in anew}
    kept = {name: tensor for name, tensor in stored.model.state_dict().items() if name not in anew}
    if not anew or {name: tensor.shape for name, tensor in kept.items()} != own:
        raise InputError(f"{recipe.model.weights} does not fit {recipe.model.name} as the recipe has it")
    model.load_state_dict(kept, strict=False)
    number = plural(len(classes), "class", "classes")
    note = f"all of {recipe.model.weights} but its classifier, new for {number}"
    return Start(model, options, stored.preprocessing, note)


def _of_classifier(model: Classifier, name: str, options: dict[str, Any]) -> set[str]:
    """Return the names of a network's tensors that give the scores, and start anew for other classes.

    Args:
        name, options: it was built by.
    """
    own = model.state_dict()
    if not isinstance(model, OwnNetwork):
        last = last_layer(model)
        return {tensor for tensor in own if tensor.startswith(f"{last}.")}
    # Which they are of a user's own, one with another number of classes shows.
    other = build_model(name, classes=model.classes + 1, **options).state_dict()
    return {
        tensor for tensor, value in own.items() if tensor not in other or other[tensor].shape != value.shape
    }


def teacher_of(
    recipe: Recipe, classes: tuple[str, ...], channels: int, begun: bool = False
) -> Classifier | None:
    """Return the trained network that gives hints, None where the recipe names none.

    Args:
        begun: whether the run goes on at a checkpoint, which has every number of the teacher: none is read.

    Raises:
        InputError: when there is none, it is damaged, or was trained on other classes or images.
    """
    named = recipe.model.teacher
    if named is None:
        return None
    if begun:
        return build_model("cifar_maxout", classes=len(classes), in_channels=channels)
    try:
        stored = load_weights(Path(named))
    except InputError as error:
        raise InputError(
            f"model.teacher: {error}; a teacher is trained by residual train cifar10-maxout --out {named}"
        ) from None
    # It is shown what the network is shown.
    theirs = (stored.config.get("recipe") or {}).get("data") or {}
    for key in ("dataset", "mean", "std"):
        if theirs.get(key) != getattr(recipe.data, key):
            raise InputError(
                f"model.teacher: {named} was trained with data.{key} {theirs.get(key)}, and the recipe has "
                f"{getattr(recipe.data, key)}; train it on the same images"
            )
    if stored.classes != classes:
        raise InputError(f"model.teacher: {named} tells other classes apart; train it on the same images")
    return stored.model


def trained_network(wanted: Model, channels: int) -> Weights:
    """Return the trained classifier that a recipe's network starts from.

    Raises:
        InputError: when there is none, it is damaged, or of another network than the recipe says.
    """
    assert wanted.weights is not None
    stored = load_weights(Path(wanted.weights))
    network = stored.config["model"]
    check_network(wanted, network["name"], network["options"])
    if stored.model.in_channels != channels:
        raise InputError(
            f"{wanted.weights} takes images of {stored.model.in_channels} channels, and these have {channels}"
        )
    return stored


def check_network(wanted: Model, name: str, options: dict[str, Any]) -> None:
    """Raise an InputError where weights are of another network than the recipe says.

    Args:
        name, options: ``build_model(name, **options)`` built it.
    """
    if name != wanted.name:
        raise InputError(
            f"{wanted.weights} is a {name} and the recipe is for a {wanted.name}; leave the network to "
            "--weights"
        )
    for option in ("shortcut", "variant", "pool"):
        theirs, ours = (_option(name, each, option) for each in (options, wanted.options()))
        if theirs != ours:
            raise InputError(
                f"{wanted.weights} has {option} {theirs} and the recipe {ours}; leave {option} to --weights"
            )


def _network(weights: Path) -> Model:
    """Return the network of a weights folder as a recipe has it."""
    network = load_weights(weights).config["model"]
    options = network["options"]
    return Model(
        name=network["name"],
        weights=_lasting(weights),
        shortcut=options.get("shortcut"),
        variant=options.get("variant"),
        pool=options.get("pool"),
    )


def _lasting(weights: Path) -> str:
    """Return weights as a run folder is to name them: it may be resumed from another folder."""
    return weights.as_posix() if is_name(weights) else str(weights.resolve())


def _option(name: str, options: dict[str, Any], option: str) -> Any:
    """Return an option of a network, its default where it is not given, None where the network has none."""
    constructor, fixed = resolve(name)
    defaults = {k: v.default for k, v in inspect.signature(constructor).parameters.items()}
    return (defaults | fixed | options).get(option)
