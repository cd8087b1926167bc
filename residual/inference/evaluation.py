"""Trained classifiers tested on any dataset by any protocol (Section 3.4)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from .. import distributed
from ..data import DATASETS, SPLITS, check_data_dir, load_dataset, split_validation
from ..data.dataset import Dataset
from ..data.folder import FolderIndex, index_folder, parts_of
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
from ..training.folder import (
    find_data_dir,
    is_data_of,
    recorded_split,
    remembered_data_dir,
    run_of,
    unfinished,
)

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
    images, views, shown = _open(path, weights, options, where)
    if tell and world.is_main:
        early = unfinished(path, weights.config.get("results"))
        for note in (*early, *images.notes, *_learned(path, weights, options)):
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
    data = data_of(weights.config.get("recipe"))
    run = run_of(path)
    if not (data.get("folder") and data.get("validation")) or parts_of(data_dir):
        return []
    if run and run.split_file.is_file():
        return []
    return [
        f"{path} was trained on a folder of which a share was held out, and only its run folder says which "
        f"images those are (split.csv): if it was {data_dir}, most of these {len(index):,} were learned"
    ]


def _learned(path: Path, weights: Weights, options: EvaluationOptions) -> list[str]:
    """Return what is to be said where images are known to be those that were learned from."""
    dataset = dataset_of(path, weights, options.dataset)
    if options.split != "train" or dataset != data_of(weights.config.get("recipe")).get("dataset"):
        return []
    if dataset == "folder" and options.data_dir and not is_data_of(path, options.data_dir):
        return []
    return [f"{path} has learned from these images, so the errors say little of other images"]


def data_of(recipe: dict[str, Any] | None) -> dict[str, Any]:
    """Return what a stored recipe says of its data; nothing of weights that no recipe of ours has trained."""
    return (recipe or {}).get("data") or {}


def dataset_of(path: Path, weights: Weights, name: str | None) -> str:
    """Return the name of a dataset, by default that which the network was trained on."""
    name = name or data_of(weights.config.get("recipe")).get("dataset")
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
    trained = data_of(weights.config.get("recipe"))
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
