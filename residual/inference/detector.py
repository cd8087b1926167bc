"""A trained detector ready to be used: images in, boxes, scores and classes out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..data.images import ImageLike, as_pixels
from ..data.masks import check_pycocotools
from ..detection.average_precision import Detections
from ..detection.faster_rcnn import FasterRCNN
from ..detection.inference import DetectionOptions, detect
from ..detection.weights import DetectorWeightsConfig, read_detector
from ..device import open_device
from ..errors import InputError, whole_numbers
from ..models.inference import check_precision, fold_batchnorm

#: The least shorter side of multi-scale testing: the stride of the map.
LEAST_SCALE = 16


@dataclass(frozen=True)
class Improvements:
    """The appendix's switches at test time; global context and ensembles are matters of the weights."""

    refine: bool = False
    scales: tuple[int, ...] = ()


class LoadedDetector:
    """One or several detectors of the same classes, ready to be used.

    Args:
        members: in evaluation mode.
        configs: of each.
        improvements: the appendix's switches.
    """

    def __init__(
        self,
        members: Sequence[FasterRCNN],
        configs: Sequence[DetectorWeightsConfig],
        improvements: Improvements,
        precision: str,
    ) -> None:
        self.members = members
        #: The first one's: the classes and the data are those of all.
        self.config = configs[0]
        self._configs = configs
        self.improvements = improvements
        self.precision = precision

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of the labels."""
        return tuple(self.config.classes)

    @property
    def gives_masks(self) -> bool:
        """Whether objects are found with their masks."""
        return self.members[0].mask_head is not None

    def options(self, score_threshold: float = DetectionOptions.score_threshold) -> DetectionOptions:
        """Return how the detector is used: each member at its own sides, for the most detections of any.

        Raises:
            InputError: for a score that is none in [0, 1].
        """
        if not 0 <= score_threshold <= 1:
            raise InputError(f"a score threshold is a number from 0 to 1, not {score_threshold!r}")
        usual = DetectionOptions.max_detections
        return DetectionOptions(
            *self.least_sides,
            score_threshold,
            max_detections=max(each.detector.get("max_detections", usual) for each in self._configs),
            refine=self.improvements.refine,
            scales=self.improvements.scales,
            precision=self.precision,
            sides=tuple((each.shorter_side, each.longer_side) for each in self._configs),
        )

    @property
    def least_sides(self) -> tuple[int, int]:
        """The shorter and the longer side of the member for which an image is too long first."""
        least = min(self._configs, key=lambda each: each.longer_side)
        return least.shorter_side, least.longer_side

    def predict(
        self, image: ImageLike, score_threshold: float = DetectionOptions.score_threshold
    ) -> Detections:
        """Return what is on an image: boxes (D, 4) in its pixels, scores (D,), labels (D,), best first.

        And masks, where the detector gives them.

        Args:
            image: a path, a PIL image, an array uint8 (H, W), (H, W, 1) or (H, W, 3), a tensor uint8 (1 or
                3, H, W).
            score_threshold: least score of a detection, in [0, 1].

        Raises:
            InputError: when it cannot be read, is no image, or is too long, or for a score that is none in
                [0, 1].
        """
        return detect(self.members, [as_pixels(image)], self.options(score_threshold))[0].cpu()


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
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        refine: box refinement and voting.
        scales: shorter sides for multi-scale testing.
        precision: "bfloat16" autocasts.

    Raises:
        InputError: when a folder holds no detector, a scale is no whole number of at least 16 pixels, or an
            ensemble's members differ in their classes or in whether they give masks.
    """
    check_precision(precision)
    sides = whole_numbers("a scale", scales, LEAST_SCALE)
    where = open_device(device)
    stored = [read_detector(Path(path).expanduser()) for path in (folder, *others)]
    for path, other in zip(others, stored[1:], strict=True):
        if other.classes != stored[0].classes:
            raise InputError(f"{path} has other classes than {folder}; an ensemble's detectors have the same")
        if (other.model.mask_head is None) != (stored[0].model.mask_head is None):
            raise InputError(
                f"only one of {folder} and {path} gives masks; all of an ensemble's detectors do, or none"
            )
    if stored[0].model.mask_head is not None:
        check_pycocotools("masks")
    members = [fold_batchnorm(one.model.to(where)).to(memory_format=torch.channels_last) for one in stored]
    configs = [one.config for one in stored]
    return LoadedDetector(members, configs, Improvements(refine, sides), precision)
