"""From a recipe to a complete run folder."""

import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from .. import distributed
from ..distributed import World
from ..errors import InputError
from ..gpu import set_arithmetic
from ..memory import keep_freed_memory
from ..models.weights import save_weights
from ..recipes import Recipe
from ..training.folder import RunFolder, read_json
from ..training.loop import Run
from .checks import check_pictures, remembered_data_dir
from .devices import pick_device
from .session import (
    check_same_data,
    continue_run,
    everywhere,
    in_iterations,
    tell_unreadable,
    tensorboard_log,
    troubles,
)
from .sources import open_source
from .start import start


def train(
    recipe: Recipe | None,
    out: Path,
    *,
    data_dir: Path | None = None,
    device: str = "auto",
    resume: bool = False,
    tensorboard: bool = False,
    eager: bool = False,
    deterministic: bool = False,
) -> dict[str, Any]:
    """Train a recipe's network in the run folder ``out``, and return the final numbers (results.json).

    Args:
        recipe: what to train; None, when resuming, for the folder's own.
        out: the run folder, which must be new or, with ``resume``, hold a run of the same recipe.
        data_dir: where the data set lies, or is downloaded to; None, when resuming, for where it lay before.
        device: "auto", "cpu", "cuda" or "cuda:N".
        resume: continue at the newest checkpoint; a complete run just gives its results again.
        tensorboard: also write TensorBoard's events to ``out/tensorboard``.
        eager: on a GPU, run the network kernel by kernel, without compiling and recording iterations.
        deterministic: on a GPU, take only kernels that give the same bits each time (a CPU's always do).

    Raises:
        InputError: for anything wrong with the recipe, the data or the folder.
        Interrupted: after SIGINT or SIGTERM; a checkpoint has been written.
    """
    where = pick_device(device)
    world = distributed.join(where)
    folder = RunFolder(out)
    recipe = RunFolder.check(out, recipe, resume)
    data_dir = data_dir or remembered_data_dir(out)
    _check_ranks(recipe, world)
    if folder.results_file.exists():
        return read_json(folder.results_file)
    # Everything that can be wrong with the input is found before the folder is made.
    source = open_source(recipe, data_dir)
    check_same_data(folder, source.identity(), resume)
    if recipe.model.weights is None and "weights" in (recipe.model.name, recipe.data.mean):
        raise InputError(f"{recipe.name} starts from trained weights; name them with --weights")
    if recipe.schedule.plateau and "validation" not in source.pictures:
        raise InputError("schedule.plateau follows the validation error; set data.validation, as 5000")
    begin = start(recipe, source.classes, source.shape[0])
    model = begin.model
    check_pictures(model, recipe.model.name, source.shape)
    schedule = in_iterations(recipe, source.pictures["train"])
    log = tensorboard_log(out / "tensorboard") if tensorboard and world.is_main else None
    again = shlex.join(
        ["residual", "train", "--resume", "--out", str(out)]
        + (["--data-dir", str(data_dir)] if data_dir else [])
    )
    world.barrier()
    if world.is_main:
        folder.open(recipe, resume)
    world.barrier()
    with troubles(recipe.name, folder, where, again):
        keep_freed_memory()
        set_arithmetic(where, recipe.precision, deterministic)
        # One rank measures the training set; the others then find what it found.
        if world.is_main:
            source.preprocessing(begin.preprocessing)
        world.barrier()
        preprocessing = source.preprocessing(begin.preprocessing).to(where)
        model = model.to(where).to(memory_format=torch.channels_last)
        batches = source.batches(preprocessing, where, world)

        def measure(part: str) -> dict[str, Any] | None:
            return source.measure(model, preprocessing, part, world) if part in source.pictures else None

        # Validation, where there is a part for it, is what the curve shows while choosing; the paper's
        # figures show the test error, which nothing here is chosen by.
        part = "validation" if "validation" in source.pictures else "test"
        run = Run(
            recipe.model_copy(update={"schedule": schedule}),
            model,
            batches,
            lambda: source.measure(model, preprocessing, part, world),
            part,
            folder,
            world,
            again,
            eager,
            log,
        )
        departures = _departures(recipe, world)
        continue_run(run, where, data_dir, resume, begin.note, departures, source.identity())
        run.train()
        # Reading a large training set once more, for its error without augmentation, would take an epoch.
        measured = [part for part in source.pictures if part != "train" or not recipe.data.folder]
        if world.is_main:
            count = sum(source.pictures[part] for part in measured)
            print(f"{recipe.name}: measuring the final weights on {count:,} pictures", file=sys.stderr)
        unreadable = everywhere(world, getattr(batches, "unreadable", {}))
        results: dict[str, Any] = {
            "recipe": recipe.name,
            "iterations": run.progress.iteration,
            "seconds": run.progress.seconds,
            "parameters": sum(p.numel() for p in model.parameters()),
            "train": measure("train") if "train" in measured else None,
            "validation": measure("validation"),
            "best_validation_top1_error": run.progress.best,
            "test": measure("test"),
            "unreadable_pictures": len(unreadable),
            "colours": source.colours(),
        }
        if world.is_main:
            folder.remove_unfinished_weights()
            save_weights(
                folder.weights,
                model,
                name=recipe.model.name,
                options=begin.options,
                preprocessing=preprocessing,
                classes=source.classes,
                recipe=recipe.model_dump(mode="json"),
                results=results,
            )
            folder.finish(results)
            tell_unreadable(unreadable, out)
        world.barrier()
        return results


def _check_ranks(recipe: Recipe, world: World) -> None:
    size = recipe.batch.size
    local = size // world.size
    if local < 2 or size % world.size or local % min(recipe.batch.bn_group, local):
        raise InputError(
            f"batch.size {size} cannot be shared by {world.size} processes in whole BN groups of "
            f"{recipe.batch.bn_group}; start a number of processes that divides it so"
        )


def _departures(recipe: Recipe, world: World) -> list[str]:
    """Return in which ways a run on these ranks differs from what the recipe says."""
    wanted = min(recipe.batch.bn_group, recipe.batch.size)
    group = min(wanted, recipe.batch.size // world.size)
    if group == wanted:
        return []
    return [f"BN statistics over {group} pictures on each of {world.size} ranks, not over {wanted}"]
