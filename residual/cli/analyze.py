"""``residual analyze``: what goes on inside a trained network."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .options import DataDir, Device, Json, print_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look inside a trained network.")

Weights = Annotated[Path, typer.Argument(help="A weights folder or a run folder.")]
DatasetName = Annotated[
    str | None, typer.Option("--dataset", help="Data set (default: the one that the network was trained on).")
]
FigureFile = Annotated[
    Path | None, typer.Option("--out", help="Also draw a figure: a new file ending in .svg or .png.")
]


@app.command(
    epilog="""\b
Examples:
  residual analyze responses runs/cifar10-resnet20 --data-dir ~/data
  residual analyze responses runs/digits-resnet20 --out responses.svg
  residual analyze responses weights/resnet20 --dataset cifar10 --json
"""
)
def responses(
    weights: Weights,
    dataset: DatasetName = None,
    data_dir: DataDir = None,
    images: Annotated[int, typer.Option(min=1, help="Training pictures to measure on.")] = 10_000,
    out: FigureFile = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Standard deviation of each 3x3 layer's response (Figure 7).

    It is taken after BN, before ReLU or addition.
    """
    _check(out)
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from .. import run
    from ..analysis.layer_figures import responses_figure

    with Progress(transient=True, console=Console(stderr=True)) as progress:
        task = progress.add_task("measuring")
        measured, count = run.layer_responses(
            weights,
            dataset,
            data_dir,
            images,
            device,
            lambda total, done: progress.update(task, total=total, completed=done),
        )
    if out:
        _write(out, responses_figure([(run.named(weights), measured)]))
    if as_json:
        layers = [asdict(response) for response in measured]
        print_json({"weights": str(weights), "images": count, "layers": layers})
        return
    table = Table("layer", title=f"Responses of {weights} on {count:,} training pictures")
    table.add_column("std", justify="right")
    for response in measured:
        table.add_row(response.layer, f"{response.std:.3f}")
    Console().print(table)


@app.command(
    epilog="""\b
Examples:
  residual analyze signals runs/cifar10-plain56 --data-dir ~/data
  residual analyze signals runs/digits-plain56 --out signals.svg
"""
)
def signals(
    weights: Weights,
    dataset: DatasetName = None,
    data_dir: DataDir = None,
    groups: Annotated[int, typer.Option(min=1, help="BN groups of training pictures to measure on.")] = 4,
    out: FigureFile = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Variances and gradients' norms, layer by layer (Section 4.1)."""
    _check(out)
    from rich.console import Console
    from rich.table import Table

    from .. import run
    from ..analysis.layer_figures import signals_figure

    measured = run.layer_signals(weights, dataset, data_dir, groups, device)
    if out:
        _write(out, signals_figure([(run.named(weights), measured)]))
    if as_json:
        moments = {moment: [asdict(signal) for signal in layers] for moment, layers in measured.items()}
        print_json({"weights": str(weights), "bn_groups": groups, "moments": moments})
        return
    for moment, layers in measured.items():
        table = Table("layer", title=f"Signals of {weights} {moment}")
        for heading in ("variance before BN", "after BN", "gradient's norm"):
            table.add_column(heading, justify="right")
        for s in layers:
            numbers = (s.variance_before, s.variance, s.gradient_norm)
            table.add_row(s.layer, *(f"{number:.3g}" for number in numbers))
        Console().print(table)


def _check(out: Path | None) -> None:
    """Raise an InputError for a figure's file that cannot be made, before anything is measured."""
    if out is None:
        return
    if out.suffix not in (".svg", ".png"):
        raise InputError(f"--out {out}: a figure is a file ending in .svg or .png")
    if out.exists():
        raise InputError(f"{out} exists already; name another file with --out")


def _write(out: Path, figure: "Figure") -> None:
    from ..analysis.figures import file_content

    try:
        with out.open("xb") as file:
            file.write(file_content(figure, "svg" if out.suffix == ".svg" else "png"))
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror}") from None
    typer.echo(f"wrote {out}", err=True)
