"""``residual report`` and ``compare``: runs as pages."""

from pathlib import Path
from typing import Annotated

import typer

from .options import DataDir, Device

app = typer.Typer()

RunFolders = Annotated[Path, typer.Argument(help="A run folder, of a classifier or a detector.")]


@app.command(
    epilog="""\b
Examples:
  residual report runs/flowers
  residual report runs/cells --data-dir ~/cells
"""
)
def report(run: RunFolders, data_dir: DataDir = None, device: Device = "auto") -> None:
    """Write the page of a finished or running run.

    Curves, errors, what is confused, the worst mistakes, where it comes from: report.html in the run folder.
    A finished run has it already.
    """
    from .. import run as runs
    from ..reproduce.output import ways_to
    from ..terminal import say

    say(*ways_to(runs.report(run, data_dir=data_dir, device=device)))
