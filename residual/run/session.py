"""What every training run does around its loop: taking up, telling, and ending well."""

import functools
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..distributed import World
from ..environment import describe
from ..errors import InputError, Interrupted
from ..gpu import memory_ran_out
from ..recipes import DetectionRecipe, Recipe
from ..recipes.schema import Schedule
from ..training.folder import RunFolder, read_json
from ..training.loop import Run


@contextmanager
def troubles(name: str, folder: RunFolder, device: torch.device, again: str) -> Iterator[None]:
    """Turn what may end a run into a sentence, and close its folder.

    Args:
        name: of the recipe.
        again: the command that continues the run.

    Raises:
        InputError, Interrupted: as the work inside does, and for a full disk, memory or impatience.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped; what the last checkpoint holds is kept, continue with: {again}", signal.SIGINT
        ) from None
    except torch.OutOfMemoryError:
        raise InputError(f"{name}: {memory_ran_out(device)}") from None
    except OSError as error:
        raise InputError(
            f"{folder.path}: cannot write: {error.strerror}; what was there is untouched, continue with: "
            f"{again}"
        ) from None
    finally:
        folder.close()


def in_iterations(recipe: Recipe | DetectionRecipe, pictures: int) -> Schedule:
    """Return a recipe's schedule, in iterations if it is in epochs of so many ``pictures``.

    The run folder keeps the recipe as it was asked for.

    Raises:
        InputError: for a warm-up that is longer than the run.
    """
    schedule = recipe.schedule
    if not schedule.epochs:
        return schedule
    length = -(-schedule.epochs * pictures // recipe.batch.size)
    if schedule.warmup and schedule.warmup.iterations >= length:
        raise InputError(
            f"schedule.warmup.iterations ({schedule.warmup.iterations}) is not shorter than the run's "
            f"{length} iterations"
        )
    return schedule.model_copy(update={"iterations": length, "epochs": None})


def check_same_data(folder: RunFolder, data: dict[str, Any], resume: bool) -> None:
    """Raise an InputError when a run is resumed on other pictures: order and classes would not fit.

    Args:
        data: what tells the pictures at hand from others.
    """
    if not resume or not folder.environment_file.exists():
        return
    before = read_json(folder.environment_file)[0].get("data")
    if before is not None and before != data:
        raise InputError(
            f"{folder.path} was begun on other pictures (then {before}, now {data}); put them back, or start "
            "another run with --out"
        )


def continue_run(
    run: Run,
    device: torch.device,
    data_dir: Path | None,
    resume: bool,
    note: str | None,
    departures: list[str],
    data: dict[str, Any],
) -> None:
    """Take up a run where its newest checkpoint left it, or at the start, and note the session.

    Args:
        note: what it starts from, None for scratch.
        departures: in which ways it differs from what its recipe says.
        data: what tells its data from others, for ``check_same_data``.
    """
    checkpoints = run.folder.checkpoints()
    if checkpoints:
        run.restore(checkpoints[-1])
    # No rank writes before all have read.
    run.world.barrier()
    if run.world.is_main:
        if note and not checkpoints:
            print(f"{run.recipe.name}: starting from {note}", file=sys.stderr)
        for departure in departures:
            print(f"note: this run departs from its recipe: {departure}", file=sys.stderr)
        if resume:
            at = f"continuing at iteration {run.progress.iteration:,}" if checkpoints else "starting anew"
            why = "" if checkpoints else ": no checkpoint was due before it stopped"
            print(f"{run.recipe.name}: {at}{why}", file=sys.stderr)
        session = {
            "iteration": run.progress.iteration,
            "departures": departures,
            "started_from": note,
            "data": data,
            "data_dir": str(data_dir.resolve()) if data_dir else None,
        }
        run.folder.add_session(describe(device, run.world.size) | session)
        # The last checkpoint comes before the last evaluation, which is done again.
        done = run.progress.iteration
        run.folder.cut_metrics(done - (done == run.recipe.schedule.iterations))


def everywhere(world: World, unreadable: dict[str, str]) -> dict[str, str]:
    """Return which pictures could not be read in any rank, and why."""
    return {name: reason for part in world.gather(unreadable) for name, reason in part.items()}


def tell_unreadable(unreadable: dict[str, str], out: Path) -> None:
    """Say which pictures could not be read, and list them in the run folder."""
    if not unreadable:
        return
    listing = out / "unreadable.txt"
    listing.write_text("".join(f"{reason}\n" for reason in unreadable.values()), encoding="utf-8")
    count = len(unreadable)
    print(
        f"note: {count:,} picture{'s' if count > 1 else ''} could not be read and "
        f"{'were' if count > 1 else 'was'} skipped, listed in {listing}; the first: "
        f"{next(iter(unreadable.values()))}",
        file=sys.stderr,
    )


def tensorboard_log(folder: Path) -> Callable[[dict[str, Any]], None]:
    """Return what writes a line of metrics.jsonl as TensorBoard's events."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "--tensorboard needs the package tensorboard: pip install 'residual[tensorboard]'"
        ) from None

    # Opened by the first line: until then the run folder may not be there.
    writer = functools.cache(lambda: SummaryWriter(str(folder)))

    def log(line: dict[str, Any]) -> None:
        for part in line.keys() & {"train", "validation", "test"}:
            for name in line[part].keys() & {"loss", "top1_error", "ap50"}:
                writer().add_scalar(f"{part}/{name}", line[part][name], line["iteration"])
        writer().add_scalar("learning_rate", line["learning_rate"], line["iteration"])
        writer().flush()

    return log
