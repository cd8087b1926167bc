"""Images in folders, one directory a class, as torchvision's ImageFolder and ImageNet have them.

    DIR/train/CLASS/image.jpg         the training part
    DIR/val/CLASS/image.jpg           the validation part, or
    DIR/val/image.jpg                 a flat one, with a list that names each image's class (lists.py):
                                        LOC_val_solution.csv, val.txt, val.csv, the devkit's ground truth
    DIR/val/images/image.jpg          the same; Tiny ImageNet's, with val_annotations.txt
    DIR/CLASS/image.jpg               not divided: ``split_validation`` holds some images out
    FILE.csv                          a list of images and classes anywhere (labels.py)

An index of the files is kept in the user's cache folder: reading the directories of 1.28 million files takes
minutes on a slow disk, and checking that they have not changed takes seconds.
"""

import errno
import functools
import hashlib
import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..class_names import class_name
from ..errors import EXTRAS, InputError, nearest, on_a_line, printable
from ..files import (
    cache_folder,
    checksum,
    damaged,
    first_line,
    keep,
    no_folder,
    no_target,
    parse_json,
    read_content,
    read_text,
)
from .identity import identity_of
from .images import FORMATS, READABLE, SUFFIXES
from .labels import read_labels
from .lists import ClassList, read_list
from .named_files import NO_DATA
from .tiny_imagenet import fetch_if_named

#: Where the classes of a flat folder stand, beside it or in it; "val" is its name.
LISTS = ("LOC_{}_solution.csv", "{}.txt", "{}.csv", "{}_labels.csv", "{}_annotations.txt")
DEVKIT = "ILSVRC2012_validation_ground_truth.txt"
#: What to do about damaged files of it.
DEVKIT_SOURCE = "unpack ILSVRC2012_devkit_t12.tar.gz anew"
#: The folder that some datasets put a flat part's images into.
INNER = "images"
#: Tiny ImageNet's files: its classes, and a name for each of WordNet's ids.
WNIDS, WORDS = "wnids.txt", "words.txt"
#: What lies beside images and is none: it is not counted among what is left out.
COMPANIONS = (".txt", ".csv", ".json", ".xml", ".md", ".html", ".pdf", ".yaml", ".yml", ".py", ".db", ".ini")
#: What other programs call the parts.
ELSEWHERE = {
    "train": ("train", "training", "trainset", "train_set"),
    "val": ("val", "valid", "validation", "test", "testing", "eval", "dev", "valset", "val_set", "testset"),
}
#: How names of files end, images that are not read here among them. "St. Bernard" and "no.5" do not.
FILES = (*(suffix for suffixes in FORMATS.values() for suffix in suffixes), *COMPANIONS)
VERSION = 5

#: "all" is what validation images may be held out of: all images of what has no validation part of its own.
Split = Literal["train", "val", "all"]


@dataclass(frozen=True)
class FolderIndex:
    """Which images there are, and of what class; none of them is opened for it.

    Attributes:
        name: of the dataset and its part.
        classes: names of the K classes, sorted; bytes that are no UTF-8 are escaped in them.
        files: paths of the N images below ``root``.
        targets: int64 (N,), each in [0, K).
        root: the folder that the paths are relative to.
        notes: a sentence on whatever may not be as it was meant.
    """

    name: str
    classes: tuple[str, ...]
    files: tuple[str, ...]
    targets: Tensor
    root: Path
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def ids(self) -> tuple[str, ...]:
        """Names of the images: their paths, as they can be printed."""
        return tuple(map(on_a_line, self.files))

    def __len__(self) -> int:
        return len(self.files)

    def path(self, position: int) -> Path:
        return self.root / self.files[position]

    def paths(self, positions: Iterable[int]) -> list[str]:
        """Return the paths of some images as text, which is made and sent to another process faster."""
        return [os.path.join(self.root, self.files[position]) for position in positions]

    def content(self) -> str:
        """Return the identity of the images and their classes."""
        paths = [self.path(position) for position in range(len(self))]
        return identity_of([*self.classes, *self.files], [self.targets], paths)

    def subset(self, indices: Tensor, name: str) -> "FolderIndex":
        """Return the images at ``indices``, int64 (M,)."""
        files = tuple(self.files[position] for position in indices.tolist())
        return FolderIndex(name, self.classes, files, self.targets[indices], self.root, self.notes)

    def listed(self) -> list[tuple[str, str]]:
        """Return each image's file and its class's name."""
        names = (self.classes[target] for target in self.targets.tolist())
        return list(zip(self.files, names, strict=True))

    def with_classes_of(self, names: Set[str]) -> "FolderIndex":
        """Return the same images without classes that are not among ``names`` and that none of them is of."""
        kept = sorted({*self.targets.tolist(), *(k for k, name in enumerate(self.classes) if name in names)})
        number = torch.zeros(len(self.classes), dtype=torch.int64)
        number[kept] = torch.arange(len(kept))
        classes = tuple(self.classes[k] for k in kept)
        return replace(self, classes=classes, targets=number[self.targets])


@dataclass(frozen=True)
class Listing:
    """The files below a folder that are not hidden.

    Attributes:
        images: those that are read, sorted: by the folder of the first level, "" for the folder itself, their
            paths below that.
        others: how many other files there are, by folder and suffix.
    """

    images: dict[str, list[str]] = field(default_factory=dict)
    others: dict[str, dict[str, int]] = field(default_factory=dict)

    def left_out(self, folders: Iterable[str] | None = None) -> str:
        """Return the files of some folders (of all) that are not read, as "3 .psd and 1 without a suffix"."""
        counts: Counter[str] = Counter()
        for folder in self.others if folders is None else folders:
            counts.update(self.others.get(folder, {}))
        named = [
            f"{count:,} {suffix or 'without a suffix'}"
            for suffix, count in counts.most_common()
            if suffix not in COMPANIONS
        ]
        *some, last = named or [""]
        return f"{', '.join(some)} and {last}" if some else last


def parts_of(data_dir: Path) -> set[Split]:
    """Return into which parts a folder or a list of images is divided; none where it is not."""
    fetch_if_named(data_dir)
    if data_dir.is_file():
        return {listed.split for listed in read_labels(data_dir) if listed.split}
    return {part for part in ("train", "val") if (data_dir / part).is_dir()}


def holds_classes(data_dir: Path) -> bool:
    """Whether there are images by classes, not divided into parts: the usual beginning."""
    if not data_dir.is_dir():
        return data_dir.is_file()
    if _is_part(data_dir.name) and (data_dir.absolute().parent / "train").is_dir():
        return False  # a part, of the folder above
    folders = _folders_in(data_dir)
    return not any(_is_part(path.name) for path in folders) and any(map(_holds_images, folders))


def _holds_images(folder: Path) -> bool:
    """Whether there are images in a folder itself; False of one that cannot be read."""
    try:
        return any(file.name.lower().endswith(SUFFIXES) for file in folder.iterdir())
    except OSError:
        return False


def _folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder, without hidden ones and those of NO_DATA."""
    paths = (path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in NO_DATA)
    # os.path: what nobody may look into is none.
    return [path for path in paths if os.path.isdir(path)]


def _is_part(name: str) -> bool:
    return any(name.lower() in names for names in ELSEWHERE.values())


def index_folder(data_dir: Path, split: Split, classes: tuple[str, ...] | None = None) -> FolderIndex:
    """Return the index of a part of a folder of images.

    Args:
        data_dir: the folder that holds ``train`` and ``val``; for validation also one that holds the classes.
            Or a CSV file (labels.py).
        split: "train", "val", or "all" for what is not divided.
        classes: those of the training part, in whose order targets count; None for the part's own.

    Raises:
        InputError: when there is no such folder, a class has no images or is not among ``classes``, or the
            classes of a flat folder are not known.
    """
    if os.path.isfile(data_dir):
        return _listed(data_dir, split, classes)
    root = _root(data_dir, split)
    part = "train" if split == "all" else split
    listing = _cached(root)
    flat = listing.images[""]
    folders = {name: files for name, files in listing.images.items() if name}
    # Where the parts lie: one may be named itself, and has a list of its own beside it as well.
    around = root.absolute().parent if root == data_dir and _is_part(root.name) else data_dir
    names = [name.format(part) for name in LISTS]
    source = next((p / name for p in (root, data_dir) for name in names if (p / name).is_file()), None)
    if around != data_dir:
        own = (around / name.format(root.name) for name in LISTS)
        source = source or next((file for file in own if file.is_file()), None)
    if source and not flat and list(folders) == [INNER]:
        flat, folders = [f"{INNER}/{file}" for file in folders[INNER]], {}
    told: list[str] = []
    if flat and not folders:
        found, told = _flat(root, around, part, source, flat, classes)
    else:
        found = _sorted(root, folders, listing)
    found = _with_names(found, data_dir, root)
    strange = classes is not None and not found.keys() <= set(classes)
    if (split != "val" or strange) and (level := _one_level_too_many(root, found)):
        raise InputError(level)
    name = f"{data_dir} {root.name}" if root != data_dir else str(data_dir)
    notes = [*told, *_notes(root, found, listing, flat if folders else []), *_beside(data_dir, root)]
    return _index(name, root, found, classes, root, notes)


def _index(
    name: str,
    source: Path,
    found: dict[str, list[str]],
    classes: tuple[str, ...] | None,
    root: Path,
    notes: Iterable[str],
) -> FolderIndex:
    """Return the index of each class's images, in the order of ``classes`` where they are given."""
    own = tuple(sorted(found))
    if classes is not None and (strange := [name for name in own if name not in set(classes)]):
        close = nearest(strange[0], classes)
        raise InputError(f"{source} has a class {strange[0]!r} that the training part does not have{close}")
    order = classes or own
    number = {name: target for target, name in enumerate(order)}
    files = [(file, number[name]) for name in own for file in found[name]]
    return FolderIndex(
        name,
        order,
        tuple(file for file, _ in files),
        torch.tensor([target for _, target in files]),
        root,
        tuple(map(on_a_line, notes)),
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
    name = f"{path} {split}" if divided else str(path)
    return _index(name, path, found, classes, path.parent, _single(path, found))


def scan(root: Path, directories: dict[str, str] | None = None) -> Listing:
    """Return the files below a folder, links followed; hidden ones and those of NO_DATA are none.

    Args:
        directories: of a root whose folders are classes: is filled with when each directory was changed last,
            as of ``_modified``.

    Raises:
        InputError: when a directory, or what may be a class's and is a link, cannot be read.
    """
    changed = {} if directories is None else directories
    found = Listing({"": []}, {})

    def walk(folder: Path, prefix: str, seen: frozenset[str]) -> Iterable[str]:
        changed[folder.relative_to(root).as_posix()] = _modified(folder)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise InputError(f"{folder}: cannot be read: {error.strerror}") from None
        for entry in entries:
            if entry.name.startswith(".") or entry.name in NO_DATA:
                continue
            if _is_folder(entry):
                real = os.path.realpath(entry.path)
                if real in seen:
                    continue  # a link to a folder that we are in
                yield from walk(Path(entry.path), f"{prefix}{entry.name}/", seen | {real})
                continue
            if directories is not None and entry.is_symlink() and not entry.name.lower().endswith(FILES):
                _check_link(entry)
            yield f"{prefix}{entry.name}"

    for file in walk(root, "", frozenset({os.path.realpath(root)})):
        folder, slash, rest = file.partition("/")
        folder, rest = (folder, rest) if slash else ("", file)
        if rest.lower().endswith(SUFFIXES):
            found.images.setdefault(folder, []).append(rest)
        else:
            counts = found.others.setdefault(folder, {})
            suffix = Path(rest).suffix.lower()
            counts[suffix] = counts.get(suffix, 0) + 1
    for name in changed:
        # A folder without files is a class too, one without images.
        if name != "." and "/" not in name:
            found.images.setdefault(name, [])
    return found


def images_in(folder: Path) -> tuple[list[Path], str]:
    """Return the images in a folder at any depth, sorted, and what is not read, as ``Listing.left_out``.

    Raises:
        InputError: when there is none, and as ``scan``.
    """
    listing = scan(folder)
    inside = sorted(folder / name / file for name, images in listing.images.items() for file in images)
    left_out = listing.left_out()
    if not inside:
        holds = f"it holds {left_out}; " if left_out else ""
        raise InputError(
            f"there is no image in the folder {folder}; {holds}images end in {', '.join(SUFFIXES)}"
        )
    return inside, left_out


def not_read(left_out: str) -> str:
    """Return what there is to know of files that are left out, as ``Listing.left_out`` names them."""
    return f"{left_out} left out, as no images that are read{_how_to_read(left_out)}"


def _how_to_read(left_out: str) -> str:
    heic = next((name for name in FORMATS["HEIF"] if "HEIF" not in READABLE and name in left_out), None)
    return f" ({heic} is with pip install {EXTRAS['heic']})" if heic else ""


def _root(data_dir: Path, split: Split) -> Path:
    """Return the folder of a part."""
    fetch_if_named(data_dir)
    if not data_dir.is_dir():
        raise no_folder(data_dir)
    part: Literal["train", "val"] = "train" if split == "all" else split
    root = data_dir / part
    if root.is_dir():
        return root
    folders = _folders_in(data_dir)
    if len(folders) == 1 and all((folders[0] / name).is_dir() for name in ("train", part)):
        # Many archives have one folder more around everything.
        raise InputError(f"{data_dir} has no folder {part}; name {folders[0]}")
    there = {path.name for path in folders}
    divided = bool(there & {"train", "val"}) or (bool(there) and all(map(_is_part, there)))
    if root.is_symlink() and not root.exists():
        raise no_target(root, "is not there")
    if split != "train" and not divided:
        return data_dir
    refuse_other_names(data_dir, part)
    if split == "all":
        return data_dir
    above = data_dir.absolute().parent
    inside = data_dir.name in ("train", "val") and (above / "train").is_dir()
    remedy = f"name {above}" if inside else f"put a folder for each class into {root}"
    if below := sorted(path for path in _folders_in(data_dir) if (path / part).is_dir()):
        # Many archives have one folder more around everything.
        remedy = f"name {below[0]}"
    raise InputError(f"{data_dir} has no folder {part}; {remedy}")


def refuse_other_names(data_dir: Path, part: Literal["train", "val"]) -> None:
    """Raise an InputError where a folder without a part has one by another name."""
    known = ELSEWHERE[part]
    there = [path.name for path in data_dir.iterdir() if path.is_dir()] if data_dir.is_dir() else []
    similar = sorted(
        (name for name in there if name.lower() in known), key=lambda name: known.index(name.lower())
    )
    if similar:
        raise InputError(
            f"{data_dir} has no folder {part}, but one called {similar[0]}: rename it to {part}, or link it "
            f"(ln -s {shlex.quote(similar[0])} {shlex.quote(str(data_dir / part))})"
        )


def _sorted(root: Path, folders: dict[str, list[str]], listing: Listing) -> dict[str, list[str]]:
    """Return each class's images, of a folder with a directory for each class."""
    if not folders:
        raise InputError(f"{root} is empty; put a folder with images for each class there")
    empty = [name for name, files in folders.items() if not files]
    others = listing.left_out(empty)
    if len(empty) == len(folders):
        holds = f"they hold {others}; " if others else ""
        raise InputError(
            f"{root} has no images in its {len(folders)} folders ({holds}known are {', '.join(SUFFIXES)}); "
            "is it the folder that holds the classes?"
        )
    if empty:
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        if others:
            raise InputError(
                f"{root / empty[0]}{more}: a class without images that are read, but with {others}"
                f"{_how_to_read(others)}; convert them to PNG or JPEG, or remove the folder"
            )
        raise InputError(
            f"{root / empty[0]}{more}: a class without images; put images there or remove the folder"
        )
    found: dict[str, list[str]] = {}
    for name, files in folders.items():
        shown = class_name(name)
        if shown in found:
            raise InputError(f"{root} has two folders that are both shown as {shown}; rename one")
        found[shown] = [f"{name}/{file}" for file in files]
    return found


def _flat(
    root: Path,
    around: Path,
    split: str,
    source: Path | None,
    images: list[str],
    classes: tuple[str, ...] | None,
) -> tuple[dict[str, list[str]], list[str]]:
    """Return each class's images, of a folder without a directory for each, and what to say of its list."""
    places = (root, around, around / "ILSVRC2012_devkit_t12" / "data")
    if source:
        known = read_list(source)
        if classes is None and split == "val" and (around / "train").is_dir():
            classes = index_folder(around, "train").classes
        # Numbers of the training part are the classes' names.
        if split == "val" or classes is not None:
            known = known.named(classes)
    elif devkit := next((p / DEVKIT for p in places if split == "val" and (p / DEVKIT).is_file()), None):
        known = _read_devkit(devkit, sorted(images))
    else:
        raise InputError(
            f"{root} has images but no folders for classes, and no file says what they show; put beside it "
            f"{', '.join(name.format(split) for name in LISTS[:3])} (lines of FILE CLASS)"
            + (f", or the devkit's {DEVKIT} and meta.mat" if split == "val" else "")
        )
    found: dict[str, list[str]] = {}
    for file in sorted(images):
        found.setdefault(known.class_of(file), []).append(file)
    if not (absent := known.absent(images)):
        return found, []
    many = f"{len(absent):,} image{'s' if len(absent) > 1 else ''} that {known.path} names"
    return found, [f"{many} {'are' if len(absent) > 1 else 'is'} not in {root}; the first: {absent[0]}"]


def _read_devkit(path: Path, images: list[str]) -> ClassList:
    """Return the class of each image from the devkit: a number a line, and meta.mat, which names them."""
    # scipy comes with scikit-learn; importing it takes a while.
    from scipy.io import loadmat

    meta = path.with_name("meta.mat")
    if not meta.is_file():
        raise InputError(f"{path} gives classes by number; put the devkit's meta.mat beside it, for names")
    try:
        synsets = loadmat(str(meta), squeeze_me=True)["synsets"]
        names = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    # A damaged file makes the reader stumble over anything.
    except Exception as error:
        raise damaged(meta, first_line(error), DEVKIT_SOURCE) from None
    try:
        classes = [names[int(line)] for line in read_text(path, DEVKIT_SOURCE).split()]
    except (KeyError, ValueError) as error:
        raise damaged(path, f"no number of a class: {first_line(error)}", DEVKIT_SOURCE) from None
    if len(classes) != len(images):
        raise InputError(f"{path} has {len(classes):,} lines, and there are {len(images):,} images")
    return ClassList(path, {Path(file).name: name for file, name in zip(images, classes, strict=True)})


def _with_names(found: dict[str, list[str]], data_dir: Path, root: Path) -> dict[str, list[str]]:
    """Return Tiny ImageNet's classes by WordNet id and name, those of other folders as they are."""
    folder = next(
        (p for p in (data_dir, root.parent) if all((p / n).is_file() for n in (WNIDS, WORDS))), None
    )
    if not folder or not all(re.fullmatch(r"n\d{8}", name) for name in found):
        return found
    words = {}
    for line in read_content(folder / WORDS).decode("utf-8", "replace").splitlines():
        wnid, _, names = line.partition("\t")
        # "goldfish, Carassius auratus"
        words[wnid.strip()] = names.partition(",")[0].strip()
    return {f"{wnid} {words.get(wnid, '')}".strip(): files for wnid, files in found.items()}


def _one_level_too_many(root: Path, found: dict[str, list[str]]) -> str | None:
    """Return a sentence where a single class has nothing but folders, which look like the classes."""
    if len(found) > 1:
        return None
    ((name, files),) = found.items()
    inside = sorted({file.split("/")[1] for file in files if file.count("/") > 1})
    if len(inside) < 2 or any(file.count("/") == 1 for file in files):
        return None
    return (
        f"{root} has a single class, {name}, whose {len(inside):,} folders look like the classes "
        f"({', '.join(map(on_a_line, inside[:3]))}{', ...' if len(inside) > 3 else ''}); move them up "
        f"into {root}"
    )


def _notes(root: Path, found: dict[str, list[str]], listing: Listing, loose: list[str]) -> Iterable[str]:
    """Yield a sentence on each thing of a part that may not be as it was meant."""
    if left_out := listing.left_out():
        yield f"{root}: {not_read(left_out)}"
    if loose:
        yield f"{root}: {len(loose):,} images beside the folders of the classes are of no class, and left out"
    yield from _single(root, found)
    inside = [
        {file.split("/")[1] if file.count("/") > 1 else "" for file in files} for files in found.values()
    ]
    if (
        len(found) > 1
        and len(inside[0]) > 1
        and "" not in inside[0]
        and all(names == inside[0] for names in inside)
    ):
        some = ", ".join(map(on_a_line, sorted(inside[0])[:3]))
        yield (
            f"{root}: all {len(found):,} classes have the same folders ({some}); if those are the classes, "
            f"put them into {root} directly"
        )


def _beside(data_dir: Path, root: Path) -> Iterable[str]:
    """Yield a sentence where folders with images lie beside ``train``: it may be a class among others."""
    if root == data_dir or root.name != "train":
        return
    others = [path for path in _folders_in(data_dir) if not _is_part(path.name)]
    if strange := sorted(path.name for path in others if _holds_images(path)):
        yield (
            f"{data_dir}: of its folders only {root.name} is trained on, not {', '.join(strange[:3])}"
            f"{', ...' if len(strange) > 3 else ''}; if all are classes, put them into a new folder train"
        )


def _single(source: Path, found: dict[str, list[str]]) -> Iterable[str]:
    if len(found) == 1:
        yield f"{source} has one class, {next(iter(found))}: there is nothing to tell it from"


def _cached(root: Path) -> Listing:
    """Return the files of each class's folder, from the cache where no directory has changed since."""
    file = _cache_file(root)
    about = {"version": VERSION, "root": str(root), "suffixes": list(SUFFIXES)}
    stored = _stored(file)
    if about.items() <= stored.items() and all(
        _modified(root / name) == time for name, time in stored["directories"].items()
    ):
        return Listing(stored["images"], stored["others"])
    directories: dict[str, str] = {}
    found = scan(root, directories)
    content = about | {"directories": directories, "images": found.images, "others": found.others}
    text = json.dumps(content)
    keep(file, f"{checksum(text)}\n{text}".encode())
    return found


def _stored(file: Path) -> dict[str, Any]:
    """Return what the cache holds of a folder; nothing where there is none, or it is damaged."""
    try:
        noted, _, text = read_text(file).partition("\n")
        return parse_json(text, dict, ValueError) if noted == checksum(text) else {}
    except (InputError, ValueError):
        return {}


def _check_link(entry: os.DirEntry[str]) -> None:
    """Raise an InputError where a link, which may be a class, leads to what cannot be read."""
    try:
        os.stat(entry.path)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise no_target(Path(entry.path), f"cannot be read ({error.strerror})") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself


def _modified(folder: Path) -> str:
    """Return what differs where names in a folder do; "" where it is not there.

    Programs that copy set the time of a change back to the original's, and not that of the inode's.
    """
    try:
        status = folder.stat()
    except OSError:
        return ""
    return f"{status.st_mtime_ns} {status.st_ctime_ns}"


def _cache_file(root: Path) -> Path:
    resolved = str(root.resolve())
    name = re.sub(r"\W+", "-", printable(resolved))[-60:].strip("-")
    return cache_folder() / f"index-{name}-{hashlib.sha256(os.fsencode(resolved)).hexdigest()[:12]}.json"
