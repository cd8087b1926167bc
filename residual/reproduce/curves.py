"""Figures 1 and 6: errors against iterations on CIFAR-10, plain and residual networks."""

from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup
from matplotlib.figure import Figure

from ..analysis.figures import ErrorCurve, Panel, colour_of, error_curves
from ..analysis.page import part
from ..table import Table
from .output import publish_figure
from .study import ClassifierRun, Study

#: The networks of Figure 1, and the depths of Figure 6 but for 1202 layers.
FIGURE1 = ("plain20", "plain56")
DEPTHS = (20, 32, 44, 56, 110)
#: The paper's nearest rivals in Table 6, of its own recipe here.
HIGHWAYS = ("highway19", "highway32")
#: The last one of the plain networks, and of Figure 6's residual networks before the panel of 1202 layers.
#: "The error of plain-110 is higher than 60% and not displayed."
DEEPEST_PLAIN, DEEPEST = 56, 110
#: Two training errors within this many percentage points are called alike.
ALIKE = 0.1
#: A shallowest network that is right about less than half of its training images, and less than so many times
#: as often as chance, says nothing about depth.
TIMES_CHANCE = 5
#: Axes of the paper's figures end here, in percent.
PAPER_TOP = 20


def figure1(study: Study[ClassifierRun]) -> None:
    """Run what is missing, draw Figure 1 as figure1.svg and .png, and say what it shows.

    Raises:
        InputError, Interrupted: as ``Study.runs``.
    """
    runs = study.runs(FIGURE1)
    publish_curves(study, "figure1", draw(figure1_panels(runs), runs), runs)


def figure6(study: Study[ClassifierRun], depths: Sequence[int] = DEPTHS, highway: bool = False) -> None:
    """Run what is missing, draw Figure 6 as figure6.svg and .png, and say what it shows.

    Args:
        depths: of the networks; plain-110 and plain-1202 are left out, as in the paper.
        highway: whether to add a panel of the highway networks, which the paper's figure has not.

    Raises:
        InputError, Interrupted: as ``Study.runs``.
    """
    runs = study.runs([*networks_of(depths), *(HIGHWAYS if highway else ())])
    publish_curves(study, "figure6", draw(figure6_panels(runs), runs), runs)


def networks_of(depths: Sequence[int]) -> list[str]:
    """Return the networks of Figures 6 and 7 among these depths, the plain ones first."""
    plain = [f"plain{depth}" for depth in depths if depth <= DEEPEST_PLAIN]
    return plain + [f"resnet{depth}" for depth in depths]


def figure1_panels(runs: Sequence[ClassifierRun]) -> list[Panel]:
    """Return training error (left) and test error (right) of the plain networks; none without runs."""
    if not runs:
        return []
    curves = tuple(map(curve, runs))
    training = Panel("training error", curves, ("training",))
    held_out = Panel(f"{runs[0].held_out} error", curves, ("held_out",))
    return [training, held_out]


def figure6_panels(runs: Sequence[ClassifierRun]) -> list[Panel]:
    """Return the panels of Figure 6 for which there are runs, and one of highway networks."""
    plain, residual = by_kind(runs)
    highways = [run for run in runs if run.network in HIGHWAYS]
    deep = [run for run in residual if run.depth >= DEEPEST]
    chosen = {
        "plain networks": plain,
        "residual networks": [run for run in residual if run.depth <= DEEPEST],
        "ResNet-110 and -1202": deep if any(run.depth > DEEPEST for run in deep) else [],
        "highway networks": highways,
    }
    return [Panel(title, tuple(map(curve, shown))) for title, shown in chosen.items() if shown]


def by_kind(runs: Sequence[ClassifierRun]) -> tuple[list[ClassifierRun], list[ClassifierRun]]:
    """Return the plain and the residual networks, each from shallow to deep."""
    ordered = sorted(runs, key=lambda run: run.depth)
    plain = [run for run in ordered if run.network.startswith("plain")]
    return plain, [run for run in ordered if run.network.startswith("resnet")]


def curve(run: ClassifierRun) -> ErrorCurve:
    """Return a run's errors as its log has them."""
    return ErrorCurve(
        f"{run.depth}-layer",
        colour_of(run.depth),
        [line["iteration"] for line in run.metrics],
        [line["train"]["top1_error"] for line in run.metrics],
        [line[run.held_out]["top1_error"] for line in run.metrics],
    )


def sentences(runs: Sequence[ClassifierRun], alike: float = ALIKE) -> list[str]:
    """Return what the final training errors say about depth, for each kind of network.

    Args:
        alike: percentage points by which errors may differ that are taken for the same.
    """
    said = []
    for name, chosen in zip(("plain networks", "residual networks"), by_kind(runs), strict=True):
        if len(chosen) < 2:
            continue
        numbers = ", ".join(f"{run.depth} layers {run.training_error:.2f} %" for run in chosen)
        change = chosen[-1].training_error - chosen[0].training_error
        if chosen[0].training_error > unlearned(chosen[0].classes):
            verdict = "is that of networks that have not learned yet, so depth cannot be blamed"
        elif change > alike:
            verdict = "rises with depth: degradation" if chosen[0].plain else "rises with depth"
        elif change < -alike:
            verdict = "falls with depth"
        else:
            verdict = "does not change with depth"
        said.append(f"{name}: the final training error {verdict} ({numbers})")
    return said


def unlearned(classes: int) -> float:
    """Return the training error in percent above which a network has not learned."""
    return 100 * (1 - min(0.5, TIMES_CHANCE / classes))


def on_axes(panels: Sequence[Panel], paper_top: int | None = PAPER_TOP) -> list[Panel]:
    """Return panels on the paper's axes, unless a short run ends above them: then all errors are shown.

    Args:
        paper_top: where the paper's axis ends, in percent; None to leave the panels as they are.
    """
    if paper_top is None:
        return list(panels)
    lines = [line for panel in panels for c in panel.curves for line in (c.training, c.held_out)]
    fits = all(line[-1] < paper_top and min(line) < paper_top for line in lines)
    return [replace(panel, top=paper_top if fits else 100) for panel in panels]


def draw(
    panels: Sequence[Panel], runs: Sequence[ClassifierRun], paper_top: int | None = PAPER_TOP
) -> Figure | None:
    """Return error curves on the paper's axes as one figure, None without any.

    Args:
        runs: that the curves are of; where the rate of each follows its own plateaus, no drops are drawn.
        paper_top: as of ``on_axes``.
    """
    return _draw(on_axes(panels, paper_top), runs) if panels else None


def for_page(
    panels: Sequence[Panel], runs: Sequence[ClassifierRun], about: str, paper_top: int | None = PAPER_TOP
) -> list[Markup]:
    """Return error curves as parts of a page, one a panel: side by side, or below each other on a phone.

    Args:
        about: what the figure is, for a reader who cannot see it.
    """
    return [
        part(_draw([panel], runs), f"{about}, {panel.title}. {in_words(panel, runs[0].held_out)}")
        for panel in on_axes(panels, paper_top)
    ]


def in_words(panel: Panel, held_out: str) -> str:
    """Return where a panel's curves end, for a reader who cannot see it."""
    names = {"training": "training", "held_out": held_out}
    ends = (
        ", ".join([c.label, *(f"{names[line]} {getattr(c, line)[-1]:.1f} %" for line in panel.show)])
        for c in panel.curves
    )
    return f"At the end: {' and '.join(ends)}."


def _draw(panels: Sequence[Panel], runs: Sequence[ClassifierRun]) -> Figure:
    first = runs[0]
    length = max(run.results["iterations"] for run in runs)
    drops = first.drops if all(run.drops == first.drops for run in runs) else []
    return error_curves(panels, iterations=length, drops=drops, held_out=first.held_out)


def publish_curves(
    study: Study[ClassifierRun],
    name: str,
    figure: Figure | None,
    runs: Sequence[ClassifierRun],
    table: Table | None = None,
) -> None:
    """Write a figure of error curves and its data, and print what they say, and a table of their numbers."""
    networks = {}
    for run in runs:
        drawn = curve(run)
        networks[run.label] = {
            "training_error": run.training_error,
            f"{run.held_out}_error": run.results[run.held_out]["top1_error"],
            "iterations": drawn.iterations,
            "training_curve": drawn.training,
            f"{run.held_out}_curve": drawn.held_out,
        }
    publish_figure(study.out, name, runs, figure, sentences(runs), {"networks": networks}, table)
