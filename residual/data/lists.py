"""Lists that say which class each image of a flat folder is of.

===========================  =================================================================
CSV                          a file and a class a line, each a whole field (labels.py reads it)
LOC_val_solution.csv         Kaggle's ImageNet: the class is the first word, boxes follow it
text                         the last word of a line is the class, all before it the file
text with tabs               FILE, CLASS, and numbers that are not read (Tiny ImageNet's val_annotations.txt)
===========================  =================================================================
"""

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..class_names import class_name, composed
from ..errors import InputError
from ..files import read_content
from .images import SUFFIXES
from .labels import read_rows

#: A name may have what other ends of lines are made of: Unicode has eight of them.
_LINE_END = re.compile("\r\n|\r|\n")


@dataclass(frozen=True)
class ClassList:
    """A class for each of some files.

    Attributes:
        path: of the list.
        classes: by the file as the list has it, without its folders.
    """

    path: Path
    classes: dict[str, str]

    @functools.cached_property
    def _by_stem(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for file, name in self.classes.items():
            found.setdefault(_stem(file), set()).add(name)
        return found

    def class_of(self, file: str) -> str:
        """Return the class of a file, which the list may name with another suffix of an image, or none.

        Raises:
            InputError: when the list does not name it, or several classes of it.
        """
        name = composed(PurePosixPath(file).name)
        if name in self.classes:
            return self.classes[name]
        found = self._by_stem.get(_stem(name), set())
        if len(found) > 1:
            raise InputError(
                f"{self.path} says {' and '.join(sorted(found))} of files with the name of {file}"
            )
        if not found:
            raise InputError(
                f"{self.path} does not say which class {file} is of (in a text file the last word of a line "
                "is the class; a class of several words needs a .csv)"
            )
        return next(iter(found))

    def absent(self, files: Iterable[str]) -> list[str]:
        """Return the files that the list names and that are not among ``files``."""
        names = {composed(PurePosixPath(file).name) for file in files}
        stems = set(map(_stem, names))
        return [file for file in self.classes if file not in names and _stem(file) not in stems]

    def named(self, names: tuple[str, ...] | None) -> "ClassList":
        """Return the list with names in place of numbers, where it has nothing but numbers.

        Caffe's lists count classes from 0, in the order of their names.

        Args:
            names: of the K classes in order, None where they are not known.

        Raises:
            InputError: for a number that is no class's.
        """
        numbers = set(self.classes.values())
        if not all(number.isdecimal() for number in numbers) or numbers <= set(names or ()):
            return self
        if names and all(name.isdecimal() for name in names):
            return self  # a number that is no name of theirs is a mistake, not a position
        if names is None:
            raise InputError(
                f"{self.path} gives classes by number; put the folder train beside it, for names"
            )
        # Python reads no more than some thousand digits.
        if high := [number for number in numbers if len(number) > 9 or int(number) >= len(names)]:
            raise InputError(
                f"{self.path} has the class {high[0]}, and there are {len(names):,}, which count from 0"
            )
        return ClassList(self.path, {file: names[int(number)] for file, number in self.classes.items()})


def read_list(path: Path) -> ClassList:
    """Read a list.

    Raises:
        InputError: when it cannot be read, a line names no class, or two name different ones of one file.
    """
    classes: dict[str, str] = {}
    for number, file, name in _rows(path):
        if not file or not name:
            raise InputError(f"{path}, line {number}: write the image's file and its class")
        # Paths of Windows as well.
        file, name = composed(PurePosixPath(file.replace("\\", "/")).name), class_name(name)
        if classes.setdefault(file, name) != name:
            raise InputError(
                f"{path}, line {number}: {file} is {name!r} here and {classes[file]!r} before; "
                "one of them is wrong"
            )
    return ClassList(path, classes)


def _stem(name: str) -> str:
    """Return a file's name without the suffix of an image; a name may have other dots."""
    base, dot, suffix = name.rpartition(".")
    return base if f"{dot}{suffix}".lower() in SUFFIXES else name


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the number of each line that is not empty, its file and its class."""
    if path.suffix.lower() == ".csv":
        for number, cells in read_rows(path):
            # Kaggle's file has boxes after the class: "n01751748 111 108 230 366".
            name = cells["label"].split()[0] if path.name.startswith("LOC_") else cells["label"]
            yield number, cells["path"], name
        return
    for number, line in enumerate(_LINE_END.split(_text(path)), start=1):
        if "\t" in line.strip():
            file, name, *rest = (field.strip() for field in line.strip().split("\t"))
            if not all(_is_number(field) for field in rest):
                raise InputError(
                    f"{path}, line {number}: after the file and its class there are only numbers"
                )
            yield number, file, name
        elif line.strip():
            file, _, name = line.strip().rpartition(" ")
            yield number, file.strip(), name


def _text(path: Path) -> str:
    content = read_content(path, "write a line of FILE CLASS for each image")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    # Names of files may be of any bytes.
    return content.decode("utf-8-sig", "surrogateescape")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
