"""``residual statistics``: the mean image and the colours of a training set."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import plural
from .options import SIDE, Json
from .output import print_json

app = typer.Typer()


@app.command(
    epilog="""\b
Examples:
  residual statistics ~/imagenet
  residual statistics ~/flowers --size 96 --json
"""
)
def statistics(
    data_dir: Annotated[Path, typer.Argument(help="Folder with train/, a directory a class.")],
    size: Annotated[int, typer.Option(min=1, max=SIDE, help="Side of the network's input.")] = 224,
    as_json: Json = False,
) -> None:
    """Measure a training set's mean and colours.

    Training does it by itself when needed.

    They are kept in the user's cache folder, where residual train finds them, and go into the weights folder.
    """
    from .. import run

    index, found = run.folder_statistics(data_dir, size)
    values, vectors = found.components
    if as_json:
        print_json(
            {
                "data": index.name,
                "images": found.images,
                "unreadable": found.unreadable,
                "channel_mean": found.channel_mean.tolist(),
                "channel_std": found.channel_std.tolist(),
                "rgb_eigenvalues": values.tolist(),
                "rgb_eigenvectors": vectors.tolist(),
            }
        )
        return
    typer.echo(
        f"{index.name}: {plural(found.images, 'image')}, {plural(len(index.classes), 'class', 'classes')}"
    )
    if found.unreadable:
        typer.echo(
            f"  unreadable   {len(found.unreadable):,}; the first: {next(iter(found.unreadable.values()))}"
        )
    for name, numbers in (
        ("mean", found.channel_mean),
        ("deviation", found.channel_std),
        ("eigenvalues", values),
    ):
        typer.echo(f"  {name:12} {', '.join(f'{x:.5f}' for x in numbers.tolist())}")
