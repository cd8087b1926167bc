"""``residual export``: a network for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from .options import WeightsFolder

app = typer.Typer()


@app.command(
    epilog="""\b
Examples:
  residual export runs/cifar10-resnet20 --onnx resnet20.onnx
  residual export weights/resnet50 --onnx resnet50.onnx
"""
)
def export(
    weights: WeightsFolder,
    onnx: Annotated[Path, typer.Option(help="The ONNX file to write.")],
) -> None:
    """Write a network as ONNX.

    Preprocessing included, for any batch and size, checked in ONNX Runtime.
    """
    from ..models.onnx import export_onnx
    from ..models.weights import load_weights

    difference = export_onnx(load_weights(weights), onnx)
    typer.echo(f"wrote {onnx}: uint8 RGB images (n, C, h, w) in, scores (n, K) before softmax out")
    typer.echo(f"ONNX Runtime's scores differ from PyTorch's by {difference:.1e} at most")
