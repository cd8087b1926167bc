"""Figure 6 on handwritten digits: plain and residual networks of 20 and 56 layers, and a page about them.

The digits and the short schedule are ours (recipes/digits.py), so that the effect can be seen at once; the
networks and all that is said about them are the paper's.
"""

import base64
import io
import os
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup
from PIL import Image
from rich.console import Console
from rich.table import Table

from .. import run
from ..analysis.figures import Curve, Panel, error_curves, page_svg
from ..data import load_dataset
from ..errors import InputError, Interrupted
from ..recipes import Recipe, find, override
from ..training.folder import RunFolder
from .files import write_figure, write_text
from .page import render
from .study import Finished, environments, is_begun, read_finished

#: The four run folders, in the order of Figure 6; their recipes are digits-plain20 and so on.
RUNS = ("plain20", "plain56", "resnet20", "resnet56")
#: Two training errors within this many percentage points (14 of the 1,438 pictures) are called alike: a run
#: a network cannot tell less from chance.
ALIKE = 1.0
#: A 20-layer network that gets more than this part of its training pictures wrong, in percent, has not
#: learned yet, and says nothing about depth.
UNLEARNED = 50.0


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
    recipes = {name: _recipe(name, seed, settings) for name in RUNS}
    # All folders before any training: what does not fit is said at once, not after a minute.
    begun = {name: is_begun(out / name, recipe) for name, recipe in recipes.items()}
    there = [name for name in RUNS if RunFolder(out / name).results_file.exists()]
    console = Console()
    if there:
        console.print(f"already there: {', '.join(there)}", highlight=False)
    for name in RUNS:
        try:
            run.train(recipes[name], out / name, device=device, resume=begun[name])
        except Interrupted as error:
            stopped = f"stopped in {out / name}; give the same command again to go on"
            raise Interrupted(stopped, error.signal) from None
    members = {name: _read(out / name) for name in RUNS}
    page = _write(out, members)
    _show(console, members, page, time.perf_counter() - started)
    return page


def _recipe(name: str, seed: int, settings: list[str]) -> Recipe:
    original = override(find(f"digits-{name}"), [f"seed={seed}"])
    recipe = override(original, settings)
    if recipe.model != original.model or recipe.data.dataset != original.data.dataset:
        raise InputError(
            "reproduce degradation compares these four networks on the digits; for another network or data "
            "set use residual train"
        )
    return recipe


def _read(path: Path) -> Finished:
    finished = read_finished(path)
    assert finished is not None, path
    return finished


def _verdict(members: dict[str, Finished]) -> Verdict:
    return Verdict(**{name: member.training_error for name, member in members.items()})


def _show(console: Console, members: dict[str, Finished], page: Path, seconds: float) -> None:
    table = Table("network", title="Handwritten digits, final weights")
    for heading in ("parameters", "training error", "test error", "seconds"):
        table.add_column(heading, justify="right")
    for member in members.values():
        table.add_row(
            member.label,
            f"{member.results['parameters']:,}",
            f"{member.training_error:.2f} %",
            f"{member.test_error:.2f} %",
            f"{member.results['seconds']:.0f}",
        )
    console.print(table)
    trained = sum(member.results["seconds"] for member in members.values())
    for line in (
        *_verdict(members).sentences,
        f"Training took {trained:.0f} s in all, this command {seconds:.0f} s.",
        f"The page: {page}",
        f"Open it in a browser: {page.resolve().as_uri()}",
    ):
        # A path that is folded at the terminal's edge cannot be copied.
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _write(out: Path, members: dict[str, Finished]) -> Path:
    """Write the page and its figure, both derived from the run folders and replaced as a whole."""
    recipe = members["plain20"].recipe
    schedule = recipe.schedule
    held_out = "validation" if recipe.data.validation else "test"
    axes: dict[str, Any] = {
        "iterations": schedule.iterations,
        "drops": [round(drop * schedule.iterations) for drop in schedule.drops],
        "held_out": held_out,
    }
    curves = {name: _curve(member, held_out) for name, member in members.items()}
    panels = [
        Panel("plain networks", (curves["plain20"], curves["plain56"])),
        Panel("residual networks", (curves["resnet20"], curves["resnet56"])),
    ]
    figure = error_curves(panels, **axes)
    text = render(
        "degradation.html.jinja",
        members=members,
        verdict=_verdict(members),
        alike=ALIKE,
        panels=[
            Markup(page_svg(error_curves([panel], **axes), _description(panel, held_out))) for panel in panels
        ],
        held_out=held_out,
        digits=_digits(),
        recipe=recipe,
        environments=environments(members.values()),
        hours={name: _cifar10_hours(member) for name, member in members.items()},
        version=version("residual"),
        readme=_readme(out),
    )
    write_figure(out, "errors", figure)
    page = out / "report.html"
    write_text(page, text)
    return page


def _curve(member: Finished, held_out: str) -> Curve:
    return Curve(
        member.depth,
        [line["iteration"] for line in member.metrics],
        [line["train"]["top1_error"] for line in member.metrics],
        [line[held_out]["top1_error"] for line in member.metrics],
    )


def _description(panel: Panel, held_out: str) -> str:
    """Return the figure in words, for a reader who cannot see it."""
    ends = " and ".join(
        f"{curve.depth}-layer, training {curve.training[-1]:.1f} %, {held_out} {curve.held_out[-1]:.1f} %"
        for curve in panel.curves
    )
    return f"Error against iterations, {panel.title}. At the end: {ends}."


def _digits() -> str:
    """Return two training pictures of each digit as a PNG's data address, dark on white."""
    pictures = load_dataset("digits", "train")
    rows = []
    for occurrence in range(2):
        chosen = [int((pictures.targets == digit).nonzero()[occurrence]) for digit in range(10)]
        # A white pixel around each picture keeps neighbours apart.
        tiles = torch.nn.functional.pad(255 - pictures.images[chosen, 0], (1, 1, 1, 1), value=255)
        rows.append(torch.cat(list(tiles), dim=1))
    buffer = io.BytesIO()
    Image.fromarray(torch.cat(rows).numpy()).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _cifar10_hours(member: Finished) -> float:
    """Return a rough guess at the hours that a network's run on CIFAR-10 takes at this run's speed.

    The work grows with the pictures seen and with their pixels, 32 x 32 against 8 x 8.
    """
    paper = find(f"cifar10-{member.network}")
    seen = member.recipe.schedule.iterations * member.recipe.batch.size
    ratio = paper.schedule.iterations * paper.batch.size / seen * (32 / 8) ** 2
    return float(member.results["seconds"]) * ratio / 3600


def _readme(out: Path) -> str | None:
    """Return the way from the page to the README, None where the package was installed without its source."""
    readme = Path(__file__).parents[2] / "README.md"
    return os.path.relpath(readme, out.resolve()) if readme.is_file() else None
