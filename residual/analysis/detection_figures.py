"""Precision-recall curves, and detections drawn on their image."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from .figures import INK, STYLE, add_legend

#: Colours of classes, in turn: readable on white, and apart for those who see few colours.
PALETTE = ("#2f66c8", "#e6981a", "#2a9d6f", "#c0392b", "#8a3fae", "#6b7280", "#0f8aa8", "#b0642b")
#: Lines of classes, in turn: curves stay apart in grey. Three of them and eight colours meet once in 24.
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))


@dataclass(frozen=True)
class PrecisionCurve:
    """A class's precision against its recall, both in [0, 1], and what the legend says of it."""

    label: str
    recall: Sequence[float]
    precision: Sequence[float]


def precision_recall(curves: Sequence[PrecisionCurve], title: str) -> Figure:
    """Draw precision (%) against recall (%), a curve a class; precision made monotonous, as AP reads it."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        ax = figure.subplots()
        ax.set_title(title, color=INK, loc="left")
        ax.set_xlabel("recall (%)", color=INK)
        ax.set_ylabel("precision (%)", color=INK)
        ax.set_xlim(0, 100)
        ax.set_ylim(0, 102)
        ax.tick_params(colors=INK)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color=INK, alpha=0.15, linewidth=0.6)
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
            add_legend(ax, ax.lines, labels, loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0)
    return figure


def drawn(
    image: np.ndarray,
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    captions: Sequence[str],
) -> bytes:
    """Return an image with boxes on it as a PNG.

    Args:
        image: uint8 (H, W, 3).
        boxes: x1, y1, x2, y2 in its pixels; the first one is drawn on top.
        labels: number of each box's class, which gives its colour.
        captions: what stands at each box.
    """
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    width = max(2, round(min(canvas.size) / 250))
    font = ImageFont.load_default(size=max(10, round(min(canvas.size) / 36)))
    for box, label, caption in reversed(list(zip(boxes, labels, captions, strict=True))):
        colour = PALETTE[label % len(PALETTE)]
        x1, y1, x2, y2 = box
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=width)
        left, top, right, bottom = draw.textbbox((0, 0), caption, font=font)
        height = bottom - top + 4
        # Above the box, or inside it at the image's upper edge; never over the right edge.
        x = max(0.0, min(x1, canvas.width - (right - left) - 4))
        y = y1 - height if y1 >= height else y1
        draw.rectangle((x, y, x + right - left + 4, y + height), fill=colour)
        draw.text((x + 2 - left, y + 2 - top), caption, fill="white", font=font)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()
