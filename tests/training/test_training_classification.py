"""The sums that a log line of a classifier needs."""

import pytest
import torch
from conftest import CPU

from residual.distributed import World
from residual.training.classification import ErrorMeter


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
