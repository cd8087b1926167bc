"""Precision-recall curves, and detections drawn on their image."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageColor, ImageDraw
from torchvision.transforms.v2.functional import pil_to_tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from ..data.images import pil_image
from ..data.masks import Mask, masks_as_pixels
from .figures import INK, PALETTE, STYLE, add_legend, style_axes
from .fonts import image_font
from .sheet import contained

#: Lines of classes, in turn: curves stay apart in grey. Three of them and eight colours meet once in 24.
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
#: Inches of the figure of curves, of its axes, and of what is around the legend; the most lines in a column.
SIZE, AXES, AROUND, LINES = (6.4, 4.2), 4.6, 0.3, 40
#: How much a mask's colour covers of the image below it.
COVER = 0.45
#: Pixels: an image with captions is drawn so large, by a whole factor.
DRAWN = 512
#: From this lightness on, of 255, a colour has black letters.
LIGHT = 150


@dataclass(frozen=True)
class PrecisionCurve:
    """A class's precision against its recall, both in [0, 1], and what the legend says of it."""

    label: str
    recall: Sequence[float]
    precision: Sequence[float]


def precision_recall(curves: Sequence[PrecisionCurve], title: str) -> Figure:
    """Draw precision (%) against recall (%), a curve a class; precision made monotonous, as AP reads it."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE)
        ax = figure.subplots()
        ax.set_title(title, color=INK, loc="left")
        ax.set_xlabel("recall (%)", color=INK)
        ax.set_ylabel("precision (%)", color=INK)
        ax.set_xlim(0, 100)
        ax.set_ylim(0, 102)
        style_axes(ax)
        for number, curve in enumerate(curves):
            precision = np.asarray(curve.precision, dtype=float)
            recall = np.asarray(curve.recall, dtype=float)
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            # The curve starts at recall 0 and falls to 0 where no more objects are found.
            x = np.concatenate([[0.0], recall, recall[-1:]])
            y = np.concatenate([envelope[:1], envelope, np.zeros(len(recall[-1:]))])
            ax.plot(
                100 * x,
                100 * y,
                linestyle=DASHES[number % len(DASHES)],
                color=PALETTE[number % len(PALETTE)],
                linewidth=1.6,
                drawstyle="steps-pre",
            )
        if curves:
            labels = [curve.label for curve in curves]
            beside = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "borderaxespad": 0}
            legend = add_legend(ax, ax.lines, labels, ncols=-(-len(labels) // LINES), **beside)
            # As large as the legend of COCO's 80 classes, or long names, make it.
            figure.draw_without_rendering()
            box = legend.get_window_extent()
            width, height = AXES + box.width / figure.dpi, AROUND + box.height / figure.dpi
            figure.set_size_inches(max(SIZE[0], width), max(SIZE[1], height))
        figure.set_layout_engine("constrained")
    return figure


@dataclass(frozen=True)
class BoxDrawing:
    """A box to be drawn.

    Attributes:
        box: x1, y1, x2, y2 in pixels.
        colour: as "#rrggbb".
        caption: what stands at it, or "".
        mask: which pixels lie under the colour as well.
    """

    box: Sequence[float]
    colour: str
    caption: str
    mask: Mask | None = None


def draw_boxes(image: Image.Image, boxes: Sequence[BoxDrawing], side: float | None = None) -> Image.Image:
    """Return an RGB image with boxes on it, their captions beside each other as far as there is room.

    A small image is drawn enlarged, so that captions do not cover what they name.

    Args:
        boxes: in the image's own pixels; the last one is drawn on top.
        side: pixels of the longer side that the image gets before lines and captions are drawn; None for its
            own.
    """
    image = _with_masks(image, boxes)
    scale = 1.0
    if side:
        scale = side / max(image.size)
        image = contained(image, side)
    if not boxes:
        return image
    pixels = pil_to_tensor(image)
    times = max(1, DRAWN // max(image.size)) if any(one.caption for one in boxes) else 1
    pixels = pixels.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2)
    width = max(2, round(min(pixels.shape[1:]) / 250))
    corners = times * scale * torch.tensor([list(one.box) for one in boxes]).reshape(-1, 4)
    places = corners.tolist()
    # An edge is drawn inwards from the corner's pixel, and a box has a pixel at least.
    corners[:, 2:] = torch.maximum(corners[:, :2] + 1, corners[:, 2:] - 1)
    # Between two white ones, a line is seen on an object of its own colour too.
    around = corners + torch.tensor([-1, -1, 1, 1])
    drawn = draw_bounding_boxes(pixels, around, colors="white", width=width + 2)
    drawn = draw_bounding_boxes(drawn, corners, colors=[one.colour for one in boxes], width=width)
    canvas = pil_image(drawn)
    draw = ImageDraw.Draw(canvas)
    taken: list[Place] = []
    for one, box in zip(boxes, places, strict=True):
        if one.caption:
            font = image_font(one.caption, max(10, round(min(canvas.size) / 36)))
            left, top, right, bottom = draw.textbbox((0, 0), one.caption, font=font)
            # As high as any word, or one without tall letters would look cut.
            _, highest, _, lowest = draw.textbbox((0, 0), "Hdg", font=font)
            top, bottom = min(top, highest), max(bottom, lowest)
            size = (right - left + 4, bottom - top + 4)
            x, y, *_ = place = _free_place(box, size, canvas.size, taken)
            taken.append(place)
            draw.rectangle(place, fill=one.colour)
            draw.text((x + 2 - left, y + 2 - top), one.caption, fill=_ink_on(one.colour), font=font)
    return canvas


def _with_masks(image: Image.Image, boxes: Sequence[BoxDrawing]) -> Image.Image:
    """Return an image with the boxes' masks on it, which are of its own size."""
    if all(one.mask is None for one in boxes):
        return image
    pixels = pil_to_tensor(image)
    for one in boxes:
        if one.mask is not None:
            inside = masks_as_pixels([one.mask], one.mask.size)[0].bool()
            pixels = draw_segmentation_masks(pixels, inside, alpha=COVER, colors=one.colour)
    return pil_image(pixels)


def _ink_on(colour: str) -> str:
    """Return in what letters are read best on a colour, by its lightness."""
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > LIGHT else "white"


#: Left, top, right, bottom.
Place = tuple[float, float, float, float]


def _free_place(
    box: Sequence[float], size: tuple[float, float], image: tuple[int, int], taken: Sequence[Place]
) -> Place:
    """Return where a caption stands at its box: where it covers least of the others, above it if it can."""
    x1, y1, x2, y2 = box
    width, height = size
    corners = [
        (x1, y1 - height),
        (x2 - width, y1 - height),
        (x1, y2),
        (x2 - width, y2),
        (x1, y1),
        (x1, y2 - height),
        (x2 - width, y2 - height),
        (x2, y1),
        (x1 - width, y1),
        (x2, y2 - height),
        (x1 - width, y2 - height),
    ]
    # Never over the image's edge.
    inside = [(max(0.0, min(x, image[0] - width)), max(0.0, min(y, image[1] - height))) for x, y in corners]
    places = [(x, y, x + width, y + height) for x, y in inside]
    return min(places, key=lambda place: sum(_common(place, other) for other in taken))


def _common(one: Place, other: Place) -> float:
    """Return the area that two rectangles have in common."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, across) * max(0.0, down)
