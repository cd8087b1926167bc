"""What the page of a detector's or localizer's run says of images: what was missed, or is not there."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..analysis.detection_figures import BoxDrawing, PrecisionCurve, draw_boxes, precision_recall
from ..analysis.page import image_address, part
from ..class_names import readable
from ..data.boxes import AnnotatedImage, BoxDataset
from ..data.images import DamagedImage, decode, pil_image
from ..detection.average_precision import Detections, Judgement, mean_ap, voc_ap
from ..detection.drawing import RIGHT, SCORE, WRONG, draw_judged, judged_worst_first
from ..localization.error import OVERLAP, overlaps

#: So many images are shown with boxes.
WITH_BOXES = 8
#: Pixels of the longer side of an image.
DRAWN = 560


def detector_findings(dataset: BoxDataset, found: Sequence[Detections], ap_rule: Any) -> dict[str, Any]:
    """Return precision by recall, AP by class, misses and false alarms, ready for the page.

    Args:
        found: on each image of the dataset.
        ap_rule: as of ``voc_ap``.
    """
    measured = voc_ap(dataset, found, ap_rule)
    judged = judged_worst_first(dataset, found, ap_rule)
    curves = [
        PrecisionCurve(f"{c.name} {100 * c.average_precision:.1f}", c.recall.tolist(), c.precision.tolist())
        for c in measured
        if c.objects and len(c.scores)
    ]
    mean = mean_ap(measured)
    missed = [annotated.labels[one.missed] for annotated, one in judged]
    false = [one.shown.labels[one.false] for _, one in judged]
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
            {"id": annotated.id, "missed": int(one.missed.sum()), "false": int(one.false.sum())}
            | _beside(annotated, one, dataset.classes)
            for annotated, one in judged[:WITH_BOXES]
            if one.mistakes
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
    boxes = [BoxDrawing(tuple(box), RIGHT, "") for box in annotated.boxes.tolist()]
    boxes += [BoxDrawing(tuple(box), WRONG, "") for box in found.boxes[:1].tolist()]
    return {
        "id": annotated.id,
        "name": readable(classes)[int(annotated.labels[0])],
        "overlap": overlap,
        "address": image_address(draw_boxes(pil_image(image), boxes, DRAWN / 2), "JPEG"),
    }


def _count(label: int, parts: Sequence[Tensor]) -> int:
    return sum(int((labels == label).sum()) for labels in parts)


def _beside(annotated: AnnotatedImage, judged: Judgement, classes: Sequence[str]) -> dict[str, Any]:
    """Return an image twice: with its objects, and with what was found on it; None where it is gone."""
    try:
        truth, found = draw_judged(annotated, judged, classes, DRAWN)
    except DamagedImage:
        return {"truth": None, "found": None}
    return {"truth": image_address(truth, "JPEG"), "found": image_address(found, "JPEG")}
