"""Files found by the names that lists and annotations have for them, whatever tool wrote these."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..class_names import composed

#: Folders that are nobody's data: thumbnails of a Synology, what macOS adds to archives and Windows to disks,
#: bins of storage.
NO_DATA = (
    "@eaDir",
    "__MACOSX",
    "#recycle",
    "@Recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
)


class NamedFiles:
    """The files of some suffixes in some folders, at any depth; hidden ones are none.

    Args:
        folders: of files of one name (below their folder) in several, the first folder's counts.
        suffixes: in lower case, as ".jpg".

    Attributes:
        files: all of them, sorted, by their paths below their folder.
    """

    def __init__(self, folders: Sequence[Path], suffixes: Sequence[str]) -> None:
        self.files: dict[str, Path] = {}
        for folder in folders:
            for path in sorted(files_below(folder)):
                if path.suffix.lower() in suffixes:
                    self.files.setdefault(_plain(path.relative_to(folder).as_posix()), path)
        #: By exact name, by name folded, and by the path's end folded; each with the suffix, then without.
        self._tables: list[dict[str, list[Path]]] = [{} for _ in range(6)]
        for name, path in self.files.items():
            for place, key in enumerate((name, name.removesuffix(path.suffix))):
                parts = _folded(key).split("/")
                self._tables[place].setdefault(key, []).append(path)
                self._tables[2 + place].setdefault("/".join(parts), []).append(path)
                for start in range(1, len(parts)):
                    self._tables[4 + place].setdefault("/".join(parts[start:]), []).append(path)

    def find(self, name: str, loosely: bool = False) -> list[Path]:
        """Return the files that a name may mean: more than one where only their suffixes tell them apart.

        Args:
            name: with or without a suffix, as "a", "a.jpg", "cam1/a" or "cam1\\\\a.jpg".
            loosely: the name and the file's path may also differ in their first folders; for names whose
                last part no other name has.
        """
        name = _plain(name)
        parts = _folded(name).split("/")
        keys = [(name, 0), (name, 1), ("/".join(parts), 2), ("/".join(parts), 3)]
        if loosely:
            keys += [("/".join(parts), 4), ("/".join(parts), 5)]
            keys += [("/".join(parts[start:]), table) for start in range(1, len(parts)) for table in (2, 3)]
        return next((found for key, table in keys if (found := self._tables[table].get(key))), [])


def in_kit(folders: Sequence[Path], name: str) -> Path | None:
    """Return a file of ImageNet's development kit, which is in one of some folders; None for none.

    Args:
        name: of the file, as "*_det_validation_blacklist.txt": its year differs.
    """
    pattern = f"*devkit*/data/{name}"
    return next((path for folder in folders for path in sorted(folder.glob(pattern))), None)


def read_number(text: str) -> int | None:
    """Return the number of an image of ILSVRC or of a class, None for what is none.

    Python reads no more than some thousand digits, and more than nine none of these has.
    """
    return int(text) if text.isdecimal() and len(text) < 10 else None


def last_part(name: str) -> str:
    """Return what is left of a name without its folders, in lower case."""
    return _folded(_plain(name).rpartition("/")[2])


def _plain(name: str) -> str:
    """Return a path with slashes between its parts, whatever system wrote it, and without "./"."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _folded(name: str) -> str:
    """Return a name in lower case, its accents as macOS and as others write them."""
    return composed(name).casefold()


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder at any depth, links followed, hidden ones and those of NO_DATA left out."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        # A link may lead back to a folder above it.
        inside = (name for name in sorted(folders) if not name.startswith(".") and name not in NO_DATA)
        folders[:] = [name for name in inside if os.path.realpath(Path(root, name)) not in seen]
        seen |= {os.path.realpath(Path(root, name)) for name in folders}
        yield from (Path(root, name) for name in names if not name.startswith("."))
