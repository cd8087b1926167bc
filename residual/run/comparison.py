"""Runs beside each other: in what their recipes differ, their curves on one figure, what they reached."""

import itertools
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..analysis.figures import MARKS, PALETTE, ErrorCurve
from ..analysis.page import render
from ..errors import InputError
from ..files import without_home, write_derived
from ..recipes import TrainingRecipe
from ..recipes.schema import settings_of
from ..table import Table, TableRow
from ..training.folder import RunFolder, departed, split_of
from .page import MEASURES, Measure, curves_of, draw_panels, kind_of

#: What may differ between runs of one group: whoever sets it does not say how to train.
APART = ("seed", "name")


@dataclass(frozen=True)
class Member:
    """A run to be compared, as its folder tells; ``departures`` are what its sessions did not as it says."""

    path: Path
    recipe: TrainingRecipe
    lines: list[dict[str, Any]]
    results: dict[str, Any] | None
    data: Any
    departures: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called."""
        return without_home(str(self.path))

    @property
    def last(self) -> dict[str, Any]:
        """The final numbers of the split that the curve is about, or the newest of a run that goes on."""
        split = split_of(self.lines)
        return (self.results or self.lines[-1])[split]


@dataclass
class RunGroup:
    """Runs whose recipes differ in their seed alone."""

    letter: str
    settings: dict[str, Any]
    members: list[Member] = field(default_factory=list)

    @property
    def first(self) -> Member:
        return self.members[0]


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other.

    Attributes:
        groups: of runs that differ in their seed alone, in the order in which they were named.
        reached, differences: as tables; there is no table of differences where there is one group.
        notes: what speaks against comparing them.
    """

    groups: list[RunGroup]
    reached: Table
    differences: Table | None
    notes: list[str]

    def write(self, page: Path) -> None:
        """Write the page, in place of an older one; errors as of ``write_derived``."""
        text = render(
            "comparison.html.jinja",
            reached=self.reached.content(),
            differences=self.differences.content() if self.differences else None,
            notes=self.notes,
            curves=self._curves(),
        )
        write_derived(page, text)

    def _curves(self) -> list[Markup]:
        measure = MEASURES.get(type(self.groups[0].first.recipe))
        # Each with a colour and a mark that no other has.
        looks = itertools.cycle(itertools.product(MARKS, PALETTE))
        pairs = [
            _mean_curves(group, measure, colour, mark)
            for group, (mark, colour) in zip(self.groups, looks, strict=False)
        ]
        length = max(member.lines[-1]["iteration"] for group in self.groups for member in group.members)
        return draw_panels(pairs, measure, length, _split(self.groups), [])


def compare(paths: Sequence[Path]) -> Comparison:
    """Return runs beside each other; runs that go on are compared by their newest numbers.

    Args:
        paths: two run folders at least, all of one kind: classifiers, detectors or localizers.

    Raises:
        InputError: for less than two, one that is none or has measured nothing yet, and for both kinds.
    """
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        raise InputError("name two run folders at least, each once")
    members = [_member(path) for path in paths]
    kinds = {type(member.recipe): member for member in members}
    if len(kinds) > 1:
        one, other = list(kinds.values())[:2]
        words = f"a {kind_of(one.recipe)} and a {kind_of(other.recipe)}"
        raise InputError(f"{one.path} and {other.path} are {words}; compare runs of one kind")
    groups: list[RunGroup] = []
    again: list[str] = []
    for member in members:
        settings = {k: v for k, v in settings_of(member.recipe).items() if k not in APART}
        # On other images, or where BN was computed otherwise, it is no seed of the same experiment.
        own = (settings, member.data, member.departures)
        alike = [
            group for group in groups if (group.settings, group.first.data, group.first.departures) == own
        ]
        seed = member.recipe.seed
        same = next((group for group in alike if all(seed != m.recipe.seed for m in group.members)), None)
        if same is None:
            if alike:
                again.append(member.name)
            same = RunGroup(_letter(len(groups)), settings)
            groups.append(same)
        same.members.append(member)
    notes = []
    if len({repr(member.data) for member in members}) > 1:
        notes.append("The runs are on different images or splits, so their numbers are not of one test.")
    if again:
        notes.append(
            f"Of the same recipe and seed as another run, so no seed of its own: {', '.join(again)}."
        )
    if len({member.departures for member in members}) > 1:
        departed = [member for member in members if member.departures]
        notes += [f"{one.name} departs from its recipe: {'; '.join(one.departures)}." for one in departed]
    if going := [member.name for member in members if member.results is None]:
        notes.append(f"Not complete, so compared by the newest numbers: {', '.join(going)}.")
    return Comparison(groups, _reached(groups), _differences(groups), notes)


def default_page(paths: Sequence[Path]) -> Path:
    """Return where the page of a comparison stands if nothing else is said: beside the runs."""
    return Path(os.path.commonpath([path.resolve().parent for path in paths])) / "comparison.html"


def _member(path: Path) -> Member:
    folder = RunFolder(path)
    recipe = folder.recipe()
    lines = folder.metrics()
    if not lines:
        raise InputError(f"{path} has not measured anything yet; let it go on")
    results = folder.results(recipe) if folder.results_file.exists() else None
    sessions = folder.sessions() or [{}]
    # Earlier versions did not note the labels apart from the content, which tells them as well.
    data = {what: noted for what, noted in (sessions[0].get("data") or {}).items() if what != "labels"}
    return Member(path, recipe, lines, results, data, tuple(departed(sessions)))


def _reached(groups: Sequence[RunGroup]) -> Table:
    """Return what each group reached, mean and deviation over its seeds."""
    measure = MEASURES.get(type(groups[0].first.recipe))
    split = _split(groups)
    many = any(len(group.members) > 1 for group in groups)
    final = all(_final_training(member) for group in groups for member in group.members)
    rows = []
    for group in groups:
        members = group.members
        paths = ", ".join(member.name for member in members)
        seconds = [(member.results or member.lines[-1])["seconds"] for member in members]
        if measure:
            numbers = [_spread([member.last[measure.key] for member in members])]
        else:
            training = [_training_error(member, final) for member in members]
            numbers = [
                _spread(training),
                *(_spread([m.last[k] for m in members]) for k in ("top1_error", "loss")),
            ]
        iterations = ", ".join(sorted({f"{member.lines[-1]['iteration']:,}" for member in members}))
        rows.append(
            TableRow(
                (
                    group.letter,
                    paths,
                    str(len(members)) if many else "",
                    iterations,
                    *numbers,
                    f"{statistics.mean(seconds):,.0f}",
                )
            )
        )
    measured = (
        (measure.axis.replace("(%)", "%"),)
        if measure
        else ("training error %", f"{split} error %", f"{split} loss")
    )
    headings = ("", "runs", "seeds", "iterations", *measured, "seconds")
    caption = "Final numbers; of several seeds mean ± standard deviation." if many else "Final numbers."
    if not (measure or final):
        caption += " The training error is that of augmented images while the weights changed."
    return Table("Runs beside each other", headings, rows, caption, names=2)


def _split(groups: Sequence[RunGroup]) -> str:
    """Return the split that all curves are about, or "held-out" where they are about different ones."""
    splits = {split_of(member.lines) for group in groups for member in group.members}
    return splits.pop() if len(splits) == 1 else "held-out"


def _final_training(member: Member) -> dict[str, Any] | None:
    """Return the numbers of the final weights on the training images, None where they were not measured."""
    return (member.results or {}).get("train")


def _training_error(member: Member, final: bool) -> float:
    """Return the error of the final weights on the training images, or as it was seen in training."""
    measured = _final_training(member) if final else None
    return (measured or member.lines[-1]["train"])["top1_error"]


def _differences(groups: Sequence[RunGroup]) -> Table | None:
    """Return in what the groups' recipes differ, a column a group."""
    keys = sorted({key for group in groups for key in group.settings})
    rows = []
    for key in keys:
        values = [_written(group.settings.get(key)) for group in groups]
        if len(set(values)) > 1:
            rows.append(TableRow((key, *values)))
    if not rows:
        return None
    return Table("How the recipes differ", ("", *(group.letter for group in groups)), rows)


def _written(value: Any) -> str:
    return "none" if value is None else without_home(str(value))


def _spread(values: Sequence[float | None]) -> str:
    """Return the mean of values, and their deviation where there are several; "" where one is missing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return ""
    mean = f"{statistics.mean(known):.2f}"
    return f"{mean} ± {statistics.stdev(known):.2f}" if len(known) > 1 else mean


def _mean_curves(
    group: RunGroup, measure: Measure | None, colour: str, mark: str
) -> tuple[ErrorCurve, ErrorCurve]:
    """Return a group's curves: of several seeds the mean and the deviation, where all have measured."""
    each = [curves_of(member.lines, measure, group.letter, colour) for member in group.members]
    error, loss = (replace(_mean_curve([pair[n] for pair in each]), mark=mark) for n in (0, 1))
    return error, loss


def _mean_curve(curves: Sequence[ErrorCurve]) -> ErrorCurve:
    first = curves[0]
    if len(curves) == 1:
        return first
    iterations = [n for n in first.iterations if all(n in curve.iterations for curve in curves)]

    def values(line: str, at: int) -> list[float]:
        return [getattr(curve, line)[curve.iterations.index(at)] for curve in curves if getattr(curve, line)]

    training = [statistics.mean(values("training", n)) for n in iterations] if first.training else []
    held_out = [statistics.mean(values("held_out", n)) for n in iterations] if first.held_out else []
    deviation = [_deviation(values("held_out", n)) for n in iterations] if first.held_out else []
    finite = all(map(math.isfinite, deviation))
    return ErrorCurve(first.label, first.colour, iterations, training, held_out, deviation if finite else [])


def _deviation(values: Sequence[float]) -> float:
    """Return the standard deviation, nan of less than two values or where one is nan: Python refuses."""
    return statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else math.nan


def _letter(number: int) -> str:
    """Return A, B, ..., Z, A2, B2, ..."""
    times, place = divmod(number, 26)
    return chr(ord("A") + place) + (str(times + 1) if times else "")
