"""Detectors on disk: a folder that says what the detector is made of and how pictures are prepared for it.

model.safetensors   the detector's tensors, fixed BN as affine maps, the preprocessing's mean included
config.json         backbone, numbers, classes, and the recipe and results that they come from

Nothing is ever overwritten, and a folder is written whole or not at all.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ..errors import InputError
from ..models.preprocessing import Preprocessing
from ..models.statedict import first_line, load_state, read_state, write_state, written_whole
from ..models.weights import CONFIG_FILE, DETECTOR_FORMAT, FORMAT, MODEL_FILE, Checked
from ..recipes.detection import Detector
from .backbones import Backbone, VGGBackbone, outline
from .faster_rcnn import FasterRCNN

VERSION = 1


class Config(Checked):
    """The content of config.json."""

    format: str = DETECTOR_FORMAT
    version: int = VERSION
    #: The network's options in ``build_model``; its name is in ``detector``.
    options: dict[str, Any]
    detector: dict[str, Any]
    classes: list[str]
    #: The classes' numbers in the annotations' own counting, for submissions.
    categories: list[int]
    shorter_side: int
    longer_side: int
    recipe: dict[str, Any] | None = None
    results: dict[str, Any] | None = None


@dataclass(frozen=True)
class StoredDetector:
    """What a detector's folder holds.

    Attributes:
        model: on the CPU, in evaluation mode.
        config: what it is.
    """

    model: FasterRCNN
    config: Config

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.config.classes)


def build_detector(
    numbers: Detector, backbone: Backbone, classes: int, preprocessing: Preprocessing
) -> FasterRCNN:
    """Return a detector as a recipe has it, its own layers freshly initialised.

    Raises:
        InputError: for a side that the backbone cannot have.
    """
    if isinstance(backbone, VGGBackbone) and numbers.side not in (None, backbone.side):
        raise InputError(f"detector.side {numbers.side}: VGG's fc6 takes {backbone.side}; set it to null")
    return FasterRCNN(
        backbone,
        classes,
        preprocessing,
        anchor_sides=numbers.anchor_sides,
        anchor_ratios=numbers.anchor_ratios,
        pooling=numbers.pooling,
        side=numbers.side,
        global_context=numbers.global_context,
        proposals=(numbers.train_proposals, numbers.proposals),
        regions=numbers.regions,
        smallest=numbers.smallest,
        whole_anchors=numbers.whole_anchors,
        freeze=numbers.freeze,
    )


def save_detector(
    folder: Path,
    model: FasterRCNN,
    *,
    numbers: Detector,
    options: dict[str, Any],
    classes: Sequence[str],
    categories: Sequence[int],
    sides: tuple[int, int],
    recipe: dict[str, Any] | None = None,
    results: dict[str, Any] | None = None,
) -> None:
    """Write a detector's folder, and its parents where they are missing.

    Args:
        folder: where nothing is yet.
        numbers: what it was built by, the backbone's name included.
        options: of the backbone in ``build_model``.
        sides: shorter and longer side of its pictures.

    Raises:
        InputError: when ``folder`` exists or cannot be written.
    """
    config = Config(
        options=options,
        detector=numbers.model_dump(mode="json"),
        classes=list(classes),
        categories=list(categories),
        shorter_side=sides[0],
        longer_side=sides[1],
        recipe=recipe,
        results=results,
    )
    text = json.dumps(config.model_dump(), indent=2, ensure_ascii=False) + "\n"
    with written_whole(folder) as temporary:
        temporary.mkdir()
        write_state(model, temporary / MODEL_FILE)
        (temporary / CONFIG_FILE).write_text(text, encoding="utf-8")


def is_detector(folder: Path) -> bool:
    """Whether a folder (or the weights folder in it) holds a detector; False where it holds nothing."""
    try:
        content = json.loads((_weights_in(folder) / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == DETECTOR_FORMAT


def read_detector(folder: Path) -> StoredDetector:
    """Read a detector's folder, or the one in a run folder.

    Raises:
        InputError: when there is none, it holds a classifier, a file is damaged or newer, or the files do not
            fit each other.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    folder = _weights_in(folder)
    file = folder / CONFIG_FILE
    config = _config(folder, file)
    try:
        numbers = Detector.model_validate(config.detector)
        backbone = outline(numbers.backbone.name, config.options)
    except (ValidationError, InputError) as error:
        raise _damaged(file, first_line(error)) from None
    with torch.device("meta"):
        model = build_detector(numbers, backbone, len(config.classes), Preprocessing(torch.zeros(3)))
    model.to_empty(device="cpu")
    load_state(model, read_state(folder / MODEL_FILE), str(folder / MODEL_FILE))
    return StoredDetector(model.eval(), config)


def take_over(detector: FasterRCNN, stored: dict[str, Tensor], same_classes: bool) -> None:
    """Copy a detector's tensors into another that continues it.

    Args:
        same_classes: whether its last two layers are of the same classes; else they start anew.

    Raises:
        InputError: when they are not alike otherwise.
    """
    kept = {
        name: tensor
        for name, tensor in stored.items()
        if same_classes or name.split(".")[0] not in ("score", "box")
    }
    own = detector.state_dict()
    load_state(detector, {**own, **kept} if not same_classes else kept, "the detector to start from")


def _weights_in(folder: Path) -> Path:
    inner = folder / "weights"
    return inner if not (folder / CONFIG_FILE).exists() and inner.is_dir() else folder


def _config(folder: Path, file: Path) -> Config:
    if not file.is_file():
        if (folder / "recipe.yaml").is_file():
            raise InputError(
                f"{folder} holds a run that is not complete, so it has no weights yet; finish it with: "
                f"residual detect train --resume --out {folder}"
            )
        raise InputError(f"{folder} holds no detector (it has no {CONFIG_FILE})")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(file, first_line(error)) from None
    form = content.get("format") if isinstance(content, dict) else None
    if form == FORMAT:
        raise InputError(
            f"{folder} holds a classifier, and a detector is expected; train a detector from it with: "
            f"residual detect train RECIPE --weights {folder}"
        )
    if form != DETECTOR_FORMAT:
        raise InputError(f"{file} is not of {DETECTOR_FORMAT}; residual detect train writes detectors")
    if isinstance(content.get("version"), int) and content["version"] > VERSION:
        raise InputError(
            f"{file} has version {content['version']} and this residual reads up to {VERSION}; update it"
        )
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise _damaged(file, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _damaged(file: Path, reason: str) -> InputError:
    return InputError(f"{file} is damaged ({reason}); get the folder anew")
