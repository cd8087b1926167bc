"""CIFAR-10 (A. Krizhevsky, 2009): 60,000 colour images of 32x32 in ten classes.

Read from either official layout; where there is none, the binary one is downloaded.

cifar-10-batches-bin/   data_batch_{1..5}.bin, test_batch.bin: 10,000 records each, of a label byte and 3,072
                        bytes of red, green and blue planes; batches.meta.txt: the names of the classes
cifar-10-batches-py/    data_batch_{1..5}, test_batch, batches.meta: the same as Python 2 pickles
"""

import codecs
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from ..class_names import CIFAR10_CLASSES
from ..download import PublishedFile, fetch_folder
from ..errors import InputError
from ..files import check_file, read_content
from .dataset import Dataset

ARCHIVE = PublishedFile(
    "CIFAR-10",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "md5",
    "c32a1d4ab5d03f1284b67883e8d87530",
)
#: Where it lies, or is downloaded to, if nothing else is said.
USUAL_DIR = Path("data")
#: Images in each file, and bytes of an image.
RECORDS, PIXELS = 10_000, 3 * 32 * 32
BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}


def load_cifar10(split: Literal["train", "test"], data_dir: Path | None = None) -> Dataset:
    """Return the 50,000 training or 10,000 test images, uint8 (N, 3, 32, 32), in the order of the files.

    Ids count from 0 in each part.

    Args:
        data_dir: a folder that holds the folder of either layout, or is it; where it is neither, CIFAR-10 is
            downloaded to it. None for the folder ``data``, which is made if need be.

    Raises:
        InputError: when ``data_dir`` does not exist, the download fails, or a file is missing or wrong.
    """
    if data_dir is None:
        data_dir = USUAL_DIR
    elif not data_dir.is_dir():
        if data_dir.exists():
            raise InputError(f"{data_dir} is a file; name the folder that holds CIFAR-10 with --data-dir")
        # A folder is made for the download; a whole path that is not there is more likely misspelt.
        if not data_dir.absolute().parent.is_dir():
            raise InputError(f"{data_dir}: there is no such folder, nor the one that it would be in")
    layout, folder = _find(data_dir) or _download(data_dir)

    files = layout.files(split)
    images = np.empty((len(files), RECORDS, PIXELS), np.uint8)
    targets = np.empty((len(files), RECORDS), np.int64)
    for i, file in enumerate(files):
        images[i], targets[i] = _read_batch(layout, folder / file)
    return Dataset(
        f"cifar10 {split}",
        _read_classes(layout, folder / layout.meta),
        torch.from_numpy(images).view(-1, 3, 32, 32),
        torch.from_numpy(targets).view(-1),
        torch.arange(targets.size),
    )


@dataclass(frozen=True)
class _Layout:
    """How an official archive stores the dataset.

    Attributes:
        folder: its name.
        suffix: of the batch files.
        meta: the file with the names of the classes.
        read_batch: from a path to pixels, uint8 (RECORDS, PIXELS), and RECORDS labels, yet to be checked.
        read_classes: from the path of ``meta`` to names, yet to be counted.
    """

    folder: str
    suffix: str
    meta: str
    read_batch: Callable[[Path], tuple[np.ndarray, list[Any]]]
    read_classes: Callable[[Path], list[str]]

    def files(self, split: str) -> list[str]:
        return [batch + self.suffix for batch in BATCHES[split]]


def _read_batch(layout: _Layout, path: Path) -> tuple[np.ndarray, list[int]]:
    """Return the pixels and the labels of a file; errors end with what to do about them."""
    remedy = f"fetch {ARCHIVE.url} and unpack it in place of {path.parent}"
    try:
        pixels, labels = layout.read_batch(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; {remedy}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except _WrongFileError as error:
        raise InputError(f"{path} is not a file of CIFAR-10: {error}; {remedy}") from None
    for record, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < len(CIFAR10_CLASSES):
            raise InputError(
                f"{path} is not a file of CIFAR-10: the label of its image {record:,} is none of "
                f"0 to {len(CIFAR10_CLASSES) - 1}; {remedy}"
            )
    return pixels, labels


def _read_classes(layout: _Layout, path: Path) -> tuple[str, ...]:
    """Return the names in the file, or the official ones where there is no file."""
    if not os.path.lexists(path):
        return CIFAR10_CLASSES
    try:
        names = layout.read_classes(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except _WrongFileError as error:
        raise InputError(f"{path} is not a file of CIFAR-10: {error}") from None
    if len(names) != len(CIFAR10_CLASSES):
        raise InputError(f"{path}: expected the names of {len(CIFAR10_CLASSES)} classes, found {len(names)}")
    return tuple(names)


class _WrongFileError(Exception):
    """A file does not hold what it should; says what it holds."""


def _read_binary(path: Path) -> tuple[np.ndarray, list[Any]]:
    size, expected = path.stat().st_size, RECORDS * (1 + PIXELS)
    if size != expected:
        raise _WrongFileError(f"expected {expected:,} bytes, found {size:,}")
    records = np.fromfile(path, np.uint8).reshape(RECORDS, 1 + PIXELS)
    return records[:, 1:], records[:, 0].tolist()


def _read_binary_classes(path: Path) -> list[str]:
    return read_content(path).decode("latin1").split()


def _read_pickled(path: Path) -> tuple[np.ndarray, list[Any]]:
    size, least = path.stat().st_size, RECORDS * PIXELS
    if size < least:
        raise _WrongFileError(f"expected more than {least:,} bytes, found {size:,}")
    content = _unpickle(path)
    data, labels = content.get("data"), content.get("labels")
    if not isinstance(data, np.ndarray) or not isinstance(labels, list):
        raise _WrongFileError("expected an array named data and a list named labels")
    if data.shape != (RECORDS, PIXELS) or data.dtype != np.uint8 or len(labels) != RECORDS:
        found = f"{len(labels):,} and {' x '.join(f'{n:,}' for n in data.shape)} of {data.dtype}"
        raise _WrongFileError(
            f"expected {RECORDS:,} labels and {RECORDS:,} x {PIXELS:,} pixels of uint8, found {found}"
        )
    return data, labels


def _read_pickled_classes(path: Path) -> list[str]:
    names = _unpickle(path).get("label_names")
    if not isinstance(names, list):
        raise _WrongFileError("expected a list named label_names")
    return [name.decode("latin1") if isinstance(name, bytes) else str(name) for name in names]


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays of numbers, and runs no code that a file brings along.

    NumPy has moved ``_reconstruct``: the official files have the old name, copies written today the new.
    """

    _reconstruct = np.empty(0).__reduce__()[0]
    _known: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): codecs.encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise _WrongFileError(f"it would run {f'{module}.{name}'!r}, which numbers do not need")
        return self._known[module, name]


def _unpickle(path: Path) -> dict[Any, Any]:
    """Return a pickled dictionary with names as text: those of Python 2 are bytes."""
    check_file(path)
    with path.open("rb") as file:
        try:
            content = _ArrayUnpickler(file, encoding="bytes").load()
        except _WrongFileError:
            raise
        except Exception as error:  # The documentation of pickle: damaged files may raise anything.
            raise _WrongFileError(
                f"its {path.stat().st_size:,} bytes are no whole pickle ({error})"
            ) from None
    if not isinstance(content, dict):
        raise _WrongFileError(f"expected a dictionary, found {type(content).__name__}")
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}


_BINARY = _Layout("cifar-10-batches-bin", ".bin", "batches.meta.txt", _read_binary, _read_binary_classes)
_PICKLED = _Layout("cifar-10-batches-py", "", "batches.meta", _read_pickled, _read_pickled_classes)


def _find(data_dir: Path) -> tuple[_Layout, Path] | None:
    """Return the layout in or at ``data_dir``; one with files missing counts, so that they get named."""
    for layout in (_BINARY, _PICKLED):
        files = [*layout.files("train"), *layout.files("test"), layout.meta]
        for folder in (data_dir / layout.folder, data_dir):
            if any(os.path.exists(folder / file) for file in files):
                return layout, folder
    return None


def _download(data_dir: Path) -> tuple[_Layout, Path]:
    """Download the binary layout to ``data_dir``, unless another process just has."""
    target = data_dir / _BINARY.folder
    fetch_folder(ARCHIVE, target)
    return _BINARY, target
