"""Figure 7 (layer responses) and Section 4.1's check of signals, over the study's runs.

What is measured on a run's network is kept in its run folder.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from markupsafe import Markup
from matplotlib.figure import Figure
from pydantic import Field

from ..analysis.layer_figures import (
    Named,
    response_panels,
    responses_figure,
    signal_panels,
    signals_figure,
)
from ..analysis.layers import Response, Signal
from ..analysis.page import part
from ..files import as_json, read_json, write_derived
from ..inference import layers
from ..inference.evaluation import part_of
from ..table import Table, TableRow
from ..terminal import counted
from ..training.folder import Kept
from .curves import networks_of
from .output import publish_figure
from .study import AGAIN, ClassifierRun, Study, is_of_others


class KeptResponse(Kept):
    """A layer's response in responses.json."""

    layer: str
    std: float
    gate: float | None = None


class KeptResponses(Kept):
    """The content of responses.json."""

    layers: Annotated[list[KeptResponse], Field(min_length=1)]


class KeptSignal(Kept):
    """A layer's signal in signals.json."""

    layer: str
    variance_before: float
    variance: float
    gradient_norm: float


class KeptSignals(Kept):
    """The content of signals.json."""

    moments: Annotated[dict[str, Annotated[list[KeptSignal], Field(min_length=1)]], Field(min_length=1)]
    content: str | None = None


#: The depths of Figure 7, and those whose signals are compared.
FIGURE7_DEPTHS, SIGNAL_DEPTHS = (20, 56, 110), (20, 56)
#: Where a run folder keeps what was measured: a complete run's network does not change.
RESPONSES, SIGNALS = "responses.json", "signals.json"
#: Training images that responses are measured on, and BN groups for signals.
IMAGES, GROUPS = 10_000, 4
#: A gradient that reaches a layer with less than this part of the norm it has at the last one has vanished.
VANISHED = 0.01

Signals = dict[str, list[Signal]]
M = TypeVar("M")


def figure7(study: Study[ClassifierRun], depths: Sequence[int] = FIGURE7_DEPTHS) -> None:
    """Run and measure what is missing, draw Figure 7, and say whether its statement holds.

    Raises:
        InputError, Interrupted: as ``Study.runs``.
    """
    runs = study.runs(networks_of(depths))
    measured = [(run, responses_of(study, run)) for run in runs]
    rows = []
    for run, values in measured:
        stds = [response.std for response in values]
        numbers = (min(stds), statistics.mean(stds), max(stds))
        rows.append(TableRow([run.label, str(len(stds)), *(f"{number:.3f}" for number in numbers)]))
    title = "Figure 7: standard deviations of layer responses"
    table = Table(title, ("network", "layers", "smallest", "mean", "largest"), rows)
    networks = {run.label: [asdict(response) for response in values] for run, values in measured}
    figure, said = draw_responses(measured), response_sentences(measured)
    publish_figure(study.out, "figure7", runs, figure, said, {"networks": networks}, table)


def signals(study: Study[ClassifierRun], networks: Sequence[str], only: Sequence[str] | None = None) -> None:
    """Run and measure what is missing, draw the signals by layer, and say whether they vanish.

    Args:
        networks: of the study.
        only: as of ``Study.runs``.

    Raises:
        InputError, Interrupted: as ``Study.runs``.
    """
    runs = study.runs(networks, only=only)
    measured = [(run, signals_of(study, run)) for run in runs]
    about = {"bn_groups": GROUPS, "networks": {run.label: _plain(moments) for run, moments in measured}}
    figure, said = draw_signals(measured), signal_sentences(measured)
    publish_figure(study.out, "signals", runs, figure, said, about, _signals_table(measured))


def responses_of(study: Study[ClassifierRun], run: ClassifierRun) -> list[Response]:
    """Return a run's layer responses, measuring them if its folder does not have them."""
    if (kept := responses_in(run)) is not None:
        return kept
    with counted(f"responses of {run.label}") as show:
        values, images = layers.layer_responses(run.path, None, study.data_dir, IMAGES, study.device, show)
    content = {"images": images, "layers": [asdict(value) for value in values]}
    write_derived(run.path / RESPONSES, as_json(content))
    return values


def responses_in(run: ClassifierRun) -> list[Response] | None:
    """Return the layer responses that a run folder holds, None where it holds none."""
    file = run.path / RESPONSES
    return (
        [Response(**_own(layer, KeptResponse)) for layer in read_json(file, KeptResponses, AGAIN)["layers"]]
        if file.exists()
        else None
    )


def signals_of(study: Study[ClassifierRun], run: ClassifierRun) -> Signals:
    """Return a run's signals by moment, measuring them if its folder does not have them, of these images."""
    images = None
    if run.recipe.data.folder:
        images = study.images(run.path, lambda folder: part_of(run.path, folder, "train").content())
    if (kept := signals_in(run, images)) is not None:
        return kept
    moments = layers.layer_signals(run.path, None, study.data_dir, GROUPS, study.device)
    content = {"bn_groups": GROUPS, "content": images, "moments": _plain(moments)}
    write_derived(run.path / SIGNALS, as_json(content))
    return moments


def signals_in(run: ClassifierRun, images: str | None = None) -> Signals | None:
    """Return the signals that a run folder holds, None where it holds none, or those of other images.

    Args:
        images: as of ``is_of_others``.
    """
    file = run.path / SIGNALS
    if not file.exists() or is_of_others(kept := read_json(file, KeptSignals, AGAIN), images):
        return None
    return {
        moment: [Signal(**_own(layer, KeptSignal)) for layer in values]
        for moment, values in kept["moments"].items()
    }


def _own(layer: dict[str, Any], shape: type[Kept]) -> dict[str, Any]:
    """Return what a file has of a layer that is read; other keys are others' affair."""
    return {key: layer[key] for key in shape.model_fields if key in layer}


def draw_responses(measured: Sequence[tuple[ClassifierRun, list[Response]]]) -> Figure | None:
    """Return Figure 7, None without runs."""
    return responses_figure(_by_name(measured)) if measured else None


def draw_signals(measured: Sequence[tuple[ClassifierRun, Signals]]) -> Figure | None:
    """Return the signals by layer, None without runs."""
    return signals_figure(_by_name(measured)) if measured else None


def responses_for_page(measured: Sequence[tuple[ClassifierRun, list[Response]]]) -> list[Markup]:
    """Return the panels of Figure 7 as parts of a page, none without runs."""
    return _parts("Figure 7, layer responses", response_panels(_by_name(measured)) if measured else {})


def signals_for_page(measured: Sequence[tuple[ClassifierRun, Signals]]) -> list[Markup]:
    """Return the signals by layer as parts of a page, none without runs."""
    return _parts("Signals by layer", signal_panels(_by_name(measured)) if measured else {})


def response_sentences(measured: Sequence[tuple[ClassifierRun, list[Response]]]) -> list[str]:
    """Check Figure 7's statement pair by pair, on the mean standard deviation over a network's layers."""
    mean = {run.label: statistics.mean(r.std for r in values) for run, values in measured}
    pairs = [("ResNet-20", "plain-20"), ("ResNet-56", "plain-56")]
    pairs += [("ResNet-56", "ResNet-20"), ("ResNet-110", "ResNet-56")]
    return [
        f"{less} responds {'less' if mean[less] < mean[more] else 'NOT less'} than {more} "
        f"(mean std {mean[less]:.3f} and {mean[more]:.3f}; the paper: less)"
        for less, more in pairs
        if less in mean and more in mean
    ]


def signal_sentences(measured: Sequence[tuple[ClassifierRun, Signals]]) -> list[str]:
    """Say for each network whether a signal vanishes on its way forwards or backwards."""
    said = []
    for run, moments in measured:
        for moment, values in moments.items():
            variance = min(value.variance for value in values)
            last = values[-1].gradient_norm
            norms = [value.gradient_norm / last if last else 0.0 for value in values]
            least, most = _rounded(min(norms)), _rounded(max(norms))
            forwards = "non-zero variances" if variance > 0 else "a variance of zero"
            backwards = "do not vanish" if min(norms) >= VANISHED else "vanish"
            said.append(
                f"{run.label} {moment}: forward signals have {forwards} (at least {variance:.2g}); gradients "
                f"{backwards} (norms between {least} and {most} times the last layer's)"
            )
    return said


def _rounded(value: float) -> str:
    """Return a number to two digits, a large one written out."""
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 100 else f"{value:.2g}"


def _signals_table(measured: Sequence[tuple[ClassifierRun, Signals]]) -> Table:
    """Return the extremes of each network's signals."""
    rows = []
    for run, moments in measured:
        for moment, values in moments.items():
            variances = [value.variance for value in values]
            norms = [value.gradient_norm for value in values]
            numbers = (min(variances), max(variances), norms[0], norms[-1], min(norms))
            when = moment.removeprefix("at ").removeprefix("after ")
            rows.append(TableRow([run.label, when, *(f"{number:.3g}" for number in numbers)]))
    headings = ("network", "moment", "least variance", "most", "gradient: first", "last", "least")
    return Table("Signals by layer (Section 4.1)", headings, rows, names=2)


def _by_name(measured: Sequence[tuple[ClassifierRun, M]]) -> list[tuple[Named, M]]:
    return [(Named(run.label, run.depth, run.plain), values) for run, values in measured]


def _parts(about: str, panels: dict[str, Figure]) -> list[Markup]:
    return [part(figure, f"{about}, {title}") for title, figure in panels.items()]


def _plain(moments: Signals) -> dict[str, list[dict[str, object]]]:
    return {moment: [asdict(signal) for signal in values] for moment, values in moments.items()}
