"""``residual train``, ``evaluate`` and ``recipes``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import InputError
from .options import (
    Crop,
    DataDir,
    Deterministic,
    Device,
    Eager,
    Json,
    Precision,
    Protocol,
    SaveScores,
    Scales,
    Settings,
    print_errors,
    print_json,
    warn,
    whole_numbers,
)

app = typer.Typer()


@app.command(
    epilog="""\b
Examples:
  residual train digits-resnet20
  residual train cifar10-resnet20 --data-dir ~/data
  residual train cifar10-resnet56 --set schedule.iterations=4000 --set seed=1 --out runs/short
  residual train imagenet-resnet50 --data-dir ~/imagenet
  residual train finetune --weights weights/resnet50 --data-dir ~/flowers --out runs/flowers
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
    dataset: Annotated[
        str | None, typer.Option(help="Data set (default: the recipe's), as --set data.dataset.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Start from this weights folder (or run folder): fine-tuning.")
    ] = None,
    settings: Settings = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard events.")
    ] = False,
    eager: Eager = False,
    deterministic: Deterministic = False,
) -> None:
    """Train a network by a recipe, into a run folder."""
    from .. import distributed, recipes, run

    if dataset:
        settings = [f"data.dataset={dataset}", *(settings or [])]
    chosen = recipes.override(recipes.find(recipe), settings or []) if recipe else None
    if (settings or weights) and chosen is None:
        raise InputError("--set, --dataset and --weights change a recipe; name the recipe as well")
    if weights and chosen:
        chosen = run.take_model(chosen, weights)
    if out is None:
        if resume and chosen is None:
            raise InputError("--resume needs the run's folder: --resume --out FOLDER")
        if chosen is None:
            raise InputError(
                "name a recipe to train (residual recipes lists them), or a run: --resume --out FOLDER"
            )
        out = Path("runs") / chosen.name
    try:
        results = run.train(
            chosen,
            out,
            data_dir=data_dir,
            device=device,
            resume=resume,
            tensorboard=tensorboard,
            eager=eager,
            deterministic=deterministic,
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
  residual evaluate weights/resnet50 --dataset folder --data-dir ~/imagenet --views ten-crop
  residual evaluate weights/resnet50 --dataset folder --data-dir ~/imagenet --views multi-scale \\
    --scales 224,256,384 --save-scores resnet50.safetensors
"""
)
def evaluate(
    weights: Annotated[Path, typer.Argument(help="A weights folder or a run folder.")],
    dataset: Annotated[
        str | None,
        typer.Option(help="Data set, or folder (default: the one that the network was trained on)."),
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
    """Test a trained network.

    Prints top-1 and top-5 error, loss and images per second.
    """
    from .. import distributed, run_evaluation
    from ..evaluation.scores import check_new_file, save_scores

    if scores_file:
        check_new_file(scores_file)  # before hours are spent
    options = run_evaluation.Options(
        dataset, split, data_dir, views, crop, whole_numbers("--scales", scales), precision
    )
    try:
        found = run_evaluation.evaluate(
            weights, options, device=device, keep_scores=scores_file is not None, tell=warn
        )
    finally:
        distributed.leave()
    if distributed.rank() != 0:
        return
    if scores_file and found.scores:
        save_scores(found.scores, scores_file)
    if found.matched:
        warn(found.matched)
    if as_json:
        print_json({"weights": str(weights)} | found.summary())
        return
    typer.echo(f"{weights} on {found.data}, {found.metrics.images:,} images, {found.views}")
    print_errors(found.metrics)
    typer.echo(f"  speed        {found.metrics.images_per_second:,.0f} images/s")
    if found.skipped:
        typer.echo(f"  skipped      {found.skipped:,} damaged images")
    if scores_file:
        typer.echo(f"  scores are in {scores_file}")


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
    """List the recipes, or print one.

    The YAML is to start your own from.
    """
    from ..recipes import RECIPES, find, override

    if name:
        typer.echo(override(find(name), settings or []).to_yaml(), nl=False)
        return
    if settings:
        raise InputError("--set changes a recipe; name the recipe as well")
    for recipe in RECIPES.values():
        typer.echo(f"{recipe.name:22} {recipe.description}")


def _print_results(results: dict[str, Any], out: Path) -> None:
    typer.echo(f"{results['recipe']}: {results['iterations']:,} iterations in {results['seconds']:.0f} s")
    for part in ("train", "validation", "test"):
        if metrics := results[part]:
            typer.echo(
                f"  {part:10} top-1 error {metrics['top1_error']:6.2f} %   loss {metrics['loss']:.3f}   "
                f"{metrics['images']:,} images"
            )
    typer.echo(f"  everything is in {out}")
