"""The learning rate as a function of the iteration and of plateaus."""

from pathlib import Path

import pytest

from residual.recipes import find, override
from residual.training.checkpoint import Progress
from residual.training.schedule import drops_of, follow_plateau, learning_rate


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
    # A line of the log has the rate of the iteration before it: it fell after the line before.
    lines = [{"iteration": 10 * n, "learning_rate": rate} for n, rate in enumerate([0.1, *rates])]
    assert drops_of(chosen.schedule, 110, lines) == [30, 60]
    assert drops_of(find("cifar10-resnet20").schedule, 64_000, []) == [32_000, 48_000]


def test_a_linear_warm_up_rises_to_the_rate_of_the_schedule() -> None:
    settings = ["schedule.warmup.shape=linear", "schedule.warmup.learning_rate=0.02"]
    settings += ["schedule.learning_rate=0.1", "schedule.warmup.iterations=4", "schedule.iterations=100"]
    schedule = override(find("cifar10-resnet20"), settings).schedule
    rates = [learning_rate(schedule, iteration) for iteration in range(6)]
    assert rates == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])
    # A short run rises within its first tenth; as a constant one a warm-up of four would be refused here.
    short = schedule.model_copy(update={"iterations": 20})
    rates = [learning_rate(short, iteration) for iteration in range(4)]
    assert rates == pytest.approx([0.02, 0.06, 0.1, 0.1])
    assert override(find("cifar10-resnet20"), [*settings, "schedule.iterations=3"]).schedule.iterations == 3


@pytest.mark.parametrize("shape", ["constant", "linear"])
def test_a_warm_up_is_never_above_the_rate_that_it_leads_to(shape: str) -> None:
    settings = [f"schedule.warmup.shape={shape}", "schedule.warmup.learning_rate=0.01"]
    schedule = override(find("cifar10-resnet20"), [*settings, "schedule.learning_rate=0.002"]).schedule
    assert learning_rate(schedule, 0) == learning_rate(schedule, 1) == 0.002
