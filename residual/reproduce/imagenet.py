"""Tables 2 to 5 and Figure 4: plain and residual networks on ImageNet, or on any folder of pictures.

A network's errors by a protocol are kept in its run folder, and so are its scores for ensembles.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from ..analysis.figures import Panel
from ..errors import InputError
from ..evaluation.scores import load_scores, save_scores
from ..run_evaluation import Options, evaluate, score_ensemble
from ..training.folder import read_json
from .curves import curve, draw, finish
from .files import write_json, write_text
from .paper import TABLE2, TABLE3, TABLE4, TABLE5, Errors
from .study import Finished, Study, departures_of

#: Figure 4's panels, and where its axes end in percent.
FIGURE4 = {"plain networks": ("plain18", "plain34"), "residual networks": ("resnet18", "resnet34-a")}
FIGURE4_TOP = 60
#: The networks of our ensemble: those of Table 4. The paper's has six networks "of different depth".
ENSEMBLE = tuple(row.network for row in TABLE4 if row.network)

TEN_CROP, MULTI_SCALE = "ten-crop", "multi-scale"


@dataclass(frozen=True)
class Row:
    """A row of Tables 2 to 5: the paper's errors and ours.

    Attributes:
        published: the paper's row.
        top1, top5: ours in percent, None where nothing was run.
        images: how many validation pictures ours are of.
        departs: whether our run is of another schedule or data set than the paper's.
    """

    published: Errors
    top1: float | None = None
    top5: float | None = None
    images: int | None = None
    departs: bool = False

    def cells(self) -> list[str]:
        """Return the row as text, in the order of ``HEADINGS``."""
        row = self.published
        quoted = row.network is None
        nothing = "quoted" if quoted else "not run"
        difference = ""
        if not self.departs and self.top5 is not None and row.top5 is not None:
            difference = f"{self.top5 - row.top5:+.2f}"
        elif not self.departs and self.top1 is not None and row.top1 is not None:
            difference = f"{self.top1 - row.top1:+.2f}"
        return [
            row.method,
            _number(row.top1),
            _number(row.top5),
            nothing if self.top1 is None else _number(self.top1),
            "" if self.top5 is None else _number(self.top5),
            difference,
            row.note,
        ]


HEADINGS = ("method", "paper, top-1 %", "top-5 %", "ours, top-1 %", "top-5 %", "diff.", "")


def table(study: Study, number: int, networks: Sequence[str] | None = None) -> list[Row]:
    """Run and test what is missing, print Table 2, 3 or 4, and write it as JSON and Markdown.

    Args:
        number: 2, 3 (ten-crop testing) or 4 (multi-scale testing).
        networks: train only these, and show what is there of the others; None for all of the table's.

    Raises:
        InputError, Interrupted: as ``Study.runs``; InputError for networks that the table has not.
    """
    published = {2: TABLE2, 3: TABLE3, 4: TABLE4}[number]
    protocol = MULTI_SCALE if number == 4 else TEN_CROP
    runs = _runs(study, [row.network for row in published if row.network], networks)
    rows = []
    for row in published:
        finished = runs.get(row.network or "")
        if finished is None:
            rows.append(Row(row))
            continue
        found = errors_of(study, finished, protocol)
        rows.append(
            Row(row, found["top1_error"], found["top5_error"], found["images"], bool(finished.departures))
        )
    _write(study, number, protocol, rows, list(runs.values()))
    return rows


def table5(study: Study, networks: Sequence[str] | None = None) -> list[Row]:
    """Run and test what is missing, average the networks' multi-scale scores, and print Table 5.

    Raises:
        InputError, Interrupted: as ``table``.
    """
    runs = list(_runs(study, list(ENSEMBLE), networks).values())
    rows = [Row(row) for row in TABLE5]
    if runs:
        for run in runs:
            errors_of(study, run, MULTI_SCALE)
        members, together = score_ensemble(
            [run.path / _scores_file(MULTI_SCALE) for run in runs], Options(), device=study.device
        )
        metrics = together.metrics()
        departs = any(run.departures for run in runs)
        rows[-1] = Row(TABLE5[-1], metrics.top1_error, metrics.top5_error, metrics.images, departs)
        console = Console()
        for run, (_, alone) in zip(runs, members, strict=True):
            console.print(f"{run.label} alone: top-5 error {alone.top5_error:.2f} %", highlight=False)
    _write(study, 5, f"{MULTI_SCALE}, ensemble of {len(runs)}", rows, runs)
    return rows


def figure4(study: Study) -> list[str]:
    """Run what is missing, draw Figure 4 as figure4.svg and .png, and return what it says.

    Raises:
        InputError, Interrupted: as ``Study.runs``.
    """
    found = _runs(study, [name for names in FIGURE4.values() for name in names], None)
    panels = [
        Panel(title, tuple(curve(found[name]) for name in names if name in found))
        for title, names in FIGURE4.items()
        if any(name in found for name in names)
    ]
    runs = list(found.values())
    return finish(study, "figure4", draw(panels, runs, FIGURE4_TOP) if panels else None, runs)


def errors_of(study: Study, run: Finished, protocol: str) -> dict[str, Any]:
    """Return a run's errors by a protocol, testing it if its folder does not have them."""
    file = run.path / f"errors-{protocol}.json"
    scores = run.path / _scores_file(protocol)
    if not file.exists() or not scores.exists():
        Console(stderr=True).print(f"testing {run.label}, {protocol}", highlight=False)
        options = Options("folder", "test", study.data_dir, protocol)  # type: ignore[arg-type]
        outcome = evaluate(run.path, options, device=study.device, keep_scores=True)
        assert outcome.scores is not None
        scores.unlink(missing_ok=True)
        save_scores(outcome.scores, scores)
        write_json(file, outcome.summary())
    load_scores(scores)
    return read_json(file)


def _scores_file(protocol: str) -> str:
    return f"scores-{protocol}.safetensors"


def _runs(study: Study, known: list[str], asked: Sequence[str] | None) -> dict[str, Finished]:
    """Return the complete runs of the known networks, training those that are asked for and missing."""
    if asked and (strange := [name for name in asked if name not in known]):
        raise InputError(f"--networks {strange[0]}: this experiment has {', '.join(known)}")
    study.runs(asked or known, 1)
    found = Study(**{**vars(study), "train": False}).runs(known, 1)
    return {name: runs[0] for name, runs in found.items() if runs}


def _write(study: Study, number: int, protocol: str, rows: list[Row], runs: list[Finished]) -> None:
    departures = departures_of(runs)
    images = next((row.images for row in rows if row.images), None)
    caption = f"Errors on the validation set ({protocol} testing"
    caption += f", {images:,} pictures)." if images else ")."
    if departures:
        caption += f" Not the paper's experiment, so not comparable: {'; '.join(departures)}."
    shown = Table(title=f"Table {number}", caption=caption)
    for place, heading in enumerate(HEADINGS):
        shown.add_column(heading, justify="left" if place in (0, len(HEADINGS) - 1) else "right")
    for row in rows:
        shown.add_row(*row.cells(), style="dim" if row.published.network is None else None)
    console = Console()
    console.print(shown)
    lines = [f"# Table {number}", "", "| " + " | ".join(HEADINGS) + " |", "|---|--:|--:|--:|--:|--:|---|"]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    write_text(study.out / f"table{number}.md", "\n".join([*lines, "", caption]) + "\n")
    content = {"table": number, "protocol": protocol, "departures": departures}
    # As it was printed, for the report.
    content |= {"caption": caption, "headings": HEADINGS, "cells": [row.cells() for row in rows]}
    write_json(study.out / f"table{number}.json", content | {"rows": [asdict(row) for row in rows]})
    written = f"written: {study.out / f'table{number}'}.md, .json"
    console.print(written, highlight=False, soft_wrap=True)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
