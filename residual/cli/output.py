"""What the command prints: every letter somehow, JSON that all readers take, a sentence on what failed."""

import errno
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from .. import torchrun
from ..errors import InputError, printable

#: What a standard output says that takes nothing (any more): full, closed, or its terminal gone.
FULL = (errno.ENOSPC, errno.EBADF, errno.EIO, errno.EFBIG, errno.EDQUOT)


#: ... and a standard error that nobody reads any more.
GONE = (errno.EPIPE, errno.EIO, errno.EBADF)

#: Faults of data that are printed at most; all of them are in the JSON.
FAULTS = 5


class _Closed(io.TextIOBase):
    """A standard output that the process was started without."""

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, "it is closed")


class _Unread:
    """A standard error that work does not end for: whoever reads it may go, and its disk be full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._whatever_happens():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._whatever_happens():
            self._stream.flush()

    @contextmanager
    def _whatever_happens(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in GONE:
                # What is waiting to be written would fail again at Python's end.
                with suppress(OSError, ValueError):
                    _to_nowhere(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _to_nowhere(stream: Any) -> None:
    """Have a stream written where it is lost."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def in_order() -> Iterator[None]:
    """Print in this context so that no name is too strange and nothing is lost unsaid.

    What nobody can read on stderr (any more) ends nothing: a run that loses its terminal, or what reads its
    lines, goes on.

    Raises:
        InputError: where the standard output takes nothing, or a name was too long for a file.
    """
    if sys.stdout is None:
        sys.stdout = _Closed()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (to the end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    errors, sys.stderr = sys.stderr, cast(TextIO, _Unread(sys.stderr))
    try:
        try:
            yield
        finally:
            sys.stderr = errors
            sys.stdout.flush()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            # Wherever a path was looked at first: Python's own tests of paths do not take it for none.
            raise InputError(f"{str(error.filename)[:100]} ... is too long a name for a file") from None
        if error.errno in (errno.EACCES, errno.EPERM) and error.filename is not None:
            # As above: whether something is in a folder that nobody may look into, Python asks in vain.
            raise InputError(f"{os.fsdecode(error.filename)}: {error.strerror}") from None
        if error.errno not in FULL or error.filename is not None:
            raise
        with suppress(OSError, ValueError):
            # Python would try again at its end, and complain of it.
            _to_nowhere(sys.stdout)
        raise InputError(f"the output cannot be written: {error.strerror}") from None


@contextmanager
def printed_once() -> Iterator[None]:
    """Print nothing in this context but in the first of torchrun's processes, where all do the same."""
    if torchrun.rank() == 0:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


def print_json(value: Any) -> None:
    """Print plain data as JSON that every reader takes.

    Raises:
        InputError: when a number is none (NaN) or infinite, which JSON does not know.
    """
    from ..files import strict_json

    unicode = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    sys.stdout.write(strict_json(value, indent=2, ascii_only=not unicode) + "\n")


def made_by(device: str, shared: bool = False) -> dict[str, Any]:
    """Return by what something is measured, asked before it is: command, commit, machine and versions.

    Args:
        device: as it was asked for.
        shared: whether torchrun's processes share the work.
    """
    from ..device import open_device
    from ..environment import describe

    ranks = torchrun.size() if shared else 1
    return {"environment": describe(open_device(device), ranks)}


def print_csv(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table as CSV."""
    from ..files import csv_line

    for row in (headings, *rows):
        sys.stdout.write(csv_line([printable(cell) if isinstance(cell, str) else cell for cell in row]))


def print_faults(what: str, faults: Sequence[str]) -> None:
    """Print what is wrong with data, a line a fault, the first ones of many."""
    if faults:
        print(f"{what}: {len(faults):,}{', the first ones' if len(faults) > FAULTS else ''}")
        for fault in faults[:FAULTS]:
            print(f"  {fault}")


def unexpected(error: Exception) -> str:
    """Return the sentence on an error that is a fault of ours; its traceback goes into a file.

    With RESIDUAL_DEBUG=1 it is printed as well.
    """
    told = "".join(traceback.format_exception(error))
    if os.environ.get("RESIDUAL_DEBUG") == "1":
        print(told, end="", file=sys.stderr)
    said = f"this is a fault of residual, not of what you gave it ({type(error).__name__})"
    try:
        handle, file = tempfile.mkstemp(prefix="residual-traceback-", suffix=".txt")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as written:
            written.write(f"{' '.join(map(printable, sys.argv))}\n\n{told}")
    except OSError as failed:
        return f"{said}; its traceback cannot be kept ({failed.strerror}): show it with RESIDUAL_DEBUG=1"
    return f"{said}; please report it with its traceback, which is in {file}"


def say_drawn(sheet: Path, shown: int, images: int, which: str = "the first") -> None:
    """Say where a sheet is, and which and how many of the images are on it where not all are."""
    less = f", {which} {shown:,} of {images:,} images" if shown < images else ""
    print(f"drawn: {sheet}{less}", file=sys.stderr)
