"""Errors against what networks cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from .figures import INK, PALETTE, PANEL, STYLE, add_legend, style_axes

OURS, RIVALS = PALETTE[0], PALETTE[1]

#: Where a name may stand: points to the right of its mark and above, and which side of the name is there.
PLACES = (
    ((7, 0), "left", "center"),
    ((-7, 0), "right", "center"),
    ((0, 7), "center", "bottom"),
    ((0, -7), "center", "top"),
    ((7, 9), "left", "bottom"),
    ((-7, 9), "right", "bottom"),
    ((7, -9), "left", "top"),
    ((-7, -9), "right", "top"),
)
#: An axis reaches so many times below and above its middle at least: one that is shorter may have no number.
LEAST = 2.5
#: Half of a mark's width in points, its edge included.
MARK = 4


@dataclass(frozen=True)
class CostPoint:
    """A network's errors in percent, and what it costs.

    Attributes:
        label: its name.
        costs: above 0, one for each panel.
        measured: our error, None where it was not run.
        published: the one that was published, None where there is none or it is not to be compared.
        joined: whether it is one of the residual networks, which a line joins.
    """

    label: str
    costs: Sequence[float]
    measured: float | None
    published: float | None
    joined: bool


def errors_against_costs(points: Sequence[CostPoint], costs: Sequence[str], error: str) -> Figure:
    """Draw error (%) against each cost: filled where measured, hollow where published.

    Args:
        points: each with an error of one kind at least.
        costs: what stands at the axes below.
        error: what stands at the axis on the left.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(PANEL[0] * len(costs), PANEL[1] + 0.4), layout="constrained")
        axes = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
        for number, (ax, cost) in enumerate(zip(axes, costs, strict=True)):
            ax.set_xscale("log")
            ax.set_xlabel(cost, color=INK)
            _draw(ax, points, number)
            style_axes(ax)
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.xaxis.set_major_formatter("{x:g}")
            ax.margins(0.18, 0.1)
            low, high = ax.get_xlim()
            middle = (low * high) ** 0.5
            ax.set_xlim(min(low, middle / LEAST), max(high, middle * LEAST))
        axes[0].set_ylabel(error, color=INK)
        # The edge of a mark and what is in it: colours are kinds of networks.
        looks = {
            "measured here": (INK, INK, any(p.measured is not None for p in points)),
            "published": (INK, "white", any(p.published is not None for p in points)),
            "residual networks": (OURS, OURS, any(p.joined for p in points)),
            "others": (RIVALS, RIVALS, any(not p.joined for p in points)),
        }
        shown = {name: colours for name, (*colours, there) in looks.items() if there}
        add_legend(
            axes[0],
            [Line2D([], [], color=edge, marker="o", ls="", mfc=face) for edge, face in shown.values()],
            list(shown),
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=len(shown),
            borderaxespad=0.2,
            borderpad=0,
            columnspacing=1,
        )
        # Where names lie is known when everything else has its place.
        figure.draw_without_rendering()
        for number, ax in enumerate(axes):
            _name(ax, points, number)
    return figure


def _draw(ax: Axes, points: Sequence[CostPoint], number: int) -> None:
    for kind, filled in (("measured", True), ("published", False)):
        line = [p for p in points if p.joined and getattr(p, kind) is not None]
        line.sort(key=lambda p: p.costs[number])
        ax.plot(
            [p.costs[number] for p in line],
            [getattr(p, kind) for p in line],
            color=OURS,
            linewidth=1.4 if filled else 0.9,
            linestyle="-" if filled else (0, (4, 2)),
        )
        for point in points:
            if (value := getattr(point, kind)) is None:
                continue
            colour = OURS if point.joined else RIVALS
            ax.plot(
                [point.costs[number]],
                [value],
                color=colour,
                marker="o",
                markersize=6,
                markerfacecolor=colour if filled else "white",
                zorder=3,
            )


def _name(ax: Axes, points: Sequence[CostPoint], number: int) -> None:
    """Name every network once, at what was measured: where the name lies on no mark, other name or edge."""
    half = MARK / 72 * ax.figure.dpi
    taken = []
    for point in points:
        for value in (point.measured, point.published):
            if value is not None:
                x, y = ax.transData.transform((point.costs[number], value))
                taken.append(Bbox.from_extents(x - half, y - half, x + half, y + half))
    # The lowest first, so that where marks touch the name above is the upper one's.
    for point in sorted(points, key=_height):
        where, offset = (point.costs[number], _height(point)), PLACES[0][0]
        name = ax.annotate(point.label, where, offset, textcoords="offset points", size=8, color=INK)
        # Where nowhere is free it stands as readers expect it.
        for place, ha, va in (*PLACES, PLACES[0]):
            name.xyann = place
            name.set(ha=ha, va=va)
            box = name.get_window_extent()
            if ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 and not box.count_overlaps(taken):
                break
        taken.append(box)


def _height(point: CostPoint) -> float:
    value = point.published if point.measured is None else point.measured
    assert value is not None
    return value
