"""``residual predict``: what a trained network sees in images."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .options import Device, Json, Precision, WeightsFolder, find_images, print_csv, warn

if TYPE_CHECKING:
    from ..inference.classifier import Prediction

app = typer.Typer()


@app.command(
    epilog="""\b
Examples:
  residual predict torchvision:resnet50 cat.jpg
  residual predict runs/mine images/ 'more/*.png' --top 3 --csv > found.csv
  residual predict weights/resnet50 images/ --sheet sheet.png
"""
)
def predict(
    weights: WeightsFolder,
    images: Annotated[list[str], typer.Argument(help="Files, folders or patterns as 'images/*.jpg'.")],
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
    from ..models.names import check

    check(weights)
    files = find_images(images)

    from ..analysis.sheet import draw_sheet
    from ..files import check_new
    from ..inference.classifier import load

    if sheet:
        check_new(sheet, "a contact sheet", ".png")  # before the work
    network = load(weights, device, precision)
    stream = network.stream(files, top, batch, skip=lambda damaged: warn(f"skipped: {damaged}"))
    found = [(str(file), predictions) for file, predictions in stream]
    if not found:
        raise InputError(f"none of the {len(files):,} images could be read")
    if as_json:
        typer.echo(
            json.dumps(
                [_plain(file, predictions) for file, predictions in found], indent=2, ensure_ascii=False
            )
        )
    elif as_csv:
        _print_csv(found)
    else:
        _print_table(found)
    if sheet:
        draw_sheet([(Path(file), *predictions[0]) for file, predictions in found], sheet)


def _plain(file: str, predictions: "list[Prediction]") -> dict[str, object]:
    return {"image": file, "top": [prediction._asdict() for prediction in predictions]}


def _print_csv(found: "list[tuple[str, list[Prediction]]]") -> None:
    rows = (
        (file, n, *prediction)
        for file, predictions in found
        for n, prediction in enumerate(predictions, start=1)
    )
    print_csv(("image", "rank", "class", "probability"), rows)


def _print_table(found: "list[tuple[str, list[Prediction]]]") -> None:
    from ..table import Table, TableRow

    rows = [
        TableRow(("" if n else file, name, f"{100 * probability:.1f} %"), rule=n == 0)
        for file, predictions in found
        for n, (name, probability) in enumerate(predictions)
    ]
    Table("", ("image", "class", "probability"), rows, names=2).print()
