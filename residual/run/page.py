"""The page of a run: what its folder tells, as one HTML file that loads nothing."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..analysis.figures import PALETTE, ErrorCurve, Panel, axis_top, error_curves
from ..analysis.page import part, render
from ..detection.steps import drops_of_steps
from ..evaluation.metrics import TOP
from ..files import without_home, write_derived
from ..recipes import DetectionRecipe, LocalizationRecipe, Recipe, TrainingRecipe
from ..recipes.schema import Model
from ..training.folder import RunFolder, split_of
from ..training.schedule import drops_of


@dataclass(frozen=True)
class Measure:
    """What the curve of a kind of run is about that has no errors of training images beside it.

    Attributes:
        key: in a line of metrics.jsonl.
        title, axis: of its panel.
    """

    key: str
    title: str
    axis: str


#: A classifier's are errors of both, and losses of both.
MEASURES: dict[type[TrainingRecipe], Measure] = {
    DetectionRecipe: Measure("ap50", "average precision", "mAP (%)"),
    LocalizationRecipe: Measure("localization_error", "localization error, true class", "error (%)"),
}

#: A held-out loss so many times the highest usual one is not what a figure is about.
SPIKE = 4


def write_page(
    folder: RunFolder,
    recipe: TrainingRecipe,
    length: int | None,
    findings: dict[str, Any] | None,
    missing: str,
) -> Path:
    """Write a run's page into its folder, in place of an older one.

    Args:
        length: of the run in iterations, None where it is not known.
        findings: about single classes and images; None where there are none.
        missing: why, as a sentence.

    Returns:
        The page's path.

    Raises:
        InputError: when a file of the run is damaged, or the page cannot be written.
    """
    lines = folder.metrics()
    results = folder.results(recipe) if folder.results_file.exists() else None
    sessions = folder.sessions()
    done = lines[-1]["iteration"] if lines else 0
    length = results["iterations"] if results else length
    # Where there are no findings, the newest session knows how many classes there are.
    classes = len(findings["names"]) if findings and "names" in findings else _classes(sessions)
    text = render(
        "run.html.jinja",
        path=without_home(str(folder.path)),
        recipe=recipe,
        description=without_home(recipe.description or recipe.name),
        whole_recipe=without_home(recipe.to_yaml()),
        network=network_of(recipe),
        kind=kind_of(recipe),
        results=results,
        last=lines[-1] if lines else None,
        errors=[] if type(recipe) in MEASURES else _errors(results, lines, sessions),
        five=classes is None or classes > TOP,
        done=done,
        length=length,
        seconds=results["seconds"] if results else (lines[-1]["seconds"] if lines else 0.0),
        curves=draw_curves(lines, recipe, length, done) if lines else [],
        findings=findings and findings | {"data": without_home(findings["data"])},
        missing=without_home(missing),
        sessions=sessions,
    )
    write_derived(folder.page, text)
    return folder.page


def draw_curves(
    lines: Sequence[dict[str, Any]], recipe: TrainingRecipe, length: int | None, done: int = 0
) -> list[Markup]:
    """Return a run's errors (a detector's precision) and losses against iterations, as parts of a page.

    Args:
        length: of the run in iterations, None where nobody knows it, nor when a planned rate falls.
        done: of them, which are drawn then.
    """
    measure = MEASURES.get(type(recipe))
    curves = curves_of(lines, measure, "", PALETTE[0])
    # Plateaus are where the log has them, however long the run is to be.
    drops = _drops(recipe, length or done, lines) if length or recipe.schedule.plateau else []
    return draw_panels([curves], measure, length or done, split_of(lines), drops)


def kind_of(recipe: TrainingRecipe) -> str:
    """Return what a recipe trains, in a word."""
    return {DetectionRecipe: "detector", LocalizationRecipe: "localizer"}.get(type(recipe), "classifier")


def network_of(recipe: TrainingRecipe) -> Model:
    """Return the network that a recipe of any kind trains."""
    if isinstance(recipe, DetectionRecipe):
        return recipe.detector.backbone
    if isinstance(recipe, LocalizationRecipe):
        return recipe.localizer.backbone
    assert isinstance(recipe, Recipe)
    return recipe.model


def _drops(recipe: TrainingRecipe, length: int, lines: Sequence[dict[str, Any]]) -> list[int]:
    """Return the iterations after which the rate was divided, or will be."""
    if isinstance(recipe, DetectionRecipe) and recipe.steps:
        return drops_of_steps(recipe, length)
    return drops_of(recipe.schedule, length, lines)


def draw_panels(
    runs: Sequence[tuple[ErrorCurve, ErrorCurve]],
    measure: Measure | None,
    length: int,
    held_out: str,
    drops: list[int],
) -> list[Markup]:
    """Return runs' errors (detectors' precisions) and losses against iterations, as parts of a page.

    Args:
        measure: of ``MEASURES``, None for classifiers.
        length: iterations, where the axis ends.
        held_out: the split that they are about, in words.
        drops: iterations of the learning rate's drops; none for runs that differ in them.
    """
    return [
        part(
            error_curves([panel], iterations=length, drops=drops, held_out=held_out),
            f"{panel.title} against iterations",
        )
        for panel in panels_of(runs, measure)
    ]


def curves_of(
    lines: Sequence[dict[str, Any]], measure: Measure | None, label: str, colour: str
) -> tuple[ErrorCurve, ErrorCurve]:
    """Return a run's errors (or what ``measure`` is) and its losses, as its metrics.jsonl has them."""
    split = split_of(lines)
    iterations = [line["iteration"] for line in lines]
    losses = [_number(line["train"]["loss"]) for line in lines]
    if measure:
        found = [line[split][measure.key] for line in lines]
        precision = [_number(value) for value in found]
        held_out = precision if any(value is not None for value in found) else []
        return (
            ErrorCurve(label, colour, iterations, [], held_out),
            ErrorCurve(label, colour, iterations, losses, []),
        )
    return (
        ErrorCurve(
            label,
            colour,
            iterations,
            [line["train"]["top1_error"] for line in lines],
            [line[split]["top1_error"] for line in lines],
        ),
        ErrorCurve(label, colour, iterations, losses, [_number(line[split]["loss"]) for line in lines]),
    )


def _number(value: float | None) -> float:
    """Return what a file of the run has for a number: null where it was none, as an infinite loss."""
    return math.nan if value is None else value


def panels_of(runs: Sequence[tuple[ErrorCurve, ErrorCurve]], measure: Measure | None) -> list[Panel]:
    """Return the panels of runs' errors (or what ``measure`` is) and losses."""
    first, second = (tuple(pair[n] for pair in runs) for n in (0, 1))
    panels = []
    if measure:
        if any(curve.held_out for curve in first):
            panels.append(Panel(measure.title, first, ("held_out",), measure.axis))
        panels.append(Panel("loss", second, ("training",), "loss", _top_of_losses(second)))
    else:
        panels.append(Panel("error", first, top=axis_top(_finite(first, "training", "held_out"))))
        panels.append(Panel("loss", second, measure="loss", top=_top_of_losses(second)))
    return panels


def _top_of_losses(curves: Sequence[ErrorCurve]) -> float:
    """Return where an axis of losses ends: a held-out one that is far above all others leaves it.

    A network that has hardly begun to learn may have a loss of a million when it is tested, once.
    """
    training = _finite(curves, "training")
    usual = [statistics.median(values) for curve in curves if (values := _finite([curve], "held_out"))]
    limit = SPIKE * max([*training, *usual], default=0.0)
    return axis_top(min(value, limit) for value in [*training, *_finite(curves, "held_out")])


def _finite(curves: Sequence[ErrorCurve], *lines: str) -> list[float]:
    return [v for curve in curves for line in lines for v in getattr(curve, line) if math.isfinite(v)]


def _classes(sessions: Sequence[dict[str, Any]]) -> int | None:
    """Return how many classes a classifier tells apart, None of a run of an early version."""
    return (sessions[-1].get("data") or {}).get("classes") if sessions else None


def _errors(
    results: dict[str, Any] | None, lines: Sequence[dict[str, Any]], sessions: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return a classifier's errors by split: the final ones, or the newest of a run that is not complete."""
    source: dict[str, Any] = results or (lines[-1] if lines else {})
    splits = ("train", "validation", "test")
    found = [{"split": split} | source[split] for split in splits if source.get(split)]
    if results and not results.get("train") and lines:
        # A folder's training images are not tested once more: their error is that of the last line.
        seen = lines[-1]["train"]
        found.insert(0, {"split": "train", "top1_error": seen["top1_error"], "loss": seen["loss"]})
    counts = (sessions[-1].get("data") or {}).get("images", {}) if sessions else {}
    return [{"images": counts[row["split"]]} | row if row["split"] in counts else row for row in found]
