"""The learning rate as a function of the iteration and of plateaus."""

from pathlib import Path

import pytest

from residual.recipes import find, override
from residual.training.checkpoint import Progress
from residual.training.schedule import follow_plateau, learning_rate


def test_the_rate_falls_when_the_error_stops_falling(tmp_path: Path) -> None:
    """Five evaluations a plateau: the rate after each of a row of errors, by hand."""
    chosen = override(find("imagenet-resnet18"), ["schedule.plateau.patience=2", "schedule.plateau.drops=2"])
    progress = Progress()
    rates = []
    for error in (90.0, 80.0, 79.95, 80.5, 70.0, 70.0, 70.0, 70.0, 70.0, 70.0, 60.0):
        follow_plateau(chosen.schedule, progress, error)
        rates.append(learning_rate(chosen.schedule, 0, progress.plateaus))
    # 79.95 is lower than 80 by less than 0.1, so 80.5 is the second evaluation without a lower error.
    assert rates == pytest.approx([0.1] * 3 + [0.01] * 3 + [0.001] * 5)
