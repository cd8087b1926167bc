"""``residual detect``: train, evaluate and use detectors."""

import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .. import torchrun
from ..errors import InputError, plural
from .boxes import Drawings, each_usable
from .options import (
    SIDE,
    Device,
    Json,
    Settings,
    check_all_used,
    check_figure_file,
    drawn_files,
    find_images,
    only_first_rank,
    progress_bar,
    takes,
    tell_of_unfinished,
    write_figure,
)
from .output import made_by, print_csv, print_faults, print_json, say_drawn
from .training import RunAsked, show_recipes, train_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from ..detection.average_precision import Detections
    from ..detection.inference import DetectionOptions
    from ..inference.detector import DetectorEvaluation, LoadedDetector

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Object detection: Faster R-CNN on the paper's networks.",
)


@app.callback()
def group(context: typer.Context) -> None:
    only_first_rank(context, ("train", "evaluate"))


BoxesDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="A VOCdevkit, a folder like one of its years or as labelImg leaves it, COCO's, YOLO's, ILSVRC.",
    ),
]
Weights = Annotated[
    list[Path],
    typer.Argument(help="A detector's folder, run folder or hf:OWNER/NAME; several are an ensemble."),
]
StartFrom = Annotated[
    Path | None,
    typer.Option(help="Start from this classifier or detector: a run, a weights folder, or a name."),
]
Scales = Annotated[
    str | None, typer.Option(metavar="N,N,...", help="Multi-scale testing at these shorter sides.")
]


@dataclass(frozen=True)
class DetectorAsked:
    """How a detector is to be used, as it was asked for."""

    refine: Annotated[bool, typer.Option("--refine", help="Box refinement and voting (appendix B).")] = False
    multi_scale: Annotated[
        bool, typer.Option("--multi-scale", help="Maps at shorter sides 200 to 1000 (appendix B).")
    ] = False
    scales: Scales = None
    device: Device = "auto"
    as_json: Json = False

    def load(self, weights: list[Path]) -> "LoadedDetector":
        """Return the detector in a folder, or the ensemble of several."""
        from ..detection.improvements import SCALES
        from ..inference.detector import load_detector

        if self.multi_scale and self.scales:
            raise InputError("--multi-scale is --scales 200,400,600,800,1000; leave one of the two out")
        sides = shorter_sides(self.scales) if self.scales else (SCALES if self.multi_scale else ())
        detector = load_detector(*weights, device=self.device, refine=self.refine, scales=sides)
        for folder, config in zip(weights, detector.configs, strict=True):
            tell_of_unfinished(folder, config.results)
        return detector


@app.command(
    epilog="""\b
Examples:
  residual detect train voc07+12-resnet101 --weights runs/imagenet-resnet101 --data-dir ~/VOCdevkit
  residual detect train coco-vgg16 --weights weights/vgg16 --data-dir ~/coco
  residual detect train voc-finetune --weights torchvision:resnet50 --data-dir ~/cells --out runs/cells
  residual detect train voc-finetune --weights runs/cells --data-dir ~/labelled --set data.validation=0.2
  residual detect train voc-finetune --weights runs/cells --data-dir ~/other --set data.train=train
  residual detect train voc-finetune --weights runs/cells --data-dir ~/yolo --set data.layout=yolo \\
    --set data.train=train --set data.test=val
  residual detect train voc-finetune --weights weights/resnet50 --data-dir ~/cells --epochs 20 --lr 0.002
  residual detect train my.yaml --data-dir ~/cells
  residual detect train voc-finetune --masks --weights torchvision:resnet50 --data-dir ~/cells
  residual detect train --resume --out runs/cells
  torchrun --nproc-per-node=8 -m residual detect train coco-resnet101 --weights ... --data-dir ~/coco
"""
)
@takes(RunAsked, data_dir=BoxesDir, weights=StartFrom)
def train(
    masks: Annotated[
        bool, typer.Option("--masks", help="Learn the objects' masks too, as --set detector.masks=true.")
    ] = False,
    *,
    asked: RunAsked,
) -> None:
    """Train a detector by a recipe, into a run folder."""
    from ..recipes import DetectionRecipe

    train_run(asked, DetectionRecipe, _print_results, {"masks": masks or None})


@app.command(
    epilog="""\b
Examples:
  residual detect evaluate runs/cells
  residual detect evaluate runs/cells --split test --data-dir ~/cells --refine --figure cells.png
  residual detect evaluate runs/cells --sheet mistakes.png
  residual detect evaluate runs/coco-resnet101 --multi-scale --json
  residual detect evaluate runs/cells --data-dir ~/other --split test --difficult
  residual detect evaluate runs/a runs/b runs/c --data-dir ~/coco --split val2014
  residual detect evaluate runs/voc07++12-resnet101 --split 2012/test --no-boxes --submission voc2012
"""
)
@takes(DetectorAsked)
def evaluate(
    weights: Weights,
    data_dir: BoxesDir = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            "--split", help="Part of the data; again for several (default: what the run was tested on)."
        ),
    ] = None,
    layout: Annotated[
        Literal["voc", "coco", "yolo", "imagenet-det"] | None,
        typer.Option(help="Layout of the data (default: the recipe's)."),
    ] = None,
    points: Annotated[
        bool | None,
        typer.Option(
            "--11-points/--area",
            help="VOC's precision of 2007, or of 2010 and later (default: the recipe's).",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Test these classes of the detector (default: all of them)."),
    ] = None,
    difficult: Annotated[
        bool | None,
        typer.Option(
            "--difficult/--no-difficult",
            help="Ask for objects marked as difficult as well (default: as the recipe says).",
        ),
    ] = None,
    boxes: Annotated[bool, typer.Option("--boxes/--no-boxes", help="Whether there are annotations.")] = True,
    submission: Annotated[
        Path | None, typer.Option(help="Folder for the result files of VOC's, COCO's or ImageNet's server.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw the precision-recall curves: a file .svg or .png.")
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="Draw what was found (score 0.5 and more) beside the truth into this new PNG file, "
            "most mistakes first, in orange."
        ),
    ] = None,
    *,
    asked: DetectorAsked,
) -> None:
    """Test a detector: average precision by VOC's rule (or ImageNet's) and COCO's."""
    from .. import distributed
    from ..detection.submission import check_splits, submission_files, without_category
    from ..files import check_new, write_new
    from ..inference.detector import evaluate_detector, tested_on
    from ..terminal import note

    if not boxes:
        measures = {
            "--figure": figure,
            "--sheet": sheet,
            "--11-points and --area": points,
            "--difficult": difficult,
        }
        if asking := next((option for option, value in measures.items() if value is not None), None):
            raise InputError(f"without annotations nothing is measured; leave {asking} out, or --no-boxes")
    check_figure_file("--figure", figure)
    if sheet:
        check_new(sheet, "a contact sheet", ".png")
        if figure and os.path.realpath(figure) == os.path.realpath(sheet):
            raise InputError(f"--figure and --sheet both name {sheet}; give each a file of its own")
    if submission and submission.exists() and (not submission.is_dir() or any(submission.iterdir())):
        raise InputError(f"--submission {submission} is not an empty folder; name a new one")
    about = made_by(asked.device, shared=True) if asked.as_json else {}
    detector = asked.load(weights)
    if submission:
        check_splits(*tested_on(detector, layout, split or ()))
    first = torchrun.rank() == 0
    with distributed.left(), progress_bar(asked.as_json or not first) as progress:
        measured = evaluate_detector(
            detector,
            weights[0],
            data_dir,
            others=weights[1:],
            splits=split or (),
            layout=layout,
            ap_rule=None if points is None else ("11 points" if points else "area"),
            boxes=boxes,
            classes=_names(classes, detector.classes),
            use_difficult=difficult,
            for_server=submission is not None,
            tell=note,
            progress=progress,
        )
    if not first:
        return
    # What was measured is shown before anything is written, which may fail.
    if asked.as_json:
        print_json(_as_json(measured, weights, detector.options()) | about)
    else:
        _print_table(measured, weights, boxes, detector.options())
    if submission:
        if unknown := without_category(measured.dataset):
            note(
                f"what is found of {', '.join(unknown)} is not in {submission}: "
                f"{measured.dataset.name} has no category of that name"
            )
        for name, content in submission_files(measured.dataset, measured.detections).items():
            write_new(submission / name, content)
    if figure:
        write_figure(_curves(measured), figure)
    for path in (submission, figure):
        if path and not asked.as_json:
            typer.echo(f"written: {path}")
    if sheet:
        from ..detection.drawing import SCORE, draw_mistakes_sheet

        shown = draw_mistakes_sheet(
            measured.dataset, measured.detections, measured.ap_rule, sheet, measured.unusable
        )
        say_drawn(sheet, shown, len(measured.dataset) - len(measured.unusable), "the worst")
        if not any((one.scores >= SCORE).any() for one in measured.detections):
            note(
                f"no detection has a score of {SCORE} and more, so {sheet} shows none; a detector that has "
                "learned for a short time gives low scores: train longer"
            )


@app.command(
    epilog="""\b
Examples:
  residual detect predict runs/cells image.jpg
  residual detect predict runs/cells images/ --score-threshold 0.7 --out drawn --refine
  residual detect predict runs/cells image.jpg --json
  residual detect predict runs/cells images/ --csv > found.csv
  residual detect predict runs/cells images/ --sheet found.png
  residual detect predict runs/masks images/ --masks masks
"""
)
@takes(DetectorAsked)
def predict(
    weights: Annotated[Path, typer.Argument(help="A detector's folder, run folder or hf:OWNER/NAME.")],
    named: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Files, folders or patterns like 'images/*.jpg'.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the images with their boxes drawn, as PNG.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Also draw the images with their boxes into this one new PNG file.")
    ] = None,
    score_threshold: Annotated[float, typer.Option(min=0, max=1, help="Least score of a detection.")] = 0.5,
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder for the masks, a PNG an image: the k-th object's pixels are k."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of lines.")] = False,
    *,
    asked: DetectorAsked,
) -> None:
    """Find objects on images.

    Gives class, score and box of each, and its mask where the detector has learned them (in --json as COCO's
    run lengths), drawn on the image on request.
    """
    from PIL import Image

    from ..analysis.detection_figures import BoxDrawing
    from ..analysis.figures import PALETTE
    from ..data.images import decode, pil_image
    from ..data.masks import as_instances, instance_palette
    from ..detection.inference import DetectionOptions
    from ..detection.submission import as_json as rows
    from ..files import check_new, written_whole
    from ..models.names import check
    from ..terminal import note

    check(weights)
    if asked.as_json and as_csv:
        raise InputError("--json and --csv are two ways of printing; choose one")
    if sheet:
        check_new(sheet, "a contact sheet", ".png")
    images = find_images(named)
    drawings = Drawings(images, out, sheet)
    targets = drawn_files(images, masks, "--masks") if masks else {}
    if masks and out and os.path.realpath(masks) == os.path.realpath(out):
        raise InputError(f"--out and --masks both name {out}; give each a folder of its own")
    detector = asked.load([weights])
    if masks and not detector.gives_masks:
        raise InputError(
            f"{weights} gives no masks; train a detector of them with: residual detect train --masks"
        )
    results: list[dict[str, Any]] = []

    def look(image: Path) -> "tuple[Tensor, Detections]":
        pixels = decode(image)
        return pixels, detector.predict(pixels, score_threshold)

    for image, (pixels, found) in each_usable(images, look, results):
        objects = rows(found, detector.classes)
        results.append({"image": str(image), "objects": objects})
        size = pixels.shape[1], pixels.shape[2]
        if masks:
            with written_whole(targets[image]) as temporary:
                instances = Image.fromarray(as_instances(found.masks, size))
                if instances.mode == "L":
                    # The same numbers, and colours to look at.
                    instances.putpalette(instance_palette())
                instances.save(temporary, "PNG")
        if drawings.wanted:
            shapes = found.masks or [None] * len(objects)
            boxes = [
                BoxDrawing(box, PALETTE[label % len(PALETTE)], f"{item['class']} {item['score']:.2f}", shape)
                for box, label, item, shape in zip(
                    found.boxes.tolist(), found.labels.tolist(), objects, shapes, strict=True
                )
            ]
            counts = Counter(item["class"] for item in objects)
            told = ", ".join(f"{count} {name}" for name, count in counts.items())
            # The surest one on top.
            drawings.add(image, pil_image(pixels), boxes[::-1], told or "nothing")
        if not (asked.as_json or as_csv):
            typer.echo(f"{image}: {plural(len(objects), 'object')}")
            for item in objects:
                box = ", ".join(f"{value:.0f}" for value in item["box"])
                typer.echo(f"  {item['class']:16} {item['score']:.2f}   {box}")
    if asked.as_json:
        print_json({"weights": str(weights), "images": results})
    elif as_csv:
        lines = (
            (result["image"], item["class"], item["score"], *item["box"])
            for result in results
            for item in result.get("objects", ())
        )
        print_csv(("image", "class", "score", "x1", "y1", "x2", "y2"), lines)
    elif out:
        typer.echo(f"drawn: {out}")
    if masks and not (asked.as_json or as_csv):
        typer.echo(f"masks: {masks}")
    drawings.write_sheet()
    # What is below the least score that testing counts is hardly a detection.
    weak = DetectionOptions.score_threshold
    if not any(result.get("objects") for result in results) and score_threshold > weak:
        note(f"no object has a score of {score_threshold:g}; --score-threshold {weak:g} shows weaker ones")
    check_all_used(sum("error" in result for result in results), images)


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
    from ..recipes import DetectionRecipe

    show_recipes(name, settings or [], DetectionRecipe)


def shorter_sides(text: str) -> tuple[int, ...]:
    """Return the shorter sides of ``--scales 400,600,800``, in pixels, rising."""
    from ..inference.detector import LEAST_SCALE

    try:
        sides = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        sides = ()
    if not sides or min(sides) < LEAST_SCALE or max(sides) > SIDE:
        raise InputError(f"--scales {text}: write whole numbers from {LEAST_SCALE} to {SIDE}, as 400,600,800")
    return sides


def _names(text: str | None, known: tuple[str, ...]) -> list[str]:
    """Return the names of ``--classes cat,dog``; a name that holds a comma itself is known by that."""
    if text is None or text in known:
        return [text] if text else []
    return [part.strip() for part in text.split(",")]


def _curves(measured: "DetectorEvaluation") -> "Figure":
    from ..analysis.detection_figures import PrecisionCurve, precision_recall

    curves = [
        PrecisionCurve(f"{c.name} {_percent(c.average_precision)}", c.recall.tolist(), c.precision.tolist())
        for c in measured.classes
        if c.objects and len(c.scores)
    ]
    title = f"{measured.dataset.name}: mAP {_percent(measured.mean_ap)} %"
    return precision_recall(curves, title)


def _as_json(measured: "DetectorEvaluation", weights: list[Path], how: "DetectionOptions") -> dict[str, Any]:
    return {
        "weights": [str(path) for path in weights],
        "data": measured.dataset.name,
        "images": len(measured.dataset),
        "refine": how.refine,
        "scales": list(how.scales),
        "ap_rule": measured.ap_rule,
        "map": _number(measured.mean_ap),
        "classes": {
            c.name: {"objects": c.objects, "ap": _number(c.average_precision)} for c in measured.classes
        },
        "coco": _coco_json(measured.coco),
        "coco_masks": _coco_json(measured.coco_masks),
        "left_out": list(measured.dataset.notes),
        "unusable": measured.unusable,
        "images_per_second": measured.images_per_second,
    }


def _coco_json(coco: dict[str, Any] | None) -> dict[str, Any] | None:
    return coco and {
        key: {name: {k: _number(v) for k, v in row.items()} for name, row in value.items()}
        if isinstance(value, dict)
        else _number(value)
        for key, value in coco.items()
    }


def _print_table(
    measured: "DetectorEvaluation", weights: list[Path], boxes: bool, how: "DetectionOptions"
) -> None:
    from ..detection.average_precision import COCO_DETECTIONS
    from ..table import Table, TableRow

    images = plural(len(measured.dataset), "image")
    title = f"{' + '.join(map(str, weights))} on {measured.dataset.name}, {images}"
    if how.refine:
        title += ", boxes refined"
    if how.scales:
        title += f", shorter sides {', '.join(map(str, how.scales))}"
    if not boxes:
        typer.echo(f"{title}: {sum(map(len, measured.detections)):,} detections")
    else:

        def numbers(coco: dict[str, Any]) -> list[str]:
            # A column in which nothing is said is left out.
            keys = ("AP", "AP50", "AP75")
            return [_percent(coco.get(key, math.nan)) if measured.coco else "" for key in keys]

        coco = measured.coco or {}
        per_class = coco.get("classes", {})
        rows = [
            (c.name, f"{c.objects:,}", _percent(c.average_precision), *numbers(per_class.get(c.name, {})))
            for c in measured.classes
        ]
        objects = sum(c.objects for c in measured.classes)
        total = TableRow(("mean", f"{objects:,}", _percent(measured.mean_ap), *numbers(coco)), rule=True)
        rule = "ImageNet" if measured.ap_rule == "imagenet" else f"VOC AP, {measured.ap_rule}"
        headings = ("class", "objects", rule, "COCO AP", "COCO AP50", "COCO AP75")
        Table(title, headings, [*map(TableRow, rows), total]).print()
        if coco:
            _print_sizes("COCO AP", coco, measured)
        if masks := measured.coco_masks:
            counts = measured.dataset.mask_counts()
            masked = [
                TableRow((name, f"{count:,}", *numbers(own)))
                for count, (name, own) in zip(counts, masks["classes"].items(), strict=True)
            ]
            total = TableRow(("mean", f"{sum(counts):,}", *numbers(masks)), rule=True)
            Table(
                "masks", ("class", "with a mask", "COCO AP", "COCO AP50", "COCO AP75"), [*masked, total]
            ).print()
            _print_sizes("mask AP", masks, measured)
        if how.max_detections > COCO_DETECTIONS:
            typer.echo(
                f"up to {how.max_detections} detections an image: VOC AP counts all of them, COCO AP "
                f"the best {COCO_DETECTIONS} of each class"
            )
    missed = "; their objects count as missed" if boxes else ""
    print_faults("left out or cut", measured.dataset.notes)
    print_faults(f"could not be looked at{missed}", tuple(measured.unusable.values()))


def _print_sizes(name: str, coco: dict[str, Any], measured: "DetectorEvaluation") -> None:
    """Print COCO's average precision by the objects' size."""
    sizes = "   ".join(
        f"{size} {_percent(coco.get(key, math.nan))}"
        for size, key in (("small", "APs"), ("medium", "APm"), ("large", "APl"))
    )
    typer.echo(f"{name} by size: {sizes}   ({measured.images_per_second:.1f} images/s)")


def _print_results(results: dict[str, Any], out: Path) -> None:
    done = plural(results["iterations"], "iteration")
    typer.echo(f"{results['recipe']}: {done} in {results['seconds']:.0f} s")
    split = "validation" if results.get("validation") else "test"
    test = results[split]
    if test and test["ap50"] is not None:
        typer.echo(f"  {split}   mAP {test['ap50']:.2f} %   {plural(test['images'], 'image')}")
        for name, value in test["classes"].items():
            typer.echo(f"    {name:16} {'-' if value is None else f'{value:6.2f} %'}")
        for key, name in (("coco_box", "COCO AP"), ("coco_mask", "mask AP")):
            if (coco := test.get(key)) and coco["AP"] is not None:
                typer.echo(f"  {name} {coco['AP']:.2f} %   at an overlap of 0.5 {coco['AP50']:.2f} %")
    typer.echo(f"  everything is in {out}")


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
