"""Images in folders, one directory a class, as torchvision's ImageFolder and ImageNet have them.

    DIR/train/CLASS/image.jpg         the training part
    DIR/val/CLASS/image.jpg           the validation part, or
    DIR/val/image.jpg                 ImageNet's flat one, with a file that names each image's class:
                                        LOC_val_solution.csv, val.txt, or the devkit's ground truth
    DIR/CLASS/image.jpg               not divided: ``split_validation`` holds some images out
    FILE.csv                          a list of images and classes anywhere (labels.py)

An index of the files is kept in the user's cache folder: reading the directories of 1.28 million files takes
minutes on a slow disk, and checking that they have not changed takes seconds.
"""

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError, nearest
from ..files import cache_folder, keep
from .images import SUFFIXES
from .labels import read_labels

#: Where the classes of a flat validation folder stand, beside it or in it.
GROUND_TRUTH = ("LOC_val_solution.csv", "val.txt", "val.csv", "val_labels.csv")
DEVKIT = "ILSVRC2012_validation_ground_truth.txt"
#: What folders of the parts of a dataset are called here and elsewhere; no class is.
PARTS = ("train", "val", "training", "valid", "validation", "test")
VERSION = 1

#: "all" is what validation images may be held out of: all images of what has no validation part of its own.
Split = Literal["train", "val", "all"]


@dataclass(frozen=True)
class FolderIndex:
    """Which images there are, and of what class; none of them is opened for it.

    Attributes:
        name: of the dataset and its part.
        classes: names of the K classes, sorted.
        files: paths of the N images below ``root``.
        targets: int64 (N,), each in [0, K).
        root: the folder that the paths are relative to.
    """

    name: str
    classes: tuple[str, ...]
    files: tuple[str, ...]
    targets: Tensor
    root: Path

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the images: their paths."""
        return self.files

    def __len__(self) -> int:
        return len(self.files)

    def path(self, position: int) -> Path:
        return self.root / self.files[position]

    def subset(self, indices: Tensor, name: str) -> "FolderIndex":
        """Return the images at ``indices``, int64 (M,)."""
        files = tuple(self.files[position] for position in indices.tolist())
        return FolderIndex(name, self.classes, files, self.targets[indices], self.root)


def parts_of(data_dir: Path) -> set[Split]:
    """Return into which parts a folder or a list of images is divided; none where it is not."""
    if data_dir.is_file():
        return {listed.split for listed in read_labels(data_dir) if listed.split}
    return {part for part in ("train", "val") if (data_dir / part).is_dir()}


def holds_classes(data_dir: Path) -> bool:
    """Whether there are images by classes, not divided into parts: the usual beginning."""
    if data_dir.is_file():
        return True
    if data_dir.name in PARTS and (data_dir.absolute().parent / "train").is_dir():
        return False  # a part, of the folder above
    folders = [path for path in data_dir.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return not any(path.name.lower() in PARTS for path in folders) and any(
        file.name.lower().endswith(SUFFIXES) for path in folders for file in path.iterdir()
    )


def index_folder(data_dir: Path, split: Split, classes: tuple[str, ...] | None = None) -> FolderIndex:
    """Return the index of a part of a folder of images.

    Args:
        data_dir: the folder that holds ``train`` and ``val``; for validation also one that holds the classes.
            Or a CSV file (labels.py).
        split: "train", "val", or "all" for what is not divided.
        classes: those of the training part, in whose order targets count; None for the part's own.

    Raises:
        InputError: when there is no such folder, a class has no images or is not among ``classes``, or the
            classes of a flat validation folder are not known.
    """
    if data_dir.is_file():
        return _listed(data_dir, split, classes)
    if not data_dir.is_dir():
        raise InputError(f"there is no folder {data_dir}")
    root = data_dir / ("train" if split == "all" else split)
    if split == "all" and not root.is_dir():
        root = data_dir
    if not root.is_dir():
        if split == "train" or any((data_dir / other).is_dir() for other in ("train", "val")):
            above = data_dir.absolute().parent
            inside = data_dir.name in ("train", "val") and (above / "train").is_dir()
            remedy = f"name {above}" if inside else f"put a folder for each class into {root}"
            raise InputError(f"{data_dir} has no folder {split}; {remedy}")
        root = data_dir
    listing = _cached(root)
    flat = listing[""]
    folders = {name: files for name, files in listing.items() if name}
    found = _flat(root, data_dir, flat) if flat and not folders else _sorted(root, folders)
    name = f"{data_dir} {root.name}" if root != data_dir else str(data_dir)
    return _index(name, root, found, classes, root)


def _index(
    name: str, source: Path, found: dict[str, list[str]], classes: tuple[str, ...] | None, root: Path
) -> FolderIndex:
    """Return the index of each class's images, in the order of ``classes`` where they are given."""
    own = tuple(sorted(found))
    if classes is not None and (strange := [name for name in own if name not in set(classes)]):
        close = nearest(strange[0], classes)
        raise InputError(f"{source} has a class {strange[0]!r} that the training part has not{close}")
    order = classes or own
    number = {name: target for target, name in enumerate(order)}
    files = [(file, number[name]) for name in own for file in found[name]]
    return FolderIndex(
        name,
        order,
        tuple(file for file, _ in files),
        torch.tensor([target for _, target in files]),
        root,
    )


def _listed(path: Path, split: Split, classes: tuple[str, ...] | None) -> FolderIndex:
    """Return the index of a part of a list; a list without parts may be tested on as a whole."""
    listed = read_labels(path)
    divided = any(each.split for each in listed)
    if split == "train" and not divided:
        raise InputError(f"{path} does not say which images to train on; add a column split: train or val")
    found: dict[str, list[str]] = {}
    for each in listed:
        if not divided or split == "all" or each.split == split:
            found.setdefault(each.label, []).append(each.file)
    if not found:
        raise InputError(f"{path} lists no image of the split {split}")
    return _index(f"{path} {split}" if divided else str(path), path, found, classes, path.parent)


def _sorted(root: Path, folders: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return each class's images, of a folder with a directory for each class."""
    if not folders:
        raise InputError(f"{root} is empty; put a folder with images for each class there")
    found = {name: [f"{name}/{file}" for file in files] for name, files in folders.items()}
    empty = [name for name, files in found.items() if not files]
    if len(empty) == len(found):
        raise InputError(
            f"{root} has no images in its {len(found)} folders (known are {', '.join(SUFFIXES)}); is it "
            "the folder that holds the classes?"
        )
    if empty:
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise InputError(
            f"{root / empty[0]}{more}: a class without images; put images there or remove the folder"
        )
    return found


def _flat(root: Path, data_dir: Path, images: list[str]) -> dict[str, list[str]]:
    """Return each class's images, of ImageNet's validation folder without directories."""
    places = (root, data_dir, data_dir / "ILSVRC2012_devkit_t12" / "data")
    known: dict[str, str] = {}
    source = next((p / n for p in places for n in GROUND_TRUTH if (p / n).is_file()), None)
    if source:
        known = _read_pairs(source)
    elif source := next((p / DEVKIT for p in places if (p / DEVKIT).is_file()), None):
        known = _read_devkit(source, sorted(images))
    else:
        raise InputError(
            f"{root} has images but no folders for classes, and no file says what they show; put beside it "
            f"LOC_val_solution.csv, a val.txt (lines of FILE CLASS), or the devkit's {DEVKIT} and meta.mat"
        )
    found: dict[str, list[str]] = {}
    for file in sorted(images):
        name = known.get(Path(file).stem)
        if name is None:
            raise InputError(f"{source} does not say which class {file} is of")
        found.setdefault(name, []).append(file)
    return found


def _read_pairs(path: Path) -> dict[str, str]:
    """Return the class of each image by the file's name without suffix, from lines of FILE CLASS."""
    pairs = {}
    with path.open(encoding="utf-8", newline="") as file:
        rows: Iterable[list[str]] = csv.reader(file) if path.suffix == ".csv" else (x.split() for x in file)
        for number, row in enumerate(rows, start=1):
            if not row or (number == 1 and row[0].lower() in ("imageid", "file", "filename", "image")):
                continue
            # Kaggle's file has boxes after the class: "n01751748 111 108 230 366".
            words = row[1].split() if len(row) > 1 else []
            if not words:
                raise InputError(f"{path}, line {number}: write the image's file and its class")
            pairs[Path(row[0]).stem] = words[0]
    return pairs


def _read_devkit(path: Path, images: list[str]) -> dict[str, str]:
    """Return the class of each image from the devkit: a number a line, and meta.mat, which names them."""
    # scipy comes with scikit-learn; importing it takes a while.
    from scipy.io import loadmat

    meta = path.with_name("meta.mat")
    if not meta.is_file():
        raise InputError(f"{path} gives classes by number; put the devkit's meta.mat beside it, for names")
    try:
        synsets = loadmat(str(meta), squeeze_me=True)["synsets"]
        names = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        numbers = [int(line) for line in path.read_text(encoding="utf-8").split()]
        classes = [names[number] for number in numbers]
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"{path} or {meta} is damaged ({error})") from None
    if len(classes) != len(images):
        raise InputError(f"{path} has {len(classes):,} lines, and there are {len(images):,} images")
    return {Path(file).stem: name for file, name in zip(images, classes, strict=True)}


def _cached(root: Path) -> dict[str, list[str]]:
    """Return the images of each class's folder, from the cache where no directory has changed since."""
    file = _cache_file(root)
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored["version"] == VERSION and all(
            _modified(root / name) == time for name, time in stored["directories"].items()
        ):
            return stored["files"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # none yet, or a damaged one: it is made again
    directories: dict[str, int] = {}
    files = _scan(root, directories)
    content = {"version": VERSION, "root": str(root), "directories": directories, "files": files}
    keep(file, json.dumps(content).encode())
    return files


def _scan(root: Path, directories: dict[str, int]) -> dict[str, list[str]]:
    """Return the images directly in ``root`` (under "") and below each of its folders, sorted.

    Args:
        directories: is filled with when each directory was changed last.
    """
    found: dict[str, list[str]] = {"": []}

    def walk(folder: Path, prefix: str, seen: frozenset[str]) -> Iterable[str]:
        directories[folder.relative_to(root).as_posix()] = _modified(folder)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise InputError(f"{folder}: cannot be read: {error.strerror}") from None
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                real = os.path.realpath(entry.path)
                if real in seen:
                    continue  # a link to a folder that we are in
                yield from walk(Path(entry.path), f"{prefix}{entry.name}/", seen | {real})
            elif entry.name.lower().endswith(SUFFIXES):
                yield f"{prefix}{entry.name}"

    for file in walk(root, "", frozenset({os.path.realpath(root)})):
        folder, slash, rest = file.partition("/")
        found.setdefault(folder if slash else "", []).append(rest if slash else file)
    for name in directories:
        # A folder without files is a class too, one without images.
        if name != "." and "/" not in name:
            found.setdefault(name, [])
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself


def _modified(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return -1


def _cache_file(root: Path) -> Path:
    resolved = str(root.resolve())
    name = re.sub(r"\W+", "-", resolved)[-60:].strip("-")
    return cache_folder() / f"index-{name}-{hashlib.sha256(resolved.encode()).hexdigest()[:12]}.json"
