"""Error curves in the manner of Figures 1, 4 and 6, as files and as parts of a page."""

import io
import math
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .fonts import OWN, font_with

# Where no font has a letter, a page's reader may have one, and a file shows an empty box.
warnings.filterwarnings("ignore", message="Glyph .* missing from font")

#: A network's colour by its depth, the same in all figures: readable on white and on black, and of falling
#: lightness, so that depths differ in grey as well. A depth between two of these has the deeper one's colour.
COLOURS = {20: "#e6981a", 32: "#4fae4f", 44: "#2a93b8", 56: "#2f66c8", 110: "#8a3fae", 1202: "#8c2334"}
INK = "#1b1f24"
#: Colours of classes and of runs, in turn: readable on white, and apart for those who see few colours.
PALETTE = ("#2f66c8", "#e6981a", "#2a9d6f", "#c0392b", "#8a3fae", "#6b7280", "#0f8aa8", "#b0642b")
#: Marks on the lines of one colour, where there are more of them than colours: none, then others in turn; and
#: how a label shows them.
MARKS = {"": "", "o": " ●", "s": " ■", "^": " ▲"}
#: Letters stay letters, so that a page can search them and give them its own font.
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.linewidth": 0.8,
    "axes.edgecolor": INK,
    # Names are shown as they are written, those with a dollar sign too.
    "text.parse_math": False,
}
#: "Dashed lines denote training error, and bold lines denote testing error" (Figure 6).
TRAINING: dict[str, Any] = {"linewidth": 1.2, "linestyle": (0, (4, 2))}
HELD_OUT: dict[str, Any] = {"linewidth": 2.4}
#: Where an axis may end, times a power of ten.
ROUND = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
#: Width and height of a panel, in inches.
PANEL = (4.9, 3.7)
#: Lines of text at the curves' ends are at least this part of the axis apart, in percent.
LABEL_GAP = 6.5
#: So much of the iterations' axis the name of a drop takes.
DROP_NAME = 0.13


@dataclass(frozen=True)
class ErrorCurve:
    """What was measured on the way of a run, an entry an iteration listed: errors in percent, or a loss.

    Attributes:
        label: stands at the curve's end; "" for none.
        training, held_out: the values; empty where there are none.
        deviation: of the held-out values over several seeds, drawn as a band; empty for one run.
        mark: of ``MARKS``.
    """

    label: str
    colour: str
    iterations: list[int]
    training: list[float]
    held_out: list[float]
    deviation: list[float] = field(default_factory=list)
    mark: str = ""


@dataclass(frozen=True)
class Panel:
    """Curves that share a pair of axes, the shallowest network's first.

    Attributes:
        show: which of each curve's lines; the last one carries the label.
        measure: what stands at the axis.
        top: where the axis ends.
    """

    title: str
    curves: tuple[ErrorCurve, ...]
    show: tuple[Literal["training", "held_out"], ...] = ("training", "held_out")
    measure: str = "error (%)"
    top: float = 100


def error_curves(panels: Sequence[Panel], *, iterations: int, drops: list[int], held_out: str) -> Figure:
    """Draw error (%) against iterations: dashed for training, bold for the held-out part, as in Figure 6.

    Args:
        panels: side by side.
        iterations: where the axis ends.
        drops: iterations at which the learning rate is divided by 10.
        held_out: what the bold curves were measured on, "test" or "validation".
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(PANEL[0] * len(panels), PANEL[1]), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, panel in zip(axes, panels, strict=True):
            _draw(ax, panel, iterations, drops)
            _name_styles(ax, panel, held_out)
    return figure


def add_legend(
    owner: Axes | Figure, handles: Sequence[Artist], labels: Sequence[str], **options: Any
) -> Legend:
    """Add a legend with labels as they are written: Matplotlib leaves those out that begin with "_"."""
    legend = owner.legend(handles, ["-"] * len(handles), frameon=False, labelcolor=INK, **options)
    names = "".join(labels)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)
        if not names.isascii():
            text.set_fontfamily([OWN, font_with(names).name])
    return legend


def axis_top(values: Iterable[float]) -> float:
    """Return where an axis from 0 ends that holds these values: a round number, 100 at most for percent."""
    highest = max(values, default=0.0) or 1.0
    step = 10.0 ** math.floor(math.log10(highest))
    return next(n * step for n in ROUND if n * step >= highest * (1 - 1e-9))


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


def colour_of(depth: int) -> str:
    """Return the colour of networks of a depth."""
    return next((colour for known, colour in COLOURS.items() if depth <= known), COLOURS[1202])


def _draw(ax: Axes, panel: Panel, iterations: int, drops: list[int]) -> None:
    top = panel.top
    # A line above the legend, so that neither is too long for the other.
    ax.set_title(panel.title, color=INK, loc="left", pad=24)
    ax.set_xlabel("iterations", color=INK)
    ax.set_ylabel(panel.measure, color=INK)
    ax.set_xlim(0, iterations)
    ax.set_ylim(0, top)
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter("{x:,.9g}")
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
    if iterations >= 10_000:
        ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
    style_axes(ax)
    free, room = 0.0, DROP_NAME * iterations
    for drop in drops:
        ax.axvline(drop, color=INK, alpha=0.5, linewidth=0.8, linestyle=":")
        # At the right there is room before the line only.
        side: dict[str, Any] = {"xytext": (3, 0), "ha": "left"}
        start: float = drop
        if drop > iterations - room:
            side, start = {"xytext": (-3, 0), "ha": "right"}, drop - room
        # Among drops close to each other the first one is named: they are one kind of line.
        if start < free:
            continue
        free = start + room
        at = (drop, 0.99 * top)
        ax.annotate("lr ÷ 10", at, textcoords="offset points", va="top", size=8, color=INK, zorder=4, **side)
    ends = [values[-1] for curve in panel.curves if (values := getattr(curve, panel.show[-1]))]
    # What ends at no number has left the axes.
    heights = _label_heights([end if math.isfinite(end) else top for end in ends], top)
    for curve in panel.curves:
        # A curve that ends at 0 % lies on the frame: it is drawn over it, not cut in half. One that leaves
        # the axes at the top is cut there.
        for line in panel.show:
            values = getattr(curve, line)
            if not values:
                continue
            ax.plot(
                curve.iterations,
                values,
                color=curve.colour,
                clip_on=any(value > top for value in values),  # NaN is not
                zorder=3,
                # One evaluation is a point, and no line.
                marker=curve.mark or ("o" if len(values) == 1 else None),
                markevery=max(1, len(values) // 12),
                **(TRAINING if line == "training" else HELD_OUT),
            )
        if curve.deviation and "held_out" in panel.show:
            low, high = (
                [v + sign * d for v, d in zip(curve.held_out, curve.deviation, strict=True)]
                for sign in (-1, 1)
            )
            ax.fill_between(curve.iterations, low, high, color=curve.colour, alpha=0.2, linewidth=0)
    labelled = [curve for curve in panel.curves if getattr(curve, panel.show[-1])]
    for curve, height in zip(labelled, heights, strict=True):
        ax.annotate(
            curve.label + MARKS[curve.mark],
            (iterations, height),
            (6, 0),
            textcoords="offset points",
            va="center",
            color=curve.colour,
            weight="bold",
            annotation_clip=False,
        )


def style_axes(ax: Axes) -> None:
    """Give axes the ink, the grid and the open frame that all figures have."""
    ax.tick_params(colors=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color=INK, alpha=0.15, linewidth=0.6)


def _name_styles(ax: Axes, panel: Panel, held_out: str) -> None:
    """Say what dashed and bold mean above the axes, where no curve and no label can be."""
    styles = {"training": ("training", TRAINING), "held_out": (held_out, HELD_OUT)}
    shown = [styles[line] for line in panel.show]
    add_legend(
        ax,
        [Line2D([], [], color=INK, **style) for _, style in shown],
        [name for name, _ in shown],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        borderpad=0,
        ncols=len(shown),
        columnspacing=1,
    )


def _label_heights(ends: list[float], top: float) -> list[float]:
    """Return where the labels of curves stand that end at these errors: in their order, none on another."""
    gap = LABEL_GAP * top / 100
    heights = [min(end, float(top)) for end in ends]
    order = sorted(range(len(ends)), key=ends.__getitem__)
    for below, above in pairwise(order):
        heights[above] = max(heights[above], heights[below] + gap)
    # What stands too high pushes those below it down again.
    room = float(top)
    for number in reversed(order):
        heights[number] = min(heights[number], room)
        room = heights[number] - gap
    return heights
