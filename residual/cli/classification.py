"""``residual train``, ``evaluate``, ``ensemble`` and ``recipes``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import torchrun
from ..errors import plural
from .options import (
    Deterministic,
    Device,
    Eager,
    EvaluationAsked,
    Settings,
    TestDataDir,
    WeightsFolder,
    print_errors,
    progress_bar,
    takes,
)
from .output import made_by, print_json
from .training import RunAsked, show_recipes, train_run

app = typer.Typer()

#: What says how good a run of each kind is.
MEASURED = (
    ("top1_error", "top-1 error"),
    ("ap50", "mAP"),
    ("localization_error", "localization error"),
)


@app.command(
    epilog="""\b
Examples:
  residual train digits-resnet20
  residual train cifar10-resnet20 --data-dir ~/data
  residual train cifar10-resnet56 --set schedule.iterations=4000 --set seed=1 --out runs/short
  residual train imagenet-resnet50 --data-dir ~/imagenet
  residual train finetune --weights torchvision:resnet50 --data-dir ~/flowers --out runs/flowers
  residual train finetune --weights weights/resnet50 --data-dir ~/tulips --epochs 5 --lr 0.005 \\
    --batch 32 --set data.validation=0.2 --out runs/tulips
  residual train my.yaml
  residual train --resume --out runs/short
  torchrun --nproc-per-node=2 -m residual train cifar10-resnet20
"""
)
@takes(RunAsked)
def train(
    asked: RunAsked,
    dataset: Annotated[
        str | None, typer.Option(help="Dataset (default: the recipe's), as --set data.dataset.")
    ] = None,
    eager: Eager = False,
    deterministic: Deterministic = False,
) -> None:
    """Train a network by a recipe, into a run folder."""
    from ..recipes import Recipe

    more = {"dataset": dataset}
    train_run(asked, Recipe, _print_results, more, eager=eager, deterministic=deterministic)


@app.command(
    epilog="""\b
Examples:
  residual finish runs/short
  residual finish runs/short --data-dir ~/data
"""
)
def finish(
    run: Annotated[Path, typer.Argument(help="The folder of a run that is not complete.")],
    data_dir: TestDataDir = None,
    device: Device = "auto",
) -> None:
    """Write the weights of a run that was stopped early.

    Those of its newest checkpoint, marked with the iteration. The run can still be resumed.
    """
    from .. import distributed
    from ..run import finish as finish_run

    with distributed.left():
        results = finish_run(run, data_dir=data_dir, device=device)
    if torchrun.rank() == 0:
        done, length = results["iterations"], results["of_iterations"]
        typer.echo(f"wrote {run / 'weights'}: iteration {done:,} of {length:,}, not the end of the run")
        for split in results.keys() & {"validation", "test"}:
            measured = results[split]
            for key, name in MEASURED:
                if measured.get(key) is not None:
                    typer.echo(
                        f"  {split:10} {name} {measured[key]:6.2f} %   {plural(measured['images'], 'image')}"
                    )


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
@takes(EvaluationAsked)
def evaluate(weights: WeightsFolder, asked: EvaluationAsked) -> None:
    """Test a trained network.

    Prints top-1 and, of more than five classes, top-5 error, loss and images per second.
    """
    from .. import distributed
    from ..evaluation.scores import save_scores
    from ..inference.evaluation import evaluate as evaluate_weights
    from ..terminal import note

    options, keep = asked.options(), asked.save_scores is not None
    about = made_by(asked.device, shared=True) if asked.as_json else {}
    with distributed.left(), progress_bar(asked.as_json or torchrun.rank() != 0) as progress:
        found = evaluate_weights(
            weights, options, device=asked.device, keep_scores=keep, tell=note, progress=progress
        )
    if torchrun.rank() != 0:
        return
    if found.matched:
        note(found.matched)
    if asked.as_json:
        print_json({"weights": str(weights)} | found.summary() | about)
    else:
        typer.echo(f"{weights} on {found.data}, {plural(found.metrics.images, 'image')}, {found.views}")
        print_errors(found.metrics, found.classes)
        typer.echo(f"  speed        {found.metrics.images_per_second:,.0f} images/s")
        if found.skipped:
            typer.echo(f"  skipped      {plural(found.skipped, 'damaged image')}")
    # Last: a disk that is full costs nobody the numbers.
    if asked.save_scores and found.scores:
        save_scores(found.scores, asked.save_scores)
        if not asked.as_json:
            typer.echo(f"  scores are in {asked.save_scores}")


@app.command(
    epilog="""\b
Examples:
  residual ensemble resnet50.safetensors resnet101.safetensors
  residual ensemble runs/a runs/b --dataset folder --data-dir ~/images --views ten-crop
  residual ensemble runs/a resnet101.safetensors --dataset folder --data-dir ~/imagenet --json
"""
)
@takes(EvaluationAsked)
def ensemble(
    members: Annotated[
        list[Path], typer.Argument(help="Files of saved scores, run folders, weights folders or names.")
    ],
    asked: EvaluationAsked,
) -> None:
    """Average the scores of several networks.

    Images and classes are matched by name.
    """
    from .. import distributed
    from ..evaluation.scores import save_scores
    from ..inference.ensemble import evaluate_ensemble
    from ..terminal import note

    options = asked.options()
    # Where all scores were saved before, nothing is measured here.
    measured = not all(member.is_file() for member in members)
    about = made_by(asked.device, shared=True) if asked.as_json and measured else {}
    with distributed.left(), progress_bar(asked.as_json or torchrun.rank() != 0) as progress:
        found, together = evaluate_ensemble(
            members, options, device=asked.device, tell=note, progress=progress
        )
    if torchrun.rank() != 0:
        return
    metrics = together.metrics()
    if asked.as_json:
        each = [{"member": name} | _errors(one.plain()) for name, one in found]
        print_json({"members": each, "ensemble": _errors(metrics.plain())} | about)
    else:
        for name, one in found:
            typer.echo(f"{name}, {one.images:,} images")
            print_errors(one, len(together.classes))
        typer.echo(f"ensemble of {len(found)}, {metrics.images:,} images")
        print_errors(metrics, len(together.classes))
    if asked.save_scores:
        save_scores(together, asked.save_scores)


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
    from ..recipes import Recipe

    show_recipes(name, settings or [], Recipe)


def _print_results(results: dict[str, Any], out: Path) -> None:
    done = plural(results["iterations"], "iteration")
    typer.echo(f"{results['recipe']}: {done} in {results['seconds']:.0f} s")
    for part in ("train", "validation", "test"):
        if metrics := results[part]:
            # null in results.json: it was not finite.
            loss = "–" if metrics["loss"] is None else f"{metrics['loss']:.3f}"
            typer.echo(
                f"  {part:10} top-1 error {metrics['top1_error']:6.2f} %   loss {loss}   "
                f"{plural(metrics['images'], 'image')}"
            )
    typer.echo(f"  everything is in {out}")


def _errors(metrics: dict[str, float]) -> dict[str, float]:
    """Leave out the speed, which here is only that of counting."""
    return {name: value for name, value in metrics.items() if name != "images_per_second"}
