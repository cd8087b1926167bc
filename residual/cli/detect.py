"""``residual detect``: train, evaluate and use detectors."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import InputError
from .options import Device, Json, Settings, print_json

if TYPE_CHECKING:
    from ..run.detection_testing import LoadedDetector, Precisions

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Object detection: Faster R-CNN on the paper's networks.",
)

BoxesDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="A VOCdevkit, a folder laid out like one of its years, or COCO's folder."
    ),
]
Weights = Annotated[
    list[Path], typer.Argument(help="A detector's folder or run folder; several are an ensemble.")
]
Refine = Annotated[bool, typer.Option("--refine", help="Box refinement and voting (appendix B).")]
MultiScale = Annotated[
    bool, typer.Option("--multi-scale", help="Maps at shorter sides 200 to 1000 (appendix B).")
]
Scales = Annotated[
    str | None, typer.Option(metavar="N,N,...", help="Multi-scale testing at these shorter sides.")
]


@app.command(
    epilog="""\b
Examples:
  residual detect train voc07+12-resnet101 --weights runs/imagenet-resnet101 --data-dir ~/VOCdevkit
  residual detect train coco-vgg16 --weights weights/vgg16 --data-dir ~/coco
  residual detect train voc-finetune --weights weights/resnet50 --data-dir ~/cells --out runs/cells
  residual detect train voc-finetune --weights runs/cells --data-dir ~/other --set data.train=train
  residual detect train my.yaml --data-dir ~/cells
  residual detect train --resume --out runs/cells
  torchrun --nproc-per-node=8 -m residual detect train coco-resnet101 --weights ... --data-dir ~/coco
"""
)
def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe's name (see residual detect recipes) or a YAML file.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder (default: runs/ and the recipe's name).")
    ] = None,
    data_dir: BoxesDir = None,
    weights: Annotated[
        Path | None, typer.Option(help="Start from this classifier's or detector's folder (or run folder).")
    ] = None,
    settings: Settings = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard events.")
    ] = False,
) -> None:
    """Train a detector by a recipe, into a run folder."""
    from .. import distributed, recipes
    from ..run import detection

    chosen = recipes.find_detection(recipe) if recipe else None
    if (settings or weights) and chosen is None:
        raise InputError("--set and --weights change a recipe; name the recipe as well")
    if weights and chosen:
        chosen = detection.take_backbone(chosen, weights)
    if chosen:
        chosen = recipes.override(chosen, settings or [])
    if out is None:
        if chosen is None:
            raise InputError(
                "name a recipe to train (residual detect recipes lists them), or a run: --resume --out FOLDER"
            )
        out = Path("runs") / chosen.name
    try:
        results = detection.train_detector(
            chosen,
            out,
            data_dir=data_dir,
            device=device,
            resume=resume,
            tensorboard=tensorboard,
        )
    finally:
        distributed.leave()
    if distributed.rank() == 0:
        _print_results(results, out)


@app.command(
    epilog="""\b
Examples:
  residual detect evaluate runs/cells
  residual detect evaluate runs/cells --split test --data-dir ~/cells --refine --figure cells.png
  residual detect evaluate runs/coco-resnet101 --multi-scale --json
  residual detect evaluate runs/a runs/b runs/c --data-dir ~/coco --split val2014
  residual detect evaluate runs/voc07++12-resnet101 --split 2012/test --no-boxes --submission voc2012
"""
)
def evaluate(
    weights: Weights,
    data_dir: BoxesDir = None,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Part of the data (default: the recipe's test).")
    ] = None,
    layout: Annotated[
        Literal["voc", "coco"] | None, typer.Option(help="Layout of the data (default: the recipe's).")
    ] = None,
    points: Annotated[
        bool | None,
        typer.Option("--11-points/--area", help="VOC's precision of 2007, or of 2010 and later."),
    ] = None,
    boxes: Annotated[bool, typer.Option("--boxes/--no-boxes", help="Whether there are annotations.")] = True,
    refine: Refine = False,
    multi_scale: MultiScale = False,
    scales: Scales = None,
    submission: Annotated[
        Path | None, typer.Option(help="Folder for the result files that VOC's or COCO's server takes.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw the precision-recall curves: a file .svg or .png.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Test a detector: VOC's and COCO's average precision."""
    from ..detection.submission import coco_file, voc_files, write_new
    from ..models.statedict import refuse_existing
    from ..run.detection_testing import evaluate_detector

    if figure:
        if figure.suffix not in (".svg", ".png"):
            raise InputError(f"--figure {figure}: a figure is a file that ends in .svg or .png")
        refuse_existing(figure)
    if submission and submission.is_dir() and any(submission.iterdir()):
        raise InputError(f"--submission {submission} is not an empty folder; name a new one")
    detector = _load(weights, device, refine, multi_scale, scales)
    with _progress(as_json) as progress:
        measured = evaluate_detector(
            detector,
            weights[0],
            data_dir,
            splits=split or (),
            layout=layout,
            rule=None if points is None else ("11 points" if points else "area"),
            boxes=boxes,
            progress=progress,
        )
    if submission:
        if layout == "coco" or measured.dataset.name.startswith("coco"):
            parts = measured.dataset.name.split(" ")[1]
            files = {
                f"detections_{parts}_residual_results.json": coco_file(measured.dataset, measured.detections)
            }
        else:
            part = (split or measured.dataset.name.split(" ")[1].split("+"))[0].rpartition("/")[2]
            files = voc_files(measured.dataset, measured.detections, part)
        write_new(submission, files)
    if figure:
        write_new(figure.parent, {figure.name: _curves(measured, figure.suffix)})
    if as_json:
        print_json(_as_json(measured, weights))
    else:
        _print_table(measured, weights, boxes)
        for path in (submission, figure):
            if path:
                typer.echo(f"written: {path}")


@app.command(
    epilog="""\b
Examples:
  residual detect predict runs/cells photo.jpg
  residual detect predict runs/cells photos/ --score 0.7 --out drawn --refine
  residual detect predict runs/cells photo.jpg --json
"""
)
def predict(
    weights: Annotated[Path, typer.Argument(help="A detector's folder or a run folder.")],
    named: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Files, folders or patterns like 'photos/*.jpg'.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the pictures with their boxes drawn, as PNG.")
    ] = None,
    score: Annotated[float, typer.Option(min=0, max=1, help="Least score of a detection.")] = 0.5,
    refine: Refine = False,
    multi_scale: MultiScale = False,
    scales: Scales = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Find objects on pictures.

    Gives class, score and box of each, drawn on the picture on request.
    """
    import sys

    from ..analysis.detection_figures import drawn
    from ..data.images import decode
    from ..detection.submission import as_json as rows
    from ..detection.submission import write_new
    from ..models.statedict import refuse_existing
    from .predict import find_images

    images = find_images(named)
    targets = {image: out / f"{image.stem}.png" for image in images} if out else {}
    if len(set(targets.values())) < len(targets):
        raise InputError(
            f"--out {out}: two of the pictures have the same name; give them folders of their own"
        )
    for target in targets.values():
        refuse_existing(target)
    detector = _load([weights], device, refine, multi_scale, scales)
    results: list[dict[str, Any]] = []
    failed = 0
    for image in images:
        try:
            pixels = decode(image)
            found = detector.predict(pixels, score)
        except InputError as error:
            # One bad picture among many does not end the work; alone it does.
            if len(images) == 1:
                raise
            failed += 1
            print(f"residual: {error}", file=sys.stderr)
            results.append({"image": str(image), "error": str(error)})
            continue
        objects = rows(found, detector.classes)
        results.append({"image": str(image), "objects": objects})
        if out:
            captions = [f"{item['class']} {item['score']:.2f}" for item in objects]
            picture = pixels.permute(1, 2, 0).contiguous().numpy()
            png = drawn(picture, found.boxes.tolist(), found.labels.tolist(), captions)
            write_new(out, {targets[image].name: png})
        if not as_json:
            typer.echo(f"{image}: {len(objects)} object{'' if len(objects) == 1 else 's'}")
            for item in objects:
                box = ", ".join(f"{value:.0f}" for value in item["box"])
                typer.echo(f"  {item['class']:16} {item['score']:.2f}   {box}")
    if as_json:
        print_json({"weights": str(weights), "images": results})
    elif out:
        typer.echo(f"drawn: {out}")
    if failed:
        raise InputError(f"{failed} of {len(images)} pictures could not be used, as said above")


@app.command(
    epilog="""\b
Examples:
  residual detect recipes
  residual detect recipes voc-finetune > my.yaml
"""
)
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe as YAML.")] = None,
    settings: Settings = None,
) -> None:
    """List the detection recipes, or print one.

    The YAML is to start your own from.
    """
    from ..recipes import DETECTION, find_detection, override

    if name:
        typer.echo(override(find_detection(name), settings or []).to_yaml(), nl=False)
        return
    if settings:
        raise InputError("--set changes a recipe; name the recipe as well")
    for recipe in DETECTION.values():
        typer.echo(f"{recipe.name:24} {recipe.description}")


def shorter_sides(text: str) -> tuple[int, ...]:
    """Return the shorter sides of ``--scales 400,600,800``, in pixels, rising."""
    try:
        sides = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        sides = ()
    if not sides or min(sides) < 16:
        raise InputError(f"--scales {text}: write whole numbers of at least 16, as 400,600,800")
    return sides


def _load(
    weights: list[Path], device: str, refine: bool, multi_scale: bool, scales: str | None
) -> "LoadedDetector":
    from ..detection.improvements import SCALES
    from ..run.detection_testing import load_detector

    sides = shorter_sides(scales) if scales else (SCALES if multi_scale else ())
    return load_detector(*weights, device=device, refine=refine, scales=sides)


def _progress(silent: bool) -> Any:
    """Return a context that gives what shows how many pictures are done, and the time left."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    @contextmanager
    def shown() -> Any:
        console = Console(stderr=True)
        columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=silent) as progress:
            task = progress.add_task("pictures", total=None)
            yield lambda total, done: progress.update(task, total=total, completed=done)

    return shown()


def _curves(measured: "Precisions", suffix: str) -> bytes:
    from ..analysis.detection_figures import PrecisionCurve, precision_recall
    from ..analysis.figures import file_content

    curves = [
        PrecisionCurve(f"{c.name} {_percent(c.average_precision)}", c.recall.tolist(), c.precision.tolist())
        for c in measured.classes
        if c.objects and len(c.scores)
    ]
    title = f"{measured.dataset.name}: mAP {_percent(measured.mean)} %"
    return file_content(precision_recall(curves, title), "svg" if suffix == ".svg" else "png")


def _as_json(measured: "Precisions", weights: list[Path]) -> dict[str, Any]:
    coco = measured.coco
    return {
        "weights": [str(path) for path in weights],
        "data": measured.dataset.name,
        "pictures": len(measured.dataset),
        "rule": measured.rule,
        "map": _number(measured.mean),
        "classes": {
            c.name: {"objects": c.objects, "ap": _number(c.average_precision)} for c in measured.classes
        },
        "coco": coco
        and {
            key: {name: {k: _number(v) for k, v in row.items()} for name, row in value.items()}
            if isinstance(value, dict)
            else _number(value)
            for key, value in coco.items()
        },
        "left_out": list(measured.dataset.notes),
        "unusable": measured.unusable,
        "images_per_second": measured.images_per_second,
    }


def _print_table(measured: "Precisions", weights: list[Path], boxes: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    names = " + ".join(map(str, weights))
    if not boxes:
        count = sum(len(found) for found in measured.detections)
        typer.echo(
            f"{names} on {measured.dataset.name}: {count:,} detections on {len(measured.dataset):,} pictures"
        )
    else:
        table = Table(title=f"{names} on {measured.dataset.name}, {len(measured.dataset):,} pictures")
        table.add_column("class")
        for heading in ("objects", f"VOC AP, {measured.rule}", "COCO AP", "AP50", "AP75"):
            table.add_column(heading, justify="right")
        per_class = (measured.coco or {}).get("classes", {})
        for c in measured.classes:
            row = per_class.get(c.name, {})
            table.add_row(
                c.name,
                f"{c.objects:,}",
                _percent(c.average_precision),
                *(_percent(row.get(key, math.nan)) for key in ("AP", "AP50", "AP75")),
            )
        table.add_section()
        coco = measured.coco or {}
        table.add_row(
            "mean",
            f"{sum(c.objects for c in measured.classes):,}",
            _percent(measured.mean),
            *(_percent(coco.get(key, math.nan)) for key in ("AP", "AP50", "AP75")),
            style="bold",
        )
        Console().print(table)
        sizes = "   ".join(
            f"{name} {_percent(coco.get(key, math.nan))}"
            for name, key in (("small", "APs"), ("medium", "APm"), ("large", "APl"))
        )
        typer.echo(f"COCO AP by size: {sizes}   ({measured.images_per_second:.1f} images/s)")
    faults = [*measured.dataset.notes, *measured.unusable.values()]
    if faults:
        typer.echo(f"left out: {len(faults):,}; the first: {faults[0]}")


def _print_results(results: dict[str, Any], out: Path) -> None:
    typer.echo(f"{results['recipe']}: {results['iterations']:,} iterations in {results['seconds']:.0f} s")
    test = results["test"]
    if test and test["ap50"] is not None:
        typer.echo(f"  test   mAP {test['ap50']:.2f} %   {test['pictures']:,} pictures")
        for name, value in test["classes"].items():
            typer.echo(f"    {name:16} {'-' if value is None else f'{value:6.2f} %'}")
    typer.echo(f"  everything is in {out}")


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
