"""Figure 7 (layer responses) and Section 4.1's check of signals, over the study's runs.

What is measured on a run's network is kept in its run folder.
"""

import statistics
from dataclasses import asdict

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .. import run as run_
from ..analysis.layer_figures import Named, responses_figure, signals_figure
from ..analysis.layers import Response, Signal
from ..training.folder import read_json
from .files import write_figure, write_json
from .study import Finished, Study

#: The networks of Figure 7, and those whose signals are compared.
FIGURE7_NETWORKS = ("plain20", "plain56", "resnet20", "resnet56", "resnet110")
SIGNAL_NETWORKS = ("plain20", "plain56", "resnet20", "resnet56")
#: Where a run folder keeps what was measured: a complete run's network does not change.
RESPONSES, SIGNALS = "responses.json", "signals.json"
#: Training pictures that responses are measured on, and BN groups for signals.
PICTURES, GROUPS = 10_000, 4
#: A gradient that reaches a layer with less than this part of the norm it has at the last one has vanished.
VANISHED = 0.01


def figure7(study: Study, networks: tuple[str, ...] = FIGURE7_NETWORKS) -> list[str]:
    """Run and measure what is missing, draw Figure 7, and return whether its statement holds.

    Raises:
        InputError, Interrupted: as ``Study.runs``.
    """
    found = _first_runs(study, networks)
    measured = {run.label: responses_of(study, run) for run in found}
    console = Console()
    if not measured:
        console.print(f"figure 7: not run (none of its runs is in {study.out})", highlight=False)
        return []
    write_figure(study.out, "figure7", responses_figure([(named(run), measured[run.label]) for run in found]))
    said = response_sentences(measured)
    write_json(
        study.out / "figure7.json",
        {
            "statements": said,
            "departures": found[0].departures,
            "pictures": PICTURES,
            "networks": {label: [asdict(r) for r in values] for label, values in measured.items()},
        },
    )
    table = Table("network", title="Figure 7: standard deviations of layer responses")
    for heading in ("layers", "smallest", "mean", "largest"):
        table.add_column(heading, justify="right")
    for label, values in measured.items():
        stds = [r.std for r in values]
        numbers = (min(stds), statistics.mean(stds), max(stds))
        table.add_row(label, str(len(stds)), *(f"{number:.3f}" for number in numbers))
    console.print(table)
    _say(console, said, study, "figure7")
    return said


def signals(study: Study, networks: tuple[str, ...] = SIGNAL_NETWORKS) -> list[str]:
    """Run and measure what is missing, draw the signals by layer, and return what they say.

    Raises:
        InputError, Interrupted: as ``Study.runs``.
    """
    found = _first_runs(study, networks)
    measured = {run.label: signals_of(study, run) for run in found}
    console = Console()
    if not measured:
        console.print(f"signals: not run (none of the runs is in {study.out})", highlight=False)
        return []
    write_figure(study.out, "signals", signals_figure([(named(run), measured[run.label]) for run in found]))
    said = signal_sentences(measured)
    write_json(
        study.out / "signals.json",
        {
            "statements": said,
            "departures": found[0].departures,
            "bn_groups": GROUPS,
            "networks": {
                label: {moment: [asdict(s) for s in values] for moment, values in moments.items()}
                for label, moments in measured.items()
            },
        },
    )
    console.print(signals_table(measured))
    _say(console, said, study, "signals")
    return said


def named(run: Finished) -> Named:
    """Return what a figure calls a run's network."""
    return Named(run.label, run.depth, run.network.startswith("plain"))


def responses_of(study: Study, run: Finished) -> list[Response]:
    """Return a run's layer responses, measuring them if its folder does not have them."""
    if (kept := responses_in(run)) is not None:
        return kept
    with Progress(transient=True) as progress:
        task = progress.add_task(f"responses of {run.label}", total=PICTURES)
        values, pictures = run_.layer_responses(
            run.path,
            None,
            study.data_dir,
            PICTURES,
            study.device,
            lambda total, done: progress.update(task, total=total, completed=done),
        )
    write_json(run.path / RESPONSES, {"pictures": pictures, "layers": [asdict(value) for value in values]})
    return values


def responses_in(run: Finished) -> list[Response] | None:
    """Return the layer responses that a run folder holds, None where it holds none."""
    file = run.path / RESPONSES
    return [Response(**layer) for layer in read_json(file)["layers"]] if file.exists() else None


def signals_of(study: Study, run: Finished) -> dict[str, list[Signal]]:
    """Return a run's signals by moment, measuring them if its folder does not have them."""
    if (kept := signals_in(run)) is not None:
        return kept
    moments = run_.layer_signals(run.path, None, study.data_dir, GROUPS, study.device)
    plain = {moment: [asdict(value) for value in values] for moment, values in moments.items()}
    write_json(run.path / SIGNALS, {"bn_groups": GROUPS, "moments": plain})
    return moments


def signals_in(run: Finished) -> dict[str, list[Signal]] | None:
    """Return the signals that a run folder holds, None where it holds none."""
    file = run.path / SIGNALS
    if not file.exists():
        return None
    moments = read_json(file)["moments"]
    return {moment: [Signal(**layer) for layer in layers] for moment, layers in moments.items()}


def response_sentences(measured: dict[str, list[Response]]) -> list[str]:
    """Check Figure 7's statement pair by pair, on the mean standard deviation over a network's layers."""
    mean = {label: statistics.mean(r.std for r in values) for label, values in measured.items()}
    pairs = [("ResNet-20", "plain-20"), ("ResNet-56", "plain-56")]
    pairs += [("ResNet-56", "ResNet-20"), ("ResNet-110", "ResNet-56")]
    return [
        f"{less} responds {'less' if mean[less] < mean[more] else 'NOT less'} than {more} "
        f"(mean std {mean[less]:.3f} and {mean[more]:.3f}; the paper: less)"
        for less, more in pairs
        if less in mean and more in mean
    ]


def signal_sentences(measured: dict[str, dict[str, list[Signal]]]) -> list[str]:
    """Say for each network whether a signal vanishes on its way forwards or backwards."""
    said = []
    for label, moments in measured.items():
        for moment, values in moments.items():
            variance = min(value.variance for value in values)
            last = values[-1].gradient_norm
            norms = [value.gradient_norm / last if last else 0.0 for value in values]
            forwards = "non-zero variances" if variance > 0 else "a variance of zero"
            backwards = "do not vanish" if min(norms) >= VANISHED else "vanish"
            said.append(
                f"{label} {moment}: forward signals have {forwards} (at least {variance:.2g}); gradients "
                f"{backwards} (norms between {min(norms):.2g} and {max(norms):.2g} times the last layer's)"
            )
    return said


def signals_table(measured: dict[str, dict[str, list[Signal]]]) -> Table:
    """Return the extremes of each network's signals."""
    table = Table("network", "moment", title="Signals by layer (Section 4.1)")
    for heading in ("least variance", "most", "gradient: first", "last", "least"):
        table.add_column(heading, justify="right")
    for label, moments in measured.items():
        for moment, values in moments.items():
            variances = [value.variance for value in values]
            norms = [value.gradient_norm for value in values]
            numbers = (min(variances), max(variances), norms[0], norms[-1], min(norms))
            table.add_row(
                label,
                moment.removeprefix("at ").removeprefix("after "),
                *(f"{number:.3g}" for number in numbers),
            )
    return table


def _first_runs(study: Study, networks: tuple[str, ...]) -> list[Finished]:
    found = study.runs(networks, 1)
    return [found[network][0] for network in networks if found[network]]


def _say(console: Console, said: list[str], study: Study, name: str) -> None:
    for line in (*said, f"written: {study.out / name}.svg, .png, .json"):
        console.print(line, highlight=False, soft_wrap=True)
