"""What every training run does around its loop: taking up, telling, and ending well."""

import functools
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..environment import describe
from ..errors import InputError, Interrupted
from ..gpu import memory_ran_out
from ..training.folder import RunFolder
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
            f"stopped; all iterations are done and kept, continue with: {again}", signal.SIGINT
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


def continue_run(
    run: Run,
    device: torch.device,
    data_dir: Path | None,
    resume: bool,
    note: str | None,
    departures: list[str],
) -> None:
    """Take up a run where its newest checkpoint left it, or at the start, and note the session.

    Args:
        note: what it starts from, None for scratch.
        departures: in which ways it differs from what its recipe says.
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
            "data_dir": str(data_dir.resolve()) if data_dir else None,
        }
        run.folder.add_session(describe(device, run.world.size) | session)
        run.folder.cut_metrics(run.progress.iteration)


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
