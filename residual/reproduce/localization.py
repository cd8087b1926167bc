"""Appendix C: ImageNet localization, on ImageNet or on Tiny ImageNet.

By per-class regression (PCR), and by an R-CNN on its proposals.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..models.names import is_name
from ..recipes import LocalizationRecipe
from ..recipes.schema import Model
from ..run import start_from
from ..table import Table, TableRow, difference, not_comparable
from ..terminal import say
from ..training.folder import remembered_data_dir
from .paper import LOCALIZATION, PublishedLocalization
from .study import IMAGENET_CLASSES, Family, Study, TrainedRun, departures_of

#: The recipes of each dataset: per-class regression's, and the R-CNN's.
RECIPES = {
    "imagenet": ("imagenet-localization-resnet101", "imagenet-localization-rcnn-resnet101"),
    "tiny-imagenet": ("tiny-imagenet-localization-resnet18", "tiny-imagenet-localization-rcnn-resnet18"),
}
HEADINGS = ("method", "testing", "classes", "paper", "ours", "diff.")


@dataclass(frozen=True)
class LocalizerRun(TrainedRun):
    """A complete run of a localizer."""

    paper: LocalizationRecipe
    recipe: LocalizationRecipe

    @property
    def departures(self) -> list[str]:
        found = super().departures
        if (classes := self.results["classes"]) != IMAGENET_CLASSES:
            found.append(f"{classes} classes, not ImageNet's {IMAGENET_CLASSES:,}")
        return found


FAMILY = Family(
    "",
    LocalizationRecipe,
    LocalizerRun,
    ("name", "seed", "localizer.backbone", "rcnn"),
    "--set cannot change the network, its stages, the name or the seed of an experiment; the classifier is "
    "named by --weights",
)


#: Of dense testing; see docs/departures.md.
ONE_SCALE = "ours at one scale, the paper's at several"


@dataclass(frozen=True)
class LocalizationRow:
    """A row of the table: the paper's error and ours, in percent.

    Attributes:
        published: the paper's; None for the trivial predictor, which it has not.
        error: ours, None where nothing was measured.
        images: how many ours is of.
        departs: whether our run is not the paper's.
        note: why there is none, or of what kind ours is.
    """

    published: PublishedLocalization | None
    error: float | None
    images: int | None = None
    departs: bool = False
    note: str = ""

    def cells(self) -> list[str]:
        """Return the row as text, in the order of ``HEADINGS``."""
        row = self.published
        named = (
            ["always the middle box", "", "true"] if row is None else [row.method, row.testing, row.classes]
        )
        papers = None if row is None else row.error
        ours = "not run" if self.error is None else f"{self.error:.1f}"
        if self.error is None and row is not None and row.measured is None:
            ours = ""
        pair = (None, None) if self.departs else (self.error, papers)
        return [*named, "" if papers is None else f"{papers:.1f}", ours, difference(pair, digits=1)]


def table(study: Study[LocalizerRun], dataset: str, weights: Path | None = None) -> None:
    """Train what is missing, print appendix C's table, and write it as JSON and Markdown.

    Args:
        dataset: "imagenet" or "tiny-imagenet".
        weights: the classifier that the runs start from.

    Raises:
        InputError, Interrupted: as ``Study.train_missing``; InputError also for wrong weights and data.
    """
    name, second = RECIPES[dataset]
    # Wrong settings are wrong even where a run cannot be trained.
    recipe = study.recipe(name)
    assert isinstance(recipe, LocalizationRecipe)
    lacking = study.lacks(name, 0, weights, "--weights")
    if study.train and not lacking:
        study.train_missing({(name, 0): _with_classifier(study, recipe, weights)})
    run, rcnn = study.complete(name), study.complete(second)
    lacking_second = lacking
    if run and not rcnn:
        # On the images that the first stage was trained on, which its folder remembers.
        after = replace(study, data_dir=study.data_dir or remembered_data_dir(run.path))
        moved = _is_gone(run.recipe.localizer.backbone)
        lacking_second = after.lacks(second, 0, weights if moved else run.path, "--weights")
        if not lacking_second:
            after.train_missing({(second, 0): _on_proposals(study, second, run, weights if moved else None)})
            rcnn = study.complete(second)
    rows = [_row(row, rcnn, lacking_second) if row.rcnn else _row(row, run, lacking) for row in LOCALIZATION]
    middle = run.results["middle_box"] if run else {"localization_error": None, "images": None}
    rows.append(
        LocalizationRow(None, middle["localization_error"], middle["images"], note="" if run else lacking)
    )
    _publish(study, dataset, rows, [one for one in (run, rcnn) if one])


def _with_classifier(
    study: Study[LocalizerRun], recipe: LocalizationRecipe, weights: Path | None
) -> LocalizationRecipe:
    """Return a run's recipe with the classifier that it starts from, or was begun with."""
    begun = study.begun_from(recipe.name, 0, None)
    if backbone := study.begun_from(recipe.name, 0, None if _is_gone(begun) else weights):
        return _with_backbone(recipe, backbone)
    assert weights is not None
    return start_from(recipe, weights)


def _on_proposals(
    study: Study[LocalizerRun], name: str, run: LocalizerRun, moved: Path | None
) -> LocalizationRecipe:
    """Return the recipe of the second stage on a localizer's proposals.

    Args:
        moved: where the localizer's classifier is now, None where it was.
    """
    recipe = start_from(study.recipe(name), run.path)
    assert isinstance(recipe, LocalizationRecipe)
    if begun := study.begun_from(name, 0, None):
        return _with_backbone(recipe, begun)
    if moved is None:
        return recipe
    lost = run.recipe.localizer.backbone.weights
    say(f"{lost} is not there any more, and {moved} is taken for it", stderr=True)
    return _with_backbone(recipe, start_from(run.paper, moved).localizer.backbone)


def _with_backbone(recipe: LocalizationRecipe, backbone: Model) -> LocalizationRecipe:
    localizer = recipe.localizer.model_copy(update={"backbone": backbone})
    return recipe.model_copy(update={"localizer": localizer})


def _is_gone(network: Model | None) -> bool:
    """Whether the weights that a run started from are not where they were: what is named now is then them."""
    if network is None or network.weights is None or is_name(network.weights):
        return False
    return not Path(network.weights).exists()


def _row(row: PublishedLocalization, run: LocalizerRun | None, lacking: str) -> LocalizationRow:
    if row.measured is None:
        return LocalizationRow(row, None, note=row.note)
    if run is None:
        return LocalizationRow(row, None, note=lacking)
    found: dict[str, Any] | None = run.results[row.measured]
    if found is None:
        return LocalizationRow(row, None, note="the run's classifier was gone")
    notes = [ONE_SCALE] if row.scales else []
    if row.measured == "guessed":
        notes.append(f"classification error {found['classification_error']:.1f} % ({found['views']})")
    departs = bool(run.departures) or row.scales
    return LocalizationRow(row, found["localization_error"], found["images"], departs, "; ".join(notes))


def _publish(
    study: Study[LocalizerRun], dataset: str, rows: Sequence[LocalizationRow], runs: Sequence[LocalizerRun]
) -> None:
    departures = departures_of(runs)
    caption = "Localization error in percent: the best of five guesses, an overlap of 0.5"
    started = None
    if runs:
        started = runs[0].sessions[0].get("started_from")
        images = max(row.images for row in rows if row.images)
        network = runs[0].recipe.localizer.backbone.name
        caption += f"; ours with {network} on {images:,} images, from {started}"
    Table(
        "ImageNet localization (appendix C)",
        HEADINGS,
        [TableRow(row.cells(), row.note, rule=row.published is None) for row in rows],
        f"{caption}.{not_comparable(departures)}",
        names=3,
    ).publish(
        study.out,
        # Both datasets' runs are in one folder, unless it is said.
        "localization" if dataset == "imagenet" else f"localization-{dataset}",
        {"dataset": dataset, "departures": departures, "started": started},
        [asdict(row) for row in rows],
    )
