"""A trained detector ready to be used: images in, boxes, scores and classes out; and tested."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import distributed
from ..class_names import class_name
from ..data.boxes import ALL, BoxDataset, path_from
from ..data.images import ImageLike, as_pixels
from ..data.masks import check_pycocotools, has_pycocotools
from ..detection.average_precision import ClassAP, Detections, coco_ap, mean_ap, voc_ap
from ..detection.boxes import load_boxes
from ..detection.faster_rcnn import FasterRCNN
from ..detection.inference import DetectionOptions, detect
from ..detection.submission import check_numbers
from ..detection.testing import detect_dataset
from ..detection.weights import DetectorWeightsConfig, read_detector
from ..device import open_device
from ..errors import InputError, nearest, needs, whole_numbers
from ..models.inference import check_precision, fold_batchnorm
from ..recipes.detection import APRule, Boxes
from ..training.folder import find_data_dir, is_data_of, run_of
from .evaluation import data_of

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
        self.configs = configs
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
            max_detections=max(each.detector.get("max_detections", usual) for each in self.configs),
            refine=self.improvements.refine,
            scales=self.improvements.scales,
            precision=self.precision,
            sides=tuple((each.shorter_side, each.longer_side) for each in self.configs),
        )

    @property
    def least_sides(self) -> tuple[int, int]:
        """The shorter and the longer side of the member for which an image is too long first."""
        least = min(self.configs, key=lambda each: each.longer_side)
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


@dataclass(frozen=True)
class DetectorEvaluation:
    """How well the objects of a dataset were found.

    Attributes:
        dataset: the splits that were tested.
        detections: of each of its images.
        ap_rule: "11 points" or "area", VOC's, or "imagenet".
        classes: the average precision of each class by that rule.
        coco: COCO's, in [0, 1] (detection/average_precision.py); None where they were not asked for.
        coco_masks: the same of masks; None also where the detector gives none, or no object has one.
        unusable: what is wrong with the images that could not be looked at, by their ids.
        images_per_second: decoding included.
    """

    dataset: BoxDataset
    detections: list[Detections]
    ap_rule: APRule
    classes: list[ClassAP]
    coco: dict[str, Any] | None
    coco_masks: dict[str, Any] | None
    unusable: dict[str, str]
    images_per_second: float

    @property
    def mean_ap(self) -> float:
        """The mean over the classes that have objects, in [0, 1]; nan where none has."""
        return mean_ap(self.classes)


def tested_on(
    detector: LoadedDetector, layout: str | None, splits: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """Return the layout and the splits that a detector is tested on: the recipe's where none are named.

    Of a recipe that holds images out of those to train on: the splits that they are of.
    """
    recipe = data_of(detector.config.recipe)
    own = recipe.get("train" if recipe.get("validation") else "test")
    return layout or recipe.get("layout") or "voc", tuple(splits) or tuple(own or ())


def _held_out(path: Path, others: Sequence[Path], dataset: BoxDataset, data_dir: Path) -> BoxDataset:
    """Return the images that a run has held out of those to train on.

    Args:
        others: of an ensemble, which have to have held out the same.

    Raises:
        InputError: where nothing says which they are, one is gone, or another member may have learned them.
    """
    run = run_of(path)
    names = run.held_out() if run else None
    if run is None or names is None:
        raise InputError(
            f"{path} was trained on images of which a share was held out, and only its run folder says which "
            "(split.csv); name a split to test on with --split"
        )
    for other in others:
        its = run_of(other)
        if its is None or set(its.held_out() or ()) != set(names):
            raise InputError(
                f"{other} has not held out the images that {path} has, and may have learned them; name a "
                "split to test both on with --split"
            )
    there = {path_from(data_dir, annotated): place for place, annotated in enumerate(dataset.images)}
    if gone := next((name for name in names if name not in there), None):
        raise InputError(
            f"{run.split_file} says that {gone} was held out, which is not (or not annotated) in {data_dir}; "
            "name the run's own folder with --data-dir, or a split with --split"
        )
    return dataset.subset([there[name] for name in names], "validation")


def _learned_by(path: Path, trained: dict[str, Any], dataset: BoxDataset, data_dir: Path) -> str:
    """Return which of some images a run is known to have learned from, "" for none.

    Args:
        trained: what its recipe says of its data.
    """
    run = run_of(path)
    if run is None or not is_data_of(path, data_dir):
        return ""
    if names := run.learned():
        known = set(names)
        learned = sum(path_from(data_dir, annotated) in known for annotated in dataset.images)
        return f"{learned:,} of these {len(dataset):,}" if learned else ""
    if trained.get("layout") != dataset.layout:
        return ""
    # By name: to read all that was learned from would take COCO's annotations half a minute.
    theirs, tested = _halves(trained.get("train") or ()), _halves(dataset.splits)
    return "these" if tested <= theirs else "some of these" if tested & theirs else ""


def _halves(splits: Sequence[str]) -> set[str]:
    """Return splits, train and val in place of what is both."""
    return {
        split.removesuffix(ALL) + half
        for split in splits
        for half in (("train", "val") if split.endswith(ALL) else ("",))
    }


def evaluate_detector(
    detector: LoadedDetector,
    path: Path,
    data_dir: Path | None = None,
    *,
    others: Sequence[Path] = (),
    splits: Sequence[str] = (),
    layout: str | None = None,
    ap_rule: str | None = None,
    coco: bool | None = None,
    boxes: bool = True,
    classes: Sequence[str] = (),
    use_difficult: bool | None = None,
    for_server: bool = False,
    tell: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DetectorEvaluation:
    """Test a detector on annotated images.

    Started by torchrun, each rank looks at every size-th image, and all get the same outcome.

    Args:
        path: the folder that it is from, which may know where the data lay.
        others: those of an ensemble's other members.
        splits, layout, ap_rule: None or empty for those of the recipe that it was trained by; of a recipe
            that holds images out of those to train on, these.
        coco: whether to compute COCO's average precision as well; None for where pycocotools is installed.
        boxes: whether the images have annotations; without, there are detections only.
        classes: of the detector's that are tested; empty for all. Objects of other classes are left out.
        use_difficult: whether difficult objects are asked for; None for what the recipe says.
        for_server: whether a server is to be given what is found, which tells images apart by their ids.
        tell: is given a sentence about what else should be known of the precision.
        progress: called with the number of images and the number done, over all ranks.

    Raises:
        InputError: when the data are missing, or of other classes; for a server, of two images with one id.
    """
    world = distributed.join(next(detector.members[0].parameters()).device)
    if coco and boxes:
        check_pycocotools("COCO AP")
    if coco is None:
        coco = has_pycocotools()
        if boxes and not coco and tell and world.is_main:
            missing = needs("COCO AP", "pycocotools", "detection")
            tell(f"{missing}; without it the other one is measured alone")
    recipe = data_of(detector.config.recipe)
    held_out = bool(recipe.get("validation")) and not splits
    layout, splits = tested_on(detector, layout, splits)
    if not splits:
        raise InputError(f"{path} does not say what to test it on; name a split with --split")
    data_dir = find_data_dir(path, data_dir, "the folder of the annotated images")
    shorter, longer = detector.least_sides
    data = Boxes(
        layout=layout,  # type: ignore[arg-type]
        train=splits,
        ap_rule=ap_rule or recipe.get("ap_rule") or "area",  # type: ignore[arg-type]
        shorter_side=shorter,
        longer_side=longer,
        use_difficult=recipe.get("use_difficult", False) if use_difficult is None else use_difficult,
    )
    asked = tuple(dict.fromkeys(map(class_name, classes))) or detector.classes
    if unknown := [name for name in asked if name not in detector.classes]:
        raise InputError(
            f"{path} does not know the class {unknown[0]!r}{nearest(unknown[0], detector.classes)}"
        )
    # VOC's lists of images with masks are others: what is tested on hangs on the detector alone, and what is
    # sent to a server is of all images.
    masks = boxes and detector.gives_masks and data.layout != "imagenet-det"
    dataset = load_boxes(data_dir, data, splits, asked, boxes=boxes, masks=masks)
    if held_out:
        dataset = _held_out(path, others, dataset, data_dir)
    if boxes and tell and world.is_main:
        for member, config in zip((path, *others), detector.configs, strict=False):
            if many := _learned_by(member, data_of(config.recipe), dataset, data_dir):
                tell(f"{member} has learned from {many} images, so the precision says little of other images")
    if for_server:
        check_numbers(dataset)

    def show(done: int) -> None:
        if progress:
            progress(len(dataset), world.about_done(done, len(dataset)))

    found = detect_dataset(detector.members, dataset, detector.options(), world, progress=show)
    detections = [
        each.of_classes([detector.classes.index(name) for name in asked]) for each in found.detections
    ]
    return DetectorEvaluation(
        dataset,
        detections,
        data.ap_rule,
        voc_ap(dataset, detections, data.ap_rule),
        coco_ap(dataset, detections) if coco and boxes else None,
        coco_ap(dataset, detections, masks=True) if coco and dataset.has_masks else None,
        found.unusable,
        found.images_per_second,
    )
