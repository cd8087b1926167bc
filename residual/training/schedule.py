"""The learning rate as a pure function of the iteration and of the plateaus before it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ..recipes.schema import Schedule
from .checkpoint import Progress


def learning_rate(schedule: Schedule, iteration: int, plateaus: int = 0) -> float:
    """Return the learning rate of an iteration, the first being 0.

    Args:
        plateaus: how many times the error has stopped falling so far (Section 3.4), each a division by 10.

    Section 4.2: 0.1, divided by 10 at 32k and 48k of 64k iterations; for 110 layers and more 0.01 for the
    first 400 iterations, "and then go back to 0.1". A warm-up is never above the rate that it leads to.
    """
    if (warmup := schedule.warmup) and warmup.shape == "constant" and iteration < warmup.iterations:
        return min(warmup.learning_rate, schedule.learning_rate)
    if warmup and warmup.shape == "linear":
        length = min(warmup.iterations, max(schedule.iterations // 10, 1))
        if iteration < length:
            high = schedule.learning_rate
            low = min(warmup.learning_rate, high)
            return low + (high - low) * iteration / length
    drops = plateaus + sum(iteration >= round(drop * schedule.iterations) for drop in schedule.drops)
    return schedule.learning_rate / 10**drops


def drops_of(schedule: Schedule, iterations: int, lines: Sequence[dict[str, Any]]) -> list[int]:
    """Return the iterations after which the rate was divided, or will be.

    Args:
        iterations: of the whole run.
        lines: of its metrics.jsonl, which tell where it followed plateaus.
    """
    if schedule.plateau is None:
        return [round(drop * iterations) for drop in schedule.drops]
    return [
        before["iteration"]
        for before, after in pairwise(lines)
        if after["learning_rate"] < before["learning_rate"]
    ]


def follow_plateau(schedule: Schedule, progress: Progress, error: float) -> None:
    """Divide the rate by 10 from here on when the validation error has stopped falling (Section 3.4).

    Args:
        progress: of the run; what is remembered of errors advances in place.
        error: of the newest evaluation, in percent.
    """
    plateau = schedule.plateau
    if plateau is None:
        return
    if progress.lowest is None or error < progress.lowest - plateau.least:
        progress.lowest, progress.waited = error, 0
        return
    progress.waited += 1
    if progress.waited >= plateau.patience and progress.plateaus < plateau.drops:
        progress.plateaus += 1
        progress.waited = 0
