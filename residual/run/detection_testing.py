"""From a detector's folder to precisions, submissions and detections."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from ..data.boxes import BoxDataset
from ..data.images import Picture, as_pixels
from ..detection.backbones import folded
from ..detection.evaluation import find_all
from ..detection.faster_rcnn import FasterRCNN
from ..detection.precision import (
    ClassPrecision,
    Detections,
    check_pycocotools,
    coco_precision,
    mean_precision,
    voc_precision,
)
from ..detection.testing import Options, detect
from ..detection.weights import Config, read_detector
from ..errors import InputError
from ..gpu import set_arithmetic
from ..memory import keep_freed_memory
from ..recipes.detection import Boxes
from .boxes import load_boxes
from .checks import remembered_data_dir
from .devices import pick_device


@dataclass(frozen=True)
class Improvements:
    """The appendix's switches at test time; global context and ensembles are matters of the weights."""

    refine: bool = False
    scales: tuple[int, ...] = ()


@dataclass(frozen=True)
class Precisions:
    """How well a part of a data set was found.

    Attributes:
        dataset: the part.
        detections: of each of its pictures.
        classes: VOC's precision of each class, by ``rule``.
        coco: COCO's precisions, in [0, 1] (detection/precision.py); None where they were not asked for.
        unusable: what is wrong with the pictures that could not be looked at, by their ids.
        images_per_second: decoding included.
    """

    dataset: BoxDataset
    detections: list[Detections]
    rule: str
    classes: list[ClassPrecision]
    coco: dict[str, Any] | None
    unusable: dict[str, str]
    images_per_second: float

    @property
    def mean(self) -> float:
        """The mean over the classes that have objects, in [0, 1]; nan where none has."""
        return mean_precision(self.classes)


class LoadedDetector:
    """One or several detectors of the same classes, ready to be used.

    Args:
        members: in evaluation mode.
        config: of the first.
        improvements: the appendix's switches.
    """

    def __init__(
        self, members: Sequence[FasterRCNN], config: Config, improvements: Improvements, precision: str
    ) -> None:
        self.members = members
        self.config = config
        self.improvements = improvements
        self.precision = precision

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of the labels."""
        return tuple(self.config.classes)

    def options(self, score: float = Options.score) -> Options:
        return Options(
            self.config.shorter_side,
            self.config.longer_side,
            score,
            refine=self.improvements.refine,
            scales=self.improvements.scales,
            precision=self.precision,
        )

    def predict(self, image: Picture, score: float = Options.score) -> Detections:
        """Return what is on a picture: boxes (D, 4) in its pixels, scores (D,), labels (D,), best first.

        Args:
            image: a path, a PIL image, an array uint8 (H, W), (H, W, 1) or (H, W, 3), a tensor uint8 (1 or
                3, H, W).
            score: least score of a detection, in [0, 1].

        Raises:
            InputError: when it cannot be read, is no picture, or is too long.
        """
        return detect(self.members, [as_pixels(image)], self.options(score))[0].cpu()


def load_detector(
    folder: Path | str,
    *others: Path | str,
    device: str = "auto",
    refine: bool = False,
    scales: Sequence[int] = (),
    precision: str = "float32",
) -> LoadedDetector:
    """Return a detector that is ready to be used.

    Args:
        folder: a detector's folder or a run folder.
        others: more of them, for an ensemble.
        device: "auto", "cpu", "cuda" or "cuda:N".
        refine: box refinement and voting.
        scales: shorter sides for multi-scale testing.
        precision: "bfloat16" autocasts.

    Raises:
        InputError: when a folder holds no detector, or an ensemble's members differ in their classes.
    """
    where = pick_device(device)
    keep_freed_memory()
    set_arithmetic(where, precision, deterministic=False, one_size=False)
    stored = [read_detector(Path(path)) for path in (folder, *others)]
    for path, other in zip(others, stored[1:], strict=True):
        if other.classes != stored[0].classes:
            raise InputError(f"{path} has other classes than {folder}; an ensemble's detectors have the same")
    members = [
        cast(FasterRCNN, folded(one.model)).to(where).to(memory_format=torch.channels_last) for one in stored
    ]
    return LoadedDetector(members, stored[0].config, Improvements(refine, tuple(scales)), precision)


def evaluate_detector(
    detector: LoadedDetector,
    path: Path,
    data_dir: Path | None = None,
    *,
    splits: Sequence[str] = (),
    layout: str | None = None,
    rule: str | None = None,
    coco: bool = True,
    boxes: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Precisions:
    """Test a detector on annotated pictures.

    Args:
        path: the folder that it is from, which may know where the data lay.
        splits, layout, rule: None or empty for those of the recipe that it was trained by.
        coco: whether to compute COCO's precisions as well.
        boxes: whether the pictures have annotations; without, there are detections only.
        progress: called with the number of pictures and the number done.

    Raises:
        InputError: when the data are missing, or of other classes.
    """
    if coco and boxes:
        check_pycocotools()
    recipe = (detector.config.recipe or {}).get("data") or {}
    layout = layout or recipe.get("layout") or "voc"
    splits = tuple(splits) or tuple(recipe.get("test") or ())
    if not splits:
        raise InputError(f"{path} does not say what to test it on; name a split with --split")
    data_dir = data_dir or remembered_data_dir(path)
    if data_dir is None:
        raise InputError("name the folder of the annotated pictures with --data-dir")
    data = Boxes(
        layout=layout,  # type: ignore[arg-type]
        train=splits,
        precision=rule or recipe.get("precision") or "area",  # type: ignore[arg-type]
        shorter_side=detector.config.shorter_side,
        longer_side=detector.config.longer_side,
    )
    dataset = load_boxes(data_dir, data, splits, detector.classes, boxes=boxes)
    found = find_all(
        detector.members,
        dataset,
        detector.options(),
        progress=(lambda done: progress(len(dataset), done)) if progress else None,
    )
    return Precisions(
        dataset,
        found.detections,
        data.precision,
        voc_precision(dataset, found.detections, data.precision),
        coco_precision(dataset, found.detections) if coco and boxes else None,
        found.unusable,
        found.images_per_second,
    )
