"""Detectors on disk: a folder that says what the detector is made of and how images are prepared for it.

model.safetensors   the detector's tensors, fixed BN as affine maps, the preprocessing's mean included
config.json         backbone, numbers, classes, and the recipe and results that they come from

Nothing is ever overwritten, and a folder is written whole or not at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor

from ..class_names import ClassName
from ..errors import InputError
from ..files import as_json, damaged, first_line, written_whole
from ..models.layout import CONFIG_FILE, MODEL_FILE
from ..models.names import is_name
from ..models.preprocessing import Preprocessing
from ..models.statedict import load_state, read_state, with_memory, write_state
from ..models.weights import ANEW, DETECTOR_FORMAT, Checked, has_format, read_config
from ..recipes.detection import Detector
from .backbones import Backbone, VGGBackbone, outline_backbone
from .faster_rcnn import FasterRCNN

VERSION = 1


class DetectorWeightsConfig(Checked):
    """The content of config.json."""

    format: str = DETECTOR_FORMAT
    version: int = VERSION
    #: The network's options in ``build_model``; its name is in ``detector``.
    options: dict[str, Any]
    detector: dict[str, Any]
    classes: list[ClassName]
    #: The classes' numbers in the annotations' own counting, for submissions.
    categories: list[int | str | None]
    shorter_side: int = Field(ge=16, le=8192)
    longer_side: int = Field(ge=16, le=8192)
    recipe: dict[str, Any] | None = None
    results: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _sides(self) -> "DetectorWeightsConfig":
        if self.longer_side < self.shorter_side:
            raise ValueError(f"longer_side {self.longer_side} is less than shorter_side {self.shorter_side}")
        return self


@dataclass(frozen=True)
class StoredDetector:
    """What a detector's folder holds.

    Attributes:
        model: on the CPU, in evaluation mode.
        config: what it is.
    """

    model: FasterRCNN
    config: DetectorWeightsConfig

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.config.classes)


def build_detector(
    config: Detector, backbone: Backbone, classes: int, preprocessing: Preprocessing
) -> FasterRCNN:
    """Return a detector as a recipe has it, its own layers freshly initialised.

    Raises:
        InputError: for a side that the backbone cannot have.
    """
    if isinstance(backbone, VGGBackbone) and config.roi_size not in (None, backbone.roi_size):
        raise InputError(
            f"detector.roi_size {config.roi_size}: VGG's fc6 takes {backbone.roi_size}; set it to null"
        )
    return FasterRCNN(
        backbone,
        classes,
        preprocessing,
        anchor_sizes=config.anchor_sizes,
        aspect_ratios=config.aspect_ratios,
        pooling=config.pooling,
        roi_size=config.roi_size,
        global_context=config.global_context,
        proposals=(config.train_proposals, config.proposals),
        regions=config.regions,
        min_size=config.min_size,
        ignore_cross_boundary_anchors=config.ignore_cross_boundary_anchors,
        freeze=config.freeze,
        masks=config.masks,
    )


def save_detector(
    folder: Path,
    model: FasterRCNN,
    *,
    detector: Detector,
    options: dict[str, Any],
    classes: Sequence[str],
    categories: Sequence[int | str | None],
    sides: tuple[int, int],
    recipe: dict[str, Any] | None = None,
    results: dict[str, Any] | None = None,
) -> None:
    """Write a detector's folder, and its parents where they are missing.

    Args:
        folder: where nothing is yet.
        detector: what it was built by, the backbone's name included.
        options: of the backbone in ``build_model``.
        sides: shorter and longer side of its images.

    Raises:
        InputError: when ``folder`` exists or cannot be written.
    """
    config = DetectorWeightsConfig(
        options=options,
        detector=detector.model_dump(mode="json"),
        classes=list(classes),
        categories=list(categories),
        shorter_side=sides[0],
        longer_side=sides[1],
        recipe=recipe,
        results=results,
    )
    with written_whole(folder) as temporary:
        temporary.mkdir()
        write_state(model, temporary / MODEL_FILE)
        (temporary / CONFIG_FILE).write_text(as_json(config.model_dump()), encoding="utf-8")


def is_detector(folder: Path) -> bool:
    """Whether a folder (or the weights folder in it) holds a detector; False where it holds nothing."""
    return (is_name(folder) or folder.is_dir()) and has_format(folder, DETECTOR_FORMAT)


def read_detector(folder: Path) -> StoredDetector:
    """Read a detector's folder, the one in a run folder, or one on the Hub by its name.

    Raises:
        InputError: when there is none, it holds a classifier, a file is damaged or newer, or the files do not
            fit each other.
    """
    where, config, _ = read_config(folder, DetectorWeightsConfig)
    try:
        detector = Detector.model_validate(config.detector)
        backbone = outline_backbone(detector.backbone.name, config.options)
    except (ValidationError, InputError) as error:
        raise damaged(where / CONFIG_FILE, first_line(error), ANEW) from None
    with torch.device("meta"):
        model = build_detector(detector, backbone, len(config.classes), Preprocessing(torch.zeros(3)))
    with_memory(model)
    load_state(model, read_state(where / MODEL_FILE), str(where / MODEL_FILE))
    return StoredDetector(model.eval(), config)


def take_over(detector: FasterRCNN, stored: dict[str, Tensor], same_classes: bool) -> None:
    """Copy a detector's tensors into another that continues it.

    A mask head that only one of the two has is left out, or starts anew.

    Args:
        same_classes: whether its last layers are of the same classes; else they start anew.

    Raises:
        InputError: when they are not alike otherwise.
    """
    scores = "rpn_head.cls_logits.weight"
    theirs, ours = (len(state[scores]) if scores in state else 0 for state in (stored, detector.state_dict()))
    if theirs and theirs != ours:
        raise InputError(
            f"the detector to start from has {theirs} anchors at a position, and {ours} are asked for: keep "
            "the number of detector.anchor_sizes times detector.aspect_ratios, or start from a classifier"
        )
    anew = () if same_classes else ("cls_score", "bbox_pred", "mask_head")
    own = {
        name: tensor for name, tensor in detector.state_dict().items() if _layer(name) in (*anew, "mask_head")
    }
    kept = {
        name: tensor
        for name, tensor in stored.items()
        if _layer(name) not in anew and (_layer(name) != "mask_head" or name in own)
    }
    load_state(detector, own | kept, "the detector to start from")


def _layer(name: str) -> str:
    return name.split(".")[0]
