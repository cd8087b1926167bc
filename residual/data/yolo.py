"""Annotations in YOLO's layout: a text file an image, as Ultralytics, Roboflow, CVAT and labelImg write it.

    data.yaml                       names of the classes, and where the images of each split are
    images/SPLIT/a.jpg              or SPLIT/images/a.jpg, SPLIT/a.jpg, or what SPLIT.txt lists
    labels/SPLIT/a.txt              "images" is "labels" in the path, or the text lies beside its image

A line is an object: the number of its class, and its box's centre and sides as fractions of the upright
image's. In place of the box may be the corners of a polygon. An image of a split without a text has no
object. Where nothing divides the images, all of them that have a text are of the split "trainval".
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..class_names import class_name
from ..errors import InputError, plural
from ..files import no_folder, numbered_lines, read_yaml
from .boxes import ALL, Annotation, BoxDataset, Record, hold_out, looked_at, make_box_dataset, name_splits
from .images import SUFFIXES, DamagedImage, upright_size
from .masks import Outline
from .named_files import NO_DATA, NamedFiles, read_number
from .threads import in_threads

#: Where the classes have their names, and the splits their places.
DATA = "data.yaml"
#: Files with the name of a class a line: Darknet's, Roboflow's, and labelImg's among its labels.
NAME_FILES = (
    "*.names",
    *(f"{folder}classes.txt" for folder in ("", "labels/", "*/", "labels/*/", "*/labels/")),
    *(f"{folder}_darknet.labels" for folder in ("", "*/")),
)
#: Beyond these a number is no fraction of a side: of boxes, on the edge as well; of polygons.
FRACTIONS = (-1.0, 2.0)
CORNER_FRACTIONS = (-0.1, 1.1)
#: So many boxes have to look like corners before that is said; what rounding may add to a side.
ENOUGH, ROUNDING = 10, 0.02
#: How files end that lie beside images and are none.
TEXTS = (".txt", ".xml", ".json", ".csv", ".yaml", ".yml")
#: Keys of data.yaml that say where images are.
KEYS = ("train", "val", "test")
#: What folders and lists of splits are called, in lower case.
SPLITS = (*KEYS, "valid", "validation", "testing", "training")


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
        raise no_folder(folder, f"name the one with {DATA} with --data-dir")
    folder = Path(os.path.normpath(folder))
    described = _described(folder)
    notes: list[str] = []
    records: dict[Path, Record] = {}
    tally = _Tally(described)
    for split in splits:
        for record in _records(folder, split, tally, boxes, masks, notes):
            if record.path in records:
                notes.append(f"{record.path} is in two splits; it counts once")
            records.setdefault(record.path, record)
    tally.check(folder)
    known: dict[str, int | str] = {name: number for number, name in described.names.items()}
    place = f"{folder}: {' and '.join(splits)}"
    return make_box_dataset("yolo", splits, list(records.values()), classes, known, notes, place, boxes)


def yolo_settings(folder: Path) -> str:
    """Return the settings that read a folder which is laid out so; "" where it is not."""
    with suppress(InputError):
        folder = Path(os.path.normpath(folder))
        there = _splits(folder, _described(folder))
        if not there:
            return "--set data.layout=yolo --set data.validation=0.2"
        train, *others = sorted(there, key=lambda name: (name.lower() != "train", name.lower() == "test"))
        tested = f"--set data.test={others[0]}" if others else "--set data.validation=0.2"
        return f"--set data.layout=yolo --set data.train={train} {tested}"
    return ""


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


@dataclass
class _Tally:
    """What was read so far, for mistakes that no line shows alone.

    Attributes:
        numbers: how many objects each class has.
        boxes, as_corners, over: how many boxes there are, how many could be two corners, and how many reach
            over their image's edge.
    """

    described: _Described
    numbers: Counter[int] = field(default_factory=Counter)
    boxes: int = 0
    as_corners: int = 0
    over: int = 0

    def add_box(self, x: float, y: float, w: float, h: float) -> None:
        """Count a box, in fractions of its image's sides."""
        self.boxes += 1
        self.as_corners += x < w < 1 + ROUNDING / 2 and y < h < 1 + ROUNDING / 2
        self.over += max(w / 2 - x, x + w / 2 - 1, h / 2 - y, y + h / 2 - 1) > ROUNDING

    def check(self, folder: Path) -> None:
        """Raise an InputError where classes are not counted from 0, or boxes are corners."""
        names, source = self.described.names, self.described.source
        used = set(self.numbers)
        from_1 = "the labels do" if {number - 1 for number in used} == names.keys() else ""
        if 0 in used and min(names) == 1 and {number + 1 for number in used} <= names.keys():
            from_1 = f"{source.name} does"
        if from_1:
            raise InputError(
                f"{folder}: its labels have the classes {min(used)} to {max(used)}, and {source} names "
                f"{min(names)} to {max(names)}; YOLO counts them from 0, and {from_1} from 1"
            )
        if self.boxes >= ENOUGH and self.as_corners == self.boxes and 2 * self.over > self.boxes:
            raise InputError(
                f"{folder}: {self.over:,} of {self.boxes:,} boxes reach over the edge of their image, "
                "and the third and fourth number of all are larger than the first two, as corners are; "
                "YOLO's are the centre and the sides: x y width height"
            )


def _described(folder: Path) -> _Described:
    yamls = sorted({*folder.glob("*.yaml"), *folder.glob("*.yml")})
    found = [_in_yaml(folder / DATA)] if os.path.isfile(folder / DATA) else []
    if not found:
        for path in yamls:
            # Other programs' files are nobody's affair.
            with suppress(InputError):
                found.append(_in_yaml(path))
    if found:
        first, *others = found
        for other in others:
            if (other.names, other.parts, other.root) != (first.names, first.parts, first.root):
                raise InputError(
                    f"{first.source} and {other.source} describe the data differently; call the one that is "
                    f"meant {DATA}"
                )
        return first
    named = [
        (_names({number - 1: line for number, line in lines}, file), file)
        for pattern in NAME_FILES
        for file in sorted(folder.glob(pattern))
        if (lines := numbered_lines(file))
    ]
    if not named:
        for file in (*sorted(folder.glob(f"*/{DATA}")), folder.absolute().parent / DATA):
            if file.is_file():
                raise InputError(f"{folder} has no {DATA}, {file.parent} has; name that one with --data-dir")
        if yamls:
            # What is wrong with the one that may be meant.
            _in_yaml(yamls[0])
        raise InputError(
            f"{folder} does not say what the classes are called; write {DATA}, with a line of names: "
            "[cat, dog], or classes.txt, with a name a line"
        )
    # LabelImg lengthens its list as new names come up.
    names, source = max(named, key=lambda one: len(one[0]))
    for fewer, file in named:
        if not fewer.items() <= names.items():
            raise InputError(
                f"{source} and {file} give a class different names, or a name different numbers; renumber "
                "the labels of one of them, or name its folder alone with --data-dir"
            )
    return _Described(names, source, {}, folder)


def _in_yaml(file: Path) -> _Described:
    """Return what a YAML file says of a dataset.

    Raises:
        InputError: where it does not name classes.
    """
    # As written: 1e3, no and 2024-01-01 are names of classes.
    content = read_yaml(file, "mend it", as_written=True)
    given: Any = content.get("names") if isinstance(content, dict) else None
    names = _names(dict(enumerate(given)) if isinstance(given, list) else given, file)
    said = read_number(str(content.get("nc")))
    if said is not None and said not in (len(names), max(names) + 1):
        raise InputError(
            f"{file}: nc says {plural(said, 'class', 'classes')} and names has {len(names):,}; correct the "
            "one that is wrong"
        )
    parts = {
        key: [place for place in (value if isinstance(value, list) else [value]) if isinstance(place, str)]
        for key, value in content.items()
        if key in KEYS and value
    }
    path = content.get("path")
    root = file.parent / (path if isinstance(path, str) else "")
    return _Described(names, file, parts, root, points=bool(content.get("kpt_shape")))


def _names(given: object, file: Path) -> dict[int, str]:
    """Return the names of the classes by their numbers, in these numbers' order.

    Raises:
        InputError: where there are none, or two classes have one name.
    """
    pairs = given.items() if isinstance(given, dict) else ()
    read = [
        (number, name)
        for text, name in pairs
        if isinstance(name, str) and (number := read_number(str(text))) is not None
    ]
    if not read or len(read) < len(pairs):
        raise InputError(
            f"{file} has neither a list of the classes' names nor their numbers with their names; as in "
            "names: [cat, dog], or a name a line"
        )
    numbered = {int(number): class_name(name.strip()) or str(number) for number, name in read}
    if len(numbered) < len(read):
        raise InputError(f"{file}: two classes have one number; give each its own")
    name, times = Counter(numbered.values()).most_common(1)[0]
    if times > 1:
        raise InputError(f"{file}: two classes have one name, {name!r}; give each its own")
    return dict(sorted(numbered.items()))


def _records(
    folder: Path, split: str, tally: _Tally, boxes: bool, masks: bool, notes: list[str]
) -> Iterator[Record]:
    """Yield a split's images with their objects, which are counted; what is of no use is noted.

    Raises:
        InputError: where there is no such split, or no label at all.
    """
    images = _images(folder, split, tally.described, notes)
    labels = {path: _label(path, folder) for path in images} if boxes else {}
    if boxes and not any(labels.values()):
        wanted = (_moved(images[0], folder, "images", "labels") or images[0]).with_suffix(".txt")
        raise InputError(f"{folder}: no image of {split} has a label; that of {images[0]} would be {wanted}")
    if bare := [path for path, label in labels.items() if label is None]:
        # Who has not yet looked at all images of a folder has not said that nothing is on the others.
        are = "are left out (an image without objects has an empty label)"
        if split != ALL:
            are = "count as images without objects"
        notes.append(
            f"{folder}: {len(bare):,} of {len(images):,} images of {split} have no label and {are}; the "
            f"first is {bare[0]}"
        )
        if split == ALL:
            images = [path for path in images if labels[path]]
    if strays := _without_image([label for label in labels.values() if label], folder):
        notes.append(
            f"{folder}: {plural(len(strays), 'label')} of objects beside those of {split} "
            f"{'has' if len(strays) == 1 else 'have'} no image; the first is {strays[0]}"
        )
    names = [path.relative_to(folder) if path.is_relative_to(folder) else path for path in images]
    stems = Counter(name.with_suffix("") for name in names)
    for path, name, found in zip(images, names, in_threads(looked_at, images), strict=True):
        if isinstance(found, DamagedImage):
            notes.append(f"{found}; it is left out")
            continue
        label, size = labels.get(path), upright_size(*found)
        try:
            objects = _objects(label, tally, size, masks, notes) if label else []
        except InputError as error:
            notes.append(f"{error}; its image is left out")
            continue
        called = (name.with_suffix("") if stems[name.with_suffix("")] == 1 else name).as_posix()
        yield Record(called, path, size, tuple(objects), str(label or path), stored=found)


def _images(folder: Path, split: str, described: _Described, notes: list[str]) -> list[Path]:
    """Return the images of a split.

    Raises:
        InputError: where there is no such split, or no image of it.
    """
    parts = described.parts.get(split, [])
    found = {part: _place(folder, described.root, part) for part in parts}
    places = [place for place in found.values() if place]
    for part, place in found.items():
        if places and not place:
            notes.append(f"{described.source}: {part} of {split} is not there; it is left out")
        if place and not _inside(place, folder):
            notes.append(f"{split} is read from {place}, as {described.source} says")
    if not places:
        own = (folder / "images" / split, folder / split / "images", folder / split)
        places = [place for place in own if os.path.isdir(place)][:1]
        listing = folder / f"{split}.txt"
        if not places and os.path.isfile(listing) and not _is_label(listing):
            places = [listing]
    if not places:
        there = _splits(folder, described)
        if split == ALL and not there:
            places = [folder]
        else:
            said = f" ({described.source.name}: {', '.join(parts)})" if parts else ""
            raise InputError(f"{folder} has no split {split}{said}{_instead(there)}")
    first = len(notes)
    listed = [
        image
        for place in places
        for image in (_listed(folder, place, notes) if place.is_file() else _below(place))
    ]
    if not listed:
        fault = f"; the first fault: {notes[first]}" if notes[first:] else ""
        raise InputError(
            f"{folder}: there are no images of {split} in {' and '.join(map(str, places))}{fault}"
        )
    return list(dict.fromkeys(listed))


def _instead(there: Sequence[str]) -> str:
    """Return what can be named in place of a split that is not there, as the end of a sentence."""
    if not there:
        return f", and no other: undivided, all images are {ALL}; {hold_out(ALL)}"
    if len(there) == 1:
        return f"; there is {there[0]} alone; {hold_out(there[0])}"
    return f"; there are {', '.join(there)}; {name_splits(there)}"


def _place(folder: Path, root: Path, place: str) -> Path | None:
    """Return where images are that data.yaml has at a place of this machine or another; None for nowhere.

    What is in the folder comes before what is elsewhere: a dataset may be another one's copy.
    """
    # Roboflow's begin with "../", which leads out of the folder; others' with folders that were another's.
    parts = [part for part in PurePosixPath(place.replace("\\", "/")).parts if part not in (".", "..", "/")]
    ends = [folder.joinpath(*parts[start:]) for start in range(len(parts)) if parts[start:] != ["images"]]
    said = Path(os.path.normpath(root / place))
    places = [said, *ends] if _inside(said, folder) else [*ends, said]
    # os.path: a name that is too long is nowhere.
    return next((path for path in places if os.path.exists(path)), None)


def _inside(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def _below(place: Path) -> list[Path]:
    return list(NamedFiles([place], SUFFIXES).files.values())


def _listed(folder: Path, listing: Path, notes: list[str]) -> Iterator[Path]:
    """Yield the images in a list, whose paths may be those of another machine."""
    images = None
    for number, line in numbered_lines(listing):
        name = line.strip()
        path = Path(os.path.normpath(listing.parent / name))
        # os.path: a name that is too long is no file.
        if os.path.isfile(path):
            yield path
            continue
        images = images or NamedFiles([folder], SUFFIXES)
        found = images.find(name, loosely=True)
        if len(found) == 1:
            yield found[0]
        else:
            several = f"{name} may be {' or '.join(map(str, found[:2]))}"
            told = several if found else f"there is no image {name}"
            notes.append(f"{listing}: line {number}: {told}; it is left out")


def _splits(folder: Path, described: _Described) -> list[str]:
    """Return the splits that there are, as they can be named."""
    there = dict.fromkeys(
        split
        for split, places in described.parts.items()
        if any(_place(folder, described.root, place) for place in places)
    )
    there |= dict.fromkeys(path.parent.name for path in _folders(folder, "*/images"))
    # Folders among images, and those of cameras, are no splits.
    below = _folders(folder, "images/*")
    if not _has_images(folder / "images") and any(path.name.lower() in SPLITS for path in below):
        there |= dict.fromkeys(path.name for path in below)
    # CVAT's lists may have any name, and then so do their images' folders.
    there |= dict.fromkeys(
        path.stem
        for path in sorted(folder.glob("*.txt"))
        if (path.stem.lower() in SPLITS or (folder / f"obj_{path.stem}_data").is_dir())
        and not _is_label(path)
    )
    # The folder may be one level too high.
    if not there and not _has_images(folder):
        there = dict.fromkeys(
            path.relative_to(folder).as_posix()
            for path in (*_folders(folder, "*"), *_folders(folder, "*/*"))
            if path.name.lower() in SPLITS and _below(path)
        )
    return list(there)


def _folders(folder: Path, pattern: str) -> list[Path]:
    """Return the folders below one, but for those that are nobody's data."""
    found = (path for path in sorted(folder.glob(pattern)) if path.is_dir())
    return [
        path
        for path in found
        if not any(part.startswith(".") or part in NO_DATA for part in path.relative_to(folder).parts)
    ]


def _has_images(folder: Path) -> bool:
    """Whether images lie directly in a folder."""
    return folder.is_dir() and any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())


def _is_label(file: Path) -> bool:
    """Whether a text lies beside an image of its name: test.txt may be the label of test.jpg."""
    return any(file.with_suffix(suffix).is_file() for suffix in SUFFIXES)


def _moved(path: Path, folder: Path, part: str, other: str) -> Path | None:
    """Return a path with the last of its folders of some name called otherwise; None where there is none.

    Args:
        part: the name, in any case.
    """
    base = folder if path.is_relative_to(folder) else Path()
    parts = list(path.relative_to(base).parts if base.parts else path.parts)
    for place in reversed(range(len(parts) - 1)):
        if parts[place].lower() == part:
            parts[place] = other
            return base.joinpath(*parts)
    return None


def _label(image: Path, folder: Path) -> Path | None:
    """Return the file of an image's objects; None where there is none."""
    moved = [_moved(image, folder, "images", labels) for labels in ("labels", "Labels")]
    places = [place.with_suffix(".txt") for place in (*moved, image) if place]
    return next((place for place in places if os.path.isfile(place)), None)


def _without_image(labels: Sequence[Path], folder: Path) -> list[Path]:
    """Return the texts beside some labels that name objects too, of images that are nowhere."""
    strays: list[Path] = []
    known: dict[Path, set[Path]] = {}
    for label in labels:
        known.setdefault(label.parent, set()).add(label)
    for place in sorted(known):
        texts = set(place.glob("*.txt")) - known[place]
        # Of "labels" as a part of the path, the file's own name is none.
        moved = [_moved(place / "a", folder, "labels", images) for images in ("images", "Images", "IMAGES")]
        beside = [place, *(one.parent for one in moved if one)]
        # Of a format that is not read, too.
        stems = {
            path.stem
            for each in (beside if texts else ())
            if each.is_dir()
            for path in each.iterdir()
            if path.suffix.lower() not in TEXTS
        }
        strays += sorted(text for text in texts if text.stem not in stems and _names_objects(text))
    return strays


def _names_objects(text: Path) -> bool:
    """Whether a text's first line is a label's."""
    with suppress(InputError, ValueError):
        return any(len([float(word) for word in line.split()]) > 4 for _, line in numbered_lines(text)[:1])
    return False


def _objects(
    file: Path, tally: _Tally, size: tuple[int, int], masks: bool, notes: list[str]
) -> list[Annotation]:
    """Return the objects of a label, which are counted; lines that are of no use are noted.

    Args:
        size: the upright image's width and height.

    Raises:
        InputError: where it is no text.
    """
    width, height = size
    described, objects = tally.described, []
    before: set[str] = set()
    for number, line in numbered_lines(file):
        where = f"{file}: line {number}"
        if line in before:
            notes.append(f"{where} is there twice; it counts once")
            continue
        before.add(line)
        try:
            first, *values = map(float, line.split())
            if described.points:
                values = values[:4]
            # Behind a box or the corners of a polygon may stand a score.
            values = values[: len(values) // 2 * 2]
            if len(values) < 4:
                raise ValueError
        except ValueError:
            notes.append(
                f"{where} is neither a class with four numbers of a box nor with the corners of a polygon; "
                "it is left out"
            )
            continue
        name = described.names.get(int(first)) if first.is_integer() else None
        if first.is_integer() and first >= 0:
            tally.numbers[int(first)] += 1
        if name is None:
            notes.append(
                f"{where} is of class {first:g}, which {described.source} does not name; it is left out"
            )
        elif len(values) > 4 and not _within(values, CORNER_FRACTIONS):
            notes.append(
                f"{where}: its numbers are no corners of a polygon in fractions of the image's sides (of key "
                "points write kpt_shape in data.yaml); it is left out"
            )
        elif not _within(values, FRACTIONS):
            notes.append(
                f"{where}: its numbers are no fractions of the image's sides; divide pixels by them; it is "
                "left out"
            )
        elif len(values) == 4 and min(values[2:]) <= 0:
            notes.append(f"{where}: its box has no width or no height; it is left out")
        elif len(values) == 4:
            tally.add_box(*values)
            x, y, w, h = (fraction * side for fraction, side in zip(values, (width, height) * 2, strict=True))
            objects.append(Annotation(name, (x - w / 2, y - h / 2, x + w / 2, y + h / 2)))
        else:
            xs, ys = [width * x for x in values[::2]], [height * y for y in values[1::2]]
            points = tuple(number for point in zip(xs, ys, strict=True) for number in point)
            corners = min(xs), min(ys), max(xs), max(ys)
            objects.append(Annotation(name, corners, shape=Outline((points,)) if masks else None))
    return objects


def _within(values: Sequence[float], bounds: tuple[float, float]) -> bool:
    return all(bounds[0] <= value <= bounds[1] for value in values)
