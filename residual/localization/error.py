"""The localization error of ILSVRC, as its development kit counts it.

Shapes: N images, G guesses of each, B boxes of all images together. Boxes are (x1, y1, x2, y2) in the image's
pixels, continuous coordinates (data/boxes.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.boxes import AnnotatedImage

#: Guesses of an image that count, the first ones: "extra labels are ignored".
GUESSES = 5
#: Intersection over union from which on a guess is where the object is.
OVERLAP = 0.5


@dataclass(frozen=True)
class Guesses:
    """What is said to be on each of N images, and where.

    Attributes:
        labels: int64 (N, G), the surest first; -1 for a class that the images have not.
        boxes: float (N, G, 4).
    """

    labels: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class LocalizationErrors:
    """How many images are wrong.

    Attributes:
        right: which images have a guess of their class that overlaps one of its boxes, bool (N,).
        named: which have a guess of their class, wherever it is, bool (N,).
    """

    right: Tensor
    named: Tensor

    @property
    def localization(self) -> float:
        """Images without a right guess, in percent."""
        return 100 * float((~self.right).double().mean())

    @property
    def classification(self) -> float:
        """Images whose class is not among the guesses, in percent."""
        return 100 * float((~self.named).double().mean())


def localization_errors(
    images: Sequence[AnnotatedImage], guesses: Guesses, most: int = GUESSES
) -> LocalizationErrors:
    """Return which images are right: the first ``most`` guesses of an image have its class and a box of it.

    A guess is right where its class is the image's and it overlaps any of the boxes of that class by a half
    at least; an image is right where any of its guesses is. Boxes marked as difficult count like others.

    Args:
        images: each with the boxes of one class.
        guesses: of each of them.
    """
    device = guesses.boxes.device
    counts = torch.tensor([len(annotated.labels) for annotated in images])
    owners = torch.arange(len(counts)).repeat_interleave(counts).to(device)
    objects = torch.cat([torch.empty(0, 4), *(annotated.boxes for annotated in images)]).to(device)
    labels = torch.cat([annotated.labels for annotated in images]).to(device)
    places, names = guesses.boxes[:, :most][owners], guesses.labels[:, :most][owners]  # (B, G, 4), (B, G)
    named = names == labels[:, None]
    found = named & (overlaps(places, objects[:, None]) >= OVERLAP)
    right, known = (
        torch.zeros(len(counts), dtype=torch.int64, device=device)
        .index_add_(0, owners, each.any(dim=1).long())
        .bool()
        .cpu()
        for each in (found, named)
    )
    return LocalizationErrors(right, known)


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union of boxes (..., 4) and as many others, (...); 0 without any area.

    In double precision, as the kit's: a box of exactly a half counts.
    """
    first, second = first.double(), second.double()
    shared = (
        torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    ).clamp(min=0)
    inside = shared.prod(dim=-1)
    areas = sum((box[..., 2:] - box[..., :2]).clamp(min=0).prod(dim=-1) for box in (first, second))
    union = areas - inside
    return torch.where(union > 0, inside / union.clamp(min=torch.finfo(torch.float64).tiny), 0)
