"""``residual analyze``: what goes on inside a trained network."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    DatasetName,
    Device,
    Json,
    TestDataDir,
    WeightsFolder,
    check_figure_file,
    progress_bar,
    write_figure,
)
from .output import made_by, print_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look inside a trained network.")

FigureFile = Annotated[
    Path | None, typer.Option("--out", help="Also draw a figure: a new file ending in .svg or .png.")
]


@app.command(
    epilog="""\b
Examples:
  residual analyze responses runs/cifar10-resnet20 --data-dir ~/data
  residual analyze responses runs/digits-resnet20 --out responses.svg
  residual analyze responses weights/resnet20 --dataset cifar10 --json
  residual analyze responses runs/digits-highway19
"""
)
def responses(
    weights: WeightsFolder,
    dataset: DatasetName = None,
    data_dir: TestDataDir = None,
    images: Annotated[int, typer.Option(min=1, help="Training images to measure on.")] = 10_000,
    out: FigureFile = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Standard deviation of each 3x3 layer's response (Figure 7).

    It is taken after BN, before ReLU or addition. Of a highway network also how open each layer's gate is.
    """
    check_figure_file("--out", out)
    from ..analysis.layer_figures import responses_figure
    from ..inference import layers
    from ..table import Table, TableRow
    from ..terminal import note

    about = made_by(device) if as_json else {}
    with progress_bar() as progress:
        measured, count = layers.layer_responses(weights, dataset, data_dir, images, device, progress, note)
    if as_json:
        plain = [asdict(response) for response in measured]
        print_json({"weights": str(weights), "images": count, "layers": plain} | about)
    else:
        headings = ["layer", "std"]
        rows = [[response.layer, f"{response.std:.3f}"] for response in measured]
        if any(response.gate is not None for response in measured):
            headings.append("gate open")
            for row, response in zip(rows, measured, strict=True):
                row.append("" if response.gate is None else f"{100 * response.gate:.1f} %")
        title = f"Responses of {weights} on {count:,} training images"
        Table(title, headings, list(map(TableRow, rows))).print()
    if out:
        _write(out, responses_figure([(layers.named(weights), measured)]))


@app.command(
    epilog="""\b
Examples:
  residual analyze signals runs/cifar10-plain56 --data-dir ~/data
  residual analyze signals runs/digits-plain56 --out signals.svg
"""
)
def signals(
    weights: WeightsFolder,
    dataset: DatasetName = None,
    data_dir: TestDataDir = None,
    groups: Annotated[int, typer.Option(min=1, help="BN groups of training images to measure on.")] = 4,
    out: FigureFile = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Variances and gradients' norms, layer by layer (Section 4.1)."""
    check_figure_file("--out", out)
    from ..analysis.layer_figures import signals_figure
    from ..inference import layers
    from ..table import Table, TableRow
    from ..terminal import note

    about = made_by(device) if as_json else {}
    measured = layers.layer_signals(weights, dataset, data_dir, groups, device, note)
    if as_json:
        moments = {moment: [asdict(signal) for signal in values] for moment, values in measured.items()}
        print_json({"weights": str(weights), "bn_groups": groups, "moments": moments} | about)
    else:
        for moment, values in measured.items():
            headings = ("layer", "variance before BN", "after BN", "gradient's norm")
            rows = [
                TableRow((s.layer, *map(_digits, (s.variance_before, s.variance, s.gradient_norm))))
                for s in values
            ]
            Table(f"Signals of {weights} {moment}", headings, rows).print()
    if out:
        _write(out, signals_figure([(layers.named(weights), measured)]))


def _digits(number: float) -> str:
    """Return three digits of a number, noughts at its end too."""
    return f"{number:#.3g}".rstrip(".")


def _write(out: Path, figure: "Figure") -> None:
    # After the numbers, which a disk that is full is not to cost.
    write_figure(figure, out)
    typer.echo(f"wrote {out}", err=True)
