"""What a network takes for what: confusions, errors by class, the worst mistakes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .scores import Scores


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were taken for another; the classes by their numbers."""

    target: int
    seen: int
    count: int


@dataclass(frozen=True)
class Mistake:
    """An image whose class is not the likeliest one.

    Attributes:
        id: the image's name.
        target, seen: numbers of its class and of the likeliest one.
        probability: of the class that was seen, and ``right``: of the image's own.
    """

    id: str
    target: int
    seen: int
    probability: float
    right: float


def confusion_matrix(scores: Scores) -> Tensor:
    """Return how many images of each class were taken for each: int64 (K, K), a row a class that it is.

    For few classes: it takes K x K numbers, gigabytes of tens of thousands.
    """
    k = len(scores.classes)
    pairs = k * scores.targets + scores.seen
    return torch.bincount(pairs, minlength=k * k).reshape(k, k)


def most_confused(scores: Scores, most: int) -> list[Confusion]:
    """Return the pairs of different classes that were confused most often, the most frequent first."""
    wrong = scores.seen != scores.targets
    pairs, counts = torch.stack([scores.targets[wrong], scores.seen[wrong]]).unique(dim=1, return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:most]
    return [
        Confusion(row, column, count)
        for row, column, count in zip(*pairs[:, order].tolist(), counts[order].tolist(), strict=True)
    ]


def counts_by_class(scores: Scores) -> tuple[Tensor, Tensor]:
    """Return how many images each class has, and how many of them were seen as it: int64 (K,) each."""
    right = scores.targets[scores.seen == scores.targets]
    return tuple(torch.bincount(each, minlength=len(scores.classes)) for each in (scores.targets, right))  # type: ignore[return-value]


def worst_mistakes(scores: Scores, most: int) -> list[Mistake]:
    """Return the images in which the network was surest of a wrong class, the surest first."""
    probability, seen = scores.probabilities.max(dim=1)
    right = scores.probabilities.gather(1, scores.targets[:, None])[:, 0]
    wrong = (seen != scores.targets).nonzero()[:, 0]
    order = wrong[torch.argsort(probability[wrong], descending=True, stable=True)][:most]
    return [
        Mistake(scores.ids[n], int(scores.targets[n]), int(seen[n]), float(probability[n]), float(right[n]))
        for n in order.tolist()
    ]
