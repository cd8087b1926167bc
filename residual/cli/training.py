"""What ``residual train`` and ``residual detect train`` have in common, and the lists of recipes."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import torchrun
from ..errors import InputError
from .options import DataDir, Device, Minutes, Settings, Threads, use_threads

if TYPE_CHECKING:
    from ..recipes import TrainingRecipe


#: Short forms that one kind has besides those of all, and in Python none.
OWN_FORMS = {"dataset": "data.dataset", "masks": "detector.masks"}


@dataclass(frozen=True)
class RunAsked:
    """The run that was asked for."""

    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A recipe's name (see residual recipes, detect recipes, locate recipes) or a YAML file."
        ),
    ] = None
    out: Annotated[
        Path | None, typer.Option(help="The run folder (default: runs/ and the recipe's name).")
    ] = None
    data_dir: DataDir = None
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Fine-tune this: a run folder, a weights folder, or a name (torchvision:resnet50)."
        ),
    ] = None
    epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Length of the run, as --set schedule.epochs=N.")
    ] = None
    lr: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="Learning rate, as --set schedule.learning_rate=RATE."),
    ] = None
    batch: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Images of an iteration, as --set batch.size=N.")
    ] = None
    settings: Settings = None
    device: Device = "auto"
    threads: Threads = None
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = False
    minutes: Minutes = None
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard events.")] = False


def train_run(
    asked: RunAsked,
    kind: "type[TrainingRecipe]",
    show: Callable[[dict[str, Any], Path], None],
    more: Mapping[str, object] | None = None,
    **options: bool,
) -> None:
    """Train by a recipe of a kind, into a run folder.

    Args:
        show: prints the results of a run in a folder.
        more: values of short forms that this kind alone has; None for what is not asked for.
        options: more of ``run.train``.
    """
    from .. import recipes, signals

    chosen = recipes.find(asked.recipe, kind) if asked.recipe else None
    settings = [*_short_forms(asked, more or {}), *(asked.settings or [])]
    if chosen is None and (settings or asked.weights):
        if asked.resume and asked.out:
            raise InputError(
                "a run is resumed as it was, without --set, its short forms and --weights; to go on from "
                f"what it has learned, begin another: name a recipe with --weights {asked.out} --out FOLDER"
            )
        raise InputError("--set, its short forms and --weights change a recipe; name the recipe as well")
    if chosen and asked.weights:
        from ..run import start_from

        chosen = start_from(chosen, asked.weights)
    if chosen:
        chosen = recipes.override(chosen, settings)
    out = asked.out
    if out is None:
        if chosen is None:
            command = recipes.KINDS[kind][1]
            raise InputError(
                f"name a recipe to train ({command} recipes lists them), or a run: --resume --out FOLDER"
            )
        out = Path("runs") / chosen.name
    # PyTorch takes seconds to import: what is wrong with a recipe is said before.
    from .. import distributed, run

    use_threads(asked.threads)
    if chosen is None:
        _check_kind(out, kind)
    if chosen and torchrun.rank() == 0:
        _tell_what_is_faster(chosen, asked)
    with signals.limited(asked.minutes), distributed.left():
        results = run.train(
            chosen,
            out,
            data_dir=asked.data_dir,
            device=asked.device,
            resume=asked.resume,
            tensorboard=asked.tensorboard,
            **options,
        )
    if torchrun.rank() == 0:
        show(results, out)


def _tell_what_is_faster(recipe: "TrainingRecipe", asked: RunAsked) -> None:
    """Say, as a run begins, when this machine could train faster than its recipe asks it to."""
    from ..device import multiplies_bfloat16, pick_device
    from ..recipes.detection import DetectionRecipe, has_large_regions
    from ..terminal import note

    if asked.resume:
        return
    device = pick_device(asked.device)
    if recipe.precision != "bfloat16" and multiplies_bfloat16(device):
        note(
            "this machine has instructions for bfloat16, with which training is 1.4 to 2 times as "
            "fast: --set precision=bfloat16 (weights, statistics and updates stay float32)"
        )
    if device.type == "cpu" and isinstance(recipe, DetectionRecipe) and has_large_regions(recipe):
        note(
            "on a CPU most of the time goes to regions of 14 x 14 cells, "
            f"{recipe.detector.regions} an image: training took a quarter as long with --set "
            "detector.roi_size=8 --set detector.regions=64 (ResNet-18, a shorter side of 400)"
        )


def _short_forms(asked: RunAsked, more: Mapping[str, object]) -> list[str]:
    """Return what --epochs, --lr, --batch and ``more`` say, as settings.

    Raises:
        InputError: where --set says it too.
    """
    from ..recipes.schema import OTHERWISE, SHORT_FORMS

    forms = SHORT_FORMS | OWN_FORMS
    named = {short: getattr(asked, short) for short in SHORT_FORMS} | dict(more)
    given = {short: value for short, value in named.items() if value is not None}
    for setting in asked.settings or []:
        key = setting.partition("=")[0].strip()
        if short := next((s for s in given if key in (forms[s], OTHERWISE.get(s))), None):
            raise InputError(f"--{short} and --set {setting} say the same; leave one of them out")
    return [f"{forms[short]}={value}" for short, value in given.items()]


def _check_kind(out: Path, kind: "type[TrainingRecipe]") -> None:
    """Raise an InputError for a run of another kind: a detector's is not resumed by residual train."""
    from .. import recipes
    from ..training.folder import RunFolder

    file = RunFolder(out).recipe_file
    stored: TrainingRecipe | None = recipes.read(file, of_run=True) if file.is_file() else None
    if stored and not isinstance(stored, kind):
        command = recipes.KINDS[type(stored)][1]
        again = f"{command} train --resume --out {shlex.quote(str(out))}"
        raise InputError(f"{out} is a run of {command} train; resume it with: {again}")


def show_recipes(name: str | None, settings: Sequence[str], kind: "type[TrainingRecipe]") -> None:
    """Print a recipe as YAML, or a list of those of a kind."""
    from ..recipes import KINDS, find, override

    if name:
        typer.echo(override(find(name, kind), list(settings)).to_yaml(), nl=False)
        return
    if settings:
        raise InputError("--set changes a recipe; name the recipe as well")
    known, _ = KINDS[kind]
    width = max(map(len, known))
    for recipe in known.values():
        typer.echo(f"{recipe.name:{width}} {recipe.description}")
