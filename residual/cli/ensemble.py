"""``residual ensemble``: the mean of several networks' softmax scores."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import (
    Crop,
    DataDir,
    Device,
    Json,
    Precision,
    Protocol,
    SaveScores,
    Scales,
    print_errors,
    print_json,
    warn,
    whole_numbers,
)

app = typer.Typer()


@app.command(
    epilog="""\b
Examples:
  residual ensemble resnet50.safetensors resnet101.safetensors
  residual ensemble runs/a runs/b --dataset folder --data-dir ~/pictures --views ten-crop
  residual ensemble runs/a resnet101.safetensors --dataset folder --data-dir ~/imagenet --json
"""
)
def ensemble(
    members: Annotated[
        list[Path], typer.Argument(help="Files of saved scores, run folders or weights folders.")
    ],
    dataset: Annotated[
        str | None, typer.Option(help="Data set or folder that networks are tested on (default: their own).")
    ] = None,
    split: Annotated[
        Literal["test", "train"], typer.Option(help="Part of the data set; test is a folder's val.")
    ] = "test",
    data_dir: DataDir = None,
    views: Protocol = None,
    crop: Crop = None,
    scales: Scales = None,
    scores_file: SaveScores = None,
    precision: Precision = "float32",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Average the scores of several networks.

    Images and classes are matched by name.
    """
    from .. import distributed
    from ..evaluation.scores import check_new_file, save_scores
    from ..run_evaluation import Options, score_ensemble

    if scores_file:
        check_new_file(scores_file)
    options = Options(dataset, split, data_dir, views, crop, whole_numbers("--scales", scales), precision)
    try:
        found, together = score_ensemble(members, options, device=device, tell=warn)
    finally:
        distributed.leave()
    if distributed.rank() != 0:
        return
    if scores_file:
        save_scores(together, scores_file)
    metrics = together.metrics()
    if as_json:
        each = [{"member": name} | _errors(asdict(one)) for name, one in found]
        print_json({"members": each, "ensemble": _errors(asdict(metrics))})
        return
    for name, one in found:
        typer.echo(f"{name}, {one.images:,} images")
        print_errors(one)
    typer.echo(f"ensemble of {len(found)}, {metrics.images:,} images")
    print_errors(metrics)


def _errors(metrics: dict[str, float]) -> dict[str, float]:
    """Leave out the speed, which here is only that of counting."""
    return {name: value for name, value in metrics.items() if name != "images_per_second"}
