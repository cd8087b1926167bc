"""``residual locate``: train, evaluate and use localizers (appendix C)."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .. import torchrun
from ..errors import InputError, plural
from .boxes import Drawings, each_usable
from .options import (
    Device,
    Json,
    Settings,
    check_all_used,
    find_images,
    only_first_rank,
    progress_bar,
    takes,
    tell_of_unfinished,
)
from .output import made_by, print_faults, print_json
from .training import RunAsked, show_recipes, train_run

if TYPE_CHECKING:
    from torch import Tensor

    from ..inference.localizer import LocalizerEvaluation


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Localization: where on an image its class is (per-class regression and R-CNN, appendix C).",
)


@app.callback()
def group(context: typer.Context) -> None:
    only_first_rank(context, ("train", "evaluate"))


ImagesDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="ImageNet's or Tiny ImageNet's folder: train/, val/, and their boxes."),
]
StartFrom = Annotated[
    Path | None,
    typer.Option(
        help="The classifier to start from (a run, a weights folder, or a name); for an R-CNN the localizer."
    ),
]
Localizer = Annotated[Path, typer.Argument(help="A localizer's folder or run folder.")]
ClassifiedBy = Annotated[
    Path | None,
    typer.Option(
        "--classifier", help="Says what is on an image (default: what the localizer was trained from)."
    ),
]


@app.command(
    epilog="""\b
Examples:
  residual locate train imagenet-localization-resnet101 --weights runs/imagenet-resnet101 \\
    --data-dir ~/imagenet
  residual locate train tiny-imagenet-localization-resnet18 --weights runs/tiny-imagenet-resnet18 \\
    --data-dir ~/tiny-imagenet-200
  residual locate train tiny-imagenet-localization-rcnn-resnet18 --weights runs/located \\
    --data-dir ~/tiny-imagenet-200
  residual locate train --resume --out runs/located

ImageNet's boxes are read from DIR/Annotations/CLS-LOC/train and val, Tiny ImageNet's from its lists.
"""
)
@takes(RunAsked, data_dir=ImagesDir, weights=StartFrom)
def train(asked: RunAsked) -> None:
    """Train a localizer by a recipe, into a run folder."""
    from ..recipes import LocalizationRecipe

    train_run(asked, LocalizationRecipe, _print_results)


@app.command(
    epilog="""\b
Examples:
  residual locate evaluate runs/located
  residual locate evaluate runs/located --classifier runs/imagenet-resnet101 --views multi-scale --json
  residual locate evaluate runs/located --no-guesses --data-dir ~/imagenet
"""
)
def evaluate(
    weights: Localizer,
    data_dir: ImagesDir = None,
    classifier: ClassifiedBy = None,
    guesses: Annotated[
        bool, typer.Option("--guesses/--no-guesses", help="Also test with the classifier's five classes.")
    ] = True,
    views: Annotated[
        Literal["center", "ten-crop", "multi-scale"] | None,
        typer.Option(help="What of an image the classifier looks at (default: center)."),
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Test a localizer: ILSVRC's localization error, by the protocols of appendix C.

    With the true class on the centre crop and on the whole image, and with the classes that a classifier
    guesses; a trivial predictor stands beside it.
    """
    if not guesses and (classifier or views):
        raise InputError("--classifier and --views are about guessed classes; leave them or --no-guesses out")
    from .. import distributed
    from ..inference.localizer import evaluate_localizer, load_localizer

    about = made_by(device, shared=True) if as_json else {}
    localizer = load_localizer(weights, classifier=classifier, device=device)
    tell_of_unfinished(weights, localizer.config.results)
    first = torchrun.rank() == 0
    with distributed.left(), progress_bar(as_json or not first) as progress:
        measured = evaluate_localizer(
            localizer, weights, data_dir, guesses=guesses, views=views or "center", progress=progress
        )
    if not first:
        return
    if as_json:
        print_json({"weights": str(weights), **measured.summary()} | about)
    else:
        _print_table(measured, weights)


@app.command(
    epilog="""\b
Examples:
  residual locate predict runs/located images/ --top 1 --out drawn
  residual locate predict runs/located image.jpg --classifier runs/imagenet-resnet101 --json
"""
)
def predict(
    weights: Localizer,
    named: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Files, folders or patterns like 'images/*.jpg'.")
    ],
    classifier: ClassifiedBy = None,
    top: Annotated[int, typer.Option(min=1, help="Classes of an image, the likeliest first.")] = 5,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the images with their boxes drawn, as PNG.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Also draw the images with their boxes into this one new PNG file.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Say what is on images, and where."""
    import itertools

    from ..analysis.detection_figures import BoxDrawing
    from ..analysis.figures import PALETTE
    from ..class_names import readable
    from ..data.images import decode, pil_image
    from ..files import check_new
    from ..inference.localizer import load_localizer
    from ..models.names import check

    check(weights)
    if sheet:
        check_new(sheet, "a contact sheet", ".png")
    images = find_images(named)
    drawings = Drawings(images, out, sheet)
    localizer = load_localizer(weights, classifier=classifier, device=device)
    tell_of_unfinished(weights, localizer.config.results)
    results: list[dict[str, Any]] = []

    def look(image: Path) -> "Tensor":
        pixels = decode(image)
        localizer.view(dense=True).check(pixels)
        return pixels

    for image, pixels in each_usable(images, look, results):
        found = localizer.predict(pixels, top)
        names = readable([guess.name for guess in found])
        results.append(
            {
                "image": str(image),
                "guesses": [
                    {
                        "class": guess.name,
                        "probability": guess.probability,
                        "box": guess.box,
                        "score": guess.score,
                    }
                    for guess in found
                ],
            }
        )
        if drawings.wanted:
            boxes = [
                BoxDrawing(guess.box, colour, f"{name} {guess.probability:.2f}")
                for guess, name, colour in zip(found, names, itertools.cycle(PALETTE), strict=False)
            ]
            # The likeliest one on top.
            drawings.add(image, pil_image(pixels), boxes[::-1], names[0])
        if not as_json:
            typer.echo(f"{image}")
            for guess, name in zip(found, names, strict=True):
                box = ", ".join(f"{value:.0f}" for value in guess.box)
                typer.echo(f"  {name:24} {guess.probability:.2f}   {box}")
    if as_json:
        print_json({"weights": str(weights), "images": results})
    elif out:
        typer.echo(f"drawn: {out}")
    drawings.write_sheet()
    check_all_used(sum("error" in result for result in results), images)


@app.command(
    epilog="""\b
Examples:
  residual locate recipes
  residual locate recipes tiny-imagenet-localization-resnet18 > my.yaml
"""
)
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe as YAML.")] = None,
    settings: Settings = None,
) -> None:
    """List the localization recipes, or print one.

    The YAML is to start your own from.
    """
    from ..recipes import LocalizationRecipe

    show_recipes(name, settings or [], LocalizationRecipe)


def _print_table(measured: "LocalizerEvaluation", weights: Path) -> None:
    from ..table import Table, TableRow

    rows = [
        TableRow(
            (
                each.name,
                each.classes,
                f"{each.errors.localization:.2f}",
                f"{each.errors.classification:.2f}" if each.classes != "true" else "",
            ),
            rule=number == len(measured.protocols) - 1,
        )
        for number, each in enumerate(measured.protocols)
    ]
    count = len(measured.protocols[0].errors.right)
    headings = ("testing", "classes", "localization error %", "classification error %")
    caption = "best of five guesses, overlap 0.5"
    Table(
        f"{weights} on {measured.dataset.name}, {plural(count, 'image')}", headings, rows, caption, names=2
    ).print()
    print_faults("left out", (*measured.dataset.notes, *measured.unusable.values()))


def _print_results(results: dict[str, Any], out: Path) -> None:
    done = plural(results["iterations"], "iteration")
    typer.echo(f"{results['recipe']}: {done} in {results['seconds']:.0f} s")
    for words, key in (
        ("centre crop, true class", "test"),
        ("dense, true class", "dense"),
        ("dense, the classifier's five", "guessed"),
        ("always the middle box", "middle_box"),
    ):
        if found := results[key]:
            images = plural(found["images"], "image")
            typer.echo(f"  {words:29} error {found['localization_error']:6.2f} %   {images}")
    typer.echo(f"  everything is in {out}")
