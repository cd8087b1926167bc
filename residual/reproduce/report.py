"""One self-contained HTML page of a study's folder: paper beside measured, "not run" where nothing was."""

from importlib.metadata import version
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure
from rich.console import Console

from ..analysis.figures import page_svg
from ..analysis.layer_figures import responses_figure, signals_figure
from ..errors import InputError
from . import curves, layer_studies, table6
from .files import write_text
from .page import render
from .study import Finished, check_alike, departures_of, environments, label_of, read_finished


def report(out: Path) -> Path:
    """Write ``report.html`` into a study's folder from its complete runs; nothing is trained.

    Returns:
        The page's path.

    Raises:
        InputError: when there is no such folder, or its runs depart from the paper in different ways.
    """
    if not out.is_dir():
        raise InputError(f"there is no folder {out}; residual reproduce table6 --out {out} makes one")
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


def _svg(figure: Figure | None, label: str) -> Markup | None:
    """Return a figure as a part of the page, None where nothing was run."""
    return Markup(page_svg(figure, label)) if figure else None
