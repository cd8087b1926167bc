"""Error curves in the manner of Figures 1, 4 and 6, as files and as parts of a page."""

import io
import re
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

#: One colour a curve, shallow to deep: readable on white and on black, and of falling lightness, so that
#: they differ in grey as well.
COLOURS = ("#e08214", "#2f74d0")
INK = "#1b1f24"
#: Letters stay letters, so that a page can search them and give them its own font.
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.linewidth": 0.8,
    "axes.edgecolor": INK,
}
#: "Dashed lines denote training error, and bold lines denote testing error" (Figure 6).
TRAINING: dict[str, Any] = {"linewidth": 1.2, "linestyle": (0, (4, 2))}
HELD_OUT: dict[str, Any] = {"linewidth": 2.4}
#: Lines of text at the curves' ends are at least this many percent apart.
LABEL_GAP = 6.5


@dataclass(frozen=True)
class Curve:
    """One network's errors in percent; ``training`` and ``held_out`` have an entry an iteration listed."""

    label: str
    iterations: list[int]
    training: list[float]
    held_out: list[float]


@dataclass(frozen=True)
class Panel:
    """Two curves that share a pair of axes, the shallower network's first."""

    title: str
    curves: tuple[Curve, Curve]


def error_curves(panels: list[Panel], *, iterations: int, drops: list[int], held_out: str) -> Figure:
    """Draw error (%) against iterations: dashed for training, bold for the held-out part, as in Figure 6.

    Args:
        panels: side by side, all with the same axes.
        iterations: where the axis ends.
        drops: iterations at which the learning rate is divided by 10.
        held_out: what the bold curves were measured on, "test" or "validation".
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.9 * len(panels), 3.7), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, panel in zip(axes, panels, strict=True):
            _draw(ax, panel, iterations, drops)
            _name_styles(ax, held_out)
    return figure


def page_svg(figure: Figure, label: str) -> str:
    """Return the figure as an ``svg`` element without background that takes its ink from the page's text.

    Args:
        label: what a reader is told who cannot see it; other than that of the page's other figures.
    """
    # An id is unique in a page: those of the definitions hang on the salt, those of the groups go.
    text = _render(figure, "svg", salt=label, transparent=True).decode()
    text = re.sub(r'<g id="[^"]*">', "<g>", text[text.index("<svg") :]).replace(INK, "currentColor")
    # The page decides on the size; viewBox keeps the proportions.
    return re.sub(
        r'width="[\d.]+pt" height="[\d.]+pt"',
        lambda _: f'role="img" aria-label="{escape(label)}"',
        text,
        count=1,
    )


def file_content(figure: Figure, format: Literal["svg", "png"]) -> bytes:
    """Return the figure on white as a file's content, the same bytes for the same figure."""
    return _render(figure, format, salt="residual", transparent=False)


def _render(figure: Figure, format: str, salt: str, transparent: bool) -> bytes:
    buffer = io.BytesIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type")) if format == "svg" else {}
    with mpl.rc_context(STYLE | {"svg.hashsalt": salt}):
        figure.savefig(buffer, format=format, dpi=200, metadata=metadata, transparent=transparent)
    return buffer.getvalue()


def _draw(ax: Axes, panel: Panel, iterations: int, drops: list[int]) -> None:
    ax.set_title(panel.title, color=INK, loc="left")
    ax.set_xlabel("iterations", color=INK)
    ax.set_ylabel("error (%)", color=INK)
    ax.set_xlim(0, iterations)
    ax.set_ylim(0, 100)
    ax.set_yticks(range(0, 101, 20))
    ax.tick_params(colors=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color=INK, alpha=0.15, linewidth=0.6)
    for drop in drops:
        ax.axvline(drop, color=INK, alpha=0.5, linewidth=0.8, linestyle=":")
        ax.annotate("lr ÷ 10", (drop, 99), (3, 0), textcoords="offset points", va="top", size=8, color=INK)
    heights = _label_heights([curve.held_out[-1] for curve in panel.curves])
    for curve, height, colour in zip(panel.curves, heights, COLOURS, strict=True):
        # A curve that ends at 0 % lies on the frame: it is drawn over it, not cut in half.
        line: dict[str, Any] = {"color": colour, "clip_on": False, "zorder": 3}
        ax.plot(curve.iterations, curve.training, **TRAINING, **line)
        ax.plot(curve.iterations, curve.held_out, **HELD_OUT, **line)
        ax.annotate(
            curve.label,
            (iterations, height),
            (6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            weight="bold",
            annotation_clip=False,
        )


def _name_styles(ax: Axes, held_out: str) -> None:
    """Say what dashed and bold mean above the axes, where no curve and no label can be."""
    samples = [
        Line2D([], [], color=INK, label="training", **TRAINING),
        Line2D([], [], color=INK, label=held_out, **HELD_OUT),
    ]
    ax.legend(
        handles=samples,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        borderaxespad=0.2,
        ncols=2,
        columnspacing=1,
        frameon=False,
        labelcolor=INK,
    )


def _label_heights(ends: list[float]) -> list[float]:
    """Return where the labels of curves stand that end at these errors: in their order, none on another."""
    low, high = sorted(range(len(ends)), key=ends.__getitem__)
    heights = list(ends)
    heights[low] = min(ends[low], 100 - LABEL_GAP)
    heights[high] = max(ends[high], heights[low] + LABEL_GAP)
    return heights
