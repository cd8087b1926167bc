"""Tables 7 to 12: Faster R-CNN on VOC, COCO and ImageNet DET, or on any annotated images.

What a detector measures with the appendix's improvements is kept in its run folder, what several measure
together beside their run folders.
"""

import functools
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import distributed, torchrun
from ..detection.boxes import load_boxes
from ..detection.improvements import SCALES
from ..detection.weights import is_detector
from ..device import open_device
from ..errors import InputError
from ..files import as_json, checksum, read_json, read_text, write_derived
from ..inference.detector import evaluate_detector, load_detector
from ..models.layout import CONFIG_FILE
from ..models.names import is_name
from ..models.weights import weights_in
from ..recipes import DetectionRecipe, find, override
from ..recipes.detection import Boxes, starts_from_coco
from ..recipes.schema import parse
from ..run import going_on, start_from
from ..table import Table, TableRow, difference, not_comparable
from ..terminal import counted
from ..training.folder import Kept, RunFolder, remembered_data_dir
from .paper import TABLE7, TABLE8, TABLE9, TABLE10, TABLE11, TABLE12, DetectionAP
from .study import (
    AGAIN,
    IMAGENET_CLASSES,
    AnyRecipe,
    Family,
    Study,
    TrainedRun,
    among,
    check_alike,
    departures_of,
    is_of_others,
)

TABLES = {7: TABLE7, 8: TABLE8, 9: TABLE9, 10: TABLE10, 11: TABLE11, 12: TABLE12}
#: Of which the second names a class of Tables 10 and 11, and is left out of the others.
HEADINGS = ("method", "class", "tested on", "paper", "ours", "diff.")
#: Classes of the datasets, by their layout.
CLASSES = {"voc": 20, "coco": 80, "imagenet-det": 200}
#: Parts whose objects only a server knows, and what it takes to be scored there; VOC's are told apart by
#: whether the result files have been written.
SECRET = {
    "COCO test-dev": "for a detector trained on trainval, and the server",
    "DET test": "for ImageNet's server",
}
#: What each table's numbers are.
CAPTIONS = {
    **dict.fromkeys((7, 10, 11), "VOC's mean average precision in percent"),
    12: "ImageNet's mean average precision in percent; val2 is R-CNN's where its lists are, else ours",
}
#: Where in its run folder a detector's result files for VOC's server are looked for.
SUBMISSION = "submission"
UNWRITTEN = "submission to be written"


class KeptPrecision(Kept):
    """What is read of the precisions of a detector or several, in percent; ``ap`` is COCO's.

    ``results``: checksums of the members' results.json; earlier versions noted the members' names alone.
    """

    detectors: list[str]
    results: list[str] | None = None
    ap50: float | None
    ap: float | None
    classes: dict[str, float | None] | None = None
    images: int
    content: str | None = None


class KeptStart(Kept):
    """What is read of the weights that a detector started from; imported ones have no recipe."""

    classes: list[str]
    recipe: dict[str, Any] | None = None


@dataclass(frozen=True)
class DetectorRun(TrainedRun):
    """A complete run of a detector."""

    paper: DetectionRecipe
    recipe: DetectionRecipe

    @property
    def name(self) -> str:
        """Of its folder in the study, as "coco-vgg16/seed0"."""
        return f"{self.network}/seed{self.recipe.seed}"

    @property
    def start(self) -> str | None:
        """What it started from, as "the classifier weights/resnet101"; None for scratch."""
        started: str | None = self.sessions[0].get("started_from")
        return started

    @property
    def origin(self) -> str:
        """What it started from, by the network that the paper has, and in what that is not the paper's."""
        told = "; ".join(self._departures_of_start())
        return f"{self.paper.detector.backbone.name} from {self.start}" + (f" ({told})" if told else "")

    def _departures_of_start(self) -> list[str]:
        """Return in what the weights that it started from depart from the paper's, as their folder tells.

        Nothing is told of weights that are gone, or that no recipe of ours has trained.
        """
        weights = self.recipe.detector.backbone.weights
        if weights is None or is_name(weights) or not Path(weights).is_dir():
            return []
        paper: AnyRecipe = find(f"imagenet-{self.paper.detector.backbone.name}")
        wanted = IMAGENET_CLASSES
        if starts_from_coco(self.paper.name):
            paper, wanted = find("coco-resnet101-context", DetectionRecipe), CLASSES["coco"]
        try:
            kept = read_json(weights_in(Path(weights)) / CONFIG_FILE, KeptStart)
            if kept["recipe"] is None:
                return []
            recipe = parse(kept["recipe"], weights, type(paper))
        except InputError:
            # The run is complete, whatever became of them.
            return []
        found = TrainedRun(paper.name, Path(weights), paper, recipe, {}, [], []).departures
        if (classes := len(kept["classes"])) != wanted:
            found.append(f"{classes:,} classes, not {wanted:,}")
        return found

    @property
    def departures(self) -> list[str]:
        found = super().departures
        classes, wanted = len(self.results["classes"]), CLASSES[self.paper.data.layout]
        if classes != wanted:
            found.append(f"{classes} classes, not {wanted}")
        kind = "detector" if starts_from_coco(self.paper.name) else "classifier"
        if not (self.start or "").startswith(f"the {kind} "):
            found.append(f"started from {self.start or 'scratch'}, not from a {kind}")
        return found


DETECTION = Family(
    "",
    DetectionRecipe,
    DetectorRun,
    ("name", "seed", "detector.backbone", "detector.global_context"),
    "--set cannot change the network, the name or the seed of an experiment; what it starts from is named by "
    "--weights-vgg16, --weights-resnet101 and --weights-coco",
)


@dataclass(frozen=True)
class DetectionRow:
    """A number of Tables 7 to 12: the paper's precision and ours.

    Attributes:
        published: the paper's.
        ap50, ap: ours in percent, None where nothing was measured.
        images: how many ours are of.
        classes: ours by class in percent, None for one without objects.
        departs: whether our run or our test is not the paper's.
        instead: what stands in our column where nothing was measured.
        note: why, or of what kind ours is.
    """

    published: DetectionAP
    ap50: float | None = None
    ap: float | None = None
    images: int | None = None
    classes: Mapping[str, float | None] = field(default_factory=dict)
    departs: bool = False
    instead: str = "not run"
    note: str = ""

    def lines(self, by_class: bool) -> list[TableRow]:
        """Return the row as text, in the order of ``HEADINGS``, and below it those of the classes of ours.

        Args:
            by_class: whether the table is by class.
        """
        row = self.published
        pairs = () if self.departs else ((self.ap, row.ap), (self.ap50, row.ap50))
        mean = [
            *(row.method, *["mean"] * by_class, row.tested),
            _numbers(row.ap50, row.ap),
            self.instead if self.ap50 is None else _numbers(self.ap50, self.ap),
            difference(*pairs, digits=1),
        ]
        known = [
            (name, papers, self.classes[name]) for name, papers in row.classes.items() if name in self.classes
        ]
        return [
            TableRow(mean, self.note, dim=not row.recipe, rule=by_class),
            *(
                TableRow(
                    [
                        *(row.method, name, row.tested, f"{papers:.1f}"),
                        "-" if ours is None else f"{ours:.1f}",
                        "" if self.departs else difference((ours, papers), digits=1),
                    ]
                )
                for name, papers, ours in known
            ),
        ]


def table(
    study: Study[DetectorRun],
    number: int,
    networks: Sequence[str] | None = None,
    *,
    weights: Mapping[str, Path] | None = None,
    members: int = 1,
    scales: Sequence[int] = SCALES,
) -> None:
    """Run and test what is missing, print one of Tables 7 to 12, and write it as JSON and Markdown.

    Args:
        number: the table's.
        networks: train only these recipes, and show what is there of the others; None for all of the table's.
        weights: what runs start from, folders or names: classifiers by their networks, as "vgg16", and the
            detector of Tables 10 and 11 as "coco".
        members: of the ensemble of Table 9 or 12, to be trained; more that are there belong to it as well.
        scales: shorter sides in pixels for multi-scale testing.

    Raises:
        InputError, Interrupted: as ``Study.runs``; InputError also for wrong weights and data.
    """
    published, weights = TABLES[number], weights or {}
    known = list(dict.fromkeys(row.recipe for row in published if row.recipe))
    together = next((row.recipe for row in published if row.members > 1), None)
    asked = among(known, networks)
    if study.train:
        wanted = [(name, seed) for name in asked for seed in range(members if name == together else 1)]
        others = [(together, run.recipe.seed) for run in study.all_complete(together)] if together else []
        _train_missing(study, wanted, weights, [*((name, 0) for name in known), *others])
    found = {name: run for name in known if (run := study.complete(name))}
    ensemble = study.all_complete(together) if together else []
    runs = list({run.path: run for run in [*found.values(), *ensemble]}.values())
    check_alike(runs)
    _check_tested(run.recipe for run in runs)
    # Runs share their images, and reading the boxes of some ten thousand takes a while.
    identity = functools.cache(_identity)
    rows = []
    for row in published:
        if not row.recipe:
            rows.append(DetectionRow(row, instead="quoted"))
        elif row.members > 1:
            there = {run.recipe.seed for run in ensemble}
            wants = study.train and members > 1 and row.recipe in asked
            seeds = set(range(members if wants else 0)) - there
            needs = (_lacking(study, row.recipe, seed, weights) for seed in sorted(seeds))
            lacking = next((text for text in needs if text), "")
            rows.append(_of_ensemble(study, row, ensemble, lacking, scales, identity))
        elif row.recipe in found:
            rows.append(_of_run(study, row, found[row.recipe], scales, identity))
        else:
            rows.append(DetectionRow(row, note=_lacking(study, row.recipe, 0, weights)))
    departures = departures_of(runs)
    if tuple(scales) != SCALES and any(row.published.multi_scale and row.images for row in rows):
        departures.append(f"multi-scale testing at {_sides(scales)}, not {_sides(SCALES)}")
    _publish(study, number, rows, runs, departures, scales)


def _train_missing(
    study: Study[DetectorRun],
    wanted: Sequence[tuple[str, int]],
    weights: Mapping[str, Path],
    beside: Sequence[tuple[str, int]],
) -> None:
    """Train those of the wanted runs, each a recipe's name and a seed, that are missing and can be.

    Args:
        beside: as of ``Study.train_missing``.

    Raises:
        InputError: for wrong settings, weights and data, and for folders that hold other runs; nothing is
            trained then.
        Interrupted: as ``Study.train_missing``.
    """
    # Wrong settings are wrong even where a run cannot be trained.
    asked = {which: study.recipe(*which) for which in wanted}
    _check_tested(asked.values())
    recipes = {
        which: _with_start(study, recipe, *which, weights)
        for which, recipe in asked.items()
        if not _lacking(study, *which, weights)
    }
    checked = []
    for which, recipe in recipes.items():
        path, data = study.path(*which), recipe.data
        if RunFolder(path).results_file.exists() or data in checked:
            continue
        checked.append(data)
        folder = study.data_dir or remembered_data_dir(path)
        assert folder is not None
        train = load_boxes(folder, data, data.train, data.classes or None)
        if data.test:
            load_boxes(folder, data, data.test, train.classes)
    study.train_missing(recipes, beside)


def _check_tested(recipes: Iterable[AnyRecipe]) -> None:
    for recipe in recipes:
        if isinstance(recipe, DetectionRecipe) and recipe.data.validation:
            raise InputError(
                f"{recipe.name}: the tables are of test sets, at which a run that holds images out does not "
                "look; leave data.validation at 0"
            )


def _lacking(study: Study[DetectorRun], name: str, seed: int, weights: Mapping[str, Path]) -> str:
    """Say what a run lacks to be trained, "" for nothing."""
    start = _start_of(name)
    return study.lacks(name, seed, weights.get(start), f"--weights-{start}")


def _with_start(
    study: Study[DetectorRun], recipe: AnyRecipe, name: str, seed: int, weights: Mapping[str, Path]
) -> DetectionRecipe:
    """Return a run's recipe with the classifier or the detector that it starts from, or was begun with."""
    assert isinstance(recipe, DetectionRecipe)
    start = _start_of(name)
    named, of_coco = weights.get(start), starts_from_coco(name)
    backbone = study.begun_from(name, seed, named)
    # A detector brings more than its network, and is asked for that as long as it is there.
    if backbone and not (of_coco and named and is_detector(named)):
        begun = study.recipe_begun(name, seed)
        assert isinstance(begun, DetectionRecipe)
        if of_coco:
            recipe = going_on(recipe, begun.detector, (begun.data.shorter_side, begun.data.longer_side))
        else:
            detector = recipe.detector.model_copy(update={"backbone": backbone})
            recipe = recipe.model_copy(update={"detector": detector})
    else:
        assert named is not None
        if is_detector(named) != of_coco:
            kinds = ("classifier", "detector") if of_coco else ("detector", "classifier")
            raise InputError("--weights-{} {} holds a {}, and a {} is expected".format(start, named, *kinds))
        recipe = start_from(recipe, named)
    # A detector brings what its layers are made for; what --set says goes before that.
    recipe = override(recipe, study.settings)
    assert isinstance(recipe, DetectionRecipe)
    return recipe


def _start_of(name: str) -> str:
    """Return what a recipe starts from, as the option names it: a classifier's network, or "coco"."""
    if starts_from_coco(name):
        return "coco"
    return find(name, DetectionRecipe).detector.backbone.name


def _identity(folder: Path, data: Boxes, classes: tuple[str, ...], masks: bool) -> str:
    """Return what tells the images that a recipe's detector is tested on from others."""
    return load_boxes(folder, data, data.test, classes, masks=masks).content()


def _of_run(
    study: Study[DetectorRun],
    row: DetectionAP,
    run: DetectorRun,
    scales: Sequence[int],
    identity: Callable[..., str],
) -> DetectionRow:
    if row.tested.startswith("VOC") and not run.recipe.data.test:
        written = any((run.path / SUBMISSION).glob("comp4_det_*.txt"))
        note = f"submission written: {run.name}/{SUBMISSION}" if written else UNWRITTEN
        return DetectionRow(row, instead="not public", note=note)
    if row.tested in SECRET:
        return DetectionRow(row, instead="not public", note=SECRET[row.tested])
    if row.ap is None and not row.refine:
        # What the run itself measured at its end.
        return _measured(row, run.results["test"], bool(run.departures))
    return _tested(study, row, [run], run.path, scales, identity)


def _tested(
    study: Study[DetectorRun],
    row: DetectionAP,
    runs: Sequence[DetectorRun],
    folder: Path,
    scales: Sequence[int],
    identity: Callable[..., str],
) -> DetectionRow:
    """Return a row, testing the detector (or several) if its folder has no result of it.

    Args:
        folder: where the result is kept.
        identity: as ``_identity``.
    """
    sides = tuple(scales) if row.multi_scale else ()
    kind = ["ensemble"] if len(runs) > 1 else ["precision"]
    file = folder / ("-".join(kind + ["refine"] * row.refine + [str(side) for side in sides]) + ".json")
    # A member that was trained again has the name that it had, and other results.
    members: dict[str, Any] = {
        "detectors": [run.name for run in runs],
        "results": [checksum(read_text(RunFolder(run.path).results_file)) for run in runs],
    }
    recipe, classes = runs[0].recipe, tuple(runs[0].results["classes"])
    masks = recipe.detector.masks and recipe.data.layout != "imagenet-det"
    images = study.images(runs[0].path, lambda place: identity(place, recipe.data, classes, masks))
    kept = read_json(file, KeptPrecision, AGAIN) if file.exists() else None
    stale = (
        kept is None
        or any(kept.get(key, now) != now for key, now in members.items())
        or is_of_others(kept, images)
    )
    # A device is needed where something is tested.
    world = (
        distributed.join(open_device(study.device)) if stale or torchrun.started() else distributed.World()
    )
    # Under torchrun all processes test or none does, and one writes.
    if any(world.gather(stale)):
        if not study.data_dir and not remembered_data_dir(runs[0].path):
            return DetectionRow(row, note="no --data-dir")
        kept = members | {"refine": row.refine, "scales": sides}
        kept |= _measure(study, runs, row.refine, sides, coco=row.ap is not None) | {"content": images}
        if world.is_main:
            write_derived(file, as_json(kept))
        world.barrier()
    assert kept is not None
    departs = bool(departures_of(runs)) or (row.multi_scale and sides != SCALES)
    return _measured(row, kept, departs)


def _of_ensemble(
    study: Study[DetectorRun],
    row: DetectionAP,
    runs: Sequence[DetectorRun],
    lacking: str,
    scales: Sequence[int],
    identity: Callable[..., str],
) -> DetectionRow:
    """Return the row of an ensemble.

    Args:
        lacking: what the first member of those asked for lacks that could not be trained, "" for nothing.
    """
    if len(runs) < 2:
        several = "needs several detectors with context, as by --ensemble 3"
        return DetectionRow(row, note=lacking or several)
    if row.tested == "DET test":
        return DetectionRow(row, instead="not public", note=SECRET[row.tested])
    ours = _tested(study, row, runs, runs[0].path.parent, scales, identity)
    if ours.ap50 is None:
        return ours
    # COCO's in the paper is trained on trainval and tested on test-dev: no difference is to be taken.
    alike = row.tested not in SECRET and len(runs) == row.members
    where = "COCO val" if row.tested in SECRET else row.tested
    return replace(ours, departs=ours.departs or not alike, note=f"ours: {len(runs)} detectors, {where}")


def _measured(row: DetectionAP, measured: Mapping[str, Any], departs: bool) -> DetectionRow:
    """Return a row with what a run measured at its end, or its folder keeps."""
    ap50, classes = measured["ap50"], measured["classes"] if row.classes else {}
    note = "no object to be found" if ap50 is None else ""
    return DetectionRow(row, ap50, measured.get("ap"), measured["images"], classes, departs, "-", note)


def _measure(
    study: Study[DetectorRun],
    runs: Sequence[DetectorRun],
    refine: bool,
    scales: Sequence[int],
    coco: bool,
) -> dict[str, Any]:
    """Return the precisions in percent on the runs' test data, None where there is no object.

    Args:
        coco: whether they are COCO's; the one of the runs' own rule if not.
    """
    detector = load_detector(*(run.path for run in runs), device=study.device, refine=refine, scales=scales)
    how = [word for word, on in (("refinement", refine), (f"scales {_sides(scales)}", scales)) if on]
    what = f"testing {', '.join([' + '.join(run.name for run in runs), *how])}"
    with counted(what, silent=torchrun.rank() != 0) as show:
        measured = evaluate_detector(detector, runs[0].path, study.data_dir, coco=coco, progress=show)
    found = measured.coco or {"AP50": measured.mean_ap, "AP": math.nan}
    percent = {key: None if math.isnan(found[key]) else 100 * found[key] for key in ("AP", "AP50")}
    return {
        "data": measured.dataset.name,
        "images": len(measured.dataset),
        "unusable": len(measured.unusable),
        "ap50": percent["AP50"],
        "ap": percent["AP"],
        "classes": {c.name: 100 * c.average_precision if c.objects else None for c in measured.classes},
    }


def _publish(
    study: Study[DetectorRun],
    number: int,
    rows: Sequence[DetectionRow],
    runs: Sequence[DetectorRun],
    departures: Sequence[str],
    scales: Sequence[int],
) -> None:
    started = list(dict.fromkeys(run.origin for run in runs if run.start))
    images = " and ".join(f"{count:,}" for count in sorted({row.images for row in rows if row.images}))
    coco = "COCO's mAP@.5 / mAP@[.5, .95] in percent; differences are of the latter"
    caption = CAPTIONS.get(number, coco)
    caption += f"; ours on {images} images." if images else "."
    caption += f" Started: {'; '.join(started)}." if started else ""
    unwritten = [row.published for row in rows if row.note == UNWRITTEN]
    by_class = any(row.published.classes for row in rows)
    Table(
        f"Table {number}",
        [name for name in HEADINGS if name != "class" or by_class],
        [line for row in rows for line in row.lines(by_class)],
        caption + not_comparable(departures),
        names=3 if by_class else 2,
        remark=_how_to_submit(
            [(run, row) for row in unwritten for run in runs if run.network == row.recipe], scales
        ),
    ).publish(
        study.out,
        f"table{number}",
        {"table": number, "departures": departures, "started": started},
        [asdict(row) for row in rows],
    )


def _how_to_submit(unwritten: Sequence[tuple[DetectorRun, DetectionAP]], scales: Sequence[int]) -> str:
    """Return the commands that write the result files of runs for VOC 2012's server, "" without runs.

    Args:
        unwritten: runs with the rows that are to be theirs.
    """
    if not unwritten:
        return ""
    lines = ["The objects of VOC 12 test are not public. This writes what its server scores:", ""]
    for run, row in unwritten:
        words = ["residual", "detect", "evaluate", str(run.path), "--split", "2012/test", "--no-boxes"]
        words += ["--refine"] * row.refine
        words += ["--scales", ",".join(map(str, scales))] * row.multi_scale
        lines.append("    " + shlex.join([*words, "--submission", str(run.path / SUBMISSION)]))
    return "\n".join(lines)


def _sides(scales: Sequence[int]) -> str:
    return ", ".join(map(str, scales))


def _numbers(ap50: float, ap: float | None) -> str:
    return f"{ap50:.1f}" if ap is None else f"{ap50:.1f} / {ap:.1f}"
