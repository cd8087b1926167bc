"""``residual predict``: what a trained network sees in images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError, plural
from .options import (
    Device,
    Json,
    Precision,
    ViewCrop,
    Views,
    ViewScales,
    ViewSize,
    WeightsFolder,
    check_all_used,
    drawn_files,
    find_images,
    nothing_read,
    progress_bar,
    sides,
    tell_of_precision,
    tell_of_unfinished,
)
from .output import print_csv, print_json, say_drawn

if TYPE_CHECKING:
    from ..analysis.sheet import Seen
    from ..data.images import DamagedImage
    from ..inference.classifier import Network, Prediction

#: A heat map of so many places a side shows little of where the network looks.
FEW = 3

app = typer.Typer()


@app.command(
    epilog="""\b
Examples:
  residual predict torchvision:resnet50 cat.jpg
  residual predict runs/mine images/ 'more/*.png' --top 3 --csv > found.csv
  residual predict weights/resnet50 images/ --sheet sheet.png
  residual predict weights/resnet50 cat.jpg --heat heat
  residual predict weights/resnet50 cat.jpg --heat heat --class tabby
  residual predict weights/resnet50 images/ --views ten-crop --csv > found.csv
"""
)
def predict(
    weights: WeightsFolder,
    images: Annotated[list[str], typer.Argument(help="Files, folders or patterns as 'images/*.jpg'.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to name for each image.")] = 5,
    batch: Annotated[int, typer.Option(min=1, help="Images that go through the network together.")] = 32,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="Also draw the images with their names into this new PNG file, and right or wrong where "
            "a folder has a class's name."
        ),
    ] = None,
    heat: Annotated[
        Path | None, typer.Option(help="Folder for the images with where the network sees the class, as PNG.")
    ] = None,
    class_: Annotated[
        str | None, typer.Option("--class", help="With --heat: another class than the likeliest.")
    ] = None,
    views: Views = None,
    size: ViewSize = None,
    crop: ViewCrop = None,
    scales: ViewScales = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
    device: Device = "auto",
    precision: Precision = "float32",
) -> None:
    """Name what is in images.

    Gives the likeliest classes and their probabilities, of several views (Section 3.4) their mean.
    """
    if as_json and as_csv:
        raise InputError("--json and --csv are two ways of printing; choose one")
    from ..models.names import check

    check(weights)
    files = find_images(images)

    from ..analysis.sheet import MOST, draw_sheet
    from ..evaluation.classes import match_classes
    from ..files import check_new
    from ..inference.classifier import load

    # Before the work.
    if sheet:
        check_new(sheet, "a contact sheet", ".png")
    if class_ and not heat:
        raise InputError("--class says what --heat is about; name a folder with --heat as well")
    shorter = sides("--scales", scales)
    if heat and (views not in (None, "center") or len(shorter or ()) > 1):
        raise InputError("--heat is of the centre of an image alone; leave --views and --scales out")
    targets = drawn_files(files, heat, "--heat") if heat else {}
    tell_of_precision(precision, device)
    network = load(weights, device, precision, views=views, size=size, crop=crop, scales=shorter)
    tell_of_unfinished(weights, network.config.get("results"))
    if class_:
        match_classes([class_], network.classes, "--class")
    stream = network.stream(files, top, batch, skip=_say_skipped)
    found = [(str(file), predictions) for file, predictions in stream]
    if not found:
        raise nothing_read(files)
    seen = _seen(found, network.classes)
    if as_json:
        print_json([_plain(file, predictions) for file, predictions in found])
    elif as_csv:
        _print_csv(found)
    else:
        _print_table(found, network.classes)
        _print_right(seen)
    if sheet:
        draw_sheet(seen, sheet)
        say_drawn(sheet, min(MOST, len(found)), len(found))
    if heat:
        _draw_heat(network, found, targets, class_)
        typer.echo(f"drawn: {heat}", err=True)
    check_all_used(len(files) - len(found), files)


@app.command(
    epilog="""\b
Examples:
  residual embed weights/resnet50 images/ --out features.npz
  residual embed runs/mine 'images/*.jpg' --out features.npz
"""
)
def embed(
    weights: WeightsFolder,
    images: Annotated[list[str], typer.Argument(help="Files, folders or patterns as 'images/*.jpg'.")],
    out: Annotated[Path, typer.Option(help="The new file: .npz, of the arrays features and files.")],
    batch: Annotated[int, typer.Option(min=1, help="Images that go through the network together.")] = 32,
    device: Device = "auto",
    precision: Precision = "float32",
) -> None:
    """Write the features of images as an array.

    The last stage's output averaged over its positions: for searching, clustering, another classifier.
    """
    from ..models.names import check

    check(weights)
    files = find_images(images)

    import numpy as np

    from ..files import check_new, written_whole
    from ..inference.classifier import load

    check_new(out, "an array of features", ".npz")
    tell_of_precision(precision, device)
    network = load(weights, device, precision)
    tell_of_unfinished(weights, network.config.get("results"))
    names, rows = [], []
    with progress_bar() as progress:
        stream = network.features(files, batch, skip=_say_skipped)
        for file, row in stream:
            names.append(str(file))
            rows.append(row.numpy())
            progress(len(files), len(rows))
    if not rows:
        raise nothing_read(files)
    features = np.stack(rows)
    # As an open file: to a name that does not end in .npz, .NPZ say, NumPy would add it.
    with written_whole(out) as temporary, temporary.open("wb") as file:
        np.savez(file, features=features, files=np.array(names))
    typer.echo(f"wrote {out}: features {features.shape[0]:,} x {features.shape[1]:,}, and their files")
    check_all_used(len(files) - len(rows), files)


def _say_skipped(damaged: "DamagedImage") -> None:
    from ..terminal import note

    note(f"skipped: {damaged}")


def _seen(found: "list[tuple[str, list[Prediction]]]", classes: tuple[str, ...]) -> "list[Seen]":
    """Return what is seen in each image, and its own class where its folder has the name of one."""
    from ..analysis.sheet import Seen
    from ..evaluation.classes import class_among, unnamed

    names = _names(classes)
    folders = {Path(file).absolute().parent.name for file, _ in found}
    truths = {folder: None if unnamed(classes) else class_among(folder, classes) for folder in folders}
    images = []
    for file, (best, *_) in found:
        truth = truths[Path(file).absolute().parent.name]
        own = None if truth is None else names[classes[truth]]
        images.append(Seen(Path(file), names[best.name], best.probability, own))
    return images


def _names(classes: tuple[str, ...]) -> dict[str, str]:
    """Return what people call each class: ``--class`` takes it too; JSON and CSV have the weights' names."""
    from ..class_names import readable

    return dict(zip(classes, readable(classes), strict=True))


def _print_right(seen: "list[Seen]") -> None:
    known = [each.right for each in seen if each.truth is not None]
    if known:
        typer.echo(f"right, as their folders are named: {sum(known):,} of {plural(len(known), 'image')}")


def _draw_heat(
    network: "Network",
    found: "list[tuple[str, list[Prediction]]]",
    targets: dict[Path, Path],
    name: str | None,
) -> None:
    from ..files import written_whole
    from ..terminal import note

    for file, _ in found:
        seen = network.heat(file, name)
        with written_whole(targets[Path(file)]) as temporary:
            seen.draw_beside().save(temporary, "PNG")
    # The last one's, as most have it: they differ at most in the longer side.
    (rows, columns), side = seen.scores.shape, min(seen.image.shape[1:])
    if max(rows, columns) <= FEW:
        # Not by a larger --size: objects larger than those that it learned from are strange to it.
        note(
            f"the heat map has {rows} x {columns} places at {side} pixels; a network that was trained on "
            "larger images shows more"
        )


def _plain(file: str, predictions: "list[Prediction]") -> dict[str, object]:
    return {"image": file, "top": [prediction._asdict() for prediction in predictions]}


def _print_csv(found: "list[tuple[str, list[Prediction]]]") -> None:
    rows = (
        (file, n, *prediction)
        for file, predictions in found
        for n, prediction in enumerate(predictions, start=1)
    )
    print_csv(("image", "rank", "class", "probability"), rows)


def _print_table(found: "list[tuple[str, list[Prediction]]]", classes: tuple[str, ...]) -> None:
    from ..table import Table, TableRow

    names = _names(classes)
    rows = [
        TableRow(("" if n else file, names[name], f"{100 * probability:.1f} %"), rule=n == 0)
        for file, predictions in found
        for n, (name, probability) in enumerate(predictions)
    ]
    Table("", ("image", "class", "probability"), rows, names=2).print()
