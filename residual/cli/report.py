"""``residual report`` and ``compare``: runs as pages."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Device, TestDataDir

app = typer.Typer()

RunFolders = Annotated[Path, typer.Argument(help="A run folder, of any kind.")]


@app.command(
    epilog="""\b
Examples:
  residual report runs/flowers
  residual report runs/cells --data-dir ~/cells
"""
)
def report(run: RunFolders, data_dir: TestDataDir = None, device: Device = "auto") -> None:
    """Write the page of a finished or running run.

    Curves, errors, what is confused, the worst mistakes, where it comes from: report.html in the run folder.
    A finished run has it already.
    """
    from .. import run as runs
    from ..reproduce.output import ways_to
    from ..terminal import say

    say(*ways_to(runs.report(run, data_dir=data_dir, device=device)))


@app.command(
    epilog="""\b
Examples:
  residual compare runs/flowers runs/scratch
  residual compare runs/flowers runs/scratch runs/mine --out other.html
"""
)
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, of one kind.")],
    out: Annotated[
        Path | None, typer.Option(help="The page, a new .html (default: comparison.html beside the runs).")
    ] = None,
) -> None:
    """Set runs beside each other.

    Where their recipes differ, their curves on one figure, what they reached; mean and standard deviation
    where only the seed differs.
    """
    from ..files import check_new
    from ..reproduce.output import ways_to
    from ..run import comparison
    from ..terminal import say

    if out:
        check_new(out, "a page", ".html")
    found = comparison.compare(runs)
    page = out or comparison.default_page(runs)
    found.reached.print()
    if found.differences:
        found.differences.print()
    say(*found.notes)
    found.write(page)
    say(*ways_to(page))
