"""What the loop shows, whatever is trained."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import CPU, small_model

from residual.data.order import OrderedBatches
from residual.distributed import World
from residual.recipes import find, override
from residual.training.classification import ERRORS, ErrorMeter
from residual.training.display import Display
from residual.training.folder import RunFolder
from residual.training.loop import Run, Work


def test_an_evaluation_does_not_make_the_time_that_was_waited_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next line would tell all seconds since the run began as those since this one."""
    waited: list[float] = []

    def show(self: Display, iteration: int, loss: float, error: float, seconds: float = 0.0, *_: Any) -> None:
        waited.append(seconds)

    monkeypatch.setattr(Display, "show", show)
    monkeypatch.setattr(Display, "due", lambda self: True)
    recipe = override(find("digits-resnet8"), ["schedule.iterations=2", "evaluate_every=1"])
    batches = OrderedBatches(images=8, batch=4, flip=False, seed=0, rank=0, ranks=1)
    batches.prefetch = SimpleNamespace(waited=7.0)  # type: ignore[assignment]
    work = Work(ErrorMeter(CPU), lambda optimizer, rate: lambda iteration: None, ERRORS)
    folder = RunFolder(tmp_path)
    evaluate = {"top1_error": 50.0}.copy
    Run(recipe, small_model(), batches, work, evaluate, "test", folder, World(), "again").train()
    assert waited == [7.0] * 4
