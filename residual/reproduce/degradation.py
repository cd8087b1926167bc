"""Figure 6 on handwritten digits: plain and residual networks of 20 and 56 layers, and a page about them.

The digits and the short schedule are ours (recipes/digits.py), so that the effect can be seen at once; the
networks and all that is said about them are the paper's.
"""

import base64
import io
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from markupsafe import Markup
from PIL import Image

from .. import __version__
from ..analysis.figures import Panel, page_svg
from ..data import load_dataset
from ..files import write_derived
from ..recipes import Recipe, find
from ..table import Table, TableRow
from ..terminal import say
from ..training.folder import RunFolder
from .curves import UNLEARNED, by_kind, curve, draw
from .output import render, ways_to, write_figure
from .study import ClassifierRun, Family, Study, environments

DIGITS = Family(
    "digits-",
    Recipe,
    ClassifierRun,
    ("name", "model", "data.dataset"),
    "reproduce degradation compares these four networks on the digits; for another network or dataset use "
    "residual train",
    seeds=False,
)
#: The four run folders, in the order of Figure 6.
RUNS = ("plain20", "plain56", "resnet20", "resnet56")
#: Where the axis of the error ends, in percent.
TOP = 100
#: Two training errors within this many percentage points (14 of the 1,438 images) are called alike: one run
#: of a network cannot tell less from chance.
ALIKE = 1.0


@dataclass(frozen=True)
class Verdict:
    """What the four final training errors, in percent, say about degradation and its cure."""

    plain20: float
    plain56: float
    resnet20: float
    resnet56: float

    @property
    def learned(self) -> bool:
        """Whether the shallow networks have learned enough for depth to be compared."""
        return max(self.plain20, self.resnet20) <= UNLEARNED

    @property
    def degrades(self) -> bool:
        """Whether the deeper plain network has the higher training error."""
        return self.learned and self.plain56 - self.plain20 > ALIKE

    @property
    def helps(self) -> bool:
        """Whether the deeper network has a lower training error with shortcuts than without."""
        return self.plain56 - self.resnet56 > ALIKE

    @property
    def cured(self) -> bool:
        """Whether the deeper residual network trains as well as the shallower one, or better."""
        return self.degrades and self.helps and self.resnet56 - self.resnet20 <= ALIKE

    @property
    def sentences(self) -> list[str]:
        """The verdict in words."""
        if not self.learned:
            return [
                f"Too early to tell: with 20 layers the training error is {self.plain20:.2f} % (plain) and "
                f"{self.resnet20:.2f} % (residual), so depth cannot be blamed yet. Train for longer."
            ]
        plain = f"is {self.plain56:.2f} % with 56 layers and {self.plain20:.2f} % with 20"
        residual = f"it is {self.resnet56:.2f} % with 56 layers and {self.resnet20:.2f} % with 20"
        if not self.degrades:
            return [
                f"No degradation in these runs: the training error of the plain networks {plain}.",
                f"So there is nothing to cure; in the residual networks {residual}.",
            ]
        first = f"Degradation: the training error of the plain networks {plain}."
        if self.cured:
            return [first, f"Residual learning cures it here: in the residual networks {residual}."]
        if self.helps:
            return [first, f"Residual learning lessens it here: in the residual networks {residual}."]
        return [first, f"Residual learning does not cure it here: in the residual networks {residual}."]


def reproduce(out: Path, *, seed: int, settings: list[str], device: str) -> Path:
    """Train the four networks, or take those that are there, and write the page about them.

    What was interrupted is continued: a complete run is read, a begun one resumed, a missing one trained.

    Args:
        out: folder of the four run folders, ``report.html``, ``errors.svg`` and ``errors.png``.
        seed: of each run.
        settings: changes to all four recipes, as ``schedule.iterations=2000``.
        device: as in ``run.train``.

    Returns:
        The page's path.

    Raises:
        InputError: for settings that are wrong or make it another experiment, for a folder that holds runs
            of other recipes or cannot be written.
        Interrupted: after SIGINT or SIGTERM.
    """
    started = time.perf_counter()
    study = Study(out, DIGITS, settings, device=device)
    there = [name for name in RUNS if RunFolder(study.path(name)).results_file.exists()]
    members = {run.network: run for run in study.runs(RUNS, [seed])}
    if there:
        say(f"were there already: {', '.join(there)}")
    page = _write(out, members)
    _show(members, page, time.perf_counter() - started)
    return page


def _verdict(members: dict[str, ClassifierRun]) -> Verdict:
    return Verdict(**{name: member.training_error for name, member in members.items()})


def _show(members: dict[str, ClassifierRun], page: Path, seconds: float) -> None:
    rows = [
        TableRow(
            [
                member.label,
                f"{member.results['parameters']:,}",
                f"{member.training_error:.2f} %",
                f"{member.test_error:.2f} %",
                f"{member.results['seconds']:.0f}",
            ]
        )
        for member in members.values()
    ]
    headings = ("network", "parameters", "training error", "test error", "seconds")
    Table("Handwritten digits, final weights", headings, rows).print()
    trained = sum(member.results["seconds"] for member in members.values())
    say(*_verdict(members).sentences)
    say(f"Training took {trained:.0f} s in all, this command {seconds:.0f} s.", *ways_to(page))


def _write(out: Path, members: dict[str, ClassifierRun]) -> Path:
    """Write the page and its figure, both derived from the run folders and replaced as a whole."""
    runs = list(members.values())
    panels = [
        Panel(title, tuple(map(curve, kind)))
        for title, kind in zip(("plain networks", "residual networks"), by_kind(runs), strict=True)
    ]
    held_out = runs[0].held_out
    text = render(
        "degradation.html.jinja",
        members=members,
        verdict=_verdict(members),
        alike=ALIKE,
        panels=[
            Markup(page_svg(draw([panel], runs, TOP), _description(panel, held_out))) for panel in panels
        ],
        held_out=held_out,
        digits=_digits(),
        recipe=runs[0].recipe,
        environments=environments(runs),
        hours={name: _cifar10_hours(member) for name, member in members.items()},
        version=__version__,
        readme=_readme(out),
    )
    write_figure(out, "errors", draw(panels, runs, TOP))
    page = out / "report.html"
    write_derived(page, text)
    return page


def _description(panel: Panel, held_out: str) -> str:
    """Return the figure in words, for a reader who cannot see it."""
    ends = " and ".join(
        f"{curve.depth}-layer, training {curve.training[-1]:.1f} %, {held_out} {curve.held_out[-1]:.1f} %"
        for curve in panel.curves
    )
    return f"Error against iterations, {panel.title}. At the end: {ends}."


def _digits() -> str:
    """Return two training images of each digit as a PNG's data address, dark on white."""
    digits = load_dataset("digits", "train")
    rows = []
    for occurrence in range(2):
        chosen = [int((digits.targets == digit).nonzero()[occurrence]) for digit in range(10)]
        # A white pixel around each image keeps neighbours apart.
        tiles = torch.nn.functional.pad(255 - digits.images[chosen, 0], (1, 1, 1, 1), value=255)
        rows.append(torch.cat(list(tiles), dim=1))
    buffer = io.BytesIO()
    Image.fromarray(torch.cat(rows).numpy()).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _cifar10_hours(member: ClassifierRun) -> float:
    """Return a rough guess at the hours that a network's run on CIFAR-10 takes at this run's speed.

    The work grows with the images seen and with their pixels, 32 x 32 against 8 x 8.
    """
    paper = find(f"cifar10-{member.network}")
    seen = member.recipe.schedule.iterations * member.recipe.batch.size
    ratio = paper.schedule.iterations * paper.batch.size / seen * (32 / 8) ** 2
    return float(member.results["seconds"]) * ratio / 3600


def _readme(out: Path) -> str | None:
    """Return the way from the page to the README, None where the package was installed without its source."""
    readme = Path(__file__).parents[2] / "README.md"
    return os.path.relpath(readme, out.resolve()) if readme.is_file() else None
