"""``residual export``: a network for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .options import WeightsFolder, tell_of_unfinished

app = typer.Typer()


@app.command(
    epilog="""\b
Examples:
  residual export runs/cifar10-resnet20 --onnx resnet20.onnx
  residual export weights/resnet50 --torchvision resnet50.pth
  residual export runs/cifar10-resnet20 --torchvision resnet20.safetensors
"""
)
def export(
    weights: WeightsFolder,
    onnx: Annotated[
        Path | None,
        typer.Option(
            help="Write this ONNX file: scaling, mean and deviation included, of images that are resized "
            "and cropped already; checked in ONNX Runtime."
        ),
    ] = None,
    torchvision: Annotated[
        Path | None,
        typer.Option(help="Write this .pth or .safetensors: a state dict with torchvision's names."),
    ] = None,
) -> None:
    """Write a network for other programs.

    As ONNX for any batch and size, or as weights that torchvision, timm and plain PyTorch load. Detectors
    and localizers are not exported: residual.load_detector serves them from Python.
    """
    if onnx is None and torchvision is None:
        raise InputError("say what to write: --onnx FILE or --torchvision FILE")
    from ..models.blocks import BottleneckBlock
    from ..models.weights import check_state_file, export_weights, load_weights
    from ..terminal import note

    if torchvision:
        check_state_file(torchvision)  # before a large ONNX file is written
    network = load_weights(weights)
    tell_of_unfinished(weights, network.config.get("results"))
    if onnx:
        from ..evaluation.inputs import usual_size
        from ..models.onnx import export_onnx

        crop, side = usual_size(network)
        difference = export_onnx(network, onnx, (crop, side))
        images = {3: "uint8 RGB images (n, 3, h, w)", 1: "uint8 grey images (n, 1, h, w)"}
        typer.echo(
            f"wrote {onnx}: it takes {images.get(network.model.in_channels, 'uint8 images (n, C, h, w)')}, "
            f"which have to be resized to shorter side {side} and cut to their middle {crop} x {crop} before "
            "(docs/inference.md shows how), and gives scores (n, K) before softmax"
        )
        typer.echo(f"ONNX Runtime's scores differ from PyTorch's by {difference:.1e} at most")
    if torchvision:
        export_weights(network, torchvision)
        if any(
            isinstance(part, BottleneckBlock) and part.conv1.stride[0] > 1 for part in network.model.modules()
        ):
            note(
                "the network's bottlenecks have their stride on the first 1x1 (v1, the paper's), those of "
                "torchvision's and timm's networks of that name on the 3x3: they load the file, and compute "
                "something else (docs/inference.md)"
            )
        if network.config["model"]["options"].get("pool") == "caffe":
            note(
                "the network's max pooling has the windows of the authors' files, and torchvision's others: "
                "scores there differ by some percent (docs/departures.md)"
            )
        typer.echo(f"wrote {torchvision}: the state dict of {network.config['model']['name']}")
