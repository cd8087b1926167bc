"""A CSV file that lists images and their classes: ``path,label`` a line, or ``path,label,split``.

Spreadsheets write one with commas, semicolons or tabs between. The columns may be named in a first line, in
any order and among others; without one they are the path, the class and, if there is a third, the split.
Paths are relative to the file's folder.
"""

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unicodedata import normalize

from ..class_names import class_name
from ..errors import InputError
from ..files import read_text

#: What the columns may be called.
NAMES = {
    "path": (
        "path",
        "file",
        "filename",
        "file_name",
        "filepath",
        "image",
        "imageid",
        "image_id",
        "image_path",
    ),
    "label": ("label", "class", "class_name", "category", "target", "predictionstring"),
    "split": ("split", "part", "set", "subset"),
}
#: What the splits may be called.
SPLITS: dict[str, Literal["train", "val"]] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
}


@dataclass(frozen=True)
class LabelledFile:
    """An image that a list names.

    Attributes:
        file: its path below the list's folder, or an absolute one.
        label: the name of its class.
        split: None where the list does not say.
    """

    file: str
    label: str
    split: Literal["train", "val"] | None


def read_labels(path: Path) -> list[LabelledFile]:
    """Return the images that a CSV file lists, each once, in its order.

    Raises:
        InputError: naming the line, for an image that is not there or has two classes; for what is no list.
    """
    if path.suffix.lower() != ".csv":
        raise InputError(f"{path} is a file; name a folder of images, or a .csv file that lists them")
    found: dict[str, tuple[int, LabelledFile]] = {}
    for number, cells in read_rows(path):
        where = f"{path}, line {number}"
        file, label = _there(path.parent, cells["path"], where), class_name(cells["label"])
        listed = LabelledFile(file, label, _split(cells.get("split"), where))
        line, before = found.setdefault(listed.file, (number, listed))
        if before != listed:
            raise InputError(f"{where}: {listed.file} stands in line {line} otherwise; leave one of them out")
    if not found:
        raise InputError(f"{path} lists no image; write a line of PATH,CLASS for each")
    listed_splits = {listed.split for _, listed in found.values()}
    if None in listed_splits and len(listed_splits) > 1:
        raise InputError(f"{path} names the split of some images only; name that of all, as train or val")
    return [listed for _, listed in found.values()]


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each line of a CSV file that is not empty, and its cells by the keys of NAMES.

    Raises:
        InputError: when it cannot be read, or a line names no image or no class.
    """
    text = read_text(path, "write a line of PATH,CLASS for each image")
    first = text.lstrip().partition("\n")[0]
    delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: it cannot be read as CSV ({error})") from None
    # A quote that nothing closes makes one cell of all lines to the next one.
    for number, row in rows:
        if any("\n" in cell or "\r" in cell for cell in row):
            raise InputError(
                f"{path}, line {number}: a cell ends here that began in a line before; close its quotes"
            )
    columns = _columns(rows[0][1], path) if rows else None
    begin = 1 if columns else 0
    columns = columns or {"path": 0, "label": 1, "split": 2}
    for number, row in rows[begin:]:
        cells = {name: row[column].strip() if column < len(row) else "" for name, column in columns.items()}
        if not cells["path"] or not cells["label"]:
            raise InputError(
                f"{path}, line {number}: {delimiter.join(row)!r} names no image and its class; "
                "write PATH,CLASS"
            )
        yield number, cells


def _columns(header: list[str], path: Path) -> dict[str, int] | None:
    """Return where the columns are that a first line names; None where it is no such line."""
    words = [cell.strip().lower() for cell in header]
    columns = {
        name: next(words.index(known) for known in names if known in words)
        for name, names in NAMES.items()
        if any(known in words for known in names)
    }
    if "path" not in columns:
        return None
    others = [place for place in range(len(words)) if place not in columns.values()]
    if "label" not in columns and len(others) != 1:
        raise InputError(f"{path}: call the column of the classes 'class'; there are {', '.join(header)}")
    return {"label": others[0]} | columns if "label" not in columns else columns


def _there(folder: Path, file: str, where: str) -> str:
    """Return the path of an image that is there.

    Windows writes it with backslashes, and macOS letters and their accents apart.
    """
    names = [file, file.replace("\\", "/")]
    for name in dict.fromkeys(names + [normalize(form, name) for form in ("NFC", "NFD") for name in names]):
        # os.path: what nobody may look into is none.
        if os.path.isfile(folder / name):
            return Path(name).as_posix()
    raise InputError(
        f"{where}: there is no file {folder / file}, or it may not be read; paths are relative to the "
        "list's folder"
    )


def _split(text: str | None, where: str) -> Literal["train", "val"] | None:
    if not text:
        return None
    if text.lower() not in SPLITS:
        raise InputError(f"{where}: there is no split {text!r}; known are train and val")
    return SPLITS[text.lower()]
