"""Tables 2 to 5 and Figure 4: plain and residual networks on ImageNet, or on any folder of images.

A network's errors by a protocol are kept in its run folder, and so are its scores for ensembles.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .. import distributed, torchrun
from ..analysis.figures import Panel
from ..device import open_device
from ..evaluation.scores import save_scores
from ..evaluation.views import ViewsName
from ..files import as_json, read_json, write_derived
from ..inference.ensemble import evaluate_ensemble
from ..inference.evaluation import EvaluationOptions, evaluate, part_of
from ..recipes import Recipe
from ..table import Table, TableRow, difference, not_comparable
from ..terminal import counted, say
from ..training.folder import Kept
from .curves import curve, draw, publish_curves
from .paper import TABLE2, TABLE3, TABLE4, TABLE5, ImageNetErrors
from .study import AGAIN, ClassifierRun, Family, Study, among, departures_of, is_of_others

IMAGENET = Family(
    "imagenet-",
    Recipe,
    ClassifierRun,
    ("name", "model", "seed"),
    "--set cannot change the network or the seed of an experiment; networks are named by --networks",
)
TINY_IMAGENET = replace(IMAGENET, prefix="tiny-imagenet-", papers=IMAGENET.prefix)
#: By the name of the dataset.
FAMILIES = {"imagenet": IMAGENET, "tiny-imagenet": TINY_IMAGENET}
TABLES = {2: TABLE2, 3: TABLE3, 4: TABLE4}
HEADINGS = ("method", "paper, top-1 %", "top-5 %", "ours, top-1 %", "top-5 %", "diff.")
#: Figure 4's panels, and where its axes end in percent.
FIGURE4 = {"plain networks": ("plain18", "plain34"), "residual networks": ("resnet18", "resnet34-a")}
FIGURE4_TOP = 60
#: Our ensemble, networks and seeds: "six models of different depth (only with two 152-layer ones)". Which the
#: others are the paper does not say; here they are those of Table 4.
ENSEMBLE = (*((row.network, 0) for row in TABLE4 if row.network and not row.quoted), ("resnet152", 1))

TEN_CROP: ViewsName = "ten-crop"
MULTI_SCALE: ViewsName = "multi-scale"


class KeptErrors(Kept):
    """What is read of a run's errors by a protocol."""

    top1_error: float
    top5_error: float
    images: int
    content: str | None = None


@dataclass(frozen=True)
class ImageNetRow:
    """A row of Tables 2 to 5: the paper's errors and ours.

    Attributes:
        published: the paper's row.
        top1, top5: ours in percent, None where nothing was run.
        images: how many validation images ours are of.
        departs: whether our run is of another schedule or dataset than the paper's.
    """

    published: ImageNetErrors
    top1: float | None = None
    top5: float | None = None
    images: int | None = None
    departs: bool = False

    @property
    def quoted(self) -> bool:
        """Whether there are the paper's errors alone, of a system of others."""
        return self.published.quoted and self.top1 is None

    def cells(self) -> list[str]:
        """Return the row as text, in the order of ``HEADINGS``."""
        row = self.published
        pairs = () if self.departs or not row.same else ((self.top5, row.top5), (self.top1, row.top1))
        nothing = "quoted" if self.quoted else "not run"
        return [
            row.method,
            _number(row.top1),
            _number(row.top5),
            nothing if self.top1 is None else _number(self.top1),
            "" if self.top5 is None else _number(self.top5),
            difference(*pairs, digits=2),
        ]


def table(study: Study[ClassifierRun], number: int, networks: Sequence[str] | None = None) -> None:
    """Run and test what is missing, print Table 2, 3, 4 or 5, and write it as JSON and Markdown.

    Args:
        number: 2, 3 (ten-crop testing), 4 (multi-scale testing) or 5 (its networks' mean scores).
        networks: train only these, and show what is there of the others; None for the paper's own.

    Raises:
        InputError, Interrupted: as ``Study.runs``; InputError for networks that the table has not.
    """
    if number == 5:
        _table5(study, networks)
        return
    published = TABLES[number]
    protocol = MULTI_SCALE if number == 4 else TEN_CROP
    known = study.family.networks
    own = [row.network for row in published if row.network in known and not row.quoted]
    rivals = [row.network for row in published if row.network and row.quoted]
    asked = among([*own, *(name for name in rivals if name in known)], networks) if networks else own
    # Of those that the paper quotes are shown that are there, by whatever recipe.
    shown = [name for name in rivals if name in asked or study.complete(name)]
    runs = study.runs([*shown, *own], only=asked)
    by_name = {run.network: run for run in runs}
    rows = []
    for row in published:
        run = by_name.get(row.network or "")
        if run is None:
            rows.append(ImageNetRow(row))
            continue
        found = errors_of(study, run, protocol)
        rows.append(
            ImageNetRow(row, found["top1_error"], found["top5_error"], found["images"], bool(run.departures))
        )
    _publish(study, number, protocol, rows, runs)


def figure4(study: Study[ClassifierRun], networks: Sequence[str] | None = None) -> None:
    """Run what is missing, draw Figure 4 as figure4.svg and .png, and say what it shows and where it ends.

    Args:
        networks: train only these, and draw what is there of the others; None for all four.

    Raises:
        InputError, Interrupted: as ``Study.runs``.
    """
    runs = study.runs([name for names in FIGURE4.values() for name in names], only=networks)
    panels = [
        Panel(title, tuple(curve(run) for run in chosen))
        for title, names in FIGURE4.items()
        if (chosen := [run for run in runs if run.network in names])
    ]
    publish_curves(study, "figure4", draw(panels, runs, FIGURE4_TOP), runs, _final_errors(runs))


def _final_errors(runs: Sequence[ClassifierRun]) -> Table:
    """Return where the curves end, beside what the paper tells of its own in Table 2."""
    papers = {row.network: row.top1 for row in TABLE2}
    rows = [
        TableRow(
            [
                run.label,
                _number(papers[run.network]),
                _number(run.training_error),
                _number(run.results[run.held_out]["top1_error"]),
            ]
        )
        for run in runs
    ]
    headings = ("network", "paper, ten-crop", "ours, training", "validation")
    return Table("Figure 4: final top-1 errors in percent, ours of one crop", headings, rows)


def errors_of(study: Study[ClassifierRun], run: ClassifierRun, protocol: ViewsName) -> dict[str, Any]:
    """Return a run's errors by a protocol, testing it if its folder does not have them, of these images."""
    file, scores = run.path / f"errors-{protocol}.json", _scores_file(run, protocol)
    images = study.images(run.path, lambda folder: part_of(run.path, folder, "test").content())
    there = file.exists() and scores.exists()
    if not there or is_of_others(read_json(file, KeptErrors, AGAIN), images):
        options = EvaluationOptions("folder", "test", study.data_dir, protocol)
        what, first = f"testing {run.label}, {protocol}", torchrun.rank() == 0
        if first:
            say(what, stderr=True)
        with counted(what, silent=not first) as show:
            outcome = evaluate(run.path, options, device=study.device, keep_scores=True, progress=show)
        assert outcome.scores is not None
        if first:
            scores.unlink(missing_ok=True)
            save_scores(outcome.scores, scores)
            write_derived(file, as_json(outcome.summary() | {"content": images}))
        # No rank reads before the first has written.
        distributed.join(open_device(study.device)).barrier()
    return read_json(file, KeptErrors, AGAIN)


def _table5(study: Study[ClassifierRun], networks: Sequence[str] | None) -> None:
    known = study.family.networks
    runs = study.members([member for member in ENSEMBLE if member[0] in known], networks)
    *quoted, ours = map(ImageNetRow, TABLE5)
    if runs:
        for run in runs:
            errors_of(study, run, MULTI_SCALE)
        files = [_scores_file(run, MULTI_SCALE) for run in runs]
        members, scores = evaluate_ensemble(files, EvaluationOptions(), device=study.device)
        found = scores.metrics()
        ours = ImageNetRow(TABLE5[-1], found.top1_error, found.top5_error, found.images)
        for run, (_, alone) in zip(runs, members, strict=True):
            say(f"{run.label}, seed {run.recipe.seed}, alone: top-5 error {alone.top5_error:.2f} %")
    _publish(study, 5, f"{MULTI_SCALE}, ensemble of {len(runs)}", [*quoted, ours], runs)


def _publish(
    study: Study[ClassifierRun],
    number: int,
    protocol: str,
    rows: Sequence[ImageNetRow],
    runs: Sequence[ClassifierRun],
) -> None:
    departures = departures_of(runs)
    images = next((f", {row.images:,} images" for row in rows if row.images), "")
    cells = [row.cells() for row in rows]
    # Table 2 has top-1 errors alone.
    compared = "; differences are of top-5 errors" if number != 2 and any(row[-1] for row in cells) else ""
    Table(
        f"Table {number}",
        HEADINGS,
        [TableRow(text, row.published.note, row.quoted) for text, row in zip(cells, rows, strict=True)],
        f"Errors on the validation set ({protocol} testing{images}){compared}.{not_comparable(departures)}",
    ).publish(
        study.out,
        f"table{number}",
        {"table": number, "protocol": protocol, "departures": departures},
        [asdict(row) for row in rows],
    )


def _scores_file(run: ClassifierRun, protocol: ViewsName) -> Path:
    return run.path / f"scores-{protocol}.safetensors"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
