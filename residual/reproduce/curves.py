"""Figures 1 and 6: errors against iterations on CIFAR-10, plain and residual networks."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console

from ..analysis.figures import Curve, Panel, error_curves
from .files import write_figure, write_json
from .study import Finished, Study

#: Figure 1, and the three panels of Figure 6. "The error of plain-110 is higher than 60% and not displayed."
FIGURE1 = ("plain20", "plain56")
FIGURE6 = {
    "plain networks": ("plain20", "plain32", "plain44", "plain56"),
    "residual networks": ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110"),
    "ResNet-110 and -1202": ("resnet110", "resnet1202"),
}
#: Two training errors within this many percentage points are called alike.
ALIKE = 0.1
#: A shallowest network that gets more than this part of its training pictures wrong, in percent, says nothing
#: about depth.
UNLEARNED = 50.0
#: Axes of the paper's figures end here, in percent.
PAPER_TOP = 20


def figure1(study: Study) -> list[str]:
    """Run what is missing, draw Figure 1 as figure1.svg and .png, and return what it says.

    Raises:
        InputError, Interrupted: as ``Study.runs``.
    """
    found = study.runs(FIGURE1, 1)
    runs = [found[name][0] for name in FIGURE1 if found[name]]
    return finish(study, "figure1", draw_figure1(runs), runs)


def figure6(study: Study, depths: Sequence[int]) -> list[str]:
    """Run what is missing, draw Figure 6 as figure6.svg and .png, and return what it says.

    Args:
        depths: of the networks; plain-110 and plain-1202 are left out, as in the paper.

    Raises:
        InputError, Interrupted: as ``Study.runs``.
    """
    networks = networks_of(depths)
    found = study.runs(networks, 1)
    runs = [found[name][0] for name in networks if found[name]]
    return finish(study, "figure6", draw_figure6(runs), runs)


def networks_of(depths: Sequence[int]) -> list[str]:
    """Return the networks of Figure 6 among these depths, the plain ones first."""
    plain = [f"plain{depth}" for depth in depths if depth < 110]
    return plain + [f"resnet{depth}" for depth in depths]


def draw_figure1(runs: list[Finished]) -> Figure | None:
    """Return training error (left) and test error (right) of the plain networks; None without runs."""
    if not runs:
        return None
    curves = tuple(curve(run) for run in runs)
    training = Panel("training error", curves, ("training",))
    held_out = Panel(f"{runs[0].held_out} error", curves, ("held_out",))
    return draw([training, held_out], runs)


def draw_figure6(runs: list[Finished]) -> Figure | None:
    """Return the panels of Figure 6 for which there are runs; None without any."""
    by_name = {run.network: run for run in runs}
    known = {name for names in FIGURE6.values() for name in names}
    panels = []
    for title, names in FIGURE6.items():
        # Depths that the paper has not stand beside those that it has.
        kind = "plain" if title.startswith("plain") else "resnet"
        more = [n for n in by_name if n not in known and n.startswith(kind)] if "networks" in title else []
        chosen = sorted((by_name[n] for n in [*names, *more] if n in by_name), key=lambda run: run.depth)
        # The third panel is about 1202 layers.
        if chosen and not (title.endswith("1202") and "resnet1202" not in by_name):
            panels.append(Panel(title, tuple(curve(run) for run in chosen)))
    return draw(panels, runs) if panels else None


def curve(run: Finished) -> Curve:
    """Return a run's errors as its log has them."""
    return Curve(
        run.depth,
        [line["iteration"] for line in run.metrics],
        [line["train"]["top1_error"] for line in run.metrics],
        [line[run.held_out]["top1_error"] for line in run.metrics],
    )


def sentences(runs: list[Finished]) -> list[str]:
    """Return what the final training errors say about depth, for each kind of network."""
    said = []
    for kind, name in (("plain", "plain networks"), ("resnet", "residual networks")):
        chosen = sorted((run for run in runs if run.network.startswith(kind)), key=lambda run: run.depth)
        if len(chosen) < 2:
            continue
        numbers = ", ".join(f"{run.depth} layers {run.training_error:.2f} %" for run in chosen)
        change = chosen[-1].training_error - chosen[0].training_error
        if chosen[0].training_error > UNLEARNED:
            verdict = "is that of networks that have not learned yet, so depth cannot be blamed"
        elif change > ALIKE:
            verdict = "rises with depth: degradation" if kind == "plain" else "rises with depth"
        elif change < -ALIKE:
            verdict = "falls with depth"
        else:
            verdict = "does not change with depth"
        said.append(f"{name}: the training error of the final weights {verdict} ({numbers})")
    return said


def draw(panels: list[Panel], runs: list[Finished], paper_top: int = PAPER_TOP) -> Figure:
    """Return error curves on the paper's axes, unless a short run ends above them."""
    lowest = [min(min(c.training), min(c.held_out)) for panel in panels for c in panel.curves]
    ends = [max(c.training[-1], c.held_out[-1]) for panel in panels for c in panel.curves]
    fits = max(ends) < paper_top and max(lowest) < paper_top
    return error_curves(
        panels,
        iterations=runs[0].results["iterations"],
        drops=runs[0].drops,
        held_out=runs[0].held_out,
        top=paper_top if fits else 100,
    )


def finish(study: Study, name: str, figure: Figure | None, runs: list[Finished]) -> list[str]:
    """Write a figure of error curves and its data, and print what they say."""
    console = Console()
    if figure is None:
        console.print(f"{name}: not run (none of its runs is in {study.out})", highlight=False)
        return []
    write_figure(study.out, name, figure)
    said = sentences(runs)
    write_json(study.out / f"{name}.json", as_json(runs, said))
    written = f"written: {study.out / name}.svg, .png, .json"
    for line in [*said, *_departures(runs), written]:
        console.print(line, highlight=False, soft_wrap=True)
    return said


def as_json(runs: list[Finished], said: list[str]) -> dict[str, Any]:
    """Return the curves as plain data."""
    return {
        "statements": said,
        "departures": runs[0].departures,
        "networks": {
            run.label: {
                "training_error": run.training_error,
                f"{run.held_out}_error": run.results[run.held_out]["top1_error"],
                "iterations": (drawn := curve(run)).iterations,
                "training_curve": drawn.training,
                f"{run.held_out}_curve": drawn.held_out,
            }
            for run in runs
        },
    }


def _departures(runs: list[Finished]) -> list[str]:
    changes = runs[0].departures
    return [f"not the paper's schedule: {'; '.join(changes)}"] if changes else []
