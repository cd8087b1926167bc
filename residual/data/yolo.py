"""Annotations in YOLO's layout: a text file an image, as Ultralytics, Roboflow, CVAT and labelImg write it.

    data.yaml                       names of the classes, and where the images of each split are
    images/SPLIT/a.jpg              or SPLIT/images/a.jpg, SPLIT/a.jpg, or what SPLIT.txt lists
    labels/SPLIT/a.txt              "images" is "labels" in the path, or the text lies beside its image

A line is an object: the number of its class, and its box's centre and sides as fractions of the upright
image's. In place of the box may be the corners of a polygon. An image without a text has no object.

Where nothing divides the images, all of them are of the split "trainval".
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..class_names import class_name
from ..errors import InputError
from ..files import no_folder, numbered_lines, read_yaml
from .boxes import ALL, NAME_SPLITS, Annotation, BoxDataset, Record, make_box_dataset
from .images import SUFFIXES, DamagedImage, stored_size, upright_size
from .masks import Outline
from .named_files import NamedFiles
from .threads import in_threads

#: Beyond these a number is no fraction of a side, wherever on the image's edge the object lies.
FRACTIONS = (-1.0, 2.0)
#: Keys of data.yaml that say where images are.
PARTS = ("train", "val", "test")


def load_yolo(
    folder: Path,
    splits: Sequence[str],
    classes: Sequence[str] | None = None,
    *,
    boxes: bool = True,
    masks: bool = False,
) -> BoxDataset:
    """Read one or more splits together.

    Args:
        folder: holds data.yaml (or classes.txt, obj.names), the images and the labels.
        splits: as "train", the keys of data.yaml or the names of folders or lists; "trainval" where nothing
            divides the images.
        classes: names of the classes, objects of others are left out; None for those that have objects, in
            the order of their numbers.
        boxes: whether there are labels.
        masks: whether to read polygons as the objects' masks as well.

    Raises:
        InputError: when the classes' names or a split are missing, or there is no label or no object of the
            classes.
    """
    if not folder.is_dir():
        raise no_folder(folder, "name the one with data.yaml with --data-dir")
    described = _described(folder)
    notes: list[str] = []
    records: dict[Path, Record] = {}
    for split in splits:
        for record in _records(folder, split, described, boxes, masks, notes):
            if record.path in records:
                notes.append(f"{record.path} is in two splits; it counts once")
            records.setdefault(record.path, record)
    known: dict[str, int | str] = {name: number for number, name in described.names.items()}
    place = f"{folder}: {' and '.join(splits)}"
    return make_box_dataset("yolo", splits, list(records.values()), classes, known, notes, place, boxes)


def is_yolo(folder: Path) -> bool:
    """Whether a folder says that it is laid out so: for those who name another layout."""
    with suppress(InputError):
        return bool(_yaml_files(folder) or _name_files(folder))
    return False


@dataclass(frozen=True)
class _Described:
    """What stands in a dataset's files.

    Attributes:
        names: of the classes, by their numbers.
        source: where those are from.
        parts: places of the images of each split, as data.yaml has them, which need not be where they are.
        root: what those are below, where data.yaml says so.
        points: whether key points follow the boxes, which are not read.
    """

    names: dict[int, str]
    source: Path
    parts: dict[str, list[str]]
    root: Path
    points: bool = False


def _yaml_files(folder: Path) -> dict[Path, dict[str, Any]]:
    """Return the YAML files of a folder that name classes, with their contents."""
    files = [path for path in sorted(folder.glob("*.y*ml")) if path.suffix in (".yaml", ".yml")]
    contents = {path: read_yaml(path, "mend it") for path in files if path.is_file()}
    return {
        path: content
        for path, content in contents.items()
        if isinstance(content, dict) and "names" in content
    }


def _name_files(folder: Path) -> list[Path]:
    """Return the files with the name of a class a line: Darknet's, and labelImg's among its labels."""
    found = sorted(folder.glob("*.names"))
    places = (
        "classes.txt",
        "labels/classes.txt",
        "*/classes.txt",
        "labels/*/classes.txt",
        "*/labels/classes.txt",
    )
    return found or list(dict.fromkeys(path for place in places for path in sorted(folder.glob(place))))


def _described(folder: Path) -> _Described:
    yamls = _yaml_files(folder)
    if yamls:
        named = {path: _names(content["names"], path) for path, content in yamls.items()}
    else:
        named = {
            path: _names([line.strip() for _, line in numbered_lines(path)], path)
            for path in _name_files(folder)
        }
    if not named:
        raise InputError(
            f"{folder} does not say what the classes are called; write data.yaml, with a line of names: "
            "[cat, dog], or classes.txt, with a name a line"
        )
    (source, names), *others = named.items()
    for other, differently in others:
        if differently != names:
            raise InputError(f"{source} and {other} name different classes; leave one of them")
    content = yamls.get(source, {})
    parts = {
        key: [str(place) for place in (value if isinstance(value, list) else [value])]
        for key, value in content.items()
        if isinstance(key, str) and key in PARTS and value
    }
    root = source.parent / str(content.get("path") or "")
    return _Described(names, source, parts, root, points=bool(content.get("kpt_shape")))


def _names(value: object, file: Path) -> dict[int, str]:
    """Return the names of the classes by their numbers, from a list or a mapping.

    Raises:
        InputError: where it is neither, or two classes have one name.
    """
    pairs = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))
        if isinstance(value, list)
        else []
    )
    if not pairs or not all(
        isinstance(number, int) and isinstance(name, str | int | float) for number, name in pairs
    ):
        raise InputError(f"{file}: names is neither a list of names nor numbers with names")
    names = {number: class_name(str(name).strip()) or str(number) for number, name in pairs}
    name, times = Counter(names.values()).most_common(1)[0]
    if times > 1:
        raise InputError(f"{file}: two classes have one name, {name!r}; give each its own")
    return names


def _records(
    folder: Path, split: str, described: _Described, boxes: bool, masks: bool, notes: list[str]
) -> Iterator[Record]:
    """Yield a split's images with their objects; what is of no use is noted.

    Raises:
        InputError: where there is no such split, or no label at all.
    """
    images = _images(folder, split, described, notes)
    labels = {path: _label(path, folder) for path in images} if boxes else {}
    if boxes and not any(labels.values()):
        wanted = _beside_images(images[0], folder) or images[0].with_suffix(".txt")
        raise InputError(f"{folder}: no image of {split} has a label; that of {images[0]} would be {wanted}")
    if bare := [path for path, label in labels.items() if label is None]:
        notes.append(
            f"{folder}: {len(bare):,} of {len(images):,} images of {split} have no label and count as images "
            f"without objects; the first is {bare[0]}"
        )
    for path, found in zip(images, in_threads(_size, images), strict=True):
        if isinstance(found, DamagedImage):
            notes.append(f"{found}; it is left out")
            continue
        label = labels.get(path)
        objects = _objects(label, described, found, masks, notes) if label else ()
        name = (
            path.relative_to(folder).with_suffix("").as_posix() if path.is_relative_to(folder) else path.stem
        )
        yield Record(name, path, found, tuple(objects), str(label or path))


def _size(path: Path) -> tuple[int, int] | DamagedImage:
    """Return an image's upright width and height, or what is wrong with it."""
    try:
        return upright_size(*stored_size(path))
    except DamagedImage as error:
        return error


def _images(folder: Path, split: str, described: _Described, notes: list[str]) -> list[Path]:
    """Return the images of a split.

    Raises:
        InputError: where there is no such split, or no image of it.
    """
    parts = described.parts.get(split, [])
    places = [found for part in parts if (found := _place(folder, described.root, part))]
    if not places or len(places) < len(parts):
        own = (folder / "images" / split, folder / split / "images", folder / split, folder / f"{split}.txt")
        places = [place for place in own if place.exists()][:1]
    there = _splits(folder, described)
    if not places and not there and split == ALL:
        places = [folder]
    if not places:
        have = f"; there are {', '.join(there)}; {NAME_SPLITS}"
        if not there:
            have = (
                f", and no other: undivided, all images are {ALL}; to train, hold a share of them out with "
                "--set data.validation=0.2, which is then tested on"
            )
        said = f" ({described.source.name}: {', '.join(parts)})" if parts else ""
        raise InputError(f"{folder} has no split {split}{said}{have}")
    images = [
        image
        for place in places
        for image in (_listed(folder, place, notes) if place.is_file() else _below(place))
    ]
    if not images:
        raise InputError(f"{folder}: there are no images of {split} in {' and '.join(map(str, places))}")
    return list(dict.fromkeys(images))


def _place(folder: Path, root: Path, place: str) -> Path | None:
    """Return where images are that data.yaml has at a place of this machine or another; None for nowhere."""
    if (root / place).exists():
        return root / place
    # Roboflow's begin with "../", which leads out of the folder; others' with folders that were another's.
    parts = [part for part in PurePosixPath(place.replace("\\", "/")).parts if part not in (".", "..", "/")]
    ends = (folder.joinpath(*parts[start:]) for start in range(len(parts)) if parts[start:] != ["images"])
    return next((end for end in ends if end.exists()), None)


def _below(place: Path) -> list[Path]:
    return list(NamedFiles([place], SUFFIXES).files.values())


def _listed(folder: Path, listing: Path, notes: list[str]) -> Iterator[Path]:
    """Yield the images in a list, whose paths may be those of another machine."""
    images = NamedFiles([folder], SUFFIXES)
    for number, line in numbered_lines(listing):
        name = line.strip()
        if (path := listing.parent / name).is_file():
            yield path
            continue
        found = images.find(name, loosely=True)
        if len(found) == 1:
            yield found[0]
        else:
            several = (
                f"{name} may be {' or '.join(map(str, found[:2]))}" if found else f"there is no image {name}"
            )
            notes.append(f"{listing}: line {number}: {several}; it is left out")


def _splits(folder: Path, described: _Described) -> list[str]:
    """Return the splits that there are."""
    there = dict.fromkeys(
        split
        for split, places in described.parts.items()
        if all(_place(folder, described.root, place) for place in places)
    )
    there |= dict.fromkeys(path.parent.name for path in sorted(folder.glob("*/images")))
    there |= dict.fromkeys(path.name for path in sorted(folder.glob("images/*")) if path.is_dir())
    there |= dict.fromkeys(name for name in PARTS if (folder / f"{name}.txt").is_file())
    return list(there)


def _beside_images(image: Path, folder: Path) -> Path | None:
    """Return where an image's label is if its folder is called labels; None where it is in no images."""
    parts = list(image.relative_to(folder).parts if image.is_relative_to(folder) else image.parts)
    for place in reversed(range(len(parts) - 1)):
        if parts[place].lower() == "images":
            parts[place] = "labels" if parts[place].islower() else "Labels"
            return folder.joinpath(*parts).with_suffix(".txt")
    return None


def _label(image: Path, folder: Path) -> Path | None:
    """Return the file of an image's objects; None where there is none."""
    places = (_beside_images(image, folder), image.with_suffix(".txt"))
    return next((place for place in places if place is not None and place.is_file()), None)


def _objects(
    file: Path, described: _Described, size: tuple[int, int], masks: bool, notes: list[str]
) -> Iterator[Annotation]:
    """Yield the objects of a label; lines that are of no use are noted.

    Args:
        size: the upright image's width and height.
    """
    width, height = size
    for number, line in numbered_lines(file):
        where = f"{file}: line {number}"
        try:
            first, *values = map(float, line.split())
            if described.points:
                values = values[:4]
            # A box, one with its score, or three corners at least.
            polygon = len(values) >= 6 and len(values) % 2 == 0
            if not (polygon or len(values) in (4, 5)):
                raise ValueError
        except ValueError:
            notes.append(
                f"{where} is neither a class with four numbers of a box nor with the corners of a polygon; "
                "it is left out"
            )
            continue
        name = described.names.get(int(first)) if first.is_integer() else None
        if name is None:
            notes.append(
                f"{where} is of class {first:g}, which {described.source} does not name; it is left out"
            )
        elif not all(FRACTIONS[0] <= value <= FRACTIONS[1] for value in values[: None if polygon else 4]):
            notes.append(
                f"{where}: its numbers are no fractions of the image's sides; divide pixels by them; it is "
                "left out"
            )
        elif polygon:
            xs, ys = [width * x for x in values[::2]], [height * y for y in values[1::2]]
            corners = min(xs), min(ys), max(xs), max(ys)
            points = tuple(number for point in zip(xs, ys, strict=True) for number in point)
            yield Annotation(name, corners, shape=Outline((points,)) if masks else None)
        else:
            x, y, w, h = (
                fraction * side for fraction, side in zip(values, (width, height) * 2, strict=False)
            )
            yield Annotation(name, (x - w / 2, y - h / 2, x + w / 2, y + h / 2))
