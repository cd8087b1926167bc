"""Images with boxes: what every detection dataset is here, whatever it was read from.

Coordinates are continuous: a box (x1, y1, x2, y2) reaches from x1 to x2, the image from 0 to its width. The
pixel column i is the stretch from i to i + 1.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import InputError

#: A box may reach so many pixels over the image's edge before it is worth telling: programs that annotate
#: count pixels from 0 or from 1.
TOLERANCE = 2.0


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and what is known to be on it.

    Attributes:
        id: its name in the dataset.
        path: of its file.
        size: width and height in pixels as annotated, upright.
        boxes: float32 (M, 4).
        labels: int64 (M,), each in [0, K).
        difficult: bool (M,), objects that VOC neither asks for nor counts against a detector.
        crowd: bool (M,), regions of many objects that COCO does not tell apart.
        areas: float32 (M,), the objects' areas, by which COCO calls them small, medium or large.
    """

    id: str
    path: Path
    size: tuple[int, int]
    boxes: Tensor
    labels: Tensor
    difficult: Tensor
    crowd: Tensor
    areas: Tensor

    @property
    def wanted(self) -> Tensor:
        """Which boxes are objects to learn and to find: bool (M,)."""
        return ~(self.difficult | self.crowd)


@dataclass(frozen=True)
class BoxDataset:
    """Images with boxes in files.

    Attributes:
        layout: "voc" or "coco".
        splits: of the dataset that were read together, as "2007/test".
        classes: names of the K classes, in the order of the labels.
        images: each a valid example, those without boxes too.
        notes: one sentence for everything that was left out or cut.
        categories: the number of each class in the annotations' own counting, for submissions.
    """

    layout: Literal["voc", "coco"]
    splits: tuple[str, ...]
    classes: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]
    notes: tuple[str, ...]
    categories: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def name(self) -> str:
        """Of the dataset and its splits, as "voc 2007/test"."""
        return f"{self.layout} {'+'.join(self.splits)}"

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells these images from others: a resumed run has to have the same."""
        names = hashlib.sha256("\n".join(annotated.id for annotated in self.images).encode()).hexdigest()[:16]
        return {"classes": len(self.classes), "images": len(self.images), "files": names}

    def counts(self) -> list[int]:
        """Return the number of objects of each class; difficult ones and crowds are none."""
        if not self.images:
            return [0] * len(self.classes)
        labels = torch.cat([annotated.labels[annotated.wanted] for annotated in self.images])
        return torch.bincount(labels, minlength=len(self.classes)).tolist()


@dataclass(frozen=True)
class Annotation:
    """One object as its annotation has it, before it is checked.

    Attributes:
        corners: x1, y1, x2, y2.
        name: of its class.
        crowd: whether it is a region of many objects; area: as annotated, None for the box's own.
    """

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool = False
    crowd: bool = False
    area: float | None = None


def make_annotated_image(
    id: str,
    path: Path,
    size: tuple[int, int],
    objects: Iterable[Annotation],
    label: dict[str, int],
    where: str,
    notes: list[str],
) -> AnnotatedImage:
    """Return an image with those objects that have a part on it; what is wrong with the others is noted.

    Args:
        label: number of each class.
        where: the annotation's place, for the notes.
        notes: receives a sentence for each object that is dropped or cut.

    Raises:
        InputError: for a class without a number.
    """
    kept: list[tuple[list[float], Annotation]] = []
    for item in objects:
        if item.name not in label:
            raise InputError(
                f"{where}: there is no class {item.name!r} among {', '.join(label)}; mend the annotation or "
                "name all classes"
            )
        x1, y1, x2, y2 = item.corners
        what = f"{where}: the box of a {item.name} ({x1:g}, {y1:g}, {x2:g}, {y2:g})"
        if not all(map(math.isfinite, item.corners)):
            notes.append(f"{what} is not of four finite numbers; it was left out")
            continue
        if x2 < x1 or y2 < y1:
            notes.append(f"{what} has its corners swapped; it was left out")
            continue
        width, height = size
        inside = [min(max(x, 0), side) for x, side in zip(item.corners, (width, height) * 2, strict=True)]
        if x2 == x1 or y2 == y1:
            notes.append(f"{what} has no area; it was left out")
        elif inside[2] <= inside[0] or inside[3] <= inside[1]:
            notes.append(f"{what} is outside the image of {width} x {height}; it was left out")
        else:
            over = max(abs(a - b) for a, b in zip(inside, item.corners, strict=True))
            if over > TOLERANCE:
                notes.append(f"{what} reaches over the edge of the image of {width} x {height}; it was cut")
            kept.append((inside, item))
    boxes = torch.tensor([box for box, _ in kept], dtype=torch.float32).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = [
        float(side.prod()) if item.area is None else item.area
        for side, (_, item) in zip(sides, kept, strict=True)
    ]
    return AnnotatedImage(
        id,
        path,
        size,
        boxes,
        torch.tensor([label[item.name] for _, item in kept], dtype=torch.int64),
        torch.tensor([item.difficult for _, item in kept], dtype=torch.bool),
        torch.tensor([item.crowd for _, item in kept], dtype=torch.bool),
        torch.tensor(areas, dtype=torch.float32),
    )


def check_not_empty(images: list[AnnotatedImage], where: str, notes: list[str]) -> None:
    """Raise an InputError where no image is left."""
    if not images:
        first = f"; the first fault: {notes[0]}" if notes else ""
        raise InputError(f"{where} holds no image that can be used{first}")
