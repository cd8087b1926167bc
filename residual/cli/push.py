"""``residual push``: what a run has learned, shared with others."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command(
    epilog="""\b
Examples:
  residual push runs/flowers somebody/flowers --dry-run shared
  residual push runs/cells somebody/cells --license mit --dry-run shared
"""
)
def push(
    run: Annotated[Path, typer.Argument(help="A run folder, or its weights folder.")],
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Its name on the Hugging Face Hub.")],
    dry_run: Annotated[
        Path | None, typer.Option(help="Upload nothing: write what would be into this new folder.")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--license", help="Licence of the weights, as the Hub writes it: mit."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Only you can see it.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Add to a repository that exists; it keeps its history.")
    ] = False,
) -> None:
    """Share a run's weights on the Hugging Face Hub.

    With their preprocessing and a model card: data, recipe, errors, command. Others then use hf:OWNER/NAME
    wherever weights are taken.
    """
    from ..run import sharing

    if dry_run:
        sharing.write_shared(run, name, dry_run, licence)
        typer.echo(f"wrote {dry_run}: what would be uploaded to hf:{name}; read its {sharing.CARD}")
        return
    address = sharing.push(run, name, licence=licence, private=private, update=update)
    typer.echo(f"{address}: use it as hf:{name}")
