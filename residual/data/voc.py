"""Annotations in PASCAL VOC's layout: the devkit's own years, and anybody's images laid out like them.

    VOC2007/                        or the folder itself, for one's own images
      JPEGImages/ID.jpg
      Annotations/ID.xml
      ImageSets/Main/SPLIT.txt      one ID a line
      SegmentationObject/ID.png     masks: the pixels of an annotation's k-th object have the number k
      ImageSets/Segmentation/SPLIT.txt   of the images that have one

Where there is no list at all, every annotated image is of the split "trainval", and images and annotations
may lie anywhere in the folder, as labelImg leaves them; or each split is a folder, as Roboflow exports them.

VOC counts pixels from 1 and names a box by its first and last pixel, so the box from pixel 1 to pixel 10
reaches from 0 to 10 in our coordinates.

What other tools make of the layout is read too: folders in these folders, annotations beside the images,
names with suffixes or in another case, polygons and rotated boxes.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from ..class_names import class_name, composed
from ..errors import InputError
from ..files import no_folder, numbered_lines, read_content
from .boxes import (
    ALL,
    Annotation,
    BoxDataset,
    Record,
    around,
    hold_out,
    make_box_dataset,
    name_splits,
    stated_size,
    turned,
)
from .images import SUFFIXES, DamagedImage
from .masks import read_instances
from .named_files import NamedFiles, last_part
from .yolo import yolo_settings

CORNERS = ("xmin", "ymin", "xmax", "ymax")
#: Centre, sides, and angle in radians, as roLabelImg writes a rotated box.
ROTATED = ("cx", "cy", "w", "h", "angle")
#: What stands behind a name in the list of a class: whether the image shows it, hardly shows it, or not.
SHOWN = ("1", "0", "-1")
#: Folders that are splits where there are no lists.
PARTS = ("train", "valid", "val", "test")
TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0", "", "unspecified")


@dataclass(frozen=True)
class VocAnnotation:
    """What an XML file says: the image's name and (width, height), None where it does not; the objects."""

    filename: str | None
    size: tuple[int, int] | None
    objects: tuple[Annotation, ...]


NOTHING = VocAnnotation(None, None, ())


def load_voc(
    folder: Path,
    splits: Sequence[str],
    classes: Sequence[str] | None = None,
    *,
    boxes: bool = True,
    masks: bool = False,
) -> BoxDataset:
    """Read one or more splits together.

    Args:
        folder: a VOCdevkit, or a folder laid out like one of its years.
        splits: as "2007/trainval" in a devkit, "trainval" in the folder itself.
        classes: names of the classes, objects of others are left out; None for those that the annotations
            name, in alphabetical order (which is VOC's own).
        boxes: whether there are annotations; the test parts of later years have none.
        masks: whether to read the objects' masks as well; splits are then those of ImageSets/Segmentation, if
            there are any.

    Raises:
        InputError: when a folder or split is missing or empty, or no object is of the classes.
    """
    notes: list[str] = []
    records: dict[Path, Record] = {}
    for split in splits:
        root, listing = _locate(folder, split, masks)
        for record in _records(root, listing, boxes, masks, notes):
            if record.path in records:
                notes.append(f"{listing or root}: {record.id} is listed twice; it counts once")
            records.setdefault(record.path, record)
    place = f"{folder}: {' and '.join(splits)}"
    return make_box_dataset("voc", splits, list(records.values()), classes, None, notes, place, boxes)


def _locate(folder: Path, split: str, masks: bool) -> tuple[Path, Path | None]:
    """Return the folder that a split lies in, and its listing; None for all annotated images."""
    year, _, name = split.rpartition("/")
    candidates = [folder / f"VOC{year}", folder / "VOCdevkit" / f"VOC{year}"] if year else [folder]
    root = next((path for path in candidates if path.is_dir()), None)
    if root is None:
        layout = f"VOC{year}" if year else "VOC's layout"
        raise no_folder(candidates[0], f"name the one that holds {layout} with --data-dir")
    listing = root / "ImageSets" / "Segmentation" / f"{name}.txt"
    if not (masks and listing.is_file()):
        listing = root / "ImageSets" / "Main" / f"{name}.txt"
    if not listing.is_file():
        lists = sorted(path.stem for path in listing.parent.glob("*.txt"))
        # A year of VOC that lacks its lists is not whole.
        unlisted = not lists and not year and _without_lists(root)
        if unlisted and name == ALL:
            return root, None
        parts = _parts(root, NamedFiles([root], (".xml",)).files.values()) if unlisted else []
        if name in parts:
            return root / name, None
        # Those of single classes, as dog_train, are named where there are no others (VoTT).
        there = [stem for stem in lists if "_" not in stem] or lists
        theirs = [f"{year}/{stem}" if year else stem for stem in there]
        have = (
            f"; there are {', '.join(there)}; {name_splits(theirs)}"
            if there
            else "; VOC's layout has one list a split there, and an XML file of boxes for each image; COCO's "
            "(--set data.layout=coco) has a JSON, YOLO's (--set data.layout=yolo) a text file an image; of "
            "tables make one of these first"
        )
        if len(there) == 1 and there[0] not in PARTS[1:] and "_" not in there[0]:
            (alone,) = theirs
            have = f"; there is {alone} alone; {hold_out(alone)}; {name_splits(theirs)}"
        if len(parts) > 1 or parts == ["train"]:
            have = f"; {_as_folders(parts)}"
        elif unlisted:
            have = (
                f", and no other: without lists all annotated images are {ALL}; {hold_out(ALL)}; residual "
                f"detect evaluate tests on all of them with --split {ALL}"
            )
        if any((folder / "annotations").glob("*.json")):
            have = (
                "; it is laid out as COCO's: --set data.layout=coco, data.train and data.test are its splits"
            )
        elif not lists and not unlisted and (settings := yolo_settings(folder)):
            have = f"; it is laid out as YOLO's: {settings} (residual detect evaluate: --layout yolo)"
        raise InputError(f"there is no split {listing}{have}")
    return root, listing


def _without_lists(root: Path) -> bool:
    """Whether a folder has annotations and no lists, nor folders in it: it would be one level too high."""
    lists = (path for depth in ("", "*/", "*/*/") for path in root.glob(f"{depth}ImageSets"))
    return next(lists, None) is None and bool(NamedFiles([root], (".xml",)).files)


def _parts(root: Path, xmls: Iterable[Path]) -> list[str]:
    """Return which splits are folders that hold some of a folder's annotations."""
    there = {path.relative_to(root).parts[0] for path in xmls if path.parent != root}
    return [name for name in PARTS if name in there]


def _as_folders(parts: Sequence[str]) -> str:
    """Return how folders that are splits are named, as a part of a sentence."""
    test = f"--set data.test={parts[1]}" if len(parts) > 1 else "--set data.validation=0.2"
    are = f"{' and '.join(parts)} {'are splits' if len(parts) > 1 else 'is a split'}"
    return f"{are} by the folder's name: --set data.train={parts[0]} {test}; {name_splits(parts)}"


@dataclass(frozen=True)
class _Listed:
    """A name in a list, the images that it may mean, and its annotation, which may not be there."""

    name: str
    images: list[Path]
    annotation: Path
    instances: list[Path]


def _listed(root: Path, listing: Path, boxes: bool, masks: bool) -> Iterator[_Listed]:
    """Yield what a list names."""
    folder = root / "JPEGImages"
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; VOC's layout has the images there")
    images = NamedFiles([folder], SUFFIXES)
    # LabelImg writes annotations beside the images where it is not told another folder.
    annotations = NamedFiles([root / "Annotations", folder] if boxes else [], (".xml",))
    instances = NamedFiles([root / "SegmentationObject"], (".png",)) if masks else None
    names = [_name(line.strip(), images) for _, line in numbered_lines(listing)]
    if not names:
        raise InputError(f"{listing} is empty; write one image's name a line")
    last = Counter(last_part(name) for name in set(names))
    for name in names:
        loosely = last[last_part(name)] == 1
        found = images.find(name, loosely)
        below = found[0].relative_to(folder).with_suffix("").as_posix() if found else name
        files = annotations.find(below, loosely)
        where = files[0] if files else root / "Annotations" / f"{below}.xml"
        yield _Listed(name, found, where, instances.find(below, loosely) if instances else [])


def _unlisted(root: Path, masks: bool, notes: list[str]) -> Iterator[_Listed]:
    """Yield all that is annotated: images beside their annotations, or in a folder of images alone.

    That one's path differs from that of the annotations in one folder, as ``images/a`` and ``xml/a`` or
    ``a/images`` and ``a``.
    """
    objects = root / "SegmentationObject"
    files = NamedFiles([root], (*SUFFIXES, ".xml")).files.values()
    images = [path for path in files if path.suffix.lower() != ".xml" and objects not in path.parents]
    xmls = [path for path in files if path.suffix.lower() == ".xml"]
    if len(parts := _parts(root, xmls)) > 1:
        raise InputError(f"{root}: {_as_folders(parts)}")
    instances = NamedFiles([objects], (".png",)) if masks else None
    annotated, holding = {path.parent for path in xmls}, {path.parent for path in images}
    beside: dict[tuple[Path, str], list[Path]] = {}
    apart: dict[tuple[str, ...], list[Path]] = {}
    for path in images:
        beside.setdefault((path.parent, _stem(path)), []).append(path)
        if path.parent not in annotated:
            for key in _but_one_folder(path.relative_to(root), "images"):
                apart.setdefault(key, []).append(path)
    place, used = Path(os.path.commonpath([path.parent for path in images])) if images else root, set()
    for xml in xmls:
        if xml.parent in holding:
            found = beside.get((xml.parent, _stem(xml)), [])
        else:
            keys = _but_one_folder(xml.relative_to(root), "annotations")
            found = _nearest(xml, dict.fromkeys(path for key in keys for path in apart.get(key, ())))
        if len({path.parent for path in found}) > 1:
            notes.append(f"{xml} may be of {' and of '.join(map(str, found[:2]))}; it is left out")
            used.update(found)
            continue
        used.update(found)
        name = (found[0].relative_to(place) if found else xml.relative_to(root)).with_suffix("").as_posix()
        yield _Listed(name, found, xml, instances.find(name, loosely=True) if instances else [])
    if bare := [path for path in images if path not in used]:
        notes.append(
            f"{root}: {len(bare):,} of {len(images):,} images have no annotation and are left out (an image "
            f"without objects has an annotation without objects); the first is {bare[0]}"
        )


def _stem(path: Path) -> str:
    return composed(path.stem).casefold()


def _nearest(xml: Path, found: Iterable[Path]) -> list[Path]:
    """Return those of some images whose folders differ least from those of an annotation."""
    apart = {path: len({*path.parent.parts} ^ {*xml.parent.parts}) for path in found}
    return [path for path, count in apart.items() if count == min(apart.values())]


def _but_one_folder(path: Path, kind: Literal["images", "annotations"]) -> list[tuple[str, ...]]:
    """Return keys that a path shares with those of the other kind which differ from it in one folder.

    In its name, or one has it and the other has not.
    """
    folders, stem = path.parts[:-1], _stem(path)
    longer, shorter = ("+", "-") if kind == "images" else ("-", "+")
    keys = [(longer, *folders, stem)]
    for n in range(len(folders)):
        keys.append(("*", *folders[:n], "*", *folders[n + 1 :], stem))
        keys.append((shorter, *folders[:n], *folders[n + 1 :], stem))
    return keys


def _records(
    root: Path, listing: Path | None, boxes: bool, masks: bool, notes: list[str]
) -> Iterator[Record]:
    """Yield the listed images (None: all that are annotated) and their annotations; faults are noted."""
    place = listing or root
    several: list[tuple[str, list[Path], Path | None]] = []
    for listed in _listed(root, listing, boxes, masks) if listing else _unlisted(root, masks, notes):
        name, found, where = listed.name, listed.images, listed.annotation
        if not found:
            missing = (
                f"there is no image {name} in {root / 'JPEGImages'}" if listing else f"{where} has no image"
            )
            notes.append(f"{place}: {missing}; it is left out")
            continue
        content = NOTHING
        if boxes:
            read = read_annotation(where, notes)
            if read is None:
                continue
            content = read
            if listed.instances:
                objects = _with_masks(content.objects, listed.instances[0], where, notes)
                content = replace(content, objects=objects)
        file = _the_one(found, content.filename)
        if len(found) > 1 and (file is None or last_part(content.filename or "") != last_part(file.name)):
            several.append((name, found, file))
        if file is not None:
            # Its name without suffix is what VOC's servers know an image by.
            told = str(where if boxes else place)
            yield Record(name.removesuffix(file.suffix), file, content.size, content.objects, told)
    if several:
        name, found, file = several[0]
        taken = f"{file.name} is taken" if file else "it is left out"
        notes.append(
            f"{place}: {len(several):,} names have more than one image; a JPEG is taken where no "
            "annotation's filename tells, and without one they are left out; the first is "
            f"{name}: {' and '.join(path.name for path in found)}, {taken}"
        )


def _with_masks(
    objects: Sequence[Annotation], file: Path, where: Path, notes: list[str]
) -> tuple[Annotation, ...]:
    """Return an image's objects with the masks of an image of instances; what is wrong with these is noted.

    Args:
        where: the objects' annotation.
    """
    try:
        masks, extra = read_instances(file, [item.place for item in objects])
    except DamagedImage as error:
        notes.append(f"{error}; of each of its objects the box alone is used")
        return tuple(objects)
    if extra:
        numbers = ", ".join(map(str, extra[:5])) + (", ..." if len(extra) > 5 else "")
        notes.append(
            f"{file} has pixels of the number {numbers}, and {where} has no object at such a place (the "
            "first object's number is 1); they are left out"
        )
    return tuple(replace(item, shape=masks.get(item.place)) for item in objects)


def _name(line: str, images: NamedFiles) -> str:
    """Return the image's name in a line of a list, which may have a second column."""
    name, *column = line.rsplit(maxsplit=1)
    return name if column and column[0] in SHOWN and not images.find(line) else line


def _the_one(found: list[Path], filename: str | None) -> Path | None:
    """Return which of several images of a name is meant: the annotation's, or the only JPEG."""
    if len(found) == 1:
        return found[0]
    named = [path for path in found if last_part(path.name) == last_part(filename or "")]
    chosen = named or [path for path in found if path.suffix.lower() in (".jpg", ".jpeg")]
    return chosen[0] if len(chosen) == 1 else None


def read_annotation(file: Path, notes: list[str]) -> VocAnnotation | None:
    """Return an annotation's content, corners as VOC counts them; None (and a note) where it is of no use."""
    if not file.is_file():
        notes.append(
            f"{file} is missing; its image is left out (an image without objects has an annotation "
            "without objects)"
        )
        return None
    try:
        root = ElementTree.fromstring(read_content(file))
    except InputError as error:
        notes.append(f"{error}; its image is left out")
        return None
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        notes.append(f"{file} is damaged ({error}); its image is left out")
        return None
    try:
        width, height = (int(float(root.findtext(f"size/{side}", "0"))) for side in ("width", "height"))
    except (ValueError, OverflowError):
        width = height = 0
    size = stated_size(width, height)
    objects: list[Annotation] = []
    for place, element in enumerate(root.iter("object"), start=1):
        try:
            objects += [replace(item, place=place) for item in _objects(element)]
        except ValueError as error:
            notes.append(f"{file}: {error}; it is left out")
    return VocAnnotation((root.findtext("filename") or "").strip() or None, size, tuple(objects))


def _objects(element: ElementTree.Element) -> list[Annotation]:
    """Return the boxes of an object: one, but for programs that gather those of a class.

    Raises:
        ValueError: saying what is wrong with it.
    """
    name = class_name(" ".join((element.findtext("name") or "").split()))
    if not name:
        raise ValueError("an object has no name")
    said = (element.findtext("difficult") or "").strip().casefold()
    try:
        difficult = said in TRUE or (said not in FALSE and float(said) != 0)
    except ValueError:
        raise ValueError(f"difficult of a {name} is {said!r}, neither 0 nor 1") from None
    shapes = [child for child in element if child.tag in ("bndbox", "robndbox", "polygon")]
    upright = [shape for shape in shapes if shape.tag == "bndbox"]
    if not shapes:
        raise ValueError(f"a {name} has neither bndbox nor polygon")
    degrees = _rotation(element, name)
    return [
        Annotation(name, turned(_corners(shape, name), degrees), difficult) for shape in upright or shapes
    ]


def from_pixel_0(item: Annotation) -> Annotation:
    """Return an object of ILSVRC's XML, which counts pixels from 0, where it was read as VOC's, from 1."""
    x1, y1, x2, y2 = item.corners
    return replace(item, corners=(x1 + 1, y1 + 1, x2 + 1, y2 + 1))


def _rotation(element: ElementTree.Element, name: str) -> float:
    """Return the degrees by which an object's boxes are turned, where CVAT says so; 0 elsewhere."""
    attributes = {item.findtext("name"): item.findtext("value") for item in element.iter("attribute")}
    try:
        return float(attributes.get("rotation") or 0)
    except ValueError:
        raise ValueError(f"the rotation of a {name} is no number ({attributes['rotation']!r})") from None


def _corners(shape: ElementTree.Element, name: str) -> tuple[float, float, float, float]:
    """Return the corners of a box, or of what lies around a rotated one or a polygon."""
    if shape.tag == "bndbox" and shape.find("cx") is None:
        x1, y1, x2, y2 = _numbers(shape, CORNERS, f"the box of a {name} is not four numbers")
    elif shape.find("cx") is not None:
        x, y, w, h, angle = _numbers(shape, ROTATED, f"the rotated box of a {name} is not five numbers")
        x1, y1, x2, y2 = around(x, y, w, h, angle)
    else:
        # <x1>, <y1>, <x2>, ... or <pt><x>, <y></pt> ...
        try:
            xs, ys = (
                [float(child.text or "") for child in shape.iter() if child.tag.rstrip("0123456789") == axis]
                for axis in ("x", "y")
            )
        except ValueError:
            xs = ys = []
        if len(xs) < 3 or len(xs) != len(ys):
            raise ValueError(f"the polygon of a {name} is not three points at least")
        x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
    # A box whose first pixel is its last has no area in the programs that write such boxes: to them, pixels
    # are corners.
    return x1 - (x2 != x1), y1 - (y2 != y1), x2, y2


def _numbers(shape: ElementTree.Element, names: Sequence[str], wrong: str) -> list[float]:
    texts = [shape.findtext(name) for name in names]
    try:
        return [float(text or "") for text in texts]
    except ValueError:
        shown = ", ".join(f"{n} {t!r}" for n, t in zip(names, texts, strict=True))
        raise ValueError(f"{wrong} ({shown})") from None
