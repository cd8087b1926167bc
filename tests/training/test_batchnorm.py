"""BN groups told apart, and exact averages after training."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import small_batch, small_model, step_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from residual.distributed import World
from residual.models.own import OwnNetwork
from residual.training.batchnorm import (
    GroupedBatchNorm2d,
    advance,
    average_statistics,
    batch_norms,
    tell_groups_apart,
)


def test_exact_averages_are_plain_means_over_all_groups() -> None:
    model = small_model()
    first = model.bn1
    outputs: list[Tensor] = []
    model.conv1.register_forward_hook(lambda module, inputs, output: outputs.append(output.detach().clone()))
    average_statistics(model, lambda i: small_batch(16, i), range(3, 8), 8, World())
    assert len(outputs) == 10
    means = torch.stack([o.mean(dim=(0, 2, 3)) for o in outputs]).mean(0)
    variances = torch.stack([o.var(dim=(0, 2, 3), unbiased=True) for o in outputs]).mean(0)
    torch.testing.assert_close(first.running_mean, means)
    torch.testing.assert_close(first.running_var, variances)


class Kept(nn.Module):
    """A user's own: one BN is kept as it was, one is skipped at first and then used twice, one never used."""

    def __init__(self) -> None:
        super().__init__()
        self.kept, self.skipped, self.unseen = (nn.BatchNorm2d(1) for _ in range(3))
        for layer in (self.kept, self.unseen):
            layer.running_mean.fill_(7.0)
        self.calls = 0

    def train(self, mode: bool = True) -> "Kept":
        super().train(mode)
        self.kept.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 1:
            self.skipped(x)
            self.skipped(x + 1)
        return self.kept(x).flatten(1)[:, :2]


def test_layers_of_a_users_own_network_average_what_they_see(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    theirs = Kept()
    model = OwnNetwork(theirs, f"{tmp_path / 'mine.py'}:build", 2, 1)
    batches = [small_batch(8, i) for i in range(3)]
    average_statistics(model, lambda i: batches[i], range(3), 8, World())
    seen = torch.stack([inputs.mean() + more for inputs, _ in batches[1:] for more in (0.0, 1.0)])
    torch.testing.assert_close(theirs.skipped.running_mean, seen.mean(0, keepdim=True))
    assert theirs.kept.running_mean.item() == theirs.unseen.running_mean.item() == 7.0


def test_averaging_changes_no_weight_and_reads_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_back(tensor: Tensor) -> float:
        raise AssertionError("the host waits for the device")

    for name in ("__float__", "__bool__", "__int__", "item", "tolist"):
        monkeypatch.setattr(Tensor, name, read_back)
    model = small_model()
    before = [p.clone() for p in model.parameters()]
    average_statistics(model, lambda i: small_batch(16, i), range(2), 8, World())
    monkeypatch.undo()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert {layer.num_batches_tracked.item() for layer in batch_norms(model)} == {4}


BATCH, GROUP = 16, 4


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_plain8", "resnet18"])
def test_groups_told_apart_train_as_groups_one_after_the_other(name: str) -> None:
    x = torch.randn(BATCH, 1, 32, 32, generator=torch.Generator().manual_seed(2)).double()
    y = torch.arange(BATCH) % 4
    apart, together = small_model(name).double(), small_model(name).double()
    tell_groups_apart(together, GROUP, BATCH // GROUP)
    one, other = step_of(apart, GROUP), step_of(together, BATCH)
    for number in range(2):
        one(x, y, 0.02, number)
        other(x, y, 0.02, number)
    for (key, a), b in zip(apart.state_dict().items(), together.state_dict().values(), strict=True):
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")


def test_telling_groups_apart_keeps_the_state_dict_and_the_parameters() -> None:
    model = small_model()
    before, parameters = copy.deepcopy(model.state_dict()), list(model.parameters())
    tell_groups_apart(model, GROUP, BATCH // GROUP)
    assert all(isinstance(layer, GroupedBatchNorm2d) for layer in batch_norms(model))
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))


def test_one_group_and_evaluation_are_plain_bn() -> None:
    plain = nn.BatchNorm2d(3)
    grouped = GroupedBatchNorm2d(copy.deepcopy(plain), GROUP, 2)
    for count in (GROUP, GROUP + 1):
        x = torch.randn(count, 3, 5, 5)
        torch.testing.assert_close(grouped(x), plain(x), rtol=0, atol=0)
    x = torch.randn(2 * GROUP, 3, 5, 5)
    assert not torch.allclose(grouped(x), plain(x))
    grouped.load_state_dict(plain.state_dict())
    torch.testing.assert_close(grouped.eval()(x), plain.eval()(x), rtol=0, atol=0)


def test_groups_told_apart_cost_one_reduction_forwards_and_two_backwards() -> None:
    """What autograd derives from the forward formula sums three times, and moving averages by layer."""
    seen: list[str] = []
    x = torch.randn(BATCH, 3, 5, 5, requires_grad=True)

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = function.__name__.partition(".")[0]
            if name in ("sum", "mean", "var_mean", "lerp_") and args[0].numel() == x.numel():
                seen.append(name)
            return function(*args, **(kwargs or {}))

    layer = GroupedBatchNorm2d(nn.BatchNorm2d(3), GROUP, BATCH // GROUP)
    before = layer.running_mean.clone()  # type: ignore[union-attr]
    with Watched():
        y = layer(x)
        y.backward(torch.randn(y.shape))
    assert seen == ["var_mean", "sum", "sum"]
    assert torch.equal(layer.running_mean, before)  # type: ignore[arg-type]
    advance([layer], BATCH)
    assert not torch.equal(layer.running_mean, before)  # type: ignore[arg-type]


def test_bfloat16_maps_have_float32_statistics() -> None:
    plain = nn.BatchNorm2d(3)
    grouped = GroupedBatchNorm2d(copy.deepcopy(plain), GROUP, 2)
    x = torch.randn(2 * GROUP, 3, 5, 5).bfloat16().requires_grad_()
    y = grouped(x)
    assert y.dtype == torch.bfloat16
    assert grouped.seen.dtype == torch.float32
    expected = torch.cat([plain(part) for part in x.float().split(GROUP)])
    # One rounding, of the output.
    torch.testing.assert_close(y.float(), expected, rtol=2**-8, atol=1e-6)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_find_their_way_in_what_pytorch_2_11_compiles(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a function gives all that it computes on the way as well; of two that are one the last is led to.

    With a cast that does nothing that was not the output, and nothing was learned. Later releases leave out
    what is an output already.
    """
    tracing = pytest.importorskip("torch._dynamo.variables.higher_order_ops")
    name = "speculate_subgraph_with_auto_output_flattening"
    if not hasattr(tracing, name):
        pytest.skip("this PyTorch traces functions in another way")
    traced = getattr(tracing, name)
    as_in_2_11: list[bool] = []

    def trace(*given: Any, **how: Any) -> Any:
        if how.get("allow_side_effects"):
            as_in_2_11.append(True)
            how["filter_aliased_intermediates"] = False
            how["tracer"].side_effect_stack = []
        return traced(*given, **how)

    monkeypatch.setattr(tracing, name, trace)

    def gradients(compiled: bool) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        layer = GroupedBatchNorm2d(nn.BatchNorm2d(3), 4, 2).train()
        x = torch.randn(8, 3, 2, 2, generator=generator).to(dtype).requires_grad_()

        def passed(x: Tensor) -> Tensor:
            return F.relu_(layer(x))

        y = (torch.compile(passed, backend="aot_eager", dynamic=False) if compiled else passed)(x)
        (y * torch.randn(y.shape, generator=generator)).sum().backward()
        assert x.grad is not None
        return [x.grad, layer.weight.grad, layer.bias.grad]

    torch._dynamo.reset()
    mine, theirs = gradients(compiled=True), gradients(compiled=False)
    torch._dynamo.reset()
    assert as_in_2_11
    for each, expected in zip(mine, theirs, strict=True):
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(each, expected)
