"""The regions that an R-CNN learns from (appendix C): a trained localizer's proposals, one of each image.

"One image usually contains a single dominate object, and the proposal regions highly overlap with each
other", so an image-centric mini-batch would hold samples of small variations. The paper's is RoI-centric, as
R-CNN's: its regions are drawn from those of all training images. Here each is of another image.

Shapes: N images; P proposals of all of them together. Boxes are (x1, y1, x2, y2) in the image's pixels.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..data.box_batches import AnnotatedBatches, ReadFunction, TrainingImage, flip_boxes, full_size
from ..data.boxes import AnnotatedImage, BoxDataset
from ..data.images import resize
from ..detection.faster_rcnn import ROI_POSITIVE_FRACTION
from ..detection.targets import match_regions
from ..files import damaged as damaged_file
from ..files import replace_file
from ..tensors import pack, unpack

#: What to do about a damaged file of proposals.
REMEDY = "remove it, and go on with --resume: it is made again"
#: What a file of proposals says that they are of.
IDENTITY = "of"


@dataclass(frozen=True)
class Proposals:
    """Where a localizer says that the class of each image may be.

    Attributes:
        boxes: float32 (P, 4), image by image, the best of an image first.
        counts: of each image, int64 (N,).
    """

    boxes: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.counts)

    def of(self, number: int) -> Tensor:
        """Return an image's proposals, (R, 4)."""
        end = int(self._ends[number])
        return self.boxes[end - int(self.counts[number]) : end]

    @cached_property
    def _ends(self) -> Tensor:
        return self.counts.cumsum(0)


def save_proposals(file: Path, proposals: Proposals, identity: str) -> None:
    """Keep proposals in a file.

    Args:
        identity: of the localizer and the images that they are of.

    Raises:
        OSError: when it cannot be written.
    """
    replace_file(file, pack({"boxes": proposals.boxes, "counts": proposals.counts}, {IDENTITY: identity}))


def load_proposals(file: Path, identity: str) -> Proposals | None:
    """Return what ``save_proposals`` kept; None where it is of another localizer or of other images.

    Raises:
        InputError: when the file is damaged.
    """
    tensors, metadata = unpack(file, REMEDY)
    if metadata.get(IDENTITY) != identity:
        return None
    boxes, counts = (tensors.get(name, torch.empty(0)) for name in ("boxes", "counts"))
    fit = (boxes.dtype, boxes.shape[1:], counts.dtype, counts.ndim) == (torch.float32, (4,), torch.int64, 1)
    whole = fit and bool(((counts >= 0) & (counts <= len(boxes))).all()) and bool(boxes.isfinite().all())
    if not whole or int(counts.sum()) != len(boxes):
        raise damaged_file(file, "its numbers do not fit each other", REMEDY)
    return Proposals(boxes, counts)


def whole_pixels(boxes: Tensor, width: int, height: int) -> Tensor:
    """Return proposals (R, 4) as they are cropped from an image: whole pixels of it, one at least.

    Where nothing is proposed it is the whole image, (1, 4).
    """
    if not len(boxes):
        return torch.tensor([[0.0, 0.0, width, height]])
    size = torch.tensor([width, height], dtype=boxes.dtype)
    first = torch.minimum(boxes[:, :2].round().clamp(min=0), size - 1)
    last = torch.minimum(torch.maximum(boxes[:, 2:].round(), first + 1), size)
    return torch.cat([first, last], dim=1)


class RegionBatches(AnnotatedBatches):
    """The training batches of regions, warped to squares of one size.

    An epoch is one region of each image. A quarter of the regions are objects, as in R-CNN [8]: they overlap
    one by a half at least; an image that has none of the kind gives one of the other. What it gives
    is a ``TrainingImage`` of the region alone: if it is an object, with the whole box of that which it
    overlaps most, wherever that ends.

    Args, beside those of ``AnnotatedBatches``:
        side: of the squares.

    Attributes:
        proposals: of the dataset's images; to be known before the first batch is asked for.
    """

    proposals: Proposals

    def __init__(
        self,
        dataset: BoxDataset,
        side: int,
        batch: int,
        flip: bool,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        damaged: Literal["skip", "fatal"] = "skip",
    ) -> None:
        super().__init__(dataset, batch, flip, seed, rank, ranks, damaged)
        self.side = side

    def _readers(self, random: torch.Generator) -> list[ReadFunction]:
        objects = torch.rand(self.batch, generator=random) < ROI_POSITIVE_FRACTION
        chosen = torch.rand(self.batch, generator=random)
        return [
            partial(self._read_region, is_object, part)
            for is_object, part in zip(objects.tolist(), chosen.tolist(), strict=True)
        ]

    def _read_region(
        self, is_object: bool, part: float, number: int, flipped: bool, seed: int
    ) -> TrainingImage:
        """Read one of an image's regions.

        Args:
            is_object: of which kind it is to be.
            part: which of that kind, in [0, 1).
        """
        annotated = self.dataset.images[number]
        regions = whole_pixels(self.proposals.of(number), *annotated.size)
        # These images have no crowds.
        objects = annotated.boxes[annotated.wanted]
        positive, negative, matched = match_regions(regions, objects, torch.empty(0, 4))
        kinds = (positive, negative) if is_object else (negative, positive)
        candidates = next(kind.nonzero()[:, 0] for kind in kinds if kind.any())
        index = int(candidates[int(part * len(candidates))])
        found = objects[matched[index]][None] if positive[index] else torch.empty(0, 4)
        return load_region(annotated, regions[index], found, self.side, flipped, seed)


def load_region(
    annotated: AnnotatedImage, region: Tensor, objects: Tensor, side: int, flipped: bool, seed: int
) -> TrainingImage:
    """Read a region of an image warped to a square, and objects with it, which may reach out of it.

    Args:
        region: (4,).
        objects: of the image's class, (M, 4).
        side: of the square.

    Raises:
        DamagedImage: as ``full_size``.
    """
    pixels = warp(full_size(annotated), region, side)
    corner, sides = region[:2].repeat(2), (region[2:] - region[:2]).repeat(2)
    boxes = (objects - corner) * (side / sides)
    if flipped:
        pixels, boxes = pixels.flip(2), flip_boxes(boxes, side)
    labels = annotated.labels
    return TrainingImage(pixels, boxes, labels[: len(objects)], torch.empty(0, 4), seed, labels)


def warp(image: Tensor, region: Tensor, side: int) -> Tensor:
    """Return a region of an image uint8 (3, H, W), at whole pixels, as a square: uint8 (3, side, side)."""
    left, top, right, bottom = region.int().tolist()
    return resize(image[:, top:bottom, left:right], side, side)
