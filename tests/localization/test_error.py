"""The localization error against a slow version, written from the development kit's description."""

from pathlib import Path

import numpy as np
import pytest
import torch

from residual.data.boxes import AnnotatedImage
from residual.localization.error import Guesses, localization_errors

Box = tuple[int, int, int, int]


def annotated(label: int, boxes: list[Box]) -> AnnotatedImage:
    """Return an image of a class with boxes of pixels counted from 1, the last one included."""
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) - torch.tensor([1.0, 1, 0, 0])
    none, labels = torch.zeros(len(boxes), dtype=torch.bool), torch.full((len(boxes),), label)
    return AnnotatedImage("a", Path("a"), (40, 40), corners, labels, none, none, torch.zeros(len(boxes)))


def guessed(labels: list[list[int]], boxes: list[list[Box]]) -> Guesses:
    corners = torch.tensor(boxes, dtype=torch.float32) - torch.tensor([1.0, 1, 0, 0])
    return Guesses(torch.tensor(labels), corners)


def kits_error(
    images: list[tuple[int, list[Box]]], labels: list[list[int]], boxes: list[list[Box]], most: int = 5
) -> tuple[float, float]:
    """Count errors as the kit says, in pixels, of which the last one belongs to a box.

    Of each image the least over guesses and boxes of the larger of "another class" and "overlap below 0.50";
    extra guesses are ignored.
    """
    wrong = unnamed = 0
    for (truth, objects), names, places in zip(images, labels, boxes, strict=True):
        least = least_class = 1
        for name, guess in list(zip(names, places, strict=True))[:most]:
            other = int(name != truth)
            least_class = min(least_class, other)
            for box in objects:
                wide = min(guess[2], box[2]) - max(guess[0], box[0]) + 1
                high = min(guess[3], box[3]) - max(guess[1], box[1]) + 1
                overlap = 0.0
                if wide > 0 and high > 0:
                    areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (guess, box)]
                    overlap = wide * high / (sum(areas) - wide * high)
                least = min(least, max(other, int(overlap < 0.50)))
        wrong += least
        unnamed += least_class
    return 100 * wrong / len(images), 100 * unnamed / len(images)


def random_box(random: np.random.Generator, near: Box | None = None) -> Box:
    if near and random.random() < 0.7:
        x1, y1, x2, y2 = (int(v + d) for v, d in zip(near, random.integers(-4, 5, 4), strict=True))
    else:
        x1, y1 = random.integers(1, 30, 2).tolist()
        x2, y2 = x1 + int(random.integers(0, 11)), y1 + int(random.integers(0, 11))
    return x1, y1, max(x1, x2), max(y1, y2)


@pytest.mark.parametrize("seed", range(6))
def test_it_agrees_with_the_kits_description(seed: int) -> None:
    random = np.random.default_rng(seed)
    images: list[tuple[int, list[Box]]] = []
    labels, boxes = [], []
    for _ in range(200):
        objects = [random_box(random) for _ in range(random.integers(1, 5))]
        images.append((int(random.integers(4)), objects))
        # More guesses than count, a class several times, and one that there is not.
        labels.append(random.integers(-1, 4, 7).tolist())
        boxes.append([random_box(random, objects[random.integers(len(objects))]) for _ in range(7)])
    for most in (1, 5):
        found = localization_errors([annotated(*image) for image in images], guessed(labels, boxes), most)
        wrong, unnamed = kits_error(images, labels, boxes, most)
        assert found.localization == pytest.approx(wrong, abs=1e-9)
        assert found.classification == pytest.approx(unnamed, abs=1e-9)
        assert 0 < unnamed < wrong < 100


def test_a_half_is_enough_and_the_best_of_five_counts() -> None:
    images = [(2, [(1, 1, 10, 10), (21, 21, 30, 30)])] * 4
    half, less, other = (1, 1, 10, 5), (1, 1, 10, 4), (21, 21, 30, 30)
    boxes = [
        [half, less, less, less, less, less],  # 50 of 100 pixels
        [less, less, less, less, less, less],
        [less, less, less, less, other, less],  # the second object, by the last guess that counts
        [less, less, less, less, less, other],  # by one too many
    ]
    found = localization_errors([annotated(*image) for image in images], guessed([[2] * 6] * 4, boxes))
    assert found.right.tolist() == [True, False, True, False]
    assert found.localization == 50
    assert found.classification == 0
    # Where it is does not help a wrong class.
    found = localization_errors([annotated(*images[0])], guessed([[1, 0, 3, -1, 1, 2]], [[half] * 6]))
    assert (found.localization, found.classification) == (100, 100)
