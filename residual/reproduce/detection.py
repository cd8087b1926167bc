"""Tables 7, 8 and 9: Faster R-CNN with VGG-16 and ResNet-101 on VOC and COCO, or on any annotated pictures.

A study is a folder with one run folder for each detector, ``coco-resnet101/seed0`` and so on. What a detector
measures on COCO, by each of the appendix's improvements, is kept in its run folder.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ..detection.improvements import SCALES
from ..detection.weights import is_detector
from ..errors import InputError
from ..recipes import DetectionRecipe, differences, find_detection, override, read
from ..run import remembered_data_dir
from ..run.boxes import load_boxes
from ..run.detection import take_backbone, train_detector
from ..run.detection_testing import evaluate_detector, load_detector
from ..training.folder import RunFolder, read_json
from .files import write_json, write_text
from .paper import TABLE7, TABLE8, TABLE9, Precision
from .study import INCIDENTAL, check_alike, departures_of, train_missing

TABLES = {7: TABLE7, 8: TABLE8, 9: TABLE9}
#: Classes of the data sets, by their layout.
CLASSES = {"voc": 20, "coco": 80}
#: Whose classifiers the detectors start from.
BACKBONES = ("vgg16", "resnet101")
#: The keys of a recipe that are a study's own.
FIXED = ("name", "seed", "detector.backbone", "detector.global_context")
#: Where in its run folder a detector's result files for VOC's server are looked for.
SUBMISSION = "submission"
UNWRITTEN = "submission to be written"


@dataclass(frozen=True)
class Trained:
    """A complete run of a detector, as its folder tells.

    Attributes:
        start: what it started from, as "the classifier weights/resnet101"; None for scratch.
    """

    path: Path
    recipe: DetectionRecipe
    results: dict[str, Any]
    start: str | None

    @property
    def name(self) -> str:
        """Of its folder in the study, as "coco-vgg16/seed0"."""
        return f"{self.recipe.name}/seed{self.recipe.seed}"

    @property
    def departures(self) -> list[str]:
        """In what the run differs from the paper's: its recipe, its classes, its classifier's network."""
        changes = differences(find_detection(self.recipe.name), self.recipe)
        own = (*INCIDENTAL, "detector.backbone.weights")
        found = [change for change in changes if change.partition(":")[0] not in own]
        classes, wanted = len(self.results["classes"]), CLASSES[self.recipe.data.layout]
        if classes != wanted:
            found.append(f"{classes} classes, not {wanted}")
        if not (self.start or "").startswith("the classifier "):
            found.append(f"started from {self.start or 'scratch'}, not from a classifier")
        return found


@dataclass(frozen=True)
class Study:
    """Where the detectors' runs are, and how missing ones are trained.

    Attributes:
        out: the study's folder.
        weights: the folders of the classifiers that they start from, by the names in ``BACKBONES``.
        settings: changes to all recipes, as ``schedule.iterations=2000``.
        data_dir, device: as in ``run.detection.train_detector``.
        train: whether to train what is missing; else run folders are only read, whatever their settings.
    """

    out: Path
    weights: Mapping[str, Path] = field(default_factory=dict)
    settings: list[str] = field(default_factory=list)
    data_dir: Path | None = None
    device: str = "auto"
    train: bool = True

    def path(self, recipe: str, seed: int = 0) -> Path:
        return self.out / recipe / f"seed{seed}"

    def missing(self, recipe: str, seed: int = 0) -> str:
        """Say what a run lacks to be trained, "" for nothing."""
        if not self.train:
            return "--no-train"
        stored = read_recipe(self.path(recipe, seed))
        network = backbone_of(recipe)
        if network not in self.weights and not stored:
            return f"no --weights-{network}"
        if not self.data_dir and not remembered_data_dir(self.path(recipe, seed)):
            return "no --data-dir"
        return ""

    def runs(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Train those of the wanted runs, each a recipe's name and a seed, that are missing and can be.

        Raises:
            InputError: for settings that are wrong or change the network, for wrong weights and data, and for
                folders that hold other runs; nothing is trained then.
            Interrupted: after SIGINT or SIGTERM; the same command goes on.
        """
        wanted = list(wanted)
        if self.train:
            # Wrong settings are wrong even where a run cannot be trained.
            for name, _ in wanted:
                self._changed(name)
        runs = [
            (f"{name}, seed {seed}", self.path(name, seed), self._recipe(name, seed))
            for name, seed in wanted
            if not self.missing(name, seed)
        ]
        checked = []
        for _, path, recipe in runs:
            if RunFolder(path).results_file.exists() or recipe.data in checked:
                continue
            checked.append(recipe.data)
            folder = self.data_dir or remembered_data_dir(path)
            assert folder is not None
            train = load_boxes(folder, recipe.data, recipe.data.train, recipe.data.classes or None)
            if recipe.data.test:
                load_boxes(folder, recipe.data, recipe.data.test, train.classes)

        def train_one(recipe: DetectionRecipe, path: Path, resume: bool) -> object:
            return train_detector(
                recipe,
                path,
                data_dir=self.data_dir,
                device=self.device,
                resume=resume,
            )

        train_missing(runs, train_one)

    def trained(self, recipe: str, seed: int = 0) -> Trained | None:
        """Return a complete run, None where there is none.

        Raises:
            InputError: when its files are damaged.
        """
        folder = RunFolder(self.path(recipe, seed))
        if not folder.results_file.exists():
            return None
        return Trained(
            folder.path,
            read(folder.recipe_file, DetectionRecipe),
            read_json(folder.results_file),
            read_json(folder.environment_file)[0]["started_from"],
        )

    def _changed(self, name: str) -> DetectionRecipe:
        """Return a recipe with the study's settings."""
        original = find_detection(name)
        changed = override(original, self.settings)
        keys = [change.partition(":")[0] for change in differences(original, changed)]
        if any(key == fixed or key.startswith(f"{fixed}.") for key in keys for fixed in FIXED):
            raise InputError(
                "--set cannot change the network, the name or the seed of an experiment; classifiers are "
                "named by --weights-vgg16 and --weights-resnet101"
            )
        return changed

    def _recipe(self, name: str, seed: int) -> DetectionRecipe:
        """Return a run's recipe, its classifier included."""
        recipe = override(self._changed(name), [f"seed={seed}"])
        stored = read_recipe(self.path(name, seed))
        weights = self.weights.get(backbone_of(name))
        if stored and (weights is None or _same(weights, stored.detector.backbone.weights)):
            detector = recipe.detector.model_copy(update={"backbone": stored.detector.backbone})
            return recipe.model_copy(update={"detector": detector})
        assert weights is not None
        if is_detector(weights):
            raise InputError(
                f"--weights-{backbone_of(name)} {weights} holds a detector, and a classifier is expected"
            )
        return take_backbone(recipe, weights.resolve())


@dataclass(frozen=True)
class Row:
    """A number of Tables 7 to 9: the paper's precision and ours.

    Attributes:
        published: the paper's.
        ap50, ap: ours in percent, None where nothing was measured.
        pictures: how many ours are of.
        departs: whether our run or our test is not the paper's.
        instead: what stands in our column where nothing was measured.
        note: why, or of what kind ours is.
    """

    published: Precision
    ap50: float | None = None
    ap: float | None = None
    pictures: int | None = None
    departs: bool = False
    instead: str = "not run"
    note: str = ""

    def cells(self) -> list[str]:
        """Return the row as text, in the order of ``HEADINGS``."""
        row = self.published
        difference = ""
        if not self.departs and self.ap is not None and row.ap is not None:
            difference = f"{self.ap - row.ap:+.1f}"
        elif not self.departs and self.ap50 is not None:
            difference = f"{self.ap50 - row.ap50:+.1f}"
        return [
            row.method,
            row.tested,
            _numbers(row.ap50, row.ap),
            self.instead if self.ap50 is None else _numbers(self.ap50, self.ap),
            difference,
            self.note,
        ]


HEADINGS = ("method", "tested on", "paper", "ours", "diff.", "")


def table(
    study: Study,
    number: int,
    networks: Sequence[str] | None = None,
    *,
    members: int = 1,
    scales: Sequence[int] = SCALES,
) -> list[Row]:
    """Run and test what is missing, print Table 7, 8 or 9, and write it as JSON and Markdown.

    Args:
        number: 7, 8 or 9.
        networks: train only these recipes, and show what is there of the others; None for all of the table's.
        members: of Table 9's ensemble, to be trained; more that are there belong to it as well.
        scales: shorter sides in pixels for Table 9's multi-scale testing.

    Raises:
        InputError, Interrupted: as ``Study.runs``; InputError for networks that the table has not.
    """
    published = TABLES[number]
    known = list(dict.fromkeys(row.recipe for row in published))
    if networks and (strange := [name for name in networks if name not in known]):
        raise InputError(f"--networks {strange[0]}: this experiment has {', '.join(known)}")
    together = next((row.recipe for row in published if row.members > 1), None)
    study.runs(
        (name, seed) for name in networks or known for seed in range(members if name == together else 1)
    )
    found = {name: run for name in known if (run := study.trained(name))}
    more = _members(study, together) if together else []
    runs = list({run.path: run for run in [*found.values(), *more]}.values())
    for data in {run.recipe.name.partition("-")[0] for run in runs}:
        check_alike([run for run in runs if run.recipe.name.startswith(f"{data}-")])
    rows, commands = [], []
    for row in published:
        if row.members > 1:
            rows.append(_ensemble(study, row, more, scales))
        elif row.recipe not in found:
            rows.append(Row(row, note=study.missing(row.recipe)))
        elif number == 7:
            rows.append(_voc(row, found[row.recipe]))
            if rows[-1].note == UNWRITTEN:
                commands.append(submission_command(found[row.recipe]))
        elif row.tested == "COCO test-dev":
            rows.append(
                Row(row, instead="not public", note="for a detector trained on trainval, and the server")
            )
        else:
            rows.append(_coco(study, row, [found[row.recipe]], found[row.recipe].path, scales))
    departures = departures_of(runs)
    if tuple(scales) != SCALES and any(row.published.multi_scale and row.pictures for row in rows):
        departures.append(f"multi-scale testing at {_sides(scales)}, not {_sides(SCALES)}")
    _write(study, number, rows, departures, _sources(runs), commands)
    return rows


def submission_command(run: Trained) -> str:
    """Return the command that writes a run's result files for VOC 2012's server."""
    words = ["residual", "detect", "evaluate", str(run.path), "--split", "2012/test", "--no-boxes"]
    return shlex.join([*words, "--submission", str(run.path / SUBMISSION)])


def backbone_of(recipe: str) -> str:
    """Return the network whose classifier a recipe starts from, one of ``BACKBONES``."""
    return find_detection(recipe).detector.backbone.name


def read_recipe(path: Path) -> DetectionRecipe | None:
    """Return the recipe of the run in a folder, begun or complete; None where there is none."""
    file = RunFolder(path).recipe_file
    return read(file, DetectionRecipe) if file.exists() else None


def _voc(row: Precision, run: Trained) -> Row:
    """Return a row of Table 7: what the run itself measured at its end."""
    test = run.results["test"]
    if run.recipe.data.test:
        return _measured(row, test["ap50"], None, test["pictures"], bool(run.departures))
    written = any((run.path / SUBMISSION).glob("comp4_det_*.txt"))
    return Row(
        row,
        instead="not public",
        note=f"submission written: {run.name}/{SUBMISSION}" if written else UNWRITTEN,
    )


def _coco(study: Study, row: Precision, runs: Sequence[Trained], folder: Path, scales: Sequence[int]) -> Row:
    """Return a row of Table 8 or 9, testing the detector (or several together) if its folder has no result.

    Args:
        folder: where the result is kept.
    """
    sides = tuple(scales) if row.multi_scale else ()
    kind = ["ensemble"] if len(runs) > 1 else ["precision"]
    file = folder / ("-".join(kind + ["refine"] * row.refine + [str(side) for side in sides]) + ".json")
    names = [run.name for run in runs]
    kept = read_json(file) if file.exists() else None
    if kept is None or kept["detectors"] != names:
        if not study.data_dir and not remembered_data_dir(runs[0].path):
            return Row(row, note="no --data-dir")
        kept = {"detectors": names, "refine": row.refine, "scales": sides}
        kept |= _measure(study, runs, row.refine, sides)
        write_json(file, kept)
    departs = bool(departures_of(runs)) or (row.multi_scale and sides != SCALES)
    return _measured(row, kept["ap50"], kept["ap"], kept["pictures"], departs)


def _measured(row: Precision, ap50: float | None, ap: float | None, pictures: int, departs: bool) -> Row:
    note = "no object to be found" if ap50 is None else ""
    return Row(row, ap50, ap, pictures, departs, "-", note)


def _measure(study: Study, runs: Sequence[Trained], refine: bool, scales: Sequence[int]) -> dict[str, Any]:
    """Return COCO's precisions in percent on the runs' test data, None where there is no object."""
    detector = load_detector(*(run.path for run in runs), device=study.device, refine=refine, scales=scales)
    how = [word for word, on in (("refinement", refine), (f"scales {_sides(scales)}", scales)) if on]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"testing {', '.join([' + '.join(run.name for run in runs), *how])}")
        measured = evaluate_detector(
            detector,
            runs[0].path,
            study.data_dir,
            progress=lambda total, done: progress.update(task, total=total, completed=done),
        )
    coco = measured.coco
    assert coco is not None
    percent = {key: None if coco[key] != coco[key] else 100 * coco[key] for key in ("AP", "AP50")}
    return {
        "data": measured.dataset.name,
        "pictures": len(measured.dataset),
        "unusable": len(measured.unusable),
        "ap50": percent["AP50"],
        "ap": percent["AP"],
    }


def _members(study: Study, recipe: str) -> list[Trained]:
    """Return all complete runs of a recipe, lower seeds first."""
    seeds = sorted(
        int(path.name.removeprefix("seed"))
        for path in (study.out / recipe).glob("seed*")
        if path.name.removeprefix("seed").isdecimal()
    )
    return [run for seed in seeds if (run := study.trained(recipe, seed))]


def _ensemble(study: Study, row: Precision, runs: Sequence[Trained], scales: Sequence[int]) -> Row:
    if len(runs) < 2:
        return Row(row, note="needs several detectors with context, as by --ensemble 3")
    ours = _coco(study, row, runs, study.out, scales)
    if ours.ap50 is None:
        return ours
    # The paper's is trained on trainval and tested on test-dev: no difference is to be taken.
    return Row(row, ours.ap50, ours.ap, ours.pictures, True, note=f"ours: {len(runs)} detectors, COCO val")


def _sources(runs: Sequence[Trained]) -> list[str]:
    """Say what the detectors started from, by the network that the paper has."""
    return list(
        dict.fromkeys(f"{backbone_of(run.recipe.name)} from {run.start}" for run in runs if run.start)
    )


def _same(folder: Path, other: str | None) -> bool:
    return other is not None and Path(other).resolve() == folder.resolve()


def _write(
    study: Study,
    number: int,
    rows: Sequence[Row],
    departures: Sequence[str],
    sources: Sequence[str],
    commands: Sequence[str],
) -> None:
    pictures = sorted({row.pictures for row in rows if row.pictures})
    caption = "VOC's mean average precision" if number == 7 else "COCO's mAP@.5 / mAP@[.5, .95]"
    caption += " in percent; differences are of the latter" if number != 7 else " in percent"
    caption += f"; ours on {' and '.join(f'{n:,}' for n in pictures)} pictures." if pictures else "."
    if sources:
        caption += f" Started: {'; '.join(sources)}."
    if departures:
        caption += f" Not the paper's experiment, so not comparable: {'; '.join(departures)}."
    shown = Table(title=f"Table {number}", caption=caption)
    for place, heading in enumerate(HEADINGS[:-1]):
        shown.add_column(heading, justify="left" if place < 2 else "right")
    notes: dict[str, list[str]] = {}
    for row in rows:
        *cells, note = row.cells()
        shown.add_row(*cells)
        if note:
            notes.setdefault(note, []).append(f"{row.published.method} ({row.published.tested})")
    console = Console()
    console.print(shown)
    # Beside the numbers there is no room for them in a terminal.
    for note, methods in notes.items():
        console.print(f"{note}: {'; '.join(methods)}", highlight=False, soft_wrap=True)
    lines = [f"# Table {number}", "", "| " + " | ".join(HEADINGS) + " |", "|---|---|--:|--:|--:|---|"]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    lines += ["", caption]
    if commands:
        said = "The objects of VOC 12 test are not public. This writes what its server scores:"
        console.print(said, highlight=False)
        for command in commands:
            console.print(f"  {command}", highlight=False, soft_wrap=True)
        lines += ["", said, "", *(f"    {command}" for command in commands)]
    write_text(study.out / f"table{number}.md", "\n".join(lines) + "\n")
    content = {"table": number, "departures": list(departures), "started": list(sources)}
    # As it was printed, for the report.
    content |= {"caption": caption, "headings": HEADINGS, "cells": [row.cells() for row in rows]}
    write_json(study.out / f"table{number}.json", content | {"rows": [asdict(row) for row in rows]})
    written = f"written: {study.out / f'table{number}'}.md, .json"
    console.print(written, highlight=False, soft_wrap=True)


def _sides(scales: Sequence[int]) -> str:
    return ", ".join(map(str, scales))


def _numbers(ap50: float, ap: float | None) -> str:
    return f"{ap50:.1f}" if ap is None else f"{ap50:.1f} / {ap:.1f}"
