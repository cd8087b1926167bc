"""Localizers on disk: a folder that says what the localizer is made of and how images are prepared for it.

model.safetensors   the localizer's tensors, fixed BN as affine maps, the preprocessing's mean included
config.json         network, anchors, classes, and the recipe and results that they come from

Nothing is ever overwritten, and a folder is written whole or not at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError

from ..class_names import ClassName
from ..detection.backbones import make_backbone
from ..errors import InputError
from ..files import as_json, damaged, first_line, written_whole
from ..models import build_model
from ..models.classifier import Classifier
from ..models.frozen import freeze_batch_norm
from ..models.layout import CONFIG_FILE, MODEL_FILE
from ..models.names import is_name
from ..models.preprocessing import Preprocessing
from ..models.statedict import load_state, read_state, with_memory, write_state
from ..models.weights import ANEW, LOCALIZER_FORMAT, Checked, has_format, read_config
from ..recipes.localization import Localizer, SecondStage
from .model import PerClassRegression
from .rcnn import RCNN, AnyLocalizer

#: Earlier versions know localizers of one stage; those of two say that they are of the second version.
VERSION, ONE_STAGE = 2, 1


class LocalizerWeightsConfig(Checked):
    """The content of config.json."""

    format: str = LOCALIZER_FORMAT
    version: int = VERSION
    #: The network's options in ``build_model``; its name is in ``localizer``.
    options: dict[str, Any]
    localizer: dict[str, Any]
    classes: list[ClassName]
    #: Side of the crops that it was trained on, and of the squares that regions are warped to.
    size: int = Field(ge=1, le=8192)
    #: The second stage, where there is one.
    rcnn: dict[str, Any] | None = None
    #: Mean width and height of the training boxes in parts of their image's: what a trivial predictor knows.
    mean_box: list[float] = Field(min_length=2, max_length=2)
    recipe: dict[str, Any] | None = None
    results: dict[str, Any] | None = None


@dataclass(frozen=True)
class StoredLocalizer:
    """What a localizer's folder holds.

    Attributes:
        model: on the CPU, in evaluation mode.
        config: what it is.
    """

    model: AnyLocalizer
    config: LocalizerWeightsConfig


def build_localizer(
    config: Localizer, network: Classifier, classes: int, preprocessing: Preprocessing
) -> PerClassRegression:
    """Return a localizer as a recipe has it, its head freshly initialised; the network's BN becomes fixed.

    Raises:
        InputError: for a network that cannot be a localizer's.
    """
    backbone = make_backbone(network)
    freeze_batch_norm(backbone)
    return PerClassRegression(
        backbone,
        classes,
        preprocessing,
        anchor_sizes=config.anchor_sizes,
        aspect_ratios=config.aspect_ratios,
        samples=config.samples,
    )


def build_rcnn(
    stage: SecondStage,
    localizer: PerClassRegression,
    network: Classifier,
    preprocessing: Preprocessing,
    side: int,
) -> RCNN:
    """Return a localizer of two stages, its last layers freshly initialised; the network's BN becomes fixed.

    Args:
        localizer: the first stage.
        side: of the squares that regions are warped to.
    """
    freeze_batch_norm(network)
    return RCNN(localizer, network, preprocessing, side=side, proposals=stage.proposals)


def save_localizer(
    folder: Path,
    model: AnyLocalizer,
    *,
    localizer: Localizer,
    rcnn: SecondStage | None = None,
    options: dict[str, Any],
    classes: Sequence[str],
    size: int,
    mean_box: tuple[float, float],
    recipe: dict[str, Any] | None = None,
    results: dict[str, Any] | None = None,
) -> None:
    """Write a localizer's folder, and its parents where they are missing.

    Args:
        folder: where nothing is yet.
        localizer: what it was built by, the network's name included.
        rcnn: what its second stage was built by, if it has one.
        options: of the network in ``build_model``.

    Raises:
        InputError: when ``folder`` exists or cannot be written.
    """
    config = LocalizerWeightsConfig(
        version=ONE_STAGE if rcnn is None else VERSION,
        options=options,
        localizer=localizer.model_dump(mode="json"),
        rcnn=None if rcnn is None else rcnn.model_dump(mode="json"),
        classes=list(classes),
        size=size,
        mean_box=list(mean_box),
        recipe=recipe,
        results=results,
    )
    with written_whole(folder) as temporary:
        temporary.mkdir()
        write_state(model, temporary / MODEL_FILE)
        (temporary / CONFIG_FILE).write_text(as_json(config.model_dump()), encoding="utf-8")


def outline_localizer(
    localizer: Localizer, rcnn: SecondStage | None, options: dict[str, Any], classes: int, size: int
) -> AnyLocalizer:
    """Return a localizer of one stage or two with weights of no meaning, for others to be loaded.

    Args:
        rcnn: the second stage, if there is one.
        options: of the networks in ``build_model``.
        size: as of ``LocalizerWeightsConfig``.

    Raises:
        InputError: as ``build_localizer``.
    """
    name, preprocessing = localizer.backbone.name, Preprocessing(torch.zeros(3))
    first = build_localizer(localizer, build_model(name, **options), classes, preprocessing)
    if rcnn is None:
        return first
    return build_rcnn(rcnn, first, build_model(name, **options), Preprocessing(torch.zeros(3)), size)


def is_localizer(folder: Path) -> bool:
    """Whether a folder (or the weights folder in it) holds a localizer; False where it holds nothing."""
    return (is_name(folder) or folder.is_dir()) and has_format(folder, LOCALIZER_FORMAT)


def read_localizer(folder: Path) -> StoredLocalizer:
    """Read a localizer's folder, or the one in a run folder.

    Raises:
        InputError: when there is none, it holds something else, a file is damaged or newer, or the files do
            not fit each other.
    """
    where, config, _ = read_config(folder, LocalizerWeightsConfig)
    try:
        localizer = Localizer.model_validate(config.localizer)
        rcnn = None if config.rcnn is None else SecondStage.model_validate(config.rcnn)
        with torch.device("meta"):
            model = outline_localizer(localizer, rcnn, config.options, len(config.classes), config.size)
    except (ValidationError, InputError) as error:
        raise damaged(where / CONFIG_FILE, first_line(error), ANEW) from None
    with_memory(model)
    load_state(model, read_state(where / MODEL_FILE), str(where / MODEL_FILE))
    return StoredLocalizer(model.eval(), config)
