"""What is shown in a terminal: letters as they are, for names of files and classes may hold anything.

To Rich a text is markup by default: "[ship]" disappears, "[/x]" is an error, ":cat:" becomes an image of one.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from .errors import on_a_line, printable

#: Seconds between two lines where there is no terminal, and before a bar is shown: less is not waited for.
PLAIN_SECONDS, BAR_SECONDS = 60.0, 0.5

#: The line of a run that is at work on this terminal.
_line: Live | None = None


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints every letter that it is given."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say(*lines: str, stderr: bool = False) -> None:
    """Print lines as they are: a path that is folded at the terminal's edge cannot be copied."""
    # As it is now: while a line is written over again and again, what is printed goes above that.
    stream = sys.stderr if stderr else sys.stdout
    if stream is None:  # closed; print would take the other one
        return
    for line in lines:
        print(printable(line), file=stream, flush=True)


def note(*sentences: str) -> None:
    """Say on stderr what is worth knowing and no error, each sentence on a line."""
    say(*(f"note: {on_a_line(sentence)}" for sentence in sentences), stderr=True)


def progress(*, silent: bool = False) -> Progress:
    """Return what shows on stderr what is being done, how much of it, and the time left; on a terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    there = console(stderr=True)
    return Progress(*columns, console=there, transient=True, disable=silent or not there.is_terminal)


@contextmanager
def live_line(there: Console) -> Iterator[Live]:
    """Give a line that is written over again and again; it gives way to what ``counted`` shows meanwhile."""
    global _line
    with Live(console=there, auto_refresh=False) as line:
        _line = line
        try:
            yield line
        finally:
            _line = None


@contextmanager
def _line_aside() -> Iterator[None]:
    """Take the line of a run away in this context: of two on one terminal each would overwrite the other."""
    if (line := _line) is None:
        yield
        return
    try:
        line.transient = True
        line.stop()
        line.transient = False
        yield
    finally:
        line.start(refresh=True)


@contextmanager
def counted(what: str, *, silent: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Give what shows how much of some long work is done, and the time left, on stderr.

    It is called with how many there are and how many are done: a bar on a terminal from then on, elsewhere a
    line a minute.

    Args:
        what: is done.
    """
    bar, context = progress(silent=silent), ExitStack()
    task, began = bar.add_task(what, total=None), time.monotonic()
    told = began

    def show(total: int, done: int) -> None:
        nonlocal told
        now = time.monotonic()
        if not bar.live.is_started and not bar.disable and now - began >= BAR_SECONDS:
            context.enter_context(_line_aside())
            # Which shows the terminal's cursor again; first of all, for a signal may come while it begins.
            context.callback(bar.stop)
            bar.start()
        bar.update(task, total=total, completed=done)
        if not silent and not bar.console.is_terminal and now - told >= PLAIN_SECONDS:
            told = now
            left = timedelta(seconds=round((now - began) * (total - done) / max(done, 1)))
            say(f"{what}: {done:,} of {total:,}, {left} left", stderr=True)

    with context:
        yield show


def download_progress() -> Progress:
    """Return what shows on stderr how many bytes have come, how fast, and the time left; on a terminal."""
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    there = console(stderr=True)
    return Progress(*columns, console=there, transient=True, disable=not there.is_terminal)
