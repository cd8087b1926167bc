"""The annotated images that a recipe or a command is about, and what was left out of them."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..data.boxes import BoxDataset
from ..data.coco import load_coco
from ..data.imagenet_det import load_imagenet_det
from ..data.voc import load_voc
from ..data.yolo import load_yolo
from ..errors import InputError
from ..recipes.detection import Boxes
from .inference import input_size

READERS = {"voc": load_voc, "coco": load_coco, "yolo": load_yolo}


def load_boxes(
    folder: Path,
    data: Boxes,
    splits: Sequence[str],
    classes: Sequence[str] | None,
    *,
    boxes: bool = True,
    masks: bool = False,
) -> BoxDataset:
    """Return some splits of what a recipe is about; images that are too long are left out and noted.

    Args:
        classes: those that are asked for, None for those that the annotations name.
        boxes: whether there are annotations.
        masks: whether to read the objects' masks.

    Raises:
        InputError: as the readers do, and where all images are too long.
    """
    if data.layout == "imagenet-det":
        found = load_imagenet_det(folder, splits, classes, boxes=boxes)
    else:
        found = READERS[data.layout](folder, splits, classes, boxes=boxes, masks=masks)
    # Every backbone for such images has a stride of 16.
    size = functools.partial(input_size, shorter=data.shorter_side, longer=data.longer_side, stride=16)
    kept, too_long = [], []
    for annotated in found.images:
        try:
            size(*annotated.size)
            none = torch.zeros_like(annotated.difficult)
            kept.append(replace(annotated, difficult=none) if data.use_difficult else annotated)
        except InputError as error:
            too_long.append(f"{annotated.path}: {error}; it is left out")
    if not kept:
        raise InputError(
            f"{folder}: no image of {' and '.join(splits)} can be used; the first: {too_long[0]}"
        )
    return replace(found, images=tuple(kept), notes=(*found.notes, *too_long))
