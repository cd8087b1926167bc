"""What experiments print and write besides tables: figures and what they say, where a page is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..analysis.figures import file_content
from ..files import as_json, write_derived
from ..table import Table
from ..terminal import say
from .study import TrainedRun, departures_of


def write_figure(folder: Path, name: str, figure: Figure) -> None:
    """Write a figure as ``name.svg`` and ``name.png``; errors as of ``write_derived``."""
    write_derived(folder / f"{name}.svg", file_content(figure, "svg"))
    write_derived(folder / f"{name}.png", file_content(figure, "png"))


def publish_figure(
    folder: Path,
    name: str,
    runs: Sequence[TrainedRun],
    figure: Figure | None,
    statements: Sequence[str],
    about: dict[str, Any],
    table: Table | None = None,
) -> None:
    """Write a figure of runs and its data, and print what it says; say so where nothing was run.

    Args:
        figure: None without runs.
        statements: what it says.
        about: its data, for ``name.json``.
        table: of its numbers, printed only.

    Raises:
        InputError: when they cannot be written.
    """
    if figure is None:
        say(f"{name}: not run (none of its runs is in {folder})")
        return
    write_figure(folder, name, figure)
    departures = departures_of(runs)
    content = {"statements": statements, "departures": departures, **about}
    write_derived(folder / f"{name}.json", as_json(content))
    if table:
        table.print()
    say(*statements, *([f"not the paper's experiment: {'; '.join(departures)}"] if departures else []))
    say(f"written: {folder / name}.svg, .png, .json")


def ways_to(page: Path) -> tuple[str, str]:
    """Return the lines that say where a page is."""
    return f"The page: {page}", f"Open it in a browser: {page.resolve().as_uri()}"
