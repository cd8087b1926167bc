"""Files that we write and read back: whole or not at all, nothing overwritten, a sentence where it fails."""

import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from .errors import InputError


def refuse_existing(path: Path) -> None:
    """Raise an InputError where there is something already."""
    if os.path.lexists(path):
        raise InputError(f"{path} exists already and nothing is overwritten; name another one or remove it")


def check_file(path: Path) -> None:
    """Raise an InputError where a file that is to be read is not there."""
    if not path.is_file():
        raise InputError(f"there is no file {path}")


def check_new(path: Path, what: str, *suffixes: str) -> None:
    """Raise an InputError unless ``path`` is free and ends in one of the suffixes: before hours are spent.

    Args:
        what: stands there, for the message: "a figure".
    """
    if path.suffix.lower() not in suffixes:
        *some, last = suffixes
        ends = f"{', '.join(some)} or {last}" if some else last
        raise InputError(f"{path}: {what} is a file that ends in {ends}; name it so")
    refuse_existing(path)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path for a file or folder that becomes ``path`` if all goes well, else nothing.

    Raises:
        InputError: when ``path`` exists or cannot be written.
    """
    refuse_existing(path)
    try:
        with _whole(path) as temporary:
            yield temporary
    except (OSError, SafetensorError) as error:
        raise cannot_write(path, error) from None


def write_new(path: Path, content: str | bytes) -> None:
    """Write a new file; errors as of ``written_whole``."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file that is the old one or the new one, whatever happens meanwhile.

    Raises:
        OSError: when it cannot be written; what was there is untouched.
    """
    with _whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_derived(path: Path, content: str | bytes) -> None:
    """Write what can be made again at any time (a table, a figure), in place of an older one.

    Raises:
        InputError: when it cannot be written; what was there is untouched.
    """
    try:
        replace_file(path, content)
    except OSError as error:
        raise cannot_write(path, error) from None


def keep(path: Path, content: bytes) -> None:
    """Write what only saves time (a cache); where it cannot be written, everything works without it."""
    with suppress(OSError):
        replace_file(path, content)


def cache_folder() -> Path:
    """Return the user's folder for what can be made again.

    It is RESIDUAL_CACHE where that is set, or else ``residual`` in the system's folder for caches. Who has no
    home, as many a container's user, has one of their own in the folder for temporary files.
    """
    if named := os.environ.get("RESIDUAL_CACHE"):
        return Path(named).expanduser()
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "residual"
    try:
        return Path.home() / ".cache" / "residual"
    except RuntimeError:
        user = os.getuid() if hasattr(os, "getuid") else "user"
        return Path(tempfile.gettempdir()) / f"residual-{user}"


def file_names(names: Sequence[str]) -> dict[str, str]:
    """Return for each name one that a file may have on any system: no path in it, no two alike."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        safe = numbered = re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", name)[:100]
        for number in itertools.count(2):
            if numbered.casefold() not in taken:
                break
            numbered = f"{safe}-{number}"
        taken.add(numbered.casefold())
        found[name] = numbered
    return found


def as_json(value: Any) -> str:
    """Return plain data as the text of a JSON file."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read_text(path: Path, remedy: str = "get it anew") -> str:
    """Return a text file's content.

    Raises:
        InputError: when it cannot be read or is no text; the sentence ends with the remedy.
    """
    check_file(path)
    try:
        # Some editors begin a text with a byte order mark, which is no part of it.
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(path, first_line(error), remedy) from None


def read_json(path: Path, remedy: str = "get it anew") -> Any:
    """Return a JSON file's content; errors as of ``read_text``."""
    text = read_text(path, remedy)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, first_line(error), remedy) from None


def damaged(path: Path, reason: str, remedy: str = "get it anew", kind: str = "") -> InputError:
    """Return the error for a file that does not hold what it should: a file of some kind, where it says."""
    other = f" or no file of {kind}" if kind else ""
    return InputError(f"{path} is damaged{other} ({reason}); {remedy}")


def cannot_write(path: Path, error: Exception) -> InputError:
    """Return the error for a file or folder that cannot be written."""
    reason = isinstance(error, OSError) and error.strerror
    return InputError(f"{path} cannot be written: {reason or first_line(error)}")


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the error's name where it has none."""
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def remove_half_written(folder: Path, suffix: str) -> None:
    """Remove what a process left that was killed while it wrote a file of this suffix."""
    for half in folder.glob(f".*.new{suffix}"):
        half.unlink()


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    # Beside it, so that renaming is atomic, and with its suffix, which tells the format.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.new{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        for file in temporary.iterdir() if temporary.is_dir() else [temporary]:
            # Windows wants to be able to write what it is to flush.
            with file.open("r+b") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            temporary.unlink()
