"""The annotated pictures that a recipe or a command is about, and what was left out of them."""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from ..data.boxes import BoxDataset
from ..data.coco import load_coco
from ..data.voc import load_voc
from ..detection.testing import input_size
from ..errors import InputError
from ..recipes.detection import Boxes


def load_boxes(
    folder: Path,
    data: Boxes,
    splits: Sequence[str],
    classes: Sequence[str] | None,
    *,
    boxes: bool = True,
) -> BoxDataset:
    """Return some splits of what a recipe is about; pictures that are too long are left out and noted."""
    if data.layout == "voc":
        found = load_voc(folder, splits, classes, boxes=boxes)
    else:
        found = load_coco(folder, splits, classes, boxes=boxes)
    size = functools.partial(input_size, shorter=data.shorter_side, longer=data.longer_side, stride=16)
    kept, notes = [], list(found.notes)
    for photo in found.photos:
        try:
            size(*photo.size)
            kept.append(photo)
        except InputError as error:
            notes.append(f"{photo.path}: {error}; it is left out")
    if not kept:
        raise InputError(f"{folder}: no picture of {' and '.join(splits)} can be used; the first: {notes[0]}")
    return BoxDataset(found.name, found.classes, tuple(kept), tuple(notes), found.categories)


def tell_notes(notes: Sequence[str], listing: Path) -> None:
    """Say what was left out of the annotations, and list all of it in a file."""
    if not notes:
        return
    listing.write_text("".join(f"{note}\n" for note in notes), encoding="utf-8")
    more = f" and {len(notes) - 1:,} more, listed in {listing}" if len(notes) > 1 else ""
    print(f"note: {notes[0]}{more}", file=sys.stderr)
