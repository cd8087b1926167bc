"""Momentum in its two forms."""

import pytest
import torch
import torch.nn.functional as F
from conftest import small_batch, small_model
from torch import nn

from residual.training.sgd import SGD


def test_pytorch_form_is_torch_optim_sgd() -> None:
    mine, theirs = small_model(), small_model()
    ours = SGD(mine, 0.9, 1e-2, "pytorch")
    reference = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    for i, rate in enumerate([0.1, 0.1, 0.01, 0.01]):
        x, y = small_batch(8, i)
        reference.param_groups[0]["lr"] = rate
        for model in (mine, theirs):
            F.cross_entropy(model(x), y).backward()
        ours.step(rate)
        reference.step()
        reference.zero_grad()
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_paper_form_on_one_weight_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    sgd = SGD(model, momentum=0.5, weight_decay=0.1, form="paper")
    # g = gradient + 0.1*w, v = 0.5*v + lr*g, w = w - v
    weight, velocity = 2.0, 0.0
    for gradient, rate in [(1.0, 0.1), (3.0, 0.1), (-2.0, 0.01)]:
        model.weight.grad = torch.tensor([[gradient]])
        sgd.step(rate)
        velocity = 0.5 * velocity + rate * (gradient + 0.1 * weight)
        weight -= velocity
        assert model.weight.item() == pytest.approx(weight, rel=1e-6)
    assert model.weight.grad is None


def test_the_two_forms_differ_only_after_a_change_of_the_rate() -> None:
    models = {form: nn.Linear(1, 1, bias=False) for form in ("paper", "pytorch")}
    optimizers = {form: SGD(model, 0.9, 0, form) for form, model in models.items()}  # type: ignore[arg-type]
    for model in models.values():
        nn.init.ones_(model.weight)

    def step(rate: float) -> bool:
        for form, model in models.items():
            model.weight.grad = torch.ones(1, 1)
            optimizers[form].step(rate)
        return torch.allclose(models["paper"].weight, models["pytorch"].weight)

    assert step(0.1)
    assert step(0.1)
    assert not step(0.01)
    # The old rate is still in the paper's velocity: its weight moves further.
    assert models["paper"].weight < models["pytorch"].weight
