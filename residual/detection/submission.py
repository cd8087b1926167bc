"""Detections as files: JSON for programs, and what VOC's and COCO's servers take."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.boxes import BoxDataset
from ..errors import InputError
from ..models.statedict import refuse_existing
from .precision import Detections, as_coco


def as_json(detections: Detections, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return detections as plain data: class, score, and box as x1, y1, x2, y2 in pixels, the best first."""
    rows = zip(detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True)
    return [
        {"class": classes[label], "score": round(score, 6), "box": [round(value, 2) for value in box]}
        for box, score, label in rows
    ]


def voc_files(dataset: BoxDataset, found: Sequence[Detections], split: str) -> dict[str, str]:
    """Return VOC's result files by name, one a class: "picture score x1 y1 x2 y2" a line, pixels from 1."""
    lines: dict[str, list[str]] = {name: [] for name in dataset.classes}
    for photo, detections in zip(dataset.photos, found, strict=True):
        rows = zip(
            detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
        )
        for (x1, y1, x2, y2), score, label in rows:
            lines[dataset.classes[label]].append(
                f"{photo.id} {score:.6f} {x1 + 1:.1f} {y1 + 1:.1f} {x2:.1f} {y2:.1f}\n"
            )
    return {f"comp4_det_{split}_{name}.txt": "".join(rows) for name, rows in lines.items()}


def coco_file(dataset: BoxDataset, found: Sequence[Detections]) -> str:
    """Return COCO's result file: JSON of image_id, category_id, bbox (x, y, width, height) and score."""
    results = [
        {
            "image_id": int(photo.id) if photo.id.isdecimal() else photo.id,
            "category_id": dataset.categories[label],
            "bbox": [round(value, 2) for value in box],
            "score": round(score, 6),
        }
        for photo, detections in zip(dataset.photos, found, strict=True)
        for box, score, label in as_coco(detections)
    ]
    return json.dumps(results)


def write_new(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files into a folder.

    Raises:
        InputError: when one of them is there already (nothing is written then), or cannot be written.
    """
    for name in files:
        refuse_existing(folder / name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from None
