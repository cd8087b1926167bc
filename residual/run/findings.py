"""What the page of a classifier's run says of single classes and images: what was confused with what."""

from typing import Any

from ..analysis.page import image_address
from ..class_names import readable
from ..data.images import DamagedImage, pil_image
from ..evaluation.labelled import LabelledImages
from ..evaluation.mistakes import confusion_matrix, counts_by_class, most_confused, worst_mistakes
from ..evaluation.scores import Scores

#: So many mistakes are shown as images.
MISTAKES = 24
#: A matrix of more classes than these is no longer read; the most confused pairs are.
MATRIX, PAIRS = 20, 20
#: Pixels: the shorter side of an image among the mistakes, and a side below which enlarging is left to the
#: browser, which then shows the pixels.
THUMBNAIL, TINY = 160, 64


def classifier_findings(scores: Scores, images: LabelledImages) -> dict[str, Any]:
    """Return confusions, errors by class and the worst mistakes, ready for the page.

    Args:
        scores: of a network on these images.
        images: of which those that are not there any more are not shown.
    """
    names = readable(scores.classes)
    pairs = [
        {"is": names[pair.target], "seen": names[pair.seen], "count": pair.count}
        for pair in most_confused(scores, PAIRS)
    ]
    counts, right = (each.tolist() for each in counts_by_class(scores))
    classes = [
        {"name": name, "images": count, "wrong": count - hit, "error": 100 * (1 - hit / count)}
        for name, count, hit in zip(names, counts, right, strict=True)
        if count
    ]
    small = len(names) <= MATRIX
    number = {name: n for n, name in enumerate(images.ids)}
    mistakes = [
        {
            "id": mistake.id,
            "is": names[mistake.target],
            "seen": names[mistake.seen],
            "probability": 100 * mistake.probability,
            "right": 100 * mistake.right,
            "image": _thumbnail(images, number.get(mistake.id)),
        }
        for mistake in worst_mistakes(scores, MISTAKES)
    ]
    return {
        "kind": "classifier",
        "data": str(scores.about.get("data", images.name)),
        "images": len(scores),
        "wrong": sum(counts) - sum(right),
        "names": names,
        "matrix": _shaded(confusion_matrix(scores).tolist()) if small else None,
        "pairs": pairs,
        "classes": sorted(classes, key=lambda row: -row["error"]),
        "mistakes": mistakes,
    }


def _shaded(matrix: list[list[int]]) -> list[list[dict[str, float]]]:
    """Return a matrix's counts, and how dark each is: by its part of its row, so that rare ones are seen."""
    return [
        [{"count": count, "shade": (count / total) ** 0.5 if (total := sum(row)) else 0.0} for count in row]
        for row in matrix
    ]


def _thumbnail(images: LabelledImages, number: int | None) -> dict[str, Any] | None:
    """Return an image's address and whether it is tiny, None where it is not there any more."""
    if number is None:
        return None
    try:
        image = pil_image(images.image(number, THUMBNAIL))
    except DamagedImage:
        return None
    if max(image.size) <= TINY:
        return {"address": image_address(image), "tiny": True}
    image.thumbnail((2 * THUMBNAIL, 2 * THUMBNAIL))
    return {"address": image_address(image, "JPEG"), "tiny": False}
