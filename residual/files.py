"""Files that we write and read back: whole or not at all, nothing overwritten, a sentence where it fails."""

import csv
import io
import itertools
import json
import math
import os
import re
import shlex
import shutil
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from .errors import InputError, printable

if TYPE_CHECKING:
    from pydantic import ValidationError

#: Bytes of the largest text that is read; the largest of COCO's files has half of it.
TEXT_BYTES = 1 << 30
#: Digits of the largest whole number in JSON: a file's time in nanoseconds has 19.
DIGITS = 20
#: What may be part of a number that is too large.
LARGE_NUMBER = re.compile(rf"[eE]\+?\d{{3}}|\d{{{DIGITS + 1}}}")
#: The name of a file or folder while it is written; see ``_whole``.
HALF = re.compile(r"\.(?P<stem>.+)\.\d+\.new(?P<suffix>(\.[^.]*)?)")


def without_home(text: str) -> str:
    """Return a text in which paths do not tell where a user's home is: that is nobody's affair."""
    home = os.path.expanduser("~")
    # A run notes where links lead to; that may be below a folder of the same name.
    for place in (os.path.realpath(home), home):
        if len(place) > 1:
            # Home itself as well; neither what goes on as home begins, nor a folder whose name begins so.
            text = re.sub(rf"(?<![\w.~-]){re.escape(place)}(?![\w-]|\.\w)", "~", text)
    return text


def quoted(word: str) -> str:
    """Return a word for a shell, which takes no "~" in quotes for the home folder."""
    if re.fullmatch(r"[\w@%+=:,./~-]+", word):
        return word
    home = "~/" if word.startswith("~/") else ""
    return home + shlex.quote(word.removeprefix(home))


def no_folder(path: Path, remedy: str = "") -> InputError:
    """Return what is to be raised where a folder is expected and there is none, or a file.

    Args:
        remedy: what to do, as the end of the sentence.
    """
    wrong = f"{path} is a file, not a folder" if path.is_file() else f"there is no folder {path}"
    return InputError(f"{wrong}{'; ' if remedy else ''}{remedy}")


def no_target(path: Path, wrong: str) -> InputError:
    """Return what is to be raised where a link leads to nothing that can be read.

    Args:
        wrong: with what it leads to, as the end of "which".
    """
    return InputError(
        f"{path} is a link to {os.readlink(path)}, which {wrong}; mount the disk that it is on, or remove "
        "the link"
    )


def refuse_existing(path: Path) -> None:
    """Raise an InputError where there is something already."""
    if os.path.lexists(path):
        raise InputError(f"{path} exists already and nothing is overwritten; name another one or remove it")


def check_file(path: Path) -> None:
    """Raise an InputError where a file that is to be read is not there."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, ValueError):  # of a name with a zero in it
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is a {'folder' if stat.S_ISDIR(mode) else 'device or a pipe'}, not a file")


def check_new(path: Path, what: str, *suffixes: str) -> None:
    """Raise an InputError unless ``path`` is free and ends in one of the suffixes: before hours are spent.

    A folder that is not there is more likely misspelt than meant.

    Args:
        what: stands there, for the message: "a figure".
    """
    if path.suffix.lower() not in suffixes:
        *some, last = suffixes
        ends = f"{', '.join(some)} or {last}" if some else last
        raise InputError(f"{path}: {what} is a file that ends in {ends}; name it so")
    refuse_existing(path)
    if not path.parent.is_dir():
        raise no_folder(path.parent, "make it, or name a file in another folder")


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
        temporary.write_bytes(_bytes(content))


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file that is the old one or the new one, whatever happens meanwhile.

    Raises:
        OSError: when it cannot be written; what was there is untouched.
    """
    with _whole(path) as temporary:
        temporary.write_bytes(_bytes(content))


def write_derived(path: Path, content: str | bytes) -> None:
    """Write what can be made again at any time (a table, a figure), in place of an older one.

    Raises:
        InputError: when it cannot be written; what was there is untouched.
    """
    try:
        replace_file(path, content)
    except OSError as error:
        raise cannot_write(path, error) from None


def _bytes(content: str | bytes) -> bytes:
    """Return a content as bytes; names in a text that are no UTF-8 are escaped."""
    return printable(content).encode() if isinstance(content, str) else content


def keep(path: Path, content: bytes) -> None:
    """Write what only saves time (a cache); where it cannot be written, everything works without it."""
    with suppress(OSError):
        replace_file(path, content)


def checksum(content: str | bytes) -> str:
    """Return eight hexadecimal digits that change with the content; they find accidents, not malice."""
    return f"{zlib.crc32(_bytes(content)):08x}"


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
    """Return plain data as the text of a JSON file; a number that is none (NaN) or infinite becomes null."""
    return strict_json(_finite(value), indent=2) + "\n"


def as_json_line(value: Any) -> str:
    """Return plain data as a line of a file of JSON lines, as ``as_json``."""
    return strict_json(_finite(value)) + "\n"


def csv_line(cells: Sequence[object]) -> str:
    """Return a line of a CSV file, cells with ends of lines in them quoted: a name may have any."""
    text = io.StringIO()
    # To Python before 3.13 a carriage return is one where lines end in it.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def strict_json(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Return plain data as JSON that every reader takes: a name's bytes that are no UTF-8 are escaped in it.

    Raises:
        InputError: when a number is none (NaN) or infinite: JSON has no such numbers.
    """
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=ascii_only, allow_nan=False)
    except ValueError:
        raise InputError(
            "a result is no finite number, and JSON has no other ones; the network has diverged, or its "
            "weights are damaged"
        ) from None
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_content(path: Path, remedy: str = "get it anew") -> bytes:
    """Return the bytes of a file that is text, in whatever encoding.

    Raises:
        InputError: when it is no regular file, is too large to be text of ours, or cannot be read; the
            sentence ends with the remedy.
    """
    check_file(path)
    try:
        size = path.stat().st_size
        if size > TEXT_BYTES:
            raise damaged(path, f"{size:,} bytes, and {TEXT_BYTES:,} are the most that are read", remedy)
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def read_text(path: Path, remedy: str = "get it anew") -> str:
    """Return a text file's content: UTF-8, with or without a byte order mark, lines that end in "\\n".

    Raises:
        InputError: as ``read_content``, and when it is no text.
    """
    try:
        # Some editors begin a text with a byte order mark, which is no part of it.
        text = read_content(path, remedy).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise damaged(path, f"no UTF-8 text at byte {error.start:,}", remedy) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """Return a text file's lines that are not blank, as they are, each after its number from 1.

    A name may have what other ends of lines are made of: Unicode has eight of them.

    Raises:
        InputError: as ``read_text``.
    """
    lines = enumerate(read_text(path).split("\n"), start=1)
    return [(number, line) for number, line in lines if line.strip()]


def read_json(path: Path, shape: Any, remedy: str = "get it anew") -> Any:
    """Return a JSON file's content, of a shape that is checked.

    Args:
        shape: a type that pydantic knows: ``list[dict[str, Any]]``, a model of keys that are to be there.

    Raises:
        InputError: as ``read_text``, and naming the place where it is no JSON or of another shape.
    """
    return parse_json(read_text(path, remedy), shape, lambda reason: damaged(path, reason, remedy))


def read_yaml(path: Path, remedy: str = "get it anew", as_written: bool = False) -> Any:
    """Return a YAML file's content.

    Args:
        as_written: as of ``parse_yaml``.

    Raises:
        InputError: as ``read_text``, and where it is no YAML.
    """

    def fault(reason: str) -> InputError:
        return InputError(f"{path}: not valid YAML: {reason}")

    return parse_yaml(read_text(path, remedy), fault, as_written)


def parse_yaml(text: str, fault: Callable[[str], InputError], as_written: bool = False) -> Any:
    """Return what a YAML text says.

    Args:
        fault: from what is wrong, and where, to the error.
        as_written: numbers, dates, "yes" and "no" stay texts.
    """
    import yaml  # few commands read any

    try:
        return yaml.load(text, yaml.BaseLoader if as_written else yaml.SafeLoader)
    except RecursionError:
        raise fault("nested too deeply") from None
    # ValueError: a date that does not exist, a number of thousands of digits.
    except (yaml.YAMLError, ValueError) as error:
        raise fault(" ".join(str(error).split())[:500]) from None


def parse_json(text: str, shape: Any, fault: Callable[[str], Exception]) -> Any:
    """Return what a JSON text says, of a shape that is checked.

    Args:
        fault: from what is wrong, and where, to the error.
    """
    # Functions of Python for each number would double the time that a large file takes.
    careful: dict[str, Any] = {"parse_float": _fraction, "parse_int": _whole_number}
    try:
        value = json.loads(text, **(careful if LARGE_NUMBER.search(text) else {}))
    except RecursionError:
        raise fault("nested too deeply") from None
    except ValueError as error:
        raise fault(first_line(error)) from None
    return checked(value, shape, fault)


def checked(value: Any, shape: Any, fault: Callable[[str], Exception]) -> Any:
    """Return plain data as they are, of a shape that is checked; arguments as of ``parse_json``."""
    from pydantic import TypeAdapter, ValidationError  # not for --help

    try:
        TypeAdapter(shape).validate_python(value, strict=True)
        return value
    except ValidationError as error:
        raise fault(why_invalid(error)) from None


def why_invalid(error: "ValidationError") -> str:
    """Return the place and the first reason why plain data are not of a shape."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    reason = first["msg"].removeprefix("Value error, ")
    return f"{where}: {reason}" if where else reason


def _fraction(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is too large a number")
    return value


def _whole_number(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a whole number of {len(digits):,} digits")
    return int(digits)


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


def half_written(folder: Path, *folders: str) -> list[Path]:
    """Return what processes left in a folder that were killed while they wrote files.

    Args:
        folders: names of folders, such as are written whole, of which halves are asked for as well.
    """
    found = {path: HALF.fullmatch(path.name) for path in (folder.iterdir() if folder.is_dir() else ())}
    return [
        path
        for path, name in found.items()
        if name and (path.is_file() or name["stem"] + name["suffix"] in folders)
    ]


def remove_half_written(folder: Path, *folders: str) -> None:
    """Remove what ``half_written`` finds: only in a folder that is this process's own."""
    for half in half_written(folder, *folders):
        if half.is_dir():
            shutil.rmtree(half)
        else:
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
