"""``residual predict``: what a trained network sees in pictures."""

import csv
import glob
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .options import Device, Json, Precision, warn

if TYPE_CHECKING:
    from ..prediction import Guess

app = typer.Typer()


@app.command(
    epilog="""\b
Examples:
  residual predict weights/resnet50 cat.jpg
  residual predict runs/mine photos/ 'more/*.png' --top 3 --csv > found.csv
  residual predict weights/resnet50 photos/ --sheet sheet.png
"""
)
def predict(
    weights: Annotated[Path, typer.Argument(help="A weights folder or a run folder.")],
    images: Annotated[list[str], typer.Argument(help="Files, folders or patterns as 'photos/*.jpg'.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to name for each image.")] = 5,
    batch: Annotated[int, typer.Option(min=1, help="Images that go through the network together.")] = 32,
    sheet: Annotated[
        Path | None, typer.Option(help="Also draw the images with their names, into this new PNG file.")
    ] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
    device: Device = "auto",
    precision: Precision = "float32",
) -> None:
    """Name what is in images.

    Gives the likeliest classes and their probabilities.
    """
    if as_json and as_csv:
        raise InputError("--json and --csv are two ways of printing; choose one")
    files = find_images(images)

    from ..analysis.sheet import check_new_sheet, draw_sheet
    from ..prediction import load

    if sheet:
        check_new_sheet(sheet)  # before the work
    network = load(weights, device, precision)
    stream = network.stream(files, top, batch, skip=lambda damaged: warn(f"skipped: {damaged}"))
    found = [(str(file), guesses) for file, guesses in stream]
    if not found:
        raise InputError(f"none of the {len(files):,} images could be read")
    if as_json:
        typer.echo(
            json.dumps([_plain(file, guesses) for file, guesses in found], indent=2, ensure_ascii=False)
        )
    elif as_csv:
        _print_csv(found)
    else:
        _print_table(found)
    if sheet:
        draw_sheet([(Path(file), *guesses[0]) for file, guesses in found], sheet)


def find_images(named: list[str]) -> list[Path]:
    """Return the files that arguments name: each itself, those in a folder at any depth, those of a pattern.

    Raises:
        InputError: for an argument that names nothing, or a folder without pictures.
    """
    # A file that is named is tried whatever its name is.
    from ..data.folder import SUFFIXES

    files: dict[Path, None] = {}
    for name in named:
        path = Path(name)
        if path.is_dir():
            # rglob does not follow links to folders, so a loop of them ends.
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise InputError(
                    f"there is no image in the folder {path}; images end in {', '.join(SUFFIXES)}"
                )
        elif path.exists():
            inside = [path]
        else:
            inside = [p for p in map(Path, sorted(glob.glob(name, recursive=True))) if p.is_file()]
            if not inside:
                raise InputError(f"there is no file {name}")
        files |= dict.fromkeys(inside)
    return list(files)


def _plain(file: str, guesses: "list[Guess]") -> dict[str, object]:
    return {"image": file, "top": [guess._asdict() for guess in guesses]}


def _print_csv(found: "list[tuple[str, list[Guess]]]") -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "rank", "class", "probability"))
    for file, guesses in found:
        writer.writerows((file, n, *guess) for n, guess in enumerate(guesses, start=1))
    sys.stdout.write(text.getvalue())


def _print_table(found: "list[tuple[str, list[Guess]]]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    for file, guesses in found:
        for n, guess in enumerate(guesses):
            # Text, since names may hold brackets, which are markup in a plain string.
            label = Text("" if n else file)
            last = n == len(guesses) - 1
            table.add_row(label, Text(guess.name), f"{100 * guess.probability:.1f} %", end_section=last)
    Console().print(table)
