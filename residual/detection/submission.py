"""Detections as files: JSON for programs, and what VOC's, COCO's and ImageNet's servers take."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from ..data.boxes import BoxDataset
from ..errors import InputError
from ..files import file_names
from .average_precision import Detections, as_coco


def as_json(detections: Detections, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return detections as plain data: class, score, and box as x1, y1, x2, y2 in pixels, the best first.

    With them, where there are masks, these as COCO writes run lengths.
    """
    rows = zip(detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True)
    found: list[dict[str, Any]] = [
        {"class": classes[label], "score": round(score, 6), "box": [round(value, 2) for value in box]}
        for box, score, label in rows
    ]
    for item, mask in zip(found, detections.masks, strict=False):
        item["mask"] = mask.as_json()
    return found


def voc_files(dataset: BoxDataset, found: Sequence[Detections], split: str) -> dict[str, str]:
    """Return VOC's result files by name, one a class: "image score x1 y1 x2 y2" a line, pixels from 1.

    Scores and boxes as they were measured: rounded ones have another average precision.
    """
    lines: dict[str, list[str]] = {name: [] for name in dataset.classes}
    for annotated, detections in zip(dataset.images, found, strict=True):
        rows = zip(
            detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
        )
        for (x1, y1, x2, y2), score, label in rows:
            lines[dataset.classes[label]].append(
                f"{annotated.id} {score!r} {x1 + 1!r} {y1 + 1!r} {x2!r} {y2!r}\n"
            )
    files = file_names(dataset.classes)
    return {f"comp4_det_{split}_{files[name]}.txt": "".join(rows) for name, rows in lines.items()}


def coco_file(dataset: BoxDataset, found: Sequence[Detections], masks: bool = False) -> str:
    """Return COCO's result file: JSON of image_id, category_id, score and bbox (x, y, width, height).

    Args:
        masks: write those, as segmentation, in place of the boxes.
    """
    results = [
        {
            "image_id": annotated.number,
            "category_id": dataset.categories[label],
            "score": score,
        }
        | ({"segmentation": mask.as_json()} if masks and mask is not None else {"bbox": box})
        for annotated, detections in zip(dataset.images, found, strict=True)
        for box, score, label, mask in as_coco(detections)
    ]
    return json.dumps(results)


def imagenet_file(dataset: BoxDataset, found: Sequence[Detections]) -> str:
    """Return the result file of ImageNet's detection task: "image class score x1 y1 x2 y2" a line.

    Images and classes by their numbers in the development kit; pixels from 0, the last one inside.
    """
    return "".join(
        f"{annotated.number} {dataset.categories[label]} {score!r} {x1!r} {y1!r} {x2 - 1!r} {y2 - 1!r}\n"
        for annotated, detections in zip(dataset.images, found, strict=True)
        for (x1, y1, x2, y2), score, label in zip(
            detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
        )
    )


def without_category(dataset: BoxDataset) -> list[str]:
    """Return the classes that the annotations do not know, of which no server knows either."""
    return [name for name, number in zip(dataset.classes, dataset.categories, strict=True) if number is None]


def check_splits(layout: str, splits: Sequence[str]) -> None:
    """Raise an InputError where a server would not take what is found on several splits: VOC's."""
    if layout == "voc" and len(splits) > 1:
        raise InputError(
            f"VOC's server takes the results of one split, and these are {' and '.join(splits)}; name one of "
            "them with --split"
        )


def check_numbers(dataset: BoxDataset) -> None:
    """Raise an InputError where two images have one id, as those of two splits may have.

    COCO's server and ImageNet's tell images apart by it, VOC's by their names.
    """
    number, times = Counter(annotated.number for annotated in dataset.images).most_common(1)[0]
    if dataset.layout in ("coco", "imagenet-det") and times > 1:
        raise InputError(
            f"{times} images of {' and '.join(dataset.splits)} have the id {number}, by which a server tells "
            "them apart; name one of the splits with --split"
        )


def submission_files(dataset: BoxDataset, found: Sequence[Detections]) -> dict[str, str]:
    """Return the result files that the server of a dataset's layout takes, by their names.

    What is found of classes that the annotations do not know (``without_category``) is left out.

    Raises:
        InputError: as ``check_numbers``.
    """
    check_numbers(dataset)
    splits = "+".join(dataset.splits)
    known = torch.tensor([category is not None for category in dataset.categories])
    found = [detections[known[detections.labels]] for detections in found]
    if dataset.layout == "coco":
        name = file_names([f"{splits}_residual_results"]).popitem()[1]
        files = {f"detections_{name}.json": coco_file(dataset, found)}
        if any(detections.masks for detections in found):
            files[f"segmentations_{name}.json"] = coco_file(dataset, found, masks=True)
        return files
    if dataset.layout == "imagenet-det":
        name = file_names([f"detections_{splits}"]).popitem()[1]
        return {f"{name}.txt": imagenet_file(dataset, found)}
    return voc_files(dataset, found, dataset.splits[0].rpartition("/")[2])
