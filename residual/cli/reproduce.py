"""``residual reproduce``: the paper's experiments."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Device, Settings

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Run the paper's experiments and draw their figures."
)


@app.command(
    epilog="""\b
Examples:
  residual reproduce degradation
  residual reproduce degradation --seed 1 --out runs/degradation-1
"""
)
def degradation(
    out: Annotated[Path, typer.Option(help="Folder of the four runs and the page.")] = Path(
        "runs/degradation"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the four runs.")] = 0,
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """Show degradation in plain networks and its cure, on handwritten digits, in about two minutes."""
    from ..reproduce.degradation import reproduce

    reproduce(out, seed=seed, settings=settings or [], device=device)
