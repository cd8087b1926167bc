"""Images in folders, of one class each, and where on them that class is: ImageNet's CLS-LOC, Tiny ImageNet.

    DIR/train, DIR/val                        images and their classes, as folder.py reads them
    DIR/Annotations/CLS-LOC/train/WNID/ID.xml   VOC's XML (voc.py), also where DIR is ILSVRC/Data/CLS-LOC
    DIR/Annotations/CLS-LOC/val/ID.xml
    DIR/devkit/data/*_clsloc_validation_blacklist.txt   validation images that are not counted

    DIR/train/WNID/WNID_boxes.txt             Tiny ImageNet: FILE and x1, y1, x2, y2 a line
    DIR/val/val_annotations.txt               FILE, its class, and x1, y1, x2, y2

Both count pixels from 0 (some boxes of LOC_val_solution.csv begin there), and name the last one of a box.
ILSVRC has boxes for 544,546 of the 1,281,167 training images, and often several objects of the class on one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from ..errors import InputError
from ..files import numbered_lines
from .boxes import Annotation, BoxDataset, Layout, Record, make_box_dataset
from .folder import FolderIndex, index_folder
from .named_files import files_below, in_kit, read_number
from .voc import from_pixel_0, read_annotation

#: Where ILSVRC has its annotations, below the folder of the images or beside the one that holds it.
ANNOTATIONS = Path("Annotations") / "CLS-LOC"
#: Tiny ImageNet's lists: of a class, beside its images; of all validation images.
BOXES, VAL_ANNOTATIONS = "{}_boxes.txt", "val_annotations.txt"


@dataclass(frozen=True)
class LocatedImages:
    """Images whose class is known, and where it is on them.

    Attributes:
        boxes: the images with one box at least, all of an image's boxes of its class.
        index: the same images in the same order, as a classifier is tested on them.
    """

    boxes: BoxDataset
    index: FolderIndex

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class _Found:
    """The objects of an image, as they were read.

    Attributes:
        where: the annotation's place, for the notes.
        size: as of ``Record``.
    """

    where: str
    size: tuple[int, int] | None
    objects: tuple[Annotation, ...]


def load_located(
    data_dir: Path, split: Literal["train", "val"], classes: tuple[str, ...] | None = None
) -> LocatedImages:
    """Read a part of ImageNet's or Tiny ImageNet's images with the boxes of their classes.

    Images without a box are left out, and so are objects of another class than their image's; each is noted.

    Args:
        data_dir: the folder that holds ``train`` and ``val``.
        classes: those of the training part, in whose order labels count; None for the part's own.

    Raises:
        InputError: as ``index_folder``, and where there are no boxes, or none that can be used.
    """
    index = index_folder(data_dir, split, classes)
    layout, files = _annotations(data_dir, split, index)
    # A class's name may begin with its WordNet id, which is what annotations have.
    known = {name.partition(" ")[0]: name for name in index.classes} | {name: name for name in index.classes}
    notes: list[str] = []
    records: list[Record] = []
    positions: dict[Path, int] = {}
    uncounted = _uncounted(data_dir, index, notes) if layout == "imagenet" and split == "val" else frozenset()
    without: list[Path] = []
    found = _read_xml(index, files, notes) if layout == "imagenet" else _read_lists(index, files, notes)
    for position, annotation in found:
        path = index.path(position)
        if position in uncounted:
            continue
        if annotation is None:
            without.append(path)
            continue
        name = index.classes[int(index.targets[position])]
        objects = _of_class(annotation, name, known, notes)
        if not objects:
            notes.append(f"{annotation.where} has no box of the image's class, {name}; its image is left out")
            continue
        positions[path] = position
        records.append(Record(index.ids[position], path, annotation.size, objects, annotation.where))
    if without:
        notes.insert(
            0,
            f"{len(without):,} of the {len(index):,} images of {index.name} have no annotation and are left "
            f"out; the first is {without[0]}",
        )
    dataset = make_box_dataset(layout, (split,), records, index.classes, None, notes, index.name, True)
    # What was wrong with the boxes of the others is noted.
    kept = tuple(annotated for annotated in dataset.images if len(annotated.labels))
    order = torch.tensor([positions[annotated.path] for annotated in kept])
    return LocatedImages(replace(dataset, images=kept), index.subset(order, index.name))


def _annotations(
    data_dir: Path, split: Literal["train", "val"], index: FolderIndex
) -> tuple[Layout, list[Path]]:
    """Return the layout of a part, and its files with boxes.

    Raises:
        InputError: where there are none.
    """
    if split == "val":
        lists = [path for path in (index.root / VAL_ANNOTATIONS,) if path.is_file()]
    else:
        folders = sorted({file.partition("/")[0] for file in index.files})
        lists = [path for name in folders if (path := index.root / name / BOXES.format(name)).is_file()]
    if lists:
        return "tiny-imagenet", lists
    places = [place / ANNOTATIONS / split for place in _roots(data_dir)]
    root = next((place for place in places if place.is_dir()), None)
    if root is None:
        raise InputError(
            f"there are no boxes for {index.name}; ILSVRC's belong into {places[0]}, and Tiny ImageNet has "
            f"{BOXES.format('n*')} in each folder of train/ and {VAL_ANNOTATIONS} in val/"
        )
    return "imagenet", sorted(file for file in files_below(root) if file.suffix.lower() == ".xml")


def _roots(data_dir: Path) -> tuple[Path, Path]:
    """Return where ILSVRC's annotations and its kit may lie: with the images, or two folders above."""
    return data_dir, data_dir.absolute().parent.parent


def _uncounted(data_dir: Path, index: FolderIndex, notes: list[str]) -> frozenset[int]:
    """Return the positions of validation images that the development kit leaves out, its boxes being poor.

    Raises:
        InputError: for a list of something else.
    """
    file = in_kit(_roots(data_dir), "*clsloc_validation_blacklist.txt")
    if file is None:
        return frozenset()
    numbers: set[int] = set()
    for place, line in numbered_lines(file):
        if (number := read_number(line.strip())) is None:
            raise InputError(f"{file}, line {place}: {line.strip()!r} is not an image's number")
        numbers.add(number)
    # ILSVRC2012_val_00000001.JPEG is the first.
    ends = [index.path(position).stem.rpartition("_")[2] for position in range(len(index))]
    found = frozenset(
        position for position, end in enumerate(ends) if end.isdecimal() and int(end[-10:]) in numbers
    )
    if found:
        images = "image" if len(found) == 1 else "images"
        notes.append(
            f"{index.name}: {len(found):,} {images} left out, as {file} says: ILSVRC does not count them"
        )
    return found


def _read_xml(
    index: FolderIndex, files: Sequence[Path], notes: list[str]
) -> Iterator[tuple[int, _Found | None]]:
    """Yield each image's position and what its XML says, None where there is none; damaged ones are noted."""
    # An image's name without suffix tells it from all others of ILSVRC.
    by_stem = {file.stem: file for file in files}
    for position in range(len(index)):
        file = by_stem.get(index.path(position).stem)
        if file is None:
            yield position, None
        elif (read := read_annotation(file, notes)) is not None:
            yield position, _Found(str(file), read.size, tuple(map(from_pixel_0, read.objects)))


def _read_lists(
    index: FolderIndex, files: Sequence[Path], notes: list[str]
) -> Iterator[tuple[int, _Found | None]]:
    """Yield each image's position and its boxes in Tiny ImageNet's lists, None where there are none."""
    # By folder and name where each class has a list: images of two classes may have one name.
    boxes: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}
    source: dict[tuple[str, str], str] = {}
    by_class = [file.name for file in files] != [VAL_ANNOTATIONS]
    for file in files:
        folder = file.parent.name if by_class else ""
        for number, line in numbered_lines(file):
            name, *fields = line.strip().split("\t")
            try:
                x1, y1, x2, y2 = map(float, fields[-4:])
            except ValueError:
                notes.append(
                    f"{file}, line {number}: {line.strip()!r} is not a file and the corners of its box, x1, "
                    "y1, x2, y2; it is left out"
                )
                continue
            # The last pixel belongs to the box.
            boxes.setdefault((folder, name), []).append((x1, y1, x2 + 1, y2 + 1))
            source.setdefault((folder, name), f"{file}, line {number}")
    for position in range(len(index)):
        folder = index.files[position].partition("/")[0] if by_class else ""
        image = folder, index.path(position).name
        if image not in boxes:
            yield position, None
            continue
        own = index.classes[int(index.targets[position])]
        objects = tuple(Annotation(own, corners) for corners in boxes[image])
        yield position, _Found(source[image], None, objects)


def _of_class(found: _Found, name: str, known: dict[str, str], notes: list[str]) -> tuple[Annotation, ...]:
    """Return an image's objects of its own class, by its name; the others are noted."""
    kept = []
    for item in found.objects:
        meant = known.get(item.name)
        if meant == name:
            kept.append(replace(item, name=name))
        elif meant is None:
            notes.append(
                f"{found.where}: {item.name!r} is not one of the {len(set(known.values())):,} classes; its "
                "box is left out"
            )
        else:
            notes.append(f"{found.where}: a box is of {meant}, and the image of {name}; it is left out")
    return tuple(kept)
