"""The sums that a log line of a classifier needs, and what its BN statistics are averaged over."""

from typing import Any

import pytest
import torch
from conftest import CPU, small_batch, small_model
from torch import Tensor, nn

from residual.distributed import World
from residual.recipes import find, override
from residual.training import classification
from residual.training.classification import ErrorMeter, classification_work


def test_the_meter_counts_and_remembers_the_first_broken_loss() -> None:
    meter = ErrorMeter(CPU)
    scores = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 5.0]])
    meter.add(torch.tensor(0.5), scores, torch.tensor([0, 1, 1, 1]), 7)
    meter.add(torch.tensor(1.5), scores[:2], torch.tensor([1, 0]), 8)
    loss, error, count = meter.read(World())
    assert (loss, error, count) == (pytest.approx((0.5 * 4 + 1.5 * 2) / 6), 50.0, 6)
    assert meter.broken_at == -1
    for iteration in (9, 10):
        meter.add(torch.tensor(float("nan")), scores, torch.tensor([0, 0, 0, 0]), iteration)
    assert meter.broken_at == 9


def test_dropout_in_averaging_is_drawn_alike_whatever_a_session_has_drawn_before() -> None:
    """A run that was killed after its last iteration averages again, in another process."""

    class Batches:
        def __call__(self, iteration: int) -> tuple[Tensor, Tensor]:
            return small_batch(8, iteration)

        def __len__(self) -> int:
            return 2

    found = []
    for seed in (1, 2):
        model = small_model()
        model.conv1 = nn.Sequential(nn.Dropout(), model.conv1)
        work = classification_work(model, Batches(), find("digits-resnet8"), World(), CPU)
        torch.manual_seed(seed)
        assert work.finish
        work.finish(lambda sentence: None)
        found.append(model.bn1.running_mean.clone())
    assert torch.equal(*found)


@pytest.mark.parametrize(("epoch", "last"), [(1000, 250), (7, 57)])
def test_statistics_are_averaged_over_what_would_come_next(
    epoch: int, last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 mini-batches, or an epoch where that is shorter."""
    seen: list[Any] = []
    monkeypatch.setattr(classification, "average_statistics", lambda *given: seen.extend(given))
    settings = ["batch.size=16", "batch.bn_group=4", "schedule.iterations=50"]
    recipe, model, batches = override(find("digits-resnet20"), settings), small_model(), range(epoch)
    work = classification_work(model, batches, recipe, World(), CPU)  # type: ignore[arg-type]
    assert work.finish is not None
    work.finish(lambda sentence: None)
    *given, progress = seen
    assert given == [model, batches, range(50, last), 4, World()]
    assert callable(progress)
