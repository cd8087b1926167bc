"""What is shown in a terminal: letters as they are, for names of files and classes may hold anything.

To Rich a text is markup by default: "[ship]" disappears, "[/x]" is an error, ":cat:" becomes an image of one.
"""

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from .errors import printable


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints every letter that it is given."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say(*lines: str, stderr: bool = False) -> None:
    """Print lines as they are: a path that is folded at the terminal's edge cannot be copied."""
    for line in lines:
        console(stderr=stderr).print(printable(line), soft_wrap=True)


def progress(*, silent: bool = False) -> Progress:
    """Return what shows on stderr what is being done, how much of it is done, and the time left."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console(stderr=True), transient=True, disable=silent)


def download_progress() -> Progress:
    """Return what shows on stderr how many bytes have come, how fast, and the time left; on a terminal."""
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    there = console(stderr=True)
    return Progress(*columns, console=there, transient=True, disable=not there.is_terminal)
