"""How well a detector's anchors fit the objects that it is to learn: known before training.

An object that no anchor overlaps by a half is learned from the one anchor that happens to lie best, and one
below ``min_size`` is never proposed: its class is then hardly found, however long the training.

Shapes: M objects, A anchors at a position.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from pydantic import ValidationError
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

from ..data.boxes import BoxDataset
from ..errors import InputError
from ..recipes.detection import Boxes, Detector
from ..table import Table, TableRow
from .inference import input_size

#: A class is hardly found where more than half of its objects overlap less than this with every anchor, or
#: are too small to be proposed.
LEAST = 0.5
#: Anchors that differ by less than this factor see the same objects.
STEP = 2**0.5


@dataclass(frozen=True)
class Fit:
    """The anchors and the objects of one class.

    Attributes:
        images: that have an object of it.
        overlaps: of each object with the anchor that overlaps it most (intersection over union), (M,).
        small: how many objects have a side below ``min_size``.
        sizes: square roots of the objects' areas in the network's input, (M,).
    """

    name: str
    images: int
    overlaps: Tensor
    small: int
    sizes: Tensor

    @property
    def objects(self) -> int:
        return len(self.overlaps)

    @property
    def median(self) -> float:
        return float(self.overlaps.median()) if self.objects else 0.0

    @property
    def below(self) -> float:
        """The share of objects that no anchor overlaps by a half."""
        return float((self.overlaps < LEAST).double().mean()) if self.objects else 0.0

    @property
    def is_bad(self) -> bool:
        return self.objects > 0 and (self.below > 0.5 or 2 * self.small > self.objects)


def best_overlaps(boxes: Tensor, sizes: Tensor, detector: Detector, stride: int) -> Tensor:
    """Return the overlap of each box with the anchor that overlaps it most, (M,).

    An anchor's overlap in x and in y falls with the distance of its middle from the box's, so of each shape
    the nearest one is the best: the others need not be looked at.

    Args:
        boxes: (M, 4) in the network's input.
        sizes: width and height of each box's image there, (M, 2).
    """
    cell = AnchorGenerator((detector.anchor_sizes,), (detector.aspect_ratios,)).cell_anchors[0]
    half = cell[:, 2:].to(boxes.dtype)[None]  # (1, A, 2): the sides' halves, rounded as the detector's are
    last = (sizes / stride).ceil()[:, None] - 1
    if detector.ignore_cross_boundary_anchors:
        low = (half / stride - 0.5).ceil().clamp(min=0).expand(len(boxes), -1, -1)
        high = torch.minimum(((sizes[:, None] - half) / stride - 0.5).floor(), last)
    else:
        low, high = torch.zeros_like(half).expand(len(boxes), -1, -1), last.expand(-1, half.shape[1], -1)
    first, second = boxes[:, None, :2], boxes[:, None, 2:]
    nearest = torch.minimum(torch.maximum(((first + second) / 2 / stride - 0.5).round(), low), high)
    middle = (nearest + 0.5) * stride
    shared = (torch.minimum(second, middle + half) - torch.maximum(first, middle - half)).clamp(min=0)
    inside = shared.prod(dim=2)
    union = (second - first).prod(dim=2) + 4 * half.prod(dim=2) - inside
    usable = (low <= high).all(dim=2)
    return torch.where(usable, inside / union, 0).amax(dim=1)


@dataclass(frozen=True)
class Objects:
    """The objects that are to be learned, in the network's input.

    Attributes:
        classes: names of the K classes.
        boxes: float64 (M, 4).
        sizes: width and height of their images there, float64 (M, 2).
        labels: int64 (M,).
        images: how many images have an object of each class.
        stride: of the shared map.
    """

    classes: tuple[str, ...]
    boxes: Tensor
    sizes: Tensor
    labels: Tensor
    images: list[int]
    stride: int


def objects_of(dataset: BoxDataset, data: Boxes, stride: int) -> Objects:
    """Return a dataset's objects as a detector sees them whose shared map has a stride."""
    boxes, sizes, labels, images = [], [], [], [0] * len(dataset.classes)
    for annotated in dataset.images:
        wanted = annotated.wanted
        width, height = input_size(*annotated.size, data.shorter_side, data.longer_side, stride)
        x, y = width / annotated.size[0], height / annotated.size[1]
        boxes.append(annotated.boxes[wanted] * torch.tensor([x, y, x, y]))
        sizes.append(torch.tensor([[width, height]]).expand(len(boxes[-1]), -1))
        labels.append(annotated.labels[wanted])
        for label in labels[-1].unique().tolist():
            images[label] += 1
    return Objects(
        dataset.classes,
        torch.cat(boxes).double(),
        torch.cat(sizes).double(),
        torch.cat(labels),
        images,
        stride,
    )


def anchor_fits(objects: Objects, detector: Detector) -> list[Fit]:
    """Return how the anchors fit the objects of each class.

    Raises:
        InputError: where no anchor lies on any of the images, so that proposals cannot be learned.
    """
    box, size, label = objects.boxes, objects.sizes, objects.labels
    overlaps = best_overlaps(box, size, detector, objects.stride)
    if len(box) and not overlaps.any():
        raise InputError(
            f"no anchor of {_listed(detector.anchor_sizes)} pixels lies on the images, which have sides of "
            f"at most {int(size.max())} in the network, so nothing can be proposed; set "
            "detector.anchor_sizes to the sides of the objects there, or "
            "detector.ignore_cross_boundary_anchors=false"
        )
    sides = box[:, 2:] - box[:, :2]
    small = (sides < detector.min_size).any(dim=1)
    return [
        Fit(
            name,
            objects.images[number],
            overlaps[label == number],
            int(small[label == number].sum()),
            sides[label == number].prod(dim=1).sqrt(),
        )
        for number, name in enumerate(objects.classes)
    ]


def fit_table(fits: Sequence[Fit], detector: Detector) -> Table:
    """Return the table of the classes that is shown before training."""
    headings = ["class", "images", "objects", "best anchor's IoU", "below 0.5"]
    # Nothing is smaller than the smallest proposal where that has no size.
    smallest = detector.min_size > 0
    if smallest:
        headings.append(f"< {detector.min_size:g} px")
    rows = [
        TableRow(
            [
                fit.name,
                f"{fit.images:,}",
                f"{fit.objects:,}",
                f"{fit.median:.2f}",
                f"{100 * fit.below:.0f} %",
                *([f"{fit.small:,}"] if smallest else []),
            ]
        )
        for fit in fits
    ]
    caption = f"anchors of {_listed(detector.anchor_sizes)} pixels; IoU: the median over the objects"
    return Table("objects to learn", headings, rows, caption)


def advice(
    fits: Sequence[Fit],
    dataset: BoxDataset,
    objects: Objects,
    detector: Detector,
    data: Boxes,
    more_anchors: bool = True,
) -> str | None:
    """Return a sentence on classes that will hardly be found and the settings that cure it; None for none.

    Args:
        more_anchors: whether there can be more than there are: not where a trained detector goes on.
    """
    bad = [fit for fit in fits if fit.is_bad]
    if not bad:
        return None
    best, left = None, bad
    for changed, resized in _cures(bad, detector, data, more_anchors):
        larger = objects if resized == data else objects_of(dataset, resized, objects.stride)
        now = [fit for fit in anchor_fits(larger, changed) if fit.is_bad]
        if len(now) < len(left):
            best, left = (changed, resized), now
        if not now:
            break
    said = (
        f"{', '.join(fit.name for fit in bad)} will hardly be found: more than half of the objects overlap "
        f"every anchor by less than {LEAST}, or are smaller than detector.min_size"
    )
    if best is None:
        how = "other detector.aspect_ratios" if more_anchors else "more anchors, from a classifier's weights,"
        return f"{said}; larger images or {how} may help"
    settings = " ".join(f"--set '{key}={value}'" for key, value in _changes(best, detector, data))
    rest = f", all but {', '.join(fit.name for fit in left)}" if left else ""
    return f"{said}; cured{rest} by {settings}"


def _cures(
    bad: Sequence[Fit], detector: Detector, data: Boxes, more_anchors: bool
) -> Iterator[tuple[Detector, Boxes]]:
    """Yield changed settings, each with the changes of those before it."""
    sizes = list(detector.anchor_sizes)
    for fit in bad if more_anchors else ():
        for part in torch.quantile(fit.sizes, torch.tensor([0.1, 0.5, 0.9]).double()).tolist():
            power = float(2 ** max(3, round(torch.tensor(part).log2().item())))
            if all(max(power / size, size / power) > STEP for size in sizes):
                sizes.append(power)
    small = any(2 * fit.small > fit.objects for fit in bad)
    changed = detector.model_copy(
        update={"anchor_sizes": tuple(sorted(sizes)), "min_size": 0.0 if small else detector.min_size}
    )
    yield changed, data
    changed = changed.model_copy(update={"ignore_cross_boundary_anchors": False})
    yield changed, data
    if more_anchors:
        ratios = tuple(sorted({*detector.aspect_ratios, 0.25, 0.5, 1.0, 2.0, 4.0}))
        changed = changed.model_copy(update={"aspect_ratios": ratios})
        yield changed, data
    # Objects smaller than the distance of two anchors lie between them.
    for factor in (1.5, 2):
        sides = {key: round(factor * getattr(data, key)) for key in ("shorter_side", "longer_side")}
        # What no recipe may have cures nothing.
        with suppress(ValidationError):
            yield changed, Boxes.model_validate(data.model_dump() | sides)


def _changes(best: tuple[Detector, Boxes], detector: Detector, data: Boxes) -> Iterator[tuple[str, str]]:
    for room, new, old in (("detector", best[0], detector), ("data", best[1], data)):
        for key, value in new.model_dump().items():
            if value != getattr(old, key) and key != "backbone":
                shown = f"[{_listed(value, ',')}]" if isinstance(value, tuple) else str(value).lower()
                yield f"{room}.{key}", shown


def _listed(numbers: Sequence[float], between: str = ", ") -> str:
    return between.join(f"{number:g}" for number in numbers)
