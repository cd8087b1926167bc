"""Figure 6 on handwritten digits: plain and residual networks, 20 and 56 layers at least, and their page.

The digits and the short schedule are ours (recipes/digits.py), so that the effect can be seen at once; the
networks and all that is said about them are the paper's.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from ..analysis.figures import Panel, axis_top
from ..analysis.page import image_address, render
from ..data import load_dataset
from ..errors import InputError
from ..files import write_derived
from ..recipes import Recipe, digits, find
from ..table import Table, TableRow
from ..terminal import say
from ..training.folder import RunFolder
from .curves import by_kind, curve, draw, for_page, sentences, unlearned
from .output import ways_to, write_figure
from .study import ClassifierRun, Family, Study, environments

DIGITS = Family(
    "digits-",
    Recipe,
    ClassifierRun,
    ("name", "model", "data.dataset"),
    "reproduce degradation compares these networks on the digits; for another network or dataset use "
    "residual train",
    seeds=False,
)
#: The run folders of the comparison, in the order of Figure 6.
RUNS = ("plain20", "plain56", "resnet20", "resnet56")
#: What the digits are told apart into.
DIGITS_CLASSES = 10
#: The depths that are always compared.
DEPTHS = (20, 56)
#: Residual networks whose errors stay below this in the second half of the runs, in percent, are one flat
#: line on the axis of the plain ones: they get an enlarged panel of their own.
FLAT = 20
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
        return max(self.plain20, self.resnet20) <= unlearned(DIGITS_CLASSES)

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


def reproduce(
    out: Path, *, seed: int, settings: list[str], device: str, depths: Sequence[int] = DEPTHS
) -> Path:
    """Train the networks, or take those that are there, and write the page about them.

    What was interrupted is continued: a complete run is read, a begun one resumed, a missing one trained.

    Args:
        out: folder of the run folders, ``report.html``, ``errors.svg`` and ``errors.png``.
        seed: of each run.
        settings: changes to all recipes, as ``schedule.iterations=2000``.
        device: as in ``run.train``.
        depths: of the plain networks and of the residual ones; 20 and 56 are always among them.

    Returns:
        The page's path.

    Raises:
        InputError: for settings that are wrong or make it another experiment, for a depth without a recipe,
            for a folder that holds runs of other recipes or cannot be written.
        Interrupted: after SIGINT or SIGTERM.
    """
    started = time.perf_counter()
    study = Study(out, DIGITS, settings, device=device)
    names = networks_of(depths)
    there = [name for name in names if RunFolder(study.path(name)).results_file.exists()]
    members = {run.network: run for run in study.runs(names, [seed])}
    if there:
        say(f"were there already: {', '.join(there)}")
    page = _write(out, members)
    _show(members, page, time.perf_counter() - started)
    return page


def networks_of(depths: Sequence[int]) -> list[str]:
    """Return the networks of these depths and of those that are always compared, the plain ones first.

    Raises:
        InputError: for a depth without a recipe.
    """
    if strange := [depth for depth in depths if depth not in digits.DEPTHS]:
        known = ", ".join(map(str, digits.DEPTHS))
        raise InputError(f"--depths {strange[0]}: this experiment has networks of {known} layers")
    return [f"{kind}{depth}" for kind in ("plain", "resnet") for depth in sorted({*depths, *DEPTHS})]


def _verdict(members: dict[str, ClassifierRun]) -> Verdict:
    return Verdict(**{name: members[name].training_error for name in RUNS})


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
    panels = _panels(runs)
    shown = sorted({run.depth for run in runs})
    text = render(
        "degradation.html.jinja",
        members=members,
        depths=f"{', '.join(map(str, shown[:-1]))} and {shown[-1]}",
        verdict=_verdict(members),
        alike=ALIKE,
        sentences=sentences(runs, ALIKE) if len(runs) > len(RUNS) else [],
        panels=for_page(panels, runs, "Error against iterations", None),
        held_out=runs[0].held_out,
        digits=_digits(),
        recipe=runs[0].recipe,
        iterations=runs[0].results["iterations"],
        environments=environments(runs),
        hours={name: _cifar10_hours(members[name]) for name in RUNS},
        readme=_readme(out),
    )
    figure = draw(panels, runs, None)
    assert figure is not None
    write_figure(out, "errors", figure)
    page = out / "report.html"
    write_derived(page, text)
    return page


def _panels(runs: Sequence[ClassifierRun]) -> list[Panel]:
    """Return a panel of each kind of network, and the residual networks enlarged where they are flat."""
    plain, residual = (tuple(map(curve, kind)) for kind in by_kind(runs))
    panels = [Panel("plain networks", plain), Panel("residual networks", residual)]
    half = runs[0].results["iterations"] / 2
    late = [
        value
        for c in residual
        for line in (c.training, c.held_out)
        for iteration, value in zip(c.iterations, line, strict=True)
        if iteration > half
    ]
    if max(late) <= FLAT:
        panels.append(replace(panels[-1], title="residual networks, enlarged", top=axis_top(late)))
    return panels


def _digits() -> str:
    """Return two training images of each digit as a PNG's data address, dark on white."""
    images = load_dataset("digits", "train")
    rows = []
    for occurrence in range(2):
        chosen = [int((images.targets == digit).nonzero()[occurrence]) for digit in range(10)]
        # A white pixel around each image keeps neighbours apart.
        tiles = torch.nn.functional.pad(255 - images.images[chosen, 0], (1, 1, 1, 1), value=255)
        rows.append(torch.cat(list(tiles), dim=1))
    return image_address(Image.fromarray(torch.cat(rows).numpy()))


def _cifar10_hours(member: ClassifierRun) -> float:
    """Return a rough guess at the hours that a network's run on CIFAR-10 takes at this run's speed.

    The work grows with the images seen and with their pixels, 32 x 32 against 8 x 8.
    """
    paper = find(f"cifar10-{member.network}")
    seen = member.results["iterations"] * member.recipe.batch.size
    ratio = paper.schedule.iterations * paper.batch.size / seen * (32 / 8) ** 2
    return float(member.results["seconds"]) * ratio / 3600


def _readme(out: Path) -> str | None:
    """Return the way from the page to the README, None where the package was installed without its source."""
    readme = Path(__file__).parents[2] / "README.md"
    return os.path.relpath(readme, out.resolve()) if readme.is_file() else None
