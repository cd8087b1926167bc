"""``residual complexity``, ``weights`` and ``import``: networks and their weights."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError, plural
from .options import NUMBER, SIDE, Classes, Json, Shortcut, Variant, class_names, numbers
from .output import print_json

app = typer.Typer()


@app.command(
    epilog="""\b
Examples:
  residual complexity resnet50
  residual complexity resnet50 --variant v1.5 --json
  residual complexity cifar_resnet1202
  residual complexity resnet18 --classes 10 --size 96
  residual complexity runs/flowers
"""
)
def complexity(
    model: Annotated[
        str,
        typer.Argument(
            help="A network's name, as resnet50 or cifar_resnet110; or a run or a weights folder."
        ),
    ],
    size: Annotated[
        int | None,
        typer.Option(
            min=1, max=SIDE, help="Side of the images (default: 224; 32 for CIFAR networks; a run's own)."
        ),
    ] = None,
    channels: Annotated[
        int | None, typer.Option(min=1, max=NUMBER, help="Channels of the images (default: 3).")
    ] = None,
    classes: Classes = None,
    shortcut: Shortcut = None,
    variant: Variant = None,
    as_json: Json = False,
) -> None:
    """Count layers, parameters and multiply-adds.

    Also activations, stage by stage.
    """
    from ..analysis.complexity import complexity as count
    from ..analysis.complexity import default_input_size, headings, rows, to_json
    from ..models import build_model
    from ..table import Table, TableRow

    chosen: dict[str, Any] = {"classes": classes, "shortcut": shortcut, "variant": variant}
    options = {name: value for name, value in chosen.items() if value is not None}
    if Path(model).is_dir():
        from ..evaluation.inputs import usual_size
        from ..models.weights import load_weights

        if said := [*options, *(["channels"] if channels else [])]:
            raise InputError(
                f"--{said[0]}: {model} has a network of its own; leave it out (--size may be said)"
            )
        weights = load_weights(Path(model))
        network, side = weights.model, size or usual_size(weights)[0]
        shape = (network.in_channels, side, side)
    else:
        channels = channels or 3
        network = build_model(model, in_channels=channels, **options)
        shape = (channels, size, size) if size else default_input_size(model, channels)
    counted = count(network, shape)
    if as_json:
        print_json({"model": model, "options": options} | to_json(counted))
    else:
        *stages, total = map(TableRow, rows(counted))
        title = f"One image of {' x '.join(map(str, shape))} (C x H x W)"
        Table(title, headings(), [*stages, replace(total, rule=True)]).print()


@app.command(
    epilog="""\b
Examples:
  residual weights
  residual weights torchvision:resnet50 cifar:resnet20
  residual weights --json
"""
)
def weights(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Fetch these, for work without a network.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the weights that can be used by name, or fetch some.

    With their parameters, the errors that their authors published, and whether they are in the cache. Of the
    Hugging Face Hub also timm:NAME and hf:OWNER/NAME: networks of timm's are listed once they are in the
    cache; folders that residual push has made are not, and lie in the Hub's own cache.
    """
    from ..files import cache_folder
    from ..models.names import cached, check
    from ..models.published import catalogue
    from ..models.weights import weights_in
    from ..table import Table, TableRow

    for name in names or []:
        check(name)
    if names and as_json:
        print_json({name: str(weights_in(Path(name))) for name in names})
        return
    for name in names or []:
        typer.echo(f"{name} is in {weights_in(Path(name))}")
    if names:
        return
    known, here = catalogue(), cached()
    if as_json:
        listed = [
            {
                "name": one.name,
                "network": one.network,
                "parameters": one.parameters,
                "data": one.data,
                "top1_error": one.errors[0],
                "top5_error": one.errors[1],
            }
            for one in known.values()
        ]
        print_json(
            {"known": listed, "cache": str(cache_folder()), "cached": {k: str(v) for k, v in here.items()}}
        )
        return

    def row(name: str, *numbers: str) -> TableRow:
        return TableRow((name, *numbers, "yes" if name in here else ""))

    rows = [
        row(
            one.name,
            f"{one.parameters:,}",
            one.data,
            *("" if error is None else f"{error:.2f} %" for error in one.errors),
        )
        for one in known.values()
    ]
    rows += [row(name, "", "", "", "") for name in here if name not in known]
    headings = ("name", "parameters", "data", "top-1 error", "top-5 error", "in the cache")
    Table("Weights by name; the errors are those that their authors published", headings, rows).print()
    typer.echo("More are on the Hugging Face Hub: timm:NAME, as timm:resnet50.a1_in1k, and hf:OWNER/NAME.")
    typer.echo(f"The cache is {cache_folder()}; the environment variable RESIDUAL_CACHE names another.")


@app.command(
    "import",
    epilog="""\b
Examples:
  residual import resnet50.pth --model resnet50 --variant v1.5 --classes imagenet
  residual import resnet20.th --model cifar_resnet20 --out weights/resnet20 \\
    --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
  residual import ResNet-50-model.caffemodel --mean ResNet_mean.binaryproto \\
    --classes imagenet --out weights/authors-resnet50
""",
)
def import_(
    file: Annotated[
        Path, typer.Argument(help="A state dict: .pth, .pt, .th, .bin or .safetensors; or a .caffemodel.")
    ],
    model: Annotated[
        str | None, typer.Option(help="The network, as resnet50 (a .caffemodel shows it).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The weights folder to write (default: weights/ and the file's name).")
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            help="Channel means, as 0.485,0.456,0.406; or the mean image of a .caffemodel, a .binaryproto."
        ),
    ] = None,
    std: Annotated[str | None, typer.Option(help="Channel deviations of the preprocessing.")] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="A text file with a class name a line, in the network's order; or imagenet."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=SIDE,
            help="Side of the images that the network was trained on (default: 224; 32 for CIFAR networks).",
        ),
    ] = None,
    shortcut: Shortcut = None,
    variant: Variant = None,
) -> None:
    """Import weights of other libraries.

    Those of torchvision, timm, the public CIFAR-10 ResNets and the paper's authors (Caffe), into a weights
    folder.
    """
    from ..files import check_file

    check_file(file)
    out = out or Path("weights") / file.stem
    from ..evaluation.inputs import check_input, usual_size, view_of
    from ..models.foreign import outline
    from ..models.weights import import_caffe, import_weights

    names = _class_names(classes) if classes else None
    if file.suffix.lower() == ".caffemodel":
        for option, value in (
            ("--std", std),
            ("--size", size),
            ("--shortcut", shortcut),
            ("--variant", variant),
        ):
            if value is not None:
                raise InputError(f"{option}: a .caffemodel leaves no choice of it; leave it out")
        image = mean is not None and Path(mean).suffix.lower() == ".binaryproto"
        weights = import_caffe(
            file,
            out,
            name=model,
            mean=Path(mean) if mean and image else numbers("--mean", mean) if mean else None,
            classes=names,
        )
    else:
        if model is None:
            from ..models import model_names

            known = [name for name in model_names() if name in file.stem] or ["resnet50", "cifar_resnet20"]
            raise InputError(f"say which network {file} is of, with --model (as {max(known, key=len)})")
        view = None
        if size:
            network = outline(model)
            check_input(network, model, (network.in_channels, size, size))
            view = view_of(size, network.small_images)
        weights = import_weights(
            file,
            model,
            out,
            view=view,
            variant=variant,
            shortcut=shortcut,
            classes=names,
            mean=numbers("--mean", mean) if mean else None,
            std=numbers("--std", std) if std else None,
        )
    preprocessing = weights.config["preprocessing"]
    typer.echo(
        f"wrote {out}: {weights.config['model']['name']}, {plural(weights.model.classes, 'class', 'classes')}"
    )
    crop, side = usual_size(weights)
    other = "" if size or file.suffix.lower() == ".caffemodel" else "; --size says another"
    typer.echo(f"images of {crop} x {crop} pixels, cut from a shorter side of {side}{other}")
    typer.echo(f"mean {preprocessing['mean']}, std {preprocessing['std']} ({preprocessing['source']})")
    typer.echo(f"use it with: residual predict {shlex.quote(str(out))} IMAGES")
    typer.echo(f"test it with: residual evaluate {shlex.quote(str(out))} --dataset NAME --data-dir DIR")


@app.command(
    epilog="""\b
Examples:
  residual trust runs/own
"""
)
def trust(
    folder: Annotated[Path, typer.Argument(help="A weights folder or a run folder, of a network in a file.")],
) -> None:
    """Let the code in a weights folder run.

    A network of somebody's own is code, and loading it runs it. Read the file first.
    """
    from ..models.weights import trust_weights

    typer.echo(f"{trust_weights(folder)} may run on this machine from now on")


def _class_names(source: str) -> list[str]:
    """Return the names in a file, or those of ImageNet with their WordNet ids."""
    if source == "imagenet":
        from ..class_names import imagenet_classes

        return [f"{wordnet_id} {name}" for wordnet_id, name in imagenet_classes()]
    return class_names(Path(source))
