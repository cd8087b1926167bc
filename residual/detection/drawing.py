"""What was found on annotated images, drawn beside the truth: what was missed, and what is not there."""

from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..analysis.detection_figures import BoxDrawing, draw_boxes
from ..analysis.sheet import BOXED_MOST, BOXED_SIDE, draw_boxed_sheet
from ..data.boxes import AnnotatedImage, BoxDataset
from ..data.images import DamagedImage, decode, pil_image
from ..errors import InputError, plural
from ..recipes.detection import APRule
from .average_precision import Detections, Judgement, judge

#: Least score of a detection that is drawn and counted as right or wrong.
SCORE = 0.5
RIGHT, WRONG = "#2f66c8", "#d9480f"
#: More boxes than these on an image are named only where they are wrong: names would cover what is named.
NAMED = 6
#: Tiles in a row of a sheet, two of each image.
COLUMNS = 4


def judged_worst_first(
    dataset: BoxDataset, found: Sequence[Detections], ap_rule: APRule
) -> list[tuple[AnnotatedImage, Judgement]]:
    """Return each image and what is right and wrong about its detections, that with most mistakes first.

    Args:
        found: on each image of the dataset.
    """
    judged = [
        (annotated, judge(annotated, one, SCORE, ap_rule))
        for annotated, one in zip(dataset.images, found, strict=True)
    ]
    return sorted(judged, key=lambda one: -one[1].mistakes)


def draw_judged(
    annotated: AnnotatedImage, judged: Judgement, classes: Sequence[str], side: int
) -> tuple[Image.Image, Image.Image]:
    """Return an image twice: with its objects, and with what was found on it.

    What was missed, and what is not there, is ``WRONG``'s colour and named; all other boxes are ``RIGHT``'s,
    and named where an image has at most ``NAMED``.
    Difficult objects and crowds are not drawn.

    Args:
        classes: names, by label.
        side: pixels of the longer side of the images.

    Raises:
        DamagedImage: where the file is gone, or cannot be read any more.
    """
    image = pil_image(decode(annotated.path))
    wanted = annotated.wanted
    truth = [classes[label] for label in annotated.labels[wanted].tolist()]
    shown = judged.shown
    found = [
        f"{classes[label]} {score:.2f}"
        for label, score in zip(shown.labels.tolist(), shown.scores.tolist(), strict=True)
    ]
    return (
        _drawn(image, side, annotated.boxes[wanted], judged.missed[wanted], truth),
        _drawn(image, side, shown.boxes, judged.false, found),
    )


def draw_mistakes_sheet(
    dataset: BoxDataset,
    found: Sequence[Detections],
    ap_rule: APRule,
    file: Path,
    unusable: Collection[str] = (),
) -> int:
    """Write a PNG of images, each twice as ``draw_judged`` gives it, those with most mistakes first.

    Args:
        found: on each image of the dataset.
        file: where nothing is yet.
        unusable: ids of images that could not be looked at, which are left out.

    Returns:
        How many images are on it: at most half of ``BOXED_MOST``, each with an object or a detection, and
        none that cannot be read.

    Raises:
        InputError: when the file exists, is no .png or cannot be written, or there is nothing to draw.
    """
    tiles: list[tuple[Image.Image, str]] = []
    for annotated, judged in judged_worst_first(dataset, found, ap_rule):
        if len(tiles) + 2 > BOXED_MOST:
            break
        # Nothing is to be seen where there is nothing, and nothing was found.
        if annotated.id in unusable or not (annotated.wanted.any() or len(judged.shown)):
            continue
        try:
            truth, seen = draw_judged(annotated, judged, dataset.classes, BOXED_SIDE)
        except DamagedImage:
            continue
        objects, missed, false = (
            int(which.sum()) for which in (annotated.wanted, judged.missed, judged.false)
        )
        told = plural(objects, "object") + (f", {missed} missed" if missed else "")
        tiles.append((truth, f"{annotated.id}: {told}"))
        wrong = "" if not false else ", all wrong" if false == len(judged.shown) else f", {false} wrong"
        tiles.append((seen, f"found with a score of {SCORE} and more: {len(judged.shown)}{wrong}"))
    if not tiles:
        raise InputError(f"{dataset.name}: there is nothing to draw, neither an object nor a detection")
    draw_boxed_sheet(tiles, file, COLUMNS, together=2)
    return len(tiles) // 2


def _drawn(
    image: Image.Image, side: int, boxes: Tensor, wrong: Tensor, captions: Sequence[str]
) -> Image.Image:
    """Return an image with boxes: what is wrong is named, in a colour of its own and drawn last."""
    few = len(boxes) <= NAMED
    marked = [
        BoxDrawing(
            tuple(boxes[n].tolist()),
            WRONG if wrong[n] else RIGHT,
            captions[n] if wrong[n] or few else "",
        )
        for n in torch.argsort(wrong.int(), stable=True).tolist()
    ]
    return draw_boxes(image, marked, side)
