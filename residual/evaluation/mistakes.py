"""What a network takes for what: confusions, errors by class, the worst mistakes."""

from dataclasses import dataclass

import numpy as np
import torch

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


def confusion_matrix(scores: Scores) -> np.ndarray:
    """Return how many images of each class were taken for each: int64 (K, K), a row a class that it is."""
    k = len(scores.classes)
    pairs = k * scores.targets + scores.probabilities.argmax(dim=1)
    return torch.bincount(pairs, minlength=k * k).reshape(k, k).numpy()


def most_confused(matrix: np.ndarray, most: int) -> list[Confusion]:
    """Return the pairs of different classes that were confused most often, the most frequent first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, wrong.shape)
    counts = wrong[rows, columns]
    pairs = zip(rows.tolist(), columns.tolist(), counts.tolist(), strict=True)
    return [Confusion(row, column, count) for row, column, count in pairs if count]


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
