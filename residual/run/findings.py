"""What the page of a run says of single classes and images: what was confused, missed, or is not there."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from ..analysis.detection_figures import BoxDrawing, PrecisionCurve, draw_boxes, precision_recall
from ..analysis.page import image_address, part
from ..class_names import readable
from ..data.boxes import AnnotatedImage, BoxDataset
from ..data.images import DamagedImage, decode
from ..detection.average_precision import Detections, Judgement, judge, mean_ap, voc_ap
from ..evaluation.labelled import LabelledImages
from ..evaluation.mistakes import confusion_matrix, most_confused, worst_mistakes
from ..evaluation.scores import Scores
from ..localization.error import OVERLAP, overlaps

#: So many mistakes are shown as images, and so many images with boxes.
MISTAKES, WITH_BOXES = 24, 8
#: A matrix of more classes than these is no longer read; the most confused pairs are.
MATRIX, PAIRS = 20, 20
#: Least score of a detection that is drawn and counted as right or wrong.
SCORE = 0.5
#: Pixels: the shorter side of an image among the mistakes, the longer one of an image with boxes, and a side
#: below which enlarging is left to the browser, which then shows the pixels.
THUMBNAIL, DRAWN, TINY = 160, 560, 64
RIGHT, WRONG = "#2f66c8", "#d9480f"


def classifier_findings(scores: Scores, images: LabelledImages) -> dict[str, Any]:
    """Return confusions, errors by class and the worst mistakes, ready for the page.

    Args:
        scores: of a network on these images.
        images: of which those that are not there any more are not shown.
    """
    names = readable(scores.classes)
    matrix = confusion_matrix(scores)
    pairs = [
        {"is": names[pair.target], "seen": names[pair.seen], "count": pair.count}
        for pair in most_confused(matrix, PAIRS)
    ]
    counts, right = matrix.sum(axis=1), matrix.diagonal()
    classes = [
        {"name": name, "images": int(count), "wrong": int(count - hit), "error": 100 * (1 - hit / count)}
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
        "wrong": int(counts.sum() - right.sum()),
        "names": names,
        "matrix": _shaded(matrix.tolist()) if small else None,
        "pairs": pairs,
        "classes": sorted(classes, key=lambda row: -row["error"]),
        "mistakes": mistakes,
    }


def detector_findings(dataset: BoxDataset, found: Sequence[Detections], ap_rule: Any) -> dict[str, Any]:
    """Return precision by recall, AP by class, misses and false alarms, ready for the page.

    Args:
        found: on each image of the dataset.
        ap_rule: as of ``voc_ap``.
    """
    measured = voc_ap(dataset, found, ap_rule)
    judged = [
        judge(annotated, one, SCORE, ap_rule) for annotated, one in zip(dataset.images, found, strict=True)
    ]
    curves = [
        PrecisionCurve(f"{c.name} {100 * c.average_precision:.1f}", c.recall.tolist(), c.precision.tolist())
        for c in measured
        if c.objects and len(c.scores)
    ]
    mean = mean_ap(measured)
    missed = [a.labels[j.missed] for a, j in zip(dataset.images, judged, strict=True)]
    false = [j.shown.labels[j.false] for j in judged]
    rows = [
        {
            "name": c.name,
            "objects": c.objects,
            "ap": None if math.isnan(c.average_precision) else 100 * c.average_precision,
            "missed": _count(number, missed),
            "false": _count(number, false),
        }
        for number, c in enumerate(measured)
    ]
    wrong = [len(a) + len(b) for a, b in zip(missed, false, strict=True)]
    order = sorted((n for n in range(len(judged)) if wrong[n]), key=lambda n: -wrong[n])[:WITH_BOXES]
    names = dataset.classes
    return {
        "kind": "detector",
        "data": dataset.name,
        "images": len(dataset),
        "score": SCORE,
        "ap_rule": ap_rule,
        "mean": None if math.isnan(mean) else 100 * mean,
        "curves": part(precision_recall(curves, ""), "Precision against recall, a curve a class")
        if curves
        else None,
        "classes": rows,
        "drawn": [
            {"id": dataset.images[n].id, "missed": len(missed[n]), "false": len(false[n])}
            | _beside(dataset.images[n], judged[n], names)
            for n in order
        ],
    }


def localizer_findings(dataset: BoxDataset, found: Sequence[Detections]) -> dict[str, Any]:
    """Return images that are found worst and best, ready for the page.

    Args:
        found: of each image of the dataset the box of its true class.
    """
    owners = torch.arange(len(found)).repeat_interleave(
        torch.tensor([len(annotated.labels) for annotated in dataset.images])
    )
    places = torch.cat([one.boxes[:1] for one in found])[owners]
    every = overlaps(places, torch.cat([annotated.boxes for annotated in dataset.images]))
    best = torch.zeros(len(found), dtype=every.dtype).scatter_reduce_(0, owners, every, "amax")
    order = best.argsort(stable=True)
    # The worst, and of the right ones some spread over all that there are.
    right = order[best[order] >= OVERLAP]
    some = (
        right[torch.linspace(0, len(right) - 1, min(WITH_BOXES, len(right))).long()] if len(right) else right
    )
    parts = (
        ("Wrong", "The images whose box overlaps the true ones least.", order[best[order] < OVERLAP]),
        ("Right", "Some of the others, the least overlap first.", some),
    )
    return {
        "kind": "localizer",
        "data": dataset.name,
        "images": len(found),
        "parts": [
            {
                "title": title,
                "text": text,
                "drawn": [
                    drawn
                    for n in numbers[:WITH_BOXES].tolist()
                    if (drawn := _where(dataset, n, found[n], float(best[n])))
                ],
            }
            for title, text, numbers in parts
        ],
    }


def _where(dataset: BoxDataset, number: int, found: Detections, overlap: float) -> dict[str, Any] | None:
    """Return an image with its true boxes and the found one drawn; None where it is gone."""
    annotated = dataset.images[number]
    try:
        image = decode(annotated.path)
    except DamagedImage:
        return None
    scale = DRAWN / 2 / max(image.shape[1:])
    pixels = to_pil_image(image).resize((round(image.shape[2] * scale), round(image.shape[1] * scale)))
    boxes = [BoxDrawing(tuple(box), RIGHT, "") for box in (annotated.boxes * scale).tolist()]
    boxes += [BoxDrawing(tuple(box), WRONG, "") for box in (found.boxes[:1] * scale).tolist()]
    return {
        "id": annotated.id,
        "name": readable(dataset.classes)[int(annotated.labels[0])],
        "overlap": overlap,
        "address": image_address(draw_boxes(pixels, boxes), "JPEG"),
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
        image = to_pil_image(images.image(number, THUMBNAIL))
    except DamagedImage:
        return None
    if max(image.size) <= TINY:
        return {"address": image_address(image), "tiny": True}
    image.thumbnail((2 * THUMBNAIL, 2 * THUMBNAIL))
    return {"address": image_address(image, "JPEG"), "tiny": False}


def _count(label: int, parts: Sequence[Tensor]) -> int:
    return sum(int((labels == label).sum()) for labels in parts)


def _beside(annotated: AnnotatedImage, judged: Judgement, names: Sequence[str]) -> dict[str, Any]:
    """Return an image twice: with its objects, and with what was found on it; None where it is gone."""
    try:
        image = decode(annotated.path)
    except DamagedImage:
        return {"truth": None, "found": None}
    scale = DRAWN / max(image.shape[1:])
    pixels = to_pil_image(image).resize((round(image.shape[2] * scale), round(image.shape[1] * scale)))
    wanted = annotated.wanted
    truth = [names[label] for label in annotated.labels[wanted].tolist()]
    found = [
        f"{names[label]} {score:.2f}"
        for label, score in zip(judged.shown.labels.tolist(), judged.shown.scores.tolist(), strict=True)
    ]
    return {
        "truth": _drawn(pixels, annotated.boxes[wanted] * scale, judged.missed[wanted], truth),
        "found": _drawn(pixels, judged.shown.boxes * scale, judged.false, found),
    }


def _drawn(image: Image.Image, boxes: Tensor, wrong: Tensor, captions: Sequence[str]) -> str:
    """Return an image with boxes: what is wrong is named, in a colour of its own and drawn last."""
    order = torch.argsort(wrong.int(), stable=True).tolist()
    marked = [
        BoxDrawing(tuple(boxes[n].tolist()), WRONG if wrong[n] else RIGHT, captions[n] if wrong[n] else "")
        for n in order
    ]
    return image_address(draw_boxes(image, marked), "JPEG")
