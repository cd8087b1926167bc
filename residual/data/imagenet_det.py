"""ImageNet's detection task (DET): images with boxes of 200 classes, as ILSVRC has laid them out since 2015.

    ILSVRC/                         or ILSVRC2015/, ILSVRC2017/: the folder named, or in it
      Data/DET/PART/ID.JPEG         PART: train, val, test; of train ID has folders, as
                                    ILSVRC2013_train/n02672831/n02672831_11478, ILSVRC2014_train_0000/...
      Annotations/DET/PART/ID.xml   VOC's XML, in which a class is its WordNet id
      ImageSets/DET/val.txt         and test.txt: "ID NUMBER" a line
      ImageSets/DET/train_K.txt     of each class K, "ID LABEL" a line. 1: all that it shows of the class
                                    has boxes; 0: some has none; -1: it shows none, and may have no XML
      devkit/data/*_det_validation_blacklist.txt        "NUMBER CLASS" a line: not judged on that image

The splits are ``val``, ``test``, and out of the lists of the classes

- ``train``: images with a label of 1 and none of 0;
- ``train_part``: those with a label of 0;
- ``train_neg``: those with labels of -1 alone; they have no boxes;

``val1`` and ``val2``, the halves of the validation set as R-CNN [8] has them: each about half of each class's
objects. Its own lists are no part of the data: ``ImageSets/DET/val1.txt`` and ``val2.txt`` count where they
are there, and ``halves`` divides where not. Any other list in that folder is a split too.

Pixels are counted from 0 and a box is named by its first and last pixel (the development kit adds 1 to the
sides), so the box from pixel 0 to pixel 9 reaches from 0 to 10 in our coordinates.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..class_names import imagenet_det_classes
from ..errors import InputError
from ..files import no_folder, numbered_lines
from .boxes import BoxDataset, Record, make_box_dataset
from .named_files import in_kit, read_number
from .voc import NOTHING, SHOWN, from_pixel_0, read_annotation

PARTS = ("train", "val", "test")
FOLDERS = ("ILSVRC", "ILSVRC2017", "ILSVRC2016", "ILSVRC2015")
#: Made out of the classes' lists.
TRAIN, PARTIAL, NEGATIVE = "train", "train_part", "train_neg"
MADE = (TRAIN, PARTIAL, NEGATIVE)
HALVES = ("val1", "val2")


def load_imagenet_det(
    folder: Path, splits: Sequence[str], classes: Sequence[str] | None = None, *, boxes: bool = True
) -> BoxDataset:
    """Read one or more splits together.

    Args:
        folder: holds Data/, Annotations/ and ImageSets/, or a folder called ILSVRC... that does.
        splits: as "train", "val1", "test".
        classes: names of the classes as "accordion", objects of others are left out; None for those that the
            annotations name, in the order of the development kit's numbers.
        boxes: whether there are annotations; ``test`` has none.

    Raises:
        InputError: when a folder or list is missing or empty, a list is damaged, or no object is of the
            classes.
    """
    root = _locate(folder)
    notes: list[str] = []
    records: dict[Path, Record] = {}
    for split in splits:
        before, listed = len(records), 0
        for record in _records(root, split, boxes, notes):
            records.setdefault(record.path, record)
            listed += 1
        if twice := before + listed - len(records):
            notes.append(f"{split}: {_images(twice)} listed before; each counts once")
    known = {name: number for number, (_, name) in enumerate(imagenet_det_classes(), start=1)}
    place = f"{root}: {' and '.join(splits)}"
    return make_box_dataset(
        "imagenet-det", splits, list(records.values()), classes, known, notes, place, boxes
    )


def halves(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Divide images into two halves that have about as many objects of each class.

    One after the other, those with the rarest classes first, an image goes to where it makes the differences
    between the halves smaller, each in relation to the class's objects; where neither, to the half with fewer
    images. The outcome depends on the images' names and objects alone. Within a half they keep their order.
    """
    counts = {record.id: Counter(item.name for item in record.objects) for record in records}
    total = sum(counts.values(), Counter[str]())

    def rarest(name: str) -> tuple[float, str]:
        return min((total[kind] for kind in counts[name]), default=float("inf")), name

    #: Of each class, by how many objects the first half is ahead.
    ahead: Counter[str] = Counter()
    first: set[str] = set()
    for done, name in enumerate(sorted(counts, key=rarest)):
        # The sum of squares of ahead / total grows by 2 x this in one half, and falls in the other.
        pull = sum(ahead[kind] * count / total[kind] ** 2 for kind, count in counts[name].items())
        if pull < 0 or (pull == 0 and 2 * len(first) <= done):
            first.add(name)
            ahead.update(counts[name])
        else:
            ahead.subtract(counts[name])
    parts: tuple[list[Record], list[Record]] = ([], [])
    for record in records:
        parts[record.id not in first].append(record)
    return parts


def has_own_halves(folder: Path, splits: Sequence[str]) -> bool:
    """Whether any of the splits is a half of ours, R-CNN's list not being there."""
    root = _locate(folder)
    return any(_is_own_half(root, split) for split in splits)


def _is_own_half(root: Path, split: str) -> bool:
    return split in HALVES and not (_lists(root) / f"{split}.txt").is_file()


def _locate(folder: Path) -> Path:
    """Return the folder with the lists of DET."""
    if not folder.is_dir():
        raise no_folder(folder, "name the one with ImageNet DET with --data-dir")
    found = next(
        (path for path in (folder, *(folder / name for name in FOLDERS)) if _lists(path).is_dir()), None
    )
    if found is None:
        raise InputError(
            f"there is no folder {_lists(folder)}; name the folder that has Data/, Annotations/ and "
            "ImageSets/, as ILSVRC or ILSVRC2015, with --data-dir"
        )
    return found


def _lists(root: Path) -> Path:
    return root / "ImageSets" / "DET"


def _records(root: Path, split: str, boxes: bool, notes: list[str]) -> list[Record]:
    """Return the images of a split and their annotations; what is missing or damaged is noted."""
    file = _lists(root) / f"{split}.txt"
    by_class = sorted(_lists(root).glob("train_[0-9]*.txt")) if split in MADE else []
    # What the kit calls train.txt names all images, whatever is known of them.
    if by_class and (split == TRAIN or not file.is_file()):
        place = f"{_lists(root)}/train_*.txt"
        return list(_read(root, split, _by_class(by_class, split), place, boxes, notes))
    if _is_own_half(root, split):
        whole = _lists(root) / "val.txt"
        both = list(_read(root, split, _listed(whole), str(whole), True, notes))
        half = halves(both)[HALVES.index(split)]
        return half if boxes else [replace(record, objects=()) for record in half]
    return list(_read(root, split, _listed(file), str(file), boxes, notes))


def _by_class(files: Sequence[Path], split: str) -> list[str]:
    """Return the images of a part of the training set, in the order in which the classes' lists name them."""
    #: Of each image, which labels but -1 it has: 1, 2 (for 0), or both.
    labels: dict[str, int] = {}
    for file in files:
        for number, line in numbered_lines(file):
            name, *rest = line.rsplit(maxsplit=1)
            if not rest or rest[0] not in SHOWN:
                raise InputError(f"{file}, line {number}: {line!r} is not an image and 1, 0 or -1")
            labels[name] = labels.get(name, 0) | (rest[0] == "1") | 2 * (rest[0] == "0")
    wanted = {TRAIN: (1,), PARTIAL: (2, 3), NEGATIVE: (0,)}[split]
    names = [name for name, has in labels.items() if has in wanted]
    if not names:
        raise InputError(f"{files[0].parent}: the {len(files):,} lists train_*.txt have no image of {split}")
    return names


def _listed(file: Path) -> list[str]:
    """Return the images of a list; their numbers are of no interest here."""
    if not file.is_file():
        if file.stem in MADE:
            raise InputError(
                f"there is neither {file} nor train_1.txt, train_2.txt, ..., which {file.stem} is made of"
            )
        there = sorted({path.stem for path in file.parent.glob("*.txt") if "_" not in path.stem})
        have = f"; there are {', '.join(there)}" if there else "; ImageNet's kit has the lists there"
        raise InputError(f"there is no split {file}{have}")
    names = [line.split()[0] for _, line in numbered_lines(file)]
    if not names:
        raise InputError(f"{file} is empty; write one image's name a line")
    return names


def _read(
    root: Path, split: str, names: Sequence[str], place: str, boxes: bool, notes: list[str]
) -> Iterator[Record]:
    """Yield the listed images and their annotations.

    Args:
        place: of the list, for messages.
    """
    of_synset = dict(imagenet_det_classes())
    parts = sorted(PARTS, key=lambda part: not split.startswith(part))
    numbers = {part: _numbers(root, part) for part in ("val", "test")}
    blacklist = _blacklist(root)
    gone: list[str] = []
    bare: list[str] = []
    for name in names:
        images = ((part, root / "Data" / "DET" / part / f"{name}.JPEG") for part in parts)
        # A list may have any text in the place of a name: this is never an error.
        part, path = next(((part, path) for part, path in images if os.path.isfile(path)), ("", Path()))
        if not part:
            gone.append(name)
            continue
        content, where = NOTHING, place
        if boxes:
            xml = root / "Annotations" / "DET" / part / f"{name}.xml"
            if os.path.isfile(xml):
                read = read_annotation(xml, notes)
                if read is None:
                    continue
                content, where = read, str(xml)
            elif split != NEGATIVE:
                bare.append(name)
                continue
        objects = tuple(
            replace(from_pixel_0(item), name=of_synset.get(item.name, item.name)) for item in content.objects
        )
        number = numbers.get(part, {}).get(name, 0)
        unjudged = blacklist.get(number, frozenset()) if part == "val" else frozenset()
        yield Record(name, path, content.size, objects, where, number, unjudged)
    if gone:
        notes.append(
            f"{place}: {_images(len(gone))} not in {root / 'Data' / 'DET'}, the first {gone[0]}.JPEG"
        )
    if bare:
        notes.append(
            f"{place}: {_images(len(bare))} without an annotation in {root / 'Annotations' / 'DET'} and left "
            f"out, the first {bare[0]} ({NEGATIVE} is the split of images without boxes)"
        )


def _numbers(root: Path, part: str) -> dict[str, int]:
    """Return the number of each image of a part: what its list says, or the place there."""
    file = _lists(root) / f"{part}.txt"
    lines = [line.split() for _, line in numbered_lines(file)] if file.is_file() else []
    return {
        words[0]: place if len(words) < 2 or (number := read_number(words[1])) is None else number
        for place, words in enumerate(lines, start=1)
    }


def _blacklist(root: Path) -> dict[int, frozenset[str]]:
    """Return the classes that are not judged on images of the validation set, by the images' numbers."""
    of_synset = dict(imagenet_det_classes())
    file = in_kit((root, root.parent), "*_det_validation_blacklist.txt")
    found: dict[int, frozenset[str]] = {}
    for line, text in numbered_lines(file) if file else []:
        first, _, synset = text.strip().partition(" ")
        number, name = read_number(first), of_synset.get(synset.strip())
        if number is None or name is None:
            raise InputError(
                f"{file}, line {line}: {text!r} is not an image's number and a class's WordNet id"
            )
        found[number] = found.get(number, frozenset()) | {name}
    return found


def _images(count: int) -> str:
    return f"{count:,} image{' is' if count == 1 else 's are'}"
