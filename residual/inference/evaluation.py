"""Trained networks tested on any dataset by any protocol: classifiers (Section 3.4) and detectors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from .. import distributed
from ..class_names import class_name
from ..data import DATASETS, SPLITS, check_data_dir, load_dataset, split_validation
from ..data.boxes import BoxDataset, path_from
from ..data.dataset import Dataset
from ..data.folder import FolderIndex, index_folder, parts_of
from ..detection.average_precision import (
    ClassAP,
    Detections,
    check_pycocotools,
    coco_ap,
    mean_ap,
    voc_ap,
)
from ..detection.boxes import load_boxes
from ..detection.submission import check_numbers
from ..detection.testing import detect_dataset
from ..device import open_device
from ..errors import InputError, memory_that_ran_out, nearest, whole_numbers
from ..evaluation.classes import how_matched, match_classes, unnamed
from ..evaluation.inputs import check_input, check_view, views_for
from ..evaluation.labelled import ImagesInFiles, ImagesInMemory, LabelledImages
from ..evaluation.metrics import Metrics
from ..evaluation.scores import Scores
from ..evaluation.testing import evaluate as evaluate_network
from ..evaluation.views import Views, ViewsName, whole_images
from ..models.inference import Precision, for_inference
from ..models.weights import Weights, load_weights
from ..recipes.detection import APRule, Boxes
from ..training.folder import find_data_dir, recorded_split, remembered_data_dir, run_of
from .detector import LoadedDetector

Split = Literal["train", "test"]


@dataclass(frozen=True)
class EvaluationOptions:
    """What to test a classifier on, and how.

    Attributes:
        dataset: "folder", or a dataset that fits in memory; None for the one that a network was trained on.
        split: "train" or "test", which is a folder's ``val``.
        data_dir: where the data lie; None for where they lay in a run's last session.
        views: the protocol; None for the centre of a folder's images, or the whole of a small dataset's.
        crop: side of the squares; None for ``size``.
        scales: shorter sides; None for the protocol's own.
        precision: of the network's arithmetic; "bfloat16" is faster and a little less exact.
        size: side of the network's input, for which crop and scales are chosen; None for the side that it was
            trained on.
    """

    dataset: str | None = None
    split: Split = "test"
    data_dir: Path | None = None
    views: ViewsName | None = None
    crop: int | None = None
    scales: Sequence[int] | None = None
    precision: Precision = "float32"
    size: int | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise InputError(
                f"there is no split {self.split!r} to test on{nearest(self.split, SPLITS)} "
                "(of a folder, test is its val)"
            )
        if self.scales is not None:
            object.__setattr__(self, "scales", whole_numbers("a scale", self.scales))
        check_view(self.views, self.size, self.crop, self.scales)


@dataclass(frozen=True)
class ClassifierEvaluation:
    """What a test of a classifier found.

    Attributes:
        data: name of the dataset and its split.
        views: what was looked at, in words.
        classes: how many the network knows.
        metrics: over all ranks.
        matched: how the classes were matched, where they are not the network's in its order.
        skipped: how many damaged images were left out.
        scores: where they were asked for.
    """

    data: str
    views: str
    classes: int
    metrics: Metrics
    matched: str | None
    skipped: int
    scores: Scores | None

    def summary(self) -> dict[str, Any]:
        """Return all but the scores as plain data."""
        found = {"data": self.data, "views": self.views, "matched": self.matched, "skipped": self.skipped}
        return found | self.metrics.plain()


def evaluate(
    path: Path,
    options: EvaluationOptions,
    *,
    device: str = "auto",
    keep_scores: bool = False,
    tell: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ClassifierEvaluation:
    """Test a weights folder (or a run folder's) on images in folders, or on a dataset in memory.

    Started by torchrun, each rank takes every size-th image, and all get the same outcome.

    Args:
        keep_scores: keep the scores of all images, N x K numbers.
        tell: is given a sentence about each damaged image, which is skipped, about unfinished weights, and
            about what else of the data may not be as it was meant.
        progress: called with the number of images and the number done, over all ranks.

    Raises:
        InputError: when the weights or the data are wrong or do not fit, or no image is readable.
    """
    where = open_device(device)
    world = distributed.join(where)
    weights = load_weights(path)
    results = weights.config.get("results") or {}
    if tell and results.get("complete") is False:
        tell(
            f"{path} has the weights of iteration {results['iterations']:,} of {results['of_iterations']:,}: "
            "the run is not complete"
        )
    images, views, shown = _open(path, weights, options, where)
    if tell and world.is_main:
        for note in images.notes:
            tell(note)
    matched = match_classes(images.classes, weights.classes, images.name)
    targets = matched[images.targets.cpu()]
    model = for_inference(weights.model, where, options.precision)

    def show(done: int) -> None:
        if progress:
            progress(len(targets), world.about_done(done, len(targets)))

    try:
        found = evaluate_network(
            model,
            weights.preprocessing.to(where),
            images,
            views,
            world=world,
            targets=targets,
            damaged=(lambda error: tell(str(error))) if tell else None,
            keep_scores=keep_scores,
            progress=show,
        )
    except (RuntimeError, MemoryError) as error:
        if not (memory := memory_that_ran_out(error)):
            raise
        raise InputError(
            f"{path}: {memory} ran out in testing; use smaller scales or --precision bfloat16"
        ) from None
    about = {"weights": str(path), "data": images.name, "views": shown}
    scores = found.scores(images, weights.classes, targets, about)
    return ClassifierEvaluation(
        images.name,
        shown,
        len(weights.classes),
        found.metrics,
        how_matched(images.classes, weights.classes, matched),
        len(targets) - found.metrics.images,
        scores,
    )


def _open(
    path: Path, weights: Weights, options: EvaluationOptions, device: torch.device
) -> tuple[LabelledImages, Views, str]:
    """Return the images, what of them a network is to look at, and how to call that."""
    dataset = dataset_of(path, weights, options.dataset)
    if dataset == "folder":
        data_dir = find_data_dir(path, options.data_dir, "the folder with train/ and val/, or the classes,")
        views = views_for(weights, options.views, options.size, options.crop, options.scales)
        least = views.crop or min(views.sides)
        shape = (weights.model.in_channels, least, least)
        check_input(weights.model, str(path), shape, whole=views.crop is None)
        index = part_of(path, data_dir, options.split)
        unknown = _unknown_split(path, weights, data_dir, index)
        return ImagesInFiles(replace(index, notes=(*index.notes, *unknown))), views, str(views)
    if options.views or options.size or options.crop or options.scales:
        raise InputError(
            f"the images of {dataset} are tested whole, at their own size; views, sizes, crops and scales "
            "are for --dataset folder"
        )
    stored = in_memory(path, weights, dataset, options.split, options.data_dir)
    return ImagesInMemory(stored.to(device)), whole_images(stored.shape), "whole images"


def part_of(path: Path, data_dir: Path, split: Split) -> FolderIndex:
    """Return the images of a folder that a network was trained on, or is tested on.

    Raises:
        InputError: where there are none.
    """
    # What the run held out of a folder itself is what it is tested on.
    recorded = recorded_split(path, data_dir, "validation" if split == "test" else "train")
    return recorded or index_folder(data_dir, "val" if split == "test" else "train")


def _unknown_split(path: Path, weights: Weights, data_dir: Path, index: FolderIndex) -> list[str]:
    """Return what is to be said of images that may have been learned: nobody knows which were held out."""
    data = _data_of(weights.config.get("recipe"))
    run = run_of(path)
    if not (data.get("folder") and data.get("validation")) or parts_of(data_dir):
        return []
    if run and run.split_file.is_file():
        return []
    return [
        f"{path} was trained on a folder of which a share was held out, and only its run folder says which "
        f"images those are (split.csv): if it was {data_dir}, most of these {len(index):,} were learned"
    ]


def _data_of(recipe: dict[str, Any] | None) -> dict[str, Any]:
    """Return what a stored recipe says of its data; nothing of weights that no recipe of ours has trained."""
    return (recipe or {}).get("data") or {}


def dataset_of(path: Path, weights: Weights, name: str | None) -> str:
    """Return the name of a dataset, by default that which the network was trained on."""
    name = name or _data_of(weights.config.get("recipe")).get("dataset")
    if name is None:
        raise InputError(
            f"{path} does not say what it was trained on; name the data with --dataset: "
            f"{', '.join(DATASETS)}, or folder with --data-dir"
        )
    if name not in (known := (*DATASETS, "folder")):
        raise InputError(f"there is no dataset {name!r}{nearest(name, known)}")
    return name


def in_memory(path: Path, weights: Weights, name: str, split: Split, data_dir: Path | None) -> Dataset:
    """Return a dataset in memory that a network can be tested on; of what it was trained on, these images.

    Raises:
        InputError: when its classes, its channels or its size are not the network's, or it lies in no folder.
    """
    check_data_dir(name, data_dir)
    # A run on another dataset remembers where that one lies.
    trained = _data_of(weights.config.get("recipe"))
    own = trained.get("dataset") == name
    dataset = load_dataset(name, split, data_dir or (remembered_data_dir(path) if own else None))
    if own and split == "train" and (held_out := trained.get("validation")):
        # What was held out for validation was not trained on.
        dataset, _ = split_validation(dataset, held_out, trained.get("split_seed", 0))
    if weights.model.classes != len(dataset.classes):
        raise InputError(
            f"{path} has {weights.model.classes} classes and {name} has {len(dataset.classes)}; test it on a "
            "dataset of its own classes"
        )
    if unnamed(weights.classes):
        # Imported weights may have no names; a dataset's own order is then what they were trained in.
        dataset = dataset.with_classes(weights.classes)
    if weights.model.in_channels != dataset.shape[0]:
        raise InputError(
            f"{path} takes images of {weights.model.in_channels} channels and those of {name} have "
            f"{dataset.shape[0]}"
        )
    mean = weights.preprocessing.mean
    if weights.preprocessing.per_pixel and mean.shape[1:] != dataset.shape[1:]:
        raise InputError(
            f"{path} subtracts a mean image of {tuple(mean.shape[1:])} pixels; the images of {name} have "
            f"{dataset.shape[1:]}"
        )
    check_input(weights.model, str(path), dataset.shape)
    return dataset


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
    recipe = _data_of(detector.config.recipe)
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


def evaluate_detector(
    detector: LoadedDetector,
    path: Path,
    data_dir: Path | None = None,
    *,
    others: Sequence[Path] = (),
    splits: Sequence[str] = (),
    layout: str | None = None,
    ap_rule: str | None = None,
    coco: bool = True,
    boxes: bool = True,
    classes: Sequence[str] = (),
    use_difficult: bool | None = None,
    for_server: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> DetectorEvaluation:
    """Test a detector on annotated images.

    Started by torchrun, each rank looks at every size-th image, and all get the same outcome.

    Args:
        path: the folder that it is from, which may know where the data lay.
        others: those of an ensemble's other members.
        splits, layout, ap_rule: None or empty for those of the recipe that it was trained by; of a recipe
            that holds images out of those to train on, these.
        coco: whether to compute COCO's average precision as well.
        boxes: whether the images have annotations; without, there are detections only.
        classes: of the detector's that are tested; empty for all. Objects of other classes are left out.
        use_difficult: whether difficult objects are asked for; None for what the recipe says.
        for_server: whether a server is to be given what is found, which tells images apart by their ids.
        progress: called with the number of images and the number done, over all ranks.

    Raises:
        InputError: when the data are missing, or of other classes; for a server, of two images with one id.
    """
    if coco and boxes:
        check_pycocotools("COCO AP")
    recipe = _data_of(detector.config.recipe)
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
    if for_server:
        check_numbers(dataset)
    world = distributed.join(next(detector.members[0].parameters()).device)

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
