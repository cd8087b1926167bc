"""Layer responses in the manner of Figure 7, and signals by layer (Section 4.1), as figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .figures import INK, STYLE, add_legend, colour_of
from .layers import Response, Signal

#: Plain networks dashed, residual ones solid, as in Figure 7.
LINES: dict[bool, dict[str, Any]] = {
    True: {"linewidth": 1.4, "linestyle": (0, (4, 2))},
    False: {"linewidth": 1.8},
}


@dataclass(frozen=True)
class Named:
    """What a figure calls a network; its line is dashed where it has no shortcuts.

    Attributes:
        depth: decides on the colour, so that a network and its counterpart are seen as a pair.
    """

    label: str
    depth: int
    plain: bool


def responses_figure(networks: Sequence[tuple[Named, list[Response]]]) -> Figure:
    """Draw Figure 7: standard deviation of each 3x3 layer's response, in layer order and in descending order.

    Args:
        networks: the shallowest of each kind first.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 6.2), layout="constrained")
        above, below = figure.subplots(2, 1)
        labels = [named.label for named, _ in networks]
        for ax, title, ordered in (
            (above, "in the network's order", lambda values: values),
            (below, "in descending order", lambda values: sorted(values, reverse=True)),
        ):
            series = [(named, ordered([r.std for r in measured])) for named, measured in networks]
            _draw(ax, series)
            _label(ax, title, f"layer index ({title.removeprefix('in ')})", "std of the response")
            ax.set_ylim(bottom=0)
        add_legend(above, above.lines, labels, ncols=len(networks), loc="upper right", fontsize=9)
    return figure


def signals_figure(networks: Sequence[tuple[Named, dict[str, list[Signal]]]]) -> Figure:
    """Draw what passes through each layer: variances going forwards, gradients' norms going backwards.

    Args:
        networks: each with its signals by moment ("at initialisation", "after training"), a column each.
    """
    moments = list(networks[0][1])
    rows = (
        ("variance before BN", "variance_before"),
        ("variance after BN", "variance"),
        ("gradient's norm", "gradient_norm"),
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(moments), 7.6), layout="constrained")
        grid = figure.subplots(len(rows), len(moments), squeeze=False, sharey="row")
        for column, moment in enumerate(moments):
            for row, (name, attribute) in enumerate(rows):
                ax = grid[row][column]
                series = [
                    (named, [getattr(signal, attribute) for signal in by_moment[moment]])
                    for named, by_moment in networks
                ]
                # Networks of all depths side by side: 0 is the first 3x3 layer, 1 the last.
                _draw(ax, series, relative=True)
                last = row == len(rows) - 1
                _label(
                    ax,
                    moment if row == 0 else "",
                    "depth (0: first layer, 1: last)" if last else "",
                    name if column == 0 else "",
                )
        # The axes of a row are shared: their limits are set when both columns are drawn.
        for row in grid:
            _logarithmic(row[0])
        labels = [named.label for named, _ in networks]
        add_legend(figure, grid[0][0].lines, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _draw(ax: Axes, series: list[tuple[Named, list[float]]], relative: bool = False) -> None:
    for named, values in series:
        last = max(len(values) - 1, 1)
        places = [i / last if relative else i + 1 for i in range(len(values))]
        ax.plot(places, values, color=colour_of(named.depth), **LINES[named.plain])


def _logarithmic(ax: Axes) -> None:
    """Make the axis logarithmic and at least two decades long: small differences are to look small."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    middle = (low * high) ** 0.5
    ax.set_ylim(min(low, middle / 10), max(high, middle * 10))
    ax.yaxis.set_major_formatter("{x:g}")


def _label(ax: Axes, title: str, x: str, y: str) -> None:
    ax.set_title(title, color=INK, loc="left")
    ax.set_xlabel(x, color=INK)
    ax.set_ylabel(y, color=INK)
    ax.tick_params(colors=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color=INK, alpha=0.15, linewidth=0.6)
