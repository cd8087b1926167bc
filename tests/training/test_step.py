"""A step against the paper's machine."""

import copy
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from conftest import CPU, small_batch, small_model, step_of
from torch import Tensor, nn

from residual.distributed import World
from residual.errors import Interrupted
from residual.models.own import OwnNetwork
from residual.training.batchnorm import batch_norms
from residual.training.classification import ErrorMeter
from residual.training.sgd import SGD
from residual.training.step import Step


def test_a_step_normalises_group_by_group_and_averages_the_gradients() -> None:
    """Against the paper's machine: two GPUs with half of the batch each, gradients averaged."""
    x, y = small_batch(16)
    model = small_model()
    gpus = [copy.deepcopy(model), copy.deepcopy(model)]
    for gpu, xs, ys in zip(gpus, x.split(8), y.split(8), strict=True):
        F.cross_entropy(gpu(xs), ys).backward()
    expected = {}
    for (name, p), q in zip(gpus[0].named_parameters(), gpus[1].parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        expected[name] = p.detach() - 0.1 * (p.grad + q.grad) / 2

    meter = ErrorMeter(CPU)
    Step(model, SGD(model, 0.9, 0, "paper"), 8, World(), meter)(x, y, 0.1, 0)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name])
    # Moving averages: what the average over the two GPUs would be.
    for mine, a, b in zip(*(batch_norms(m) for m in (model, *gpus)), strict=True):
        torch.testing.assert_close(mine.running_mean, (a.running_mean + b.running_mean) / 2)
        torch.testing.assert_close(mine.running_var, (a.running_var + b.running_var) / 2)

    whole = small_model()
    Step(whole, SGD(whole, 0.9, 0, "paper"), 16, World(), ErrorMeter(CPU))(x, y, 0.1, 0)
    name = "layer1.0.conv1.weight"
    assert not torch.allclose(whole.get_parameter(name), expected[name]), "the group does not matter?"


def test_bfloat16_keeps_the_state_in_float32() -> None:
    model = small_model()
    step = Step(model, SGD(model, 0.9, 1e-4, "paper"), 4, World(), ErrorMeter(CPU), "bfloat16")
    inputs, targets = small_batch(16)
    reference, start = copy.deepcopy(model), copy.deepcopy(list(model.parameters()))
    step(inputs, targets, 0.05, 0)
    step_of(reference, 4)(inputs, targets, 0.05, 0)
    assert all(value.dtype in (torch.float32, torch.int64) for value in model.state_dict().values())
    # Close to the float32 step, but not the same: the products were in bfloat16.
    moved, exact = (
        torch.cat([(now - before).flatten() for now, before in zip(one.parameters(), start, strict=True)])
        for one in (model, reference)
    )
    assert 0 < (moved - exact).norm() < 0.3 * exact.norm()


def test_a_signal_between_two_groups_leaves_whatever_a_network_of_ones_own_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = self.seen + len(x)
            return super().forward(x.flatten(1))

    body = Counting(64, 4)
    body.register_buffer("seen", torch.zeros(()))
    (tmp_path / "mine.py").touch()
    model = OwnNetwork(body, f"{tmp_path / 'mine.py'}:build", classes=4, in_channels=1)
    heard = iter([False, True])

    def check() -> None:
        if next(heard):
            raise Interrupted("stop", signal.SIGTERM)

    monkeypatch.setattr("residual.signals.check", check)
    with pytest.raises(Interrupted):
        step_of(model, 4)(*small_batch(8), 0.1, 0)
    assert body.seen == 0


def test_ranks_train_a_network_of_ones_own_that_has_more_than_its_scores_depend_on(tmp_path: Path) -> None:
    """They exchange the gradient of each parameter, and would wait for one that never comes."""
    (tmp_path / "mine.py").touch()
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    body.register_parameter("unused", nn.Parameter(torch.tensor(3.0)))
    alone = OwnNetwork(body, f"{tmp_path / 'mine.py'}:build", classes=4, in_channels=1)
    shared = copy.deepcopy(alone)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        together = Step(shared, SGD(shared, 0.9, 1e-4, "paper"), 4, World(0, 2), ErrorMeter(CPU))
        one = step_of(alone, 4)
        for iteration in range(2):
            for step in (together, one):
                step(*small_batch(8, iteration), 0.1, iteration)
    finally:
        dist.destroy_process_group()
    for mine, theirs in zip(shared.parameters(), alone.parameters(), strict=True):
        assert torch.equal(mine, theirs)
