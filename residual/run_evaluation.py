"""Testing a network on a folder of pictures, by any of the protocols of Section 3.4; and ensembles."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from . import distributed
from .data import load_dataset
from .data.folder import index_folder
from .data.images import DamagedImage, decode
from .distributed import World
from .errors import InputError
from .evaluation.batching import by_shape
from .evaluation.classes import how_matched, match_classes
from .evaluation.ensemble import average
from .evaluation.inputs import usual_size, with_channels
from .evaluation.metrics import Metrics
from .evaluation.reading import in_threads
from .evaluation.scores import Scores, Tally, load_scores
from .evaluation.views import SCALES, Protocol, Views, cut, make_views, score
from .memory import keep_freed_memory
from .models.inference import Precision, for_inference
from .models.weights import Weights, load_weights
from .run import evaluate_weights, pick_device, remembered_data_dir

Split = Literal["train", "test"]

#: Pictures of one shape that go through the network together, each with all its views.
BATCH = 32


@dataclass(frozen=True)
class Options:
    """What to test on, and how.

    Attributes:
        dataset: "folder", or a data set that fits in memory; None for the one that a network was trained on.
        split: the part; "test" is a folder's ``val``.
        data_dir: where the data lie; None for where they lay in a run's last session.
        protocol: the views; None for the centre of a folder's pictures, or the whole of a small data set's.
        crop: side of the squares; None for the side that the network was trained on.
        scales: shorter sides; None for the protocol's own.
        precision: of the network's arithmetic; "bfloat16" is faster and a little less exact.
    """

    dataset: str | None = None
    split: Split = "test"
    data_dir: Path | None = None
    protocol: Protocol | None = None
    crop: int | None = None
    scales: tuple[int, ...] | None = None
    precision: Precision = "float32"


@dataclass(frozen=True)
class Outcome:
    """What a test found.

    Attributes:
        data: name of the data set and its part.
        views: what was looked at, in words.
        metrics: over all ranks.
        matched: how the classes were matched, where they are not the network's in its order.
        skipped: how many damaged pictures were left out.
        scores: where they were asked for.
    """

    data: str
    views: str
    metrics: Metrics
    matched: str | None
    skipped: int
    scores: Scores | None

    def summary(self) -> dict[str, Any]:
        """Return all but the scores as plain data."""
        found = {"data": self.data, "views": self.views, "matched": self.matched, "skipped": self.skipped}
        return found | asdict(self.metrics)


@dataclass(frozen=True)
class Pictures:
    """N pictures and what they are called, wherever they lie.

    Attributes:
        name: of the data set and its part.
        classes: names of the M classes of the pictures.
        ids: names of the pictures.
        targets: int64 (N,), each in [0, M).
        read: gives the n-th picture, uint8 (C, H, W), or raises DamagedImage.
    """

    name: str
    classes: tuple[str, ...]
    ids: Sequence[str]
    targets: Tensor
    read: Callable[[int], Tensor]


def evaluate(
    path: Path,
    options: Options,
    *,
    device: str = "auto",
    keep_scores: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Outcome:
    """Test a weights folder (or a run folder's) on pictures in folders, or on a data set in memory.

    Args, errors: as of ``score_pictures``.
    """
    weights = load_weights(path)
    asked = options.protocol or options.crop or options.scales or options.precision != "float32"
    if keep_scores or asked or _dataset(path, weights, options) == "folder":
        return score_pictures(path, options, device=device, keep_scores=keep_scores, tell=tell)
    # Nothing needs softmax scores: the pictures are in memory, and go to the network in whole batches.
    data, metrics = evaluate_weights(path, options.dataset, options.split, options.data_dir, device)
    return Outcome(data.name, "whole pictures", metrics, None, 0, None)


def score_pictures(
    path: Path,
    options: Options,
    *,
    device: str = "auto",
    keep_scores: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Outcome:
    """Test a weights folder (or a run folder's) on pictures in folders, or on a data set in memory.

    Started by torchrun, each rank takes every size-th picture, and all get the same outcome.

    Args:
        keep_scores: keep the scores of all pictures, N x K numbers.
        tell: is given a sentence about each damaged picture, which is skipped.

    Raises:
        InputError: when the weights or the data are wrong or do not fit, or no picture is readable.
    """
    where = pick_device(device)
    world = distributed.join(where)
    keep_freed_memory()
    weights = load_weights(path)
    pictures, views = _open(path, weights, options)
    found = match_classes(pictures.classes, weights.classes, pictures.name)
    targets = found[pictures.targets]
    model = for_inference(weights.model, where, options.precision)
    prepare = weights.preprocessing.to(where)

    tally = Tally()
    count = len(pictures.ids)
    kept = torch.zeros(count, len(weights.classes)) if keep_scores else None
    read = torch.zeros(count, dtype=torch.bool)
    try:
        for cuts, positions in by_shape(_cuts(pictures, weights, views, world, tell), BATCH):
            rows = score(model, prepare, [squares.to(where) for squares in cuts], views)
            tally.add(rows, targets[positions])
            read[positions] = True
            if kept is not None:
                kept[positions] = rows
    except torch.OutOfMemoryError:
        raise InputError(
            f"{path}: the GPU's memory ran out in testing; use smaller scales or --precision bfloat16"
        ) from None
    metrics = tally.metrics(world, where)
    scores = None
    if kept is not None:
        # Every rank has zeros where the others have scores.
        kept, read = world.sum_(kept.to(where)).cpu(), world.sum_(read.float().to(where)).cpu() > 0
        scores = Scores(
            ids=tuple(name for name, there in zip(pictures.ids, read.tolist(), strict=True) if there),
            classes=weights.classes,
            probabilities=kept[read],
            targets=targets[read],
            about={"weights": str(path), "data": pictures.name, "views": str(views)},
        )
    matched = how_matched(pictures.classes, weights.classes, found)
    return Outcome(pictures.name, str(views), metrics, matched, count - metrics.images, scores)


def score_ensemble(
    members: Sequence[Path],
    options: Options,
    *,
    device: str = "auto",
    tell: Callable[[str], None] | None = None,
) -> tuple[list[tuple[str, Metrics]], Scores]:
    """Test several networks and the mean of their softmax scores (Table 5).

    Args:
        members: files of saved scores, and weights folders or run folders, which are tested by the options.

    Returns:
        Each member's name and metrics, and the ensemble's scores.

    Raises:
        InputError: when a member is wrong, or the members are not of the same pictures and classes.
    """
    found = []
    for path in members:
        if path.is_dir():
            scores = score_pictures(path, options, device=device, keep_scores=True, tell=tell).scores
            assert scores is not None
        else:
            scores = load_scores(path)
        found.append((str(path), scores))
    together = average(found)
    return [(name, scores.metrics()) for name, scores in found], together


def _open(path: Path, weights: Weights, options: Options) -> tuple[Pictures, Views]:
    """Return the pictures, and what of them a network is to look at."""
    dataset = _dataset(path, weights, options)
    if dataset == "folder":
        views = _views(weights, options)
        return _folder(path, options, views), views
    if options.protocol or options.crop or options.scales:
        raise InputError(
            f"the pictures of {dataset} are tested whole, at their own size; views, crops and scales are for "
            "--dataset folder"
        )
    return _resident(path, weights, dataset, options)


def _dataset(path: Path, weights: Weights, options: Options) -> str:
    """Return the name of the data set, by default that which the network was trained on."""
    dataset = options.dataset or ((weights.config.get("recipe") or {}).get("data") or {}).get("dataset")
    if dataset is None:
        raise InputError(f"{path} does not say what it was trained on; name the data with --dataset")
    return dataset


def _views(weights: Weights, options: Options) -> Views:
    """Return the views of a folder's pictures, by default at the size that the network was trained on."""
    crop, side = usual_size(weights)
    protocol = options.protocol or "center"
    if protocol == "multi-scale":
        if options.crop:
            raise InputError("multi-scale testing looks at whole pictures; leave the crop out")
        scales = options.scales or tuple(round(scale * crop / 224) for scale in SCALES)
        return make_views(protocol, sides=scales)
    return make_views(protocol, options.crop or crop, side, options.scales)


def _folder(path: Path, options: Options, views: Views) -> Pictures:
    data_dir = options.data_dir or remembered_data_dir(path)
    if data_dir is None:
        raise InputError(
            "--dataset folder needs --data-dir: the folder with train/ and val/, or with the classes"
        )
    index = index_folder(data_dir, "val" if options.split == "test" else "train")
    return Pictures(
        name=index.name,
        classes=index.classes,
        ids=index.ids,
        targets=index.targets,
        read=lambda n: decode(index.path(n), views.decoded_side),
    )


def _resident(path: Path, weights: Weights, dataset: str, options: Options) -> tuple[Pictures, Views]:
    stored = load_dataset(dataset, options.split, options.data_dir or remembered_data_dir(path))
    channels, height, width = stored.images.shape[1:]
    if channels != weights.model.in_channels:
        raise InputError(
            f"{path} takes pictures of {weights.model.in_channels} channels and those of {dataset} have "
            f"{channels}"
        )
    pictures = Pictures(
        name=stored.name,
        classes=stored.classes,
        ids=[f"{stored.name} {n}" for n in stored.ids.tolist()],
        targets=stored.targets,
        read=lambda n: stored.images[n],
    )
    # Whole pictures at their own size: one crop of all of it.
    return pictures, make_views("center", min(height, width), min(height, width))


def _cuts(
    pictures: Pictures, weights: Weights, views: Views, world: World, tell: Callable[[str], None] | None
) -> Iterator[tuple[list[Tensor], int]]:
    """Yield the views of this rank's readable pictures, and the pictures' numbers."""
    channels = weights.model.in_channels

    def read(n: int) -> tuple[int, list[Tensor] | DamagedImage]:
        try:
            image = pictures.read(n)
        except DamagedImage as error:
            return n, error
        return n, cut(image if len(image) == channels else with_channels(image, channels), views)

    for n, cuts in in_threads(read, range(world.rank, len(pictures.ids), world.size)):
        if not isinstance(cuts, DamagedImage):
            yield cuts, n
        elif tell:
            tell(str(cuts))
