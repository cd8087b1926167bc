"""What the page of a detector's or localizer's run says of images: what was missed, or is not there."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..analysis.detection_figures import BoxDrawing, PrecisionCurve, draw_boxes, precision_recall
from ..analysis.page import image_address, part
from ..class_names import readable
from ..data.boxes import AnnotatedImage, BoxDataset
from ..data.images import DamagedImage, decode, pil_image
from ..detection.average_precision import Detections, Judgement, judge, mean_ap, voc_ap
from ..localization.error import OVERLAP, overlaps

#: So many images are shown with boxes.
WITH_BOXES = 8
#: Least score of a detection that is drawn and counted as right or wrong.
SCORE = 0.5
#: Pixels of the longer side of an image.
DRAWN = 560
RIGHT, WRONG = "#2f66c8", "#d9480f"


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
        found: of each image of the dataset the box of its true class; none where it could not be looked at.
    """
    images = [annotated for annotated, one in zip(dataset.images, found, strict=True) if len(one)]
    found = [one for one in found if len(one)]
    owners = torch.arange(len(images)).repeat_interleave(
        torch.tensor([len(annotated.labels) for annotated in images])
    )
    places = torch.cat([one.boxes[:1] for one in found])[owners]
    every = overlaps(places, torch.cat([annotated.boxes for annotated in images]))
    best = torch.zeros(len(images), dtype=every.dtype).scatter_reduce_(0, owners, every, "amax")
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
        "images": len(images),
        "parts": [
            {
                "title": title,
                "text": text,
                "drawn": [
                    drawn
                    for n in numbers[:WITH_BOXES].tolist()
                    if (drawn := _where(dataset.classes, images[n], found[n], float(best[n])))
                ],
            }
            for title, text, numbers in parts
        ],
    }


def _where(
    classes: Sequence[str], annotated: AnnotatedImage, found: Detections, overlap: float
) -> dict[str, Any] | None:
    """Return an image with its true boxes and the found one drawn; None where it is gone."""
    try:
        image = decode(annotated.path)
    except DamagedImage:
        return None
    scale = DRAWN / 2 / max(image.shape[1:])
    pixels = _scaled(image, scale)
    boxes = [BoxDrawing(tuple(box), RIGHT, "") for box in (annotated.boxes * scale).tolist()]
    boxes += [BoxDrawing(tuple(box), WRONG, "") for box in (found.boxes[:1] * scale).tolist()]
    return {
        "id": annotated.id,
        "name": readable(classes)[int(annotated.labels[0])],
        "overlap": overlap,
        "address": image_address(draw_boxes(pixels, boxes), "JPEG"),
    }


def _scaled(image: Tensor, scale: float) -> Image.Image:
    """Return an image uint8 (3, H, W) at a scale, with a pixel at least each way."""
    height, width = (max(1, round(side * scale)) for side in image.shape[1:])
    return pil_image(image).resize((width, height))


def _count(label: int, parts: Sequence[Tensor]) -> int:
    return sum(int((labels == label).sum()) for labels in parts)


def _beside(annotated: AnnotatedImage, judged: Judgement, names: Sequence[str]) -> dict[str, Any]:
    """Return an image twice: with its objects, and with what was found on it; None where it is gone."""
    try:
        image = decode(annotated.path)
    except DamagedImage:
        return {"truth": None, "found": None}
    scale = DRAWN / max(image.shape[1:])
    pixels = _scaled(image, scale)
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
