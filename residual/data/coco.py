"""Annotations in COCO's layout: instances as JSON, COCO's own or anybody's.

    annotations/instances_SPLIT.json      or annotations/image_info_SPLIT.json, annotations/SPLIT.json or
                                          SPLIT.json
    SPLIT/FILE                            or images/SPLIT/FILE, images/FILE, FILE
    SPLIT/_annotations.coco.json          beside its images, as Roboflow has it

Crowds are kept as such: nobody has to find them, and what lies in them is no mistake (evaluation), and they
are neither objects nor background to learn from (training). So are objects that are marked with ``ignore``,
as mmdetection and Detectron have it.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from ..class_names import class_name
from ..errors import InputError
from ..files import no_folder, read_json
from .boxes import (
    Annotation,
    BoxDataset,
    Record,
    hold_out,
    make_box_dataset,
    name_splits,
    stated_size,
    turned,
)
from .images import SUFFIXES
from .masks import Outline
from .named_files import NamedFiles, last_part

#: A JSON among its images.
BESIDE = "_annotations.coco.json"
#: What ``bbox_mode`` says in Detectron2's own dictionaries: the corners, or a corner and the sides.
CORNERS, SIDES = 0, 1


def load_coco(
    folder: Path,
    splits: Sequence[str],
    classes: Sequence[str] | None = None,
    *,
    boxes: bool = True,
    masks: bool = False,
) -> BoxDataset:
    """Read one or more splits together.

    Args:
        folder: holds annotations/ and the images.
        splits: as "train2014".
        classes: names of the classes, objects of others are left out; None for those of the JSON's categories
            that have objects, in the order of their ids.
        boxes: whether there are annotations; test-dev has none.
        masks: whether to read the objects' masks as well, polygons or run lengths.

    Raises:
        InputError: when a file is missing or damaged, ids of images or categories are not unique, the splits
            do not agree, or no object is of the classes.
    """
    notes: list[str] = []
    records: list[Record] = []
    numbers: dict[str, int] = {}
    ids: dict[str, int | str] = {}
    taken: dict[Path, tuple[str, Path]] = {}
    for split in splits:
        file = _annotations(folder, split)
        content = _read(file)
        if not boxes:
            content["annotations"] = []
        names = _names(content, file)
        for number, name in names.items():
            if numbers.setdefault(name, number) != number:
                raise InputError(
                    f"{file}: the category {name!r} has the id {number}, and in {splits[0]} "
                    f"{numbers[name]}; give all splits the same"
                )
        listed = _by_id(content, "categories", file)
        for text, item in listed.items():
            if called := names.get(int(text)):
                ids.setdefault(called, _as_stored(item))
        found = list(_records(file, content, names, _Images(folder, split, file), taken, notes, masks))
        # Programs that are not COCO's may count from 0 in each split.
        before = {record.id for record in records}
        records += [
            replace(record, id=f"{split}/{record.id}") if record.id in before else record for record in found
        ]
    if not numbers:
        raise InputError(f"{folder}: no category is listed; a JSON lists the classes under 'categories'")
    known = {name: ids[name] for name in sorted(numbers, key=numbers.__getitem__)}
    place = f"{folder}: {' and '.join(splits)}"
    return make_box_dataset("coco", splits, records, classes, known, notes, place, boxes)


class _Images:
    """The images of a split, found by what a JSON calls them: with folders of this machine or another."""

    def __init__(self, folder: Path, split: str, file: Path) -> None:
        # COCO's test-dev is a part of its test images, and lies among them.
        split = split.replace("-dev", "")
        own = [folder / split, folder / "images" / split]
        self.places = [place for place in (*own, folder / "images", folder) if place.is_dir()]
        for place in self.places:
            self.beside = NamedFiles([place], SUFFIXES)
            if self.beside.files:
                break
        else:
            raise InputError(f"there are no images in {folder / split} or {folder / 'images'}")
        #: Whether all of them should be listed: other splits' images may lie beside them.
        self.all = place in own or len(list(file.parent.glob("*.json"))) == 1

    def called(self, name: str) -> str:
        """Return what a file may be called: its name, or the end of an address that is written as one."""
        if not ("%" in name or "?" in name) or self.find(name, loosely=False):
            return name
        path, _, query = name.partition("?")
        # Label Studio: /data/local-files/?d=FILE
        return parse_qs(query).get("d", [unquote(path)])[0]

    def find(self, name: str, loosely: bool) -> Path | None:
        """Return an image's file, None where there is none, or several that may be meant."""
        for place in self.places:
            # os.path: a name that is too long is no file.
            if os.path.isfile(path := place / name):
                return path
        found = self.beside.find(name, loosely)
        return found[0] if len(found) == 1 else None


def _records(
    file: Path,
    content: dict[str, Any],
    names: dict[int, str],
    images: _Images,
    taken: dict[Path, tuple[str, Path]],
    notes: list[str],
    masks: bool,
) -> Iterator[Record]:
    """Yield a JSON's images with their objects; what is of no use is noted.

    Args:
        taken: files that are read already, each with its image's id and the JSON that lists it.
    """
    listed = _by_id(content, "images", file)
    objects = _objects(file, content, names, listed, notes, masks)
    called = {n: images.called(str(image.get("file_name"))) for n, image in listed.items()}
    last = Counter(map(last_part, called.values()))
    for number, image in listed.items():
        name = image.get("file_name")
        if not isinstance(name, str) or not name:
            notes.append(f"{file}: image {number} has no file_name; it is left out")
            continue
        path = images.find(called[number], loosely=last[last_part(called[number])] == 1)
        if path is None:
            notes.append(f"{file}: there is no file of image {number}, {name}; it is left out")
            continue
        if path in taken:
            other, source = taken[path]
            of = "" if source == file else f" of {source.name}"
            notes.append(f"{file}: image {number} is the file of image {other}{of}, {name}; it is left out")
            continue
        taken[path] = number, file
        try:
            width, height = int(image["width"]), int(image["height"])
        except (KeyError, TypeError, ValueError, OverflowError):
            width = height = 0
        size = stated_size(width, height)
        where = f"{file}: image {number}"
        yield Record(number, path, size, tuple(objects[number]), where, _as_stored(image))
    if images.all and (unlisted := [n for n, path in images.beside.files.items() if path not in taken]):
        notes.append(
            f"{file}: {len(unlisted):,} images beside it are not listed and are left out, the first is "
            f"{unlisted[0]}"
        )


def _objects(
    file: Path,
    content: dict[str, Any],
    names: dict[int, str],
    images: dict[str, Any],
    notes: list[str],
    masks: bool,
) -> dict[str, list[Annotation]]:
    """Return the objects of each image; annotations that are of no use are noted."""
    objects: dict[str, list[Annotation]] = defaultdict(list)
    for place, item in enumerate(_list(content, "annotations", file)):
        # Their own ids serve nothing, and some programs give none or the same ones twice.
        shown = item["id"] if isinstance(item, dict) and "id" in item else f"at place {place}"
        where = f"{file}: annotation {shown}"
        try:
            image, category = _id(item["image_id"]), int(_id(item["category_id"]))
            corners = _corners(item)
            if not image:
                raise ValueError
            crowd = any(int(item.get(key) or 0) for key in ("iscrowd", "ignore"))
            x1, y1, x2, y2 = corners
            area = (x2 - x1) * (y2 - y1) if item.get("area") is None else float(item["area"])
            corners = turned(corners, _rotation(item))
        except (KeyError, TypeError, ValueError, OverflowError):
            notes.append(
                f"{where} lacks an image_id, a category_id or a bbox of four numbers, or its area, iscrowd, "
                "ignore, bbox_mode or rotation is none that is known; it is left out"
            )
            continue
        if category not in names:
            notes.append(f"{where} is of category {category}, which is not listed; it is left out")
        elif image not in images:
            notes.append(f"{where} is of image {image}, which is not listed; it is left out")
        else:
            shape = None
            try:
                shape = _outline(item) if masks else None
            except (TypeError, ValueError, OverflowError):
                notes.append(
                    f"{where}: its segmentation is neither polygons nor run lengths; its box alone is used"
                )
            objects[image].append(Annotation(names[category], corners, crowd=crowd, area=area, shape=shape))
    return objects


def _outline(item: dict[str, Any]) -> Outline | None:
    """Return an annotation's segmentation, None where it has none.

    Raises:
        TypeError, ValueError, OverflowError: where it is none that is known.
    """
    found = item.get("segmentation")
    # Programs that write boxes alone leave the list empty.
    if found is None or found == []:
        return None
    if isinstance(found, dict):
        height, width = found.get("size", ())
        counts: Any = found.get("counts")
        return Outline(
            size=(int(height), int(width)),
            runs=counts if isinstance(counts, str) else tuple(map(int, counts)),
        )
    return Outline(tuple(tuple(map(float, part)) for part in _polygons(found)))


def _polygons(found: list[Any]) -> list[Any]:
    """Return the parts of an object; VIA writes the only one without a list around it."""
    return found if not found or isinstance(found[0], list) else [found]


def _corners(item: dict[str, Any]) -> tuple[float, float, float, float]:
    """Return the corners of the annotation's bbox, or of what lies around its polygons.

    Raises:
        TypeError, ValueError: where it has neither.
    """
    box, polygons = item.get("bbox"), item.get("segmentation")
    if not box and isinstance(polygons, list) and polygons:
        numbers = [float(value) for polygon in _polygons(polygons) for value in polygon]
        xs, ys = numbers[::2], numbers[1::2]
        return min(xs), min(ys), max(xs), max(ys)
    x, y, w, h = map(float, box or ())
    mode = item.get("bbox_mode", SIDES)
    if mode not in (CORNERS, SIDES):
        raise ValueError
    return (x, y, w, h) if mode == CORNERS else (x, y, x + w, y + h)


def _rotation(item: dict[str, Any]) -> float:
    """Return the degrees by which CVAT says that a box is turned; 0 elsewhere."""
    attributes = item.get("attributes")
    return float(attributes.get("rotation") or 0) if isinstance(attributes, dict) else 0.0


def _names(content: dict[str, Any], file: Path) -> dict[int, str]:
    """Return the names of the categories by their ids.

    Of two categories of one name, a class and its supercategory, the one that has objects counts.
    """
    named: dict[str, list[int]] = defaultdict(list)
    for text, category in _by_id(content, "categories", file).items():
        try:
            number = int(text)
        except ValueError:
            raise InputError(f"{file}: one of its categories has no whole number as id") from None
        name = category.get("name")
        named[class_name("" if name is None else str(name).strip()) or str(number)].append(number)
    listed = _list(content, "annotations", file) if content.get("annotations") else []
    items = [item for item in listed if isinstance(item, dict)]
    used = {_id(item.get("category_id")) for item in items}
    found: dict[int, str] = {}
    for name, numbers in named.items():
        annotated = [number for number in numbers if str(number) in used]
        if len(annotated) > 1:
            raise InputError(f"{file}: two categories have one name, {name!r}; give each its own")
        found[(annotated or numbers)[0]] = name
    return found


def _annotations(folder: Path, split: str) -> Path:
    if not folder.is_dir():
        raise no_folder(folder, "name the one with annotations/ with --data-dir")
    candidates = [
        *(folder / "annotations" / f"{stem}_{split}.json" for stem in ("instances", "image_info")),
        folder / "annotations" / f"{split}.json",
        folder / split / BESIDE,
        folder / f"{split}.json",
    ]
    for file in candidates:
        if file.is_file():
            return file
    #: By the names of their splits.
    there = {path.stem.removeprefix("instances_"): path for path in sorted(folder.glob("annotations/*.json"))}
    there |= {path.parent.name: path for path in sorted(folder.glob(f"*/{BESIDE}"))}
    there |= {path.stem: path for path in sorted(folder.glob("*.json"))}
    named = ", ".join(str(path.relative_to(folder)) for path in there.values())
    have = f"; there are {named}; {name_splits(there)}" if there else ""
    if len(there) == 1:
        have = (
            f"; there is {named} alone; {hold_out(next(iter(there)))}, or test on none with "
            f"--set 'data.test=[]'; {name_splits(there)}"
        )
    raise InputError(f"there is no file {candidates[0]}{have}")


def _read(file: Path) -> dict[str, Any]:
    return read_json(file, dict)


def _list(content: dict[str, Any], key: str, file: Path) -> list[Any]:
    items = content.get(key)
    if not isinstance(items, list):
        raise InputError(f"{file} has no list of {key}")
    return items


def _by_id(content: dict[str, Any], key: str, file: Path) -> dict[str, dict[str, Any]]:
    """Return images or categories by their ids as text: some programs write numbers, some text."""
    found: dict[str, dict[str, Any]] = {}
    for item in _list(content, key, file):
        number = _id(item.get("id")) if isinstance(item, dict) else ""
        if not number:
            raise InputError(f"{file}: one of its {key} has no id")
        if number in found:
            raise InputError(f"{file}: two of its {key} have the id {number}; ids are unique")
        found[number] = item
    return found


def _as_stored(item: dict[str, Any]) -> int | str:
    """Return the id of an image or a category as others read it from the JSON: a number, or a text."""
    found: int | str = int(item["id"]) if isinstance(item["id"], float) else item["id"]
    return found


def _id(value: Any) -> str:
    """Return a number or a text as text, "" for what is neither."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
