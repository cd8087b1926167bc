"""One self-contained HTML page of what was measured: paper beside measured, "not run" where nothing was.

The CIFAR-10 study is drawn from its runs; the other tables and Figure 4 are shown as their commands left
them.
"""

import base64
from importlib.metadata import version
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from rich.console import Console

from ..analysis.figures import page_svg
from ..analysis.layer_figures import responses_figure, signals_figure
from ..errors import InputError
from ..training.folder import read_json
from . import curves, layer_studies, table6
from .files import write_text
from .page import render
from .study import Finished, check_alike, departures_of, environments, label_of, read_finished

#: Tables that their commands left as files, and what they are about.
IMAGENET = {
    2: "plain and residual networks on ImageNet (ten-crop)",
    3: "ImageNet, ten-crop testing",
    4: "ImageNet, single models",
    5: "ImageNet, ensembles",
}
DETECTION = {
    7: "detection on PASCAL VOC",
    8: "detection on COCO",
    9: "detection on COCO, improvements",
}


def report(out: Path, imagenet: Path, detection: Path) -> Path:
    """Write ``report.html`` into the folder of the CIFAR-10 study; nothing is trained.

    Args:
        out: the study of Table 6 and its figures.
        imagenet, detection: the studies of Tables 2 to 5, and 7 to 9; they need not exist.

    Returns:
        The page's path.

    Raises:
        InputError: when there is no folder ``out``, or its runs depart from the paper in different ways.
    """
    if not out.is_dir():
        raise InputError(f"there is no folder {out}; residual reproduce table6 --out {out} makes one")
    tables = [
        (number, text, saved)
        for folder, texts in ((imagenet, IMAGENET), (detection, DETECTION))
        for number, text in texts.items()
        for saved in [_saved(folder, number)]
    ]
    figure4 = imagenet / "figure4.svg"
    runs = runs_in(out)
    check_alike(runs)
    # The lowest seed of each network.
    firsts = {run.network: run for run in reversed(runs)}
    unfinished = sorted(
        str(path.parent.relative_to(out))
        for path in out.glob("cifar10-*/seed*/recipe.yaml")
        if not (path.parent / "results.json").exists()
    )
    departures = departures_of(runs)
    rows = table6.rows_of(
        {
            depth: [run for run in runs if run.network == f"resnet{depth}"]
            for depth in {*table6.DEPTHS, *(run.depth for run in runs if run.network.startswith("resnet"))}
        }
    )
    plain = [firsts[name] for name in curves.FIGURE1 if name in firsts]
    all_firsts = list(firsts.values())[::-1]
    responses = [(run, layers) for run in all_firsts if (layers := layer_studies.responses_in(run))]
    signals = [(run, moments) for run in all_firsts if (moments := layer_studies.signals_in(run))]
    page = out / "report.html"
    text = render(
        "report.html.jinja",
        tables=tables,
        figure4=base64.b64encode(figure4.read_bytes()).decode() if figure4.is_file() else None,
        departures=departures,
        headings=table6.HEADINGS,
        rows=rows,
        caption=table6.caption(runs),
        figure1=_svg(curves.draw_figure1(plain), "Figure 1, training and test errors of plain networks"),
        figure6=_svg(curves.draw_figure6(all_firsts), "Figure 6, errors against iterations"),
        figure7=_svg(
            responses_figure([(layer_studies.named(run), values) for run, values in responses])
            if responses
            else None,
            "Figure 7, standard deviations of layer responses",
        ),
        signals=_svg(
            signals_figure([(layer_studies.named(run), values) for run, values in signals])
            if signals
            else None,
            "Variances and gradients' norms by layer",
        ),
        depth_sentences=curves.sentences(all_firsts),
        response_sentences=layer_studies.response_sentences({r.label: v for r, v in responses}),
        signal_sentences=layer_studies.signal_sentences({r.label: v for r, v in signals}),
        runs=runs,
        unfinished=unfinished,
        environments=environments(runs),
        absent=[label_of(name) for name in curves.networks_of(table6.DEPTHS) if name not in firsts],
        version=version("residual"),
    )
    write_text(page, text)
    console = Console()
    for line in (
        f"{len(runs)} complete runs in {out}" + (f", {len(unfinished)} unfinished" if unfinished else ""),
        f"The page: {page}",
        f"Open it in a browser: {page.resolve().as_uri()}",
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return page


def runs_in(out: Path) -> list[Finished]:
    """Return the complete runs of a study's folder, shallow to deep, lower seeds first."""
    found = [read_finished(path.parent) for path in out.glob("cifar10-*/seed*/results.json")]
    return sorted((run for run in found if run), key=lambda run: (run.network[0], run.depth, run.recipe.seed))


def _saved(folder: Path, number: int) -> dict[str, Any] | None:
    """Return a table as its command left it, None where it did not."""
    file = folder / f"table{number}.json"
    return read_json(file) if file.is_file() else None


def _svg(figure: Figure | None, label: str) -> Markup | None:
    """Return a figure as a part of the page, None where nothing was run."""
    return Markup(page_svg(figure, label)) if figure else None
