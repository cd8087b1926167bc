"""Layer responses in the manner of Figure 7, and signals by layer (Section 4.1), as figures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from .figures import INK, PANEL, STYLE, add_legend, colour_of, style_axes
from .layers import Response, Signal

#: Plain networks dashed, residual ones solid, as in Figure 7.
LINES: dict[bool, dict[str, Any]] = {
    True: {"linewidth": 1.4, "linestyle": (0, (4, 2))},
    False: {"linewidth": 1.8},
}


#: The panels of Figure 7, and how layers are ordered in them.
ORDERS: dict[str, Callable[[list[float]], list[float]]] = {
    "in the network's order": list,
    "in descending order": lambda values: sorted(values, reverse=True),
}
#: What is drawn of signals, and its attribute.
SIGNALS = {
    "variance before BN": "variance_before",
    "variance after BN": "variance",
    "gradient's norm": "gradient_norm",
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
        figure = Figure(figsize=(8, 7), layout="constrained")
        axes = figure.subplots(2, 1)
        for ax, (title, ordered) in zip(axes, ORDERS.items(), strict=True):
            _draw_responses(ax, networks, title, ordered)
        _name_networks(figure, axes[0], networks)
    return figure


def response_panels(networks: Sequence[tuple[Named, list[Response]]]) -> dict[str, Figure]:
    """Return the panels of ``responses_figure`` as figures of their own, by their titles, for a page."""
    panels = {}
    for title, ordered in ORDERS.items():
        figure, ax = _panel()
        _draw_responses(ax, networks, title, ordered)
        _name_networks(figure, ax, networks)
        panels[title] = figure
    return panels


def signals_figure(networks: Sequence[tuple[Named, dict[str, list[Signal]]]]) -> Figure:
    """Draw what passes through each layer: variances going forwards, gradients' norms going backwards.

    Args:
        networks: each with its signals by moment ("at initialisation", "after training"), a column each.
    """
    moments = list(networks[0][1])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(moments), 8), layout="constrained")
        grid = figure.subplots(len(SIGNALS), len(moments), squeeze=False, sharey="row")
        for column, moment in enumerate(moments):
            for row, name in enumerate(SIGNALS):
                _draw_signal(grid[row][column], networks, moment, name)
        # The axes of a row are shared: their limits are set when both columns are drawn.
        for row in grid:
            _logarithmic(row[0])
        for ax in grid.flat:
            ax.label_outer()
        _name_networks(figure, grid[0][0], networks)
    return figure


def signal_panels(networks: Sequence[tuple[Named, dict[str, list[Signal]]]]) -> dict[str, Figure]:
    """Return the panels of ``signals_figure`` as figures of their own, by what they show, for a page."""
    panels = {}
    for name, attribute in SIGNALS.items():
        everything = [
            getattr(signal, attribute)
            for _, moments in networks
            for signals in moments.values()
            for signal in signals
        ]
        for moment in networks[0][1]:
            figure, ax = _panel()
            _draw_signal(ax, networks, moment, name)
            _logarithmic(ax, everything)
            _name_networks(figure, ax, networks)
            panels[f"{name}, {moment}"] = figure
    return panels


def _panel() -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(PANEL[0], PANEL[1] + 0.3), layout="constrained")
        return figure, figure.subplots()


def _draw_responses(
    ax: Axes,
    networks: Sequence[tuple[Named, list[Response]]],
    title: str,
    ordered: Callable[[list[float]], list[float]],
) -> None:
    series = [(named, ordered([response.std for response in measured])) for named, measured in networks]
    _draw(ax, series)
    _label(ax, title, f"layer index ({title.removeprefix('in ')})", "std of the response")
    ax.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10], integer=True))
    # One network whose responses are ten times the others' would hide what the figure is about.
    _logarithmic(ax)


def _draw_signal(
    ax: Axes, networks: Sequence[tuple[Named, dict[str, list[Signal]]]], moment: str, name: str
) -> None:
    series = [
        (named, [getattr(signal, SIGNALS[name]) for signal in moments[moment]]) for named, moments in networks
    ]
    # Networks of all depths side by side: 0 is the first 3x3 layer, 1 the last.
    _draw(ax, series, relative=True)
    _label(ax, moment, "depth (0: first layer, 1: last)", name)


def _name_networks(figure: Figure, ax: Axes, networks: Sequence[tuple[Named, object]]) -> None:
    """Say above all axes which line is which network's, in as many rows as there is room for."""
    columns = min(max(1, int(figure.get_figwidth() / 1.2)), len(networks))
    labels = [named.label for named, _ in networks]
    where = {"loc": "outside upper left", "fontsize": 9, "columnspacing": 1.2, "handlelength": 1.6}
    add_legend(figure, ax.lines, labels, ncols=columns, **where)


def _draw(ax: Axes, series: list[tuple[Named, list[float]]], relative: bool = False) -> None:
    for named, values in series:
        last = max(len(values) - 1, 1)
        places = [i / last if relative else i + 1 for i in range(len(values))]
        ax.plot(places, values, color=colour_of(named.depth), **LINES[named.plain])


def _logarithmic(ax: Axes, values: Sequence[float] = ()) -> None:
    """Make the axis logarithmic and at least two decades long: small differences are to look small.

    Args:
        values: that other axes show and this one is to have room for.
    """
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    positive = [value for value in values if value > 0]
    low, high = min([low, *positive]), max([high, *positive])
    middle = (low * high) ** 0.5
    ax.set_ylim(min(low, middle / 10), max(high, middle * 10))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}" if 0.001 <= value < 10_000 else _power(value))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _power(value: float) -> str:
    """Return a power of ten as text."""
    return "10" + f"{math.log10(value):.0f}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _label(ax: Axes, title: str, x: str, y: str) -> None:
    ax.set_title(title, color=INK, loc="left")
    ax.set_xlabel(x, color=INK)
    ax.set_ylabel(y, color=INK)
    style_axes(ax)
