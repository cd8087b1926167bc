"""The weights of a run that was stopped early: ``residual finish``."""

import shlex
import sys
from pathlib import Path
from typing import Any

from .. import distributed
from ..device import arithmetic, pick_device
from ..errors import InputError
from ..recipes import KINDS
from ..training.folder import RunFolder
from ..training.loop import Run
from .run import (
    check_same_data,
    data_dir_of,
    in_iterations,
    resume_command,
    task_of,
    with_own_code,
    working_in,
)


def finish(out: Path | str, *, data_dir: Path | str | None = None, device: str = "auto") -> dict[str, Any]:
    """Write the weights of a run's newest checkpoint, and return what they are marked with.

    The BN statistics are averaged as at a run's end. The run itself stays what it is: there is no
    results.json, and when it is resumed and complete, its final weights take the place of these.

    Args:
        out: the run folder.
        data_dir: where the data lie; None for where they lay.
        device: as in ``train``.

    Returns:
        As ``results`` in config.json of the weights: ``iterations``, those done, ``of_iterations``, and the
        metrics on the split that the run's curve is about. ``complete`` is false.

    Raises:
        InputError: where there is no run, no checkpoint, or nothing to finish; for other data than the run's.
    """
    out = Path(out).expanduser()
    data_dir = None if data_dir is None else Path(data_dir).expanduser()
    where = pick_device(device)
    world = distributed.join(where)
    folder = RunFolder(out)
    recipe = with_own_code(RunFolder.check(out, None, resume=True))
    if folder.results_file.exists():
        raise InputError(f"{out} is complete; its weights are in {folder.weights}")
    if not folder.checkpoints():
        _, command = KINDS[type(recipe)]
        again = f"{command} train --resume --out {shlex.quote(str(out))}"
        raise InputError(f"{out} has no checkpoint yet; let it go on: {again}")
    data_dir = data_dir_of(recipe, data_dir, out)
    task = task_of(recipe, data_dir, world)
    check_same_data(folder, task, resume=True)
    task.start(folder)
    schedule = in_iterations(recipe, task.images)
    again = resume_command(task, out, data_dir)
    with (
        working_in(folder, recipe, True, where, world, again),
        arithmetic(where, recipe.precision, deterministic=False, one_size=task.one_size),
    ):
        work = task.place(where, schedule, eager=True)
        lasting = recipe.model_copy(update={"schedule": schedule})
        run = Run(lasting, task.model, task.batches, work, task.evaluate, task.split, folder, world, again)
        run.restore(folder.checkpoints()[-1])

        def say(sentence: str) -> None:
            if world.is_main:
                print(f"{recipe.name}: {sentence}", file=sys.stderr)

        if work.finish:
            work.finish(say)
        task.batches.close()
        say(f"testing the weights of iteration {run.progress.iteration:,}")
        results = {
            "recipe": recipe.name,
            "iterations": run.progress.iteration,
            "of_iterations": schedule.iterations,
            "complete": False,
            task.split: task.evaluate(),
        }
        if world.is_main:
            folder.replace_weights(lambda path: task.save(path, results))
        world.barrier()
        return results
