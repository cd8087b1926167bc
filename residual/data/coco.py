"""Annotations in COCO's layout: instances as JSON, COCO's own or anybody's.

    annotations/instances_SPLIT.json      or annotations/image_info_SPLIT.json or annotations/SPLIT.json
    SPLIT/FILE                            or images/SPLIT/FILE or images/FILE

Crowds are kept as such: nobody has to find them, and what lies in them is no mistake (evaluation), and they
are neither objects nor background to learn from (training).
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .boxes import AnnotatedImage, Annotation, BoxDataset, check_not_empty, make_annotated_image


def load_coco(
    folder: Path, splits: Sequence[str], classes: Sequence[str] | None = None, *, boxes: bool = True
) -> BoxDataset:
    """Read one or more splits together.

    Args:
        folder: holds annotations/ and the images.
        splits: as "train2014".
        classes: names of the classes, None for the JSON's categories in the order of their ids.
        boxes: whether there are annotations; test-dev has none.

    Raises:
        InputError: when a file is missing or damaged, ids are not unique, a category is not listed, or the
            splits or ``classes`` do not agree.
    """
    notes: list[str] = []
    images: list[AnnotatedImage] = []
    categories: dict[str, int] = {}
    for split in splits:
        file = _annotations(folder, split)
        content = _read(file)
        if not boxes:
            content["annotations"] = []
        names = {
            number: str(c.get("name", number)) for number, c in _by_id(content, "categories", file).items()
        }
        if len(set(names.values())) < len(names):
            raise InputError(f"{file}: two categories have one name; give each its own")
        listed = {names[number]: number for number in sorted(names)}
        if categories and categories != listed:
            raise InputError(f"{file}: its categories are not those of {splits[0]}; give all splits the same")
        categories = listed
        chosen = list(classes) if classes is not None else list(listed)
        if other := sorted(set(listed) - set(chosen)):
            raise InputError(f"{file}: there is no class {other[0]!r} among {', '.join(chosen)}")
        label = {name: number for number, name in enumerate(chosen)}
        images += _annotated_images(file, content, names, label, _image_files(folder, split), notes)
    if not categories:
        raise InputError(f"{folder}: no category is listed; a JSON lists the classes under 'categories'")
    check_not_empty(images, f"{folder}: {' and '.join(splits)}", notes)
    named = tuple(classes) if classes is not None else tuple(categories)
    numbers = tuple(categories.get(name, 0) for name in named)
    return BoxDataset("coco", tuple(splits), named, tuple(images), tuple(notes), numbers)


def _annotated_images(
    file: Path,
    content: dict[str, Any],
    names: dict[int, str],
    label: dict[str, int],
    files: dict[str, Path],
    notes: list[str],
) -> list[AnnotatedImage]:
    images = _by_id(content, "images", file)
    objects: dict[int, list[Annotation]] = defaultdict(list)
    for number, item in _by_id(content, "annotations", file).items():
        try:
            image_id, category = int(item["image_id"]), int(item["category_id"])
            x, y, w, h = map(float, item["bbox"])
            crowd, area = bool(int(item.get("iscrowd") or 0)), item.get("area")
            area = w * h if area is None else float(area)
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"{file}: annotation {number} lacks an image_id, a category_id or a bbox of four numbers, or "
                "its area or iscrowd is no number"
            ) from None
        if category not in names:
            raise InputError(f"{file}: annotation {number} is of category {category}, which is not listed")
        if image_id not in images:
            notes.append(f"{file}: annotation {number} is of image {image_id}, which is not listed; left out")
            continue
        objects[image_id].append(
            Annotation(
                names[category],
                (x, y, x + w, y + h),
                crowd=crowd,
                area=area,
            )
        )
    kept = []
    for number, image in images.items():
        try:
            name, size = str(image["file_name"]), (int(image["width"]), int(image["height"]))
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{file}: image {number} lacks a file_name, a width or a height") from None
        if name not in files:
            notes.append(f"{file}: there is no file of image {number}, {name}; it is left out")
            continue
        where = f"{file}: image {number}"
        if min(size) < 1:
            notes.append(f"{where} has a size of {size[0]} x {size[1]}; it is left out")
            continue
        kept.append(
            make_annotated_image(str(number), files[name], size, objects[number], label, where, notes)
        )
    listed = {str(image["file_name"]) for image in images.values()}
    if unlisted := sorted(files.keys() - listed):
        notes.append(
            f"{file}: {len(unlisted):,} images beside it are not listed and are left out, the first is "
            f"{unlisted[0]}"
        )
    return kept


def _annotations(folder: Path, split: str) -> Path:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; name the one with annotations/ with --data-dir")
    candidates = [
        folder / "annotations" / f"{stem}.json"
        for stem in (f"instances_{split}", f"image_info_{split}", split)
    ]
    for file in candidates:
        if file.is_file():
            return file
    there = sorted(path.name for path in (folder / "annotations").glob("*.json"))
    have = f"; there are {', '.join(there)}" if there else ""
    raise InputError(f"there is no file {candidates[0]}{have}")


def _image_files(folder: Path, split: str) -> dict[str, Path]:
    """Return the files of a split by their name, as a JSON has it."""
    # COCO's test-dev is a part of its test images, and lies among them.
    split = split.replace("-dev", "")
    for place in (folder / split, folder / "images" / split, folder / "images", folder):
        if place.is_dir() and (files := {p.name: p for p in place.iterdir() if p.is_file()}):
            return files
    raise InputError(f"there are no images in {folder / split} or {folder / 'images'}")


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is damaged or no JSON ({error}); get it anew") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: instances are a mapping with images, annotations and categories")
    return content


def _by_id(content: dict[str, Any], key: str, file: Path) -> dict[int, dict[str, Any]]:
    items = content.get(key)
    if not isinstance(items, list):
        raise InputError(f"{file} has no list of {key}")
    found: dict[int, dict[str, Any]] = {}
    for item in items:
        number = item.get("id") if isinstance(item, dict) else None
        if not isinstance(number, int):
            raise InputError(f"{file}: one of its {key} has no whole number as id")
        if number in found:
            raise InputError(f"{file}: two of its {key} have the id {number}; ids are unique")
        found[number] = item
    return found
