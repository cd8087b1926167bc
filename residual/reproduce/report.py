"""One self-contained HTML page of what was measured: paper beside measured, "not run" where nothing was.

The CIFAR-10 study is drawn from its runs; the other tables and Figure 4 are shown as their commands left
them.
"""

import base64
import shlex
from pathlib import Path
from typing import Any

from ..analysis.page import render
from ..errors import InputError
from ..files import quoted, read_json, without_home, write_derived
from ..table import not_comparable
from ..terminal import say
from ..training.folder import Kept
from . import curves, layer_studies, table6
from .output import ways_to
from .study import AGAIN, CIFAR10, Study, check_alike, departures_of, environments, label_of

#: Tables that their commands left as files, and what they are about; of what images is in their captions.
IMAGENET = {
    2: "plain and residual networks, ten-crop testing",
    3: "single models, ten-crop testing",
    4: "single models, multi-scale testing",
    5: "ensembles, multi-scale testing",
}
DETECTION = {
    7: "detection on PASCAL VOC",
    8: "detection on COCO",
    9: "detection on COCO, improvements",
    10: "detection on PASCAL VOC 2007 by class, improvements",
    11: "detection on PASCAL VOC 2012 by class, improvements",
    12: "detection on ImageNet",
}


def report(out: Path, imagenet: Path, detection: Path) -> Path:
    """Write ``report.html`` into the folder of the CIFAR-10 study; nothing is trained.

    Args:
        out: the study of Table 6 and its figures.
        imagenet, detection: the studies of Tables 2 to 5, and 7 to 12. One of the three has to exist.

    Returns:
        The page's path.

    Raises:
        InputError: when none of the folders is there, or the runs in ``out`` depart from the paper in
            different ways.
    """
    if not any(folder.is_dir() for folder in (out, imagenet, detection)):
        raise InputError(
            f"there is no folder {out}, and neither {imagenet} nor {detection}; residual reproduce table6 "
            f"--out {shlex.quote(str(out))} makes the first in days, with --depths 20 "
            "--set schedule.iterations=2000 in minutes"
        )
    study = Study(out, CIFAR10, train=False)
    by_network = {name: found for name in CIFAR10.networks if (found := study.all_complete(name))}
    runs = [run for found in by_network.values() for run in found]
    check_alike(runs)
    # The lowest seed of each network.
    firsts = [found[0] for found in by_network.values()]
    unfinished = sorted(
        str(path.parent.relative_to(out))
        for path in out.glob(f"{CIFAR10.prefix}*/seed*/recipe.yaml")
        if not (path.parent / "results.json").exists()
    )
    responses = [(run, layers) for run in firsts if (layers := layer_studies.responses_in(run))]
    signals = [(run, moments) for run in firsts if (moments := layer_studies.signals_in(run))]
    rows = table6.rows_of([*{*table6.DEPTHS, *(run.depth for run in curves.by_kind(runs)[1])}], runs)
    plain = [run for run in firsts if run.network in curves.FIGURE1]
    # Errors of deeper plain networks are not displayed, as in the paper: all others would lie on the floor.
    shown = [run for run in firsts if not (run.plain and run.depth > curves.DEEPEST_PLAIN)]
    of_tiny = " --dataset tiny-imagenet" * any(imagenet.glob("tiny-imagenet-*"))
    tables = [
        (number, about, _saved(folder, number), quoted(without_home(str(folder))) + dataset)
        for folder, those, dataset in ((imagenet, IMAGENET, of_tiny), (detection, DETECTION, ""))
        for number, about in those.items()
    ]
    text = render(
        "report.html.jinja",
        folder=quoted(without_home(str(out))),
        table6=table6.as_table(rows, runs).content(),
        tables=tables,
        figure1=curves.for_page(curves.figure1_panels(plain), plain, "Figure 1"),
        figure4=_saved_figure(imagenet, "figure4"),
        figure6=curves.for_page(curves.figure6_panels(shown), shown, "Figure 6"),
        figure7=layer_studies.responses_for_page(responses),
        signals=layer_studies.signals_for_page(signals),
        depth_sentences=curves.sentences(firsts),
        response_sentences=layer_studies.response_sentences(responses),
        signal_sentences=layer_studies.signal_sentences(signals),
        runs=runs,
        held_out=runs[0].held_out if runs else "",
        departures=departures_of(runs),
        environments=environments(runs),
        unfinished=unfinished,
        absent=[label_of(name) for name in curves.networks_of(table6.DEPTHS) if name not in by_network],
    )
    page = out / "report.html"
    write_derived(page, text)
    begun = f", {len(unfinished)} unfinished" if unfinished else ""
    say(f"{len(runs)} complete runs on CIFAR-10 in {out}{begun}")
    there = {number for number, _, table, _ in tables if table}
    missing = [
        f"of {what} in {folder} ({option})"
        for what, those, folder, option in (
            ("ImageNet", IMAGENET, imagenet, "--imagenet"),
            ("detection", DETECTION, detection, "--detection"),
        )
        if there.isdisjoint(those)
    ]
    if missing:
        say(f"no table is there {' and '.join(missing)}")
    say(*ways_to(page))
    return page


class PublishedTable(Kept):
    """What is read of a table's JSON."""

    caption: str
    headings: list[str]
    cells: list[list[str]]


def _saved(folder: Path, number: int) -> dict[str, Any] | None:
    """Return a table as its command left it, None where it did not."""
    file = folder / f"table{number}.json"
    return read_json(file, PublishedTable, AGAIN) if file.is_file() else None


class PublishedFigure(Kept):
    """What is read of a figure's JSON."""

    statements: list[str]
    departures: list[str]


def _saved_figure(folder: Path, name: str) -> dict[str, Any] | None:
    """Return a figure as its command left it, with what it says, None where it did not."""
    drawn, said = folder / f"{name}.svg", folder / f"{name}.json"
    if not (drawn.is_file() and said.is_file()):
        return None
    found = read_json(said, PublishedFigure, AGAIN)
    return {
        "image": base64.b64encode(drawn.read_bytes()).decode(),
        "statements": found["statements"],
        "note": not_comparable(found["departures"]),
    }
