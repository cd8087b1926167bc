"""The command ``residual``: arguments in, one sentence out for every wrong input."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from . import __version__
from .errors import InputError, Interrupted

app = typer.Typer(
    name="residual",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Deep Residual Learning for Image Recognition (He, Zhang, Ren, Sun, 2016): train, test, analyse, "
    "reproduce.",
    epilog="Start here: residual reproduce degradation",
)
reproduce_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Run the paper's experiments and draw their figures."
)
app.add_typer(reproduce_app, name="reproduce")

DataDir = Annotated[
    Path | None, typer.Option(help="Where the data set lies, or is downloaded to (default: data).")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a value of the recipe, as schedule.iterations=2000."
    ),
]
Classes = Annotated[int | None, typer.Option(min=1, help="Number of classes.")]
Shortcut = Annotated[Literal["A", "B", "C"] | None, typer.Option(help="Shortcut option (Section 3.3).")]
Variant = Annotated[
    Literal["v1", "v1.5"] | None,
    typer.Option(help="Stride of a bottleneck on its first 1x1 (v1, the paper) or its 3x3 (v1.5)."),
]


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"residual {__version__}")
        raise typer.Exit


@app.command(
    epilog="""\b
Examples:
  residual train digits-resnet20
  residual train cifar10-resnet20 --data-dir ~/data
  residual train cifar10-resnet56 --set schedule.iterations=4000 --set seed=1 --out runs/short
  residual train my.yaml
  residual train --resume --out runs/short
  torchrun --nproc-per-node=2 -m residual train cifar10-resnet20
"""
)
def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe's name (see residual recipes) or a YAML file.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder (default: runs/ and the recipe's name).")
    ] = None,
    data_dir: DataDir = None,
    settings: Settings = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard events.")
    ] = False,
) -> None:
    """Train a network by a recipe, into a run folder that holds everything."""
    from . import distributed, recipes, run

    chosen = recipes.override(recipes.find(recipe), settings or []) if recipe else None
    if settings and chosen is None:
        raise InputError("--set changes a recipe; name the recipe as well")
    if out is None:
        if chosen is None:
            raise InputError(
                "name a recipe to train (residual recipes lists them), or a run: --resume --out FOLDER"
            )
        out = Path("runs") / chosen.name
    try:
        results = run.train(
            chosen, out, data_dir=data_dir, device=device, resume=resume, tensorboard=tensorboard
        )
    finally:
        distributed.leave()
    if distributed.rank() == 0:
        _print_results(results, out)


@app.command(
    epilog="""\b
Examples:
  residual evaluate runs/cifar10-resnet20 --data-dir ~/data
  residual evaluate my-weights --dataset cifar10 --data-dir ~/data --json
"""
)
def evaluate(
    weights: Annotated[Path, typer.Argument(help="A weights folder or a run folder.")],
    dataset: Annotated[
        str | None, typer.Option(help="Data set (default: the one that the network was trained on).")
    ] = None,
    split: Annotated[Literal["test", "train"], typer.Option(help="Part of the data set.")] = "test",
    data_dir: DataDir = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Test a trained network: top-1 and top-5 error, loss, images per second."""
    from . import run

    pictures, metrics = run.evaluate_weights(weights, dataset, split, data_dir, device)
    if as_json:
        _print_json({"weights": str(weights), "data": pictures.name} | asdict(metrics))
        return
    typer.echo(f"{weights} on {pictures.name}, {metrics.images:,} images")
    typer.echo(f"  top-1 error  {metrics.top1_error:6.2f} %")
    typer.echo(f"  top-5 error  {metrics.top5_error:6.2f} %")
    typer.echo(f"  loss         {metrics.loss:7.3f}")
    typer.echo(f"  speed        {metrics.images_per_second:,.0f} images/s")


@app.command(
    epilog="""\b
Examples:
  residual recipes
  residual recipes cifar10-resnet110 > my.yaml
"""
)
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe as YAML.")] = None,
    settings: Settings = None,
) -> None:
    """List the recipes, or print one as YAML to start your own from."""
    from .recipes import RECIPES, find, override

    if name:
        typer.echo(override(find(name), settings or []).to_yaml(), nl=False)
        return
    for recipe in RECIPES.values():
        typer.echo(f"{recipe.name:22} {recipe.description}")


@app.command(
    epilog="""\b
Examples:
  residual complexity resnet50
  residual complexity resnet50 --variant v1.5 --json
  residual complexity cifar_resnet1202
  residual complexity resnet18 --classes 10 --size 96
"""
)
def complexity(
    model: Annotated[str, typer.Argument(help="A network's name, as resnet50 or cifar_resnet110.")],
    size: Annotated[
        int | None, typer.Option(min=1, help="Side of the pictures (default: 224; 32 for CIFAR networks).")
    ] = None,
    channels: Annotated[int, typer.Option(min=1, help="Channels of the pictures.")] = 3,
    classes: Classes = None,
    shortcut: Shortcut = None,
    variant: Variant = None,
    as_json: Json = False,
) -> None:
    """Count a network's layers, parameters, multiply-adds and activations, stage by stage."""
    from rich.console import Console

    from .analysis.complexity import complexity as count
    from .analysis.complexity import default_input_size, table, to_json
    from .models import build_model

    chosen: dict[str, Any] = {"classes": classes, "shortcut": shortcut, "variant": variant}
    options = {name: value for name, value in chosen.items() if value is not None}
    network = build_model(model, in_channels=channels, **options)
    shape = (channels, size, size) if size else default_input_size(model, channels)
    counted = count(network, shape)
    if as_json:
        _print_json({"model": model, "options": options} | to_json(counted))
    else:
        Console().print(table(counted))


@app.command(
    "import",
    epilog="""\b
Examples:
  residual import resnet50.pth --model resnet50 --variant v1.5 --out weights/resnet50
  residual import resnet20.th --model cifar_resnet20 --out weights/resnet20 \\
    --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
""",
)
def import_(
    file: Annotated[Path, typer.Argument(help="A state dict: .pth, .pt, .th, .bin or .safetensors.")],
    model: Annotated[str, typer.Option(help="The network that the weights are for.")],
    out: Annotated[Path, typer.Option(help="The weights folder to write.")],
    mean: Annotated[
        str | None, typer.Option(help="Channel means of the preprocessing, as 0.485,0.456,0.406.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Channel deviations of the preprocessing.")] = None,
    classes: Annotated[
        Path | None, typer.Option(help="A text file with a class name a line, in the network's order.")
    ] = None,
    shortcut: Shortcut = None,
    variant: Variant = None,
) -> None:
    """Import weights of torchvision, timm or the public CIFAR-10 ResNets into a weights folder."""
    from .models.weights import import_weights

    weights = import_weights(
        file,
        model,
        out,
        variant=variant,
        shortcut=shortcut,
        classes=_lines(classes) if classes else None,
        mean=_numbers("--mean", mean) if mean else None,
        std=_numbers("--std", std) if std else None,
    )
    preprocessing = weights.config["preprocessing"]
    typer.echo(f"wrote {out}: {model}, {weights.model.classes} classes")
    typer.echo(f"mean {preprocessing['mean']}, std {preprocessing['std']} ({preprocessing['source']})")
    typer.echo(f"test it with: residual evaluate {out} --dataset NAME --data-dir DIR")


@app.command(
    "export-weights",
    epilog="""\b
Examples:
  residual export-weights runs/cifar10-resnet20 resnet20.safetensors
  residual export-weights weights/resnet50 resnet50.pth
""",
)
def export_weights(
    weights: Annotated[Path, typer.Argument(help="A weights folder or a run folder.")],
    file: Annotated[Path, typer.Argument(help="The file to write: .pth or .safetensors.")],
) -> None:
    """Write a network's weights as a state dict with torchvision's names."""
    from .models import weights as formats

    formats.export_weights(formats.load_weights(weights), file)
    typer.echo(f"wrote {file}")


@reproduce_app.command(
    epilog="""\b
Examples:
  residual reproduce degradation
  residual reproduce degradation --seed 1 --out runs/degradation-1
"""
)
def degradation(
    out: Annotated[Path, typer.Option(help="Folder of the four runs and the page.")] = Path(
        "runs/degradation"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the four runs.")] = 0,
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """Show degradation in plain networks and its cure, on handwritten digits, in about two minutes."""
    from .reproduce.degradation import reproduce

    reproduce(out, seed=seed, settings=settings or [], device=device)


def main() -> None:
    """Run the command; wrong input ends with one sentence on stderr and exit code 2."""
    try:
        app()
    except InputError as error:
        _fail(str(error), 2)
    except Interrupted as error:
        _fail(str(error), 128 + error.signal)
    except BrokenPipeError:
        # The reader of our output (head, say) has gone; that is no error.
        sys.stderr.close()


def _fail(sentence: str, code: int) -> None:
    print(f"residual: {sentence}", file=sys.stderr)
    sys.exit(code)


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, indent=2))


def _print_results(results: dict[str, Any], out: Path) -> None:
    typer.echo(f"{results['recipe']}: {results['iterations']:,} iterations in {results['seconds']:.0f} s")
    for part in ("train", "validation", "test"):
        if metrics := results[part]:
            typer.echo(
                f"  {part:10} top-1 error {metrics['top1_error']:6.2f} %   loss {metrics['loss']:.3f}   "
                f"{metrics['images']:,} images"
            )
    typer.echo(f"  everything is in {out}")


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text}: write numbers with commas between, as 0.5,0.5,0.5") from None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--classes {path}: cannot be read: {error}") from None
