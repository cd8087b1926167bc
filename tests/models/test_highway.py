"""Highway networks: each layer by its equation, what a gate begins at, and what trains."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import Shown, metrics_of, set_options
from torch import nn

from residual import build_model
from residual.models.highway import HighwayLayer


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_layer_is_its_equation(kernel: int) -> None:
    torch.manual_seed(0)
    layer = HighwayLayer(6, kernel)
    x = torch.randn(2, 6, 5, 7)
    transformed = F.conv2d(x, layer.conv.weight, layer.conv.bias, padding=kernel // 2).clamp(min=0)
    opened = 1 / (1 + torch.exp(-F.conv2d(x, layer.gate.weight, layer.gate.bias, padding=kernel // 2)))
    torch.testing.assert_close(layer(x), transformed * opened + x * (1 - opened))


def test_closed_gates_pass_and_open_ones_transform() -> None:
    layer = HighwayLayer(4, 3)
    x = torch.randn(1, 4, 6, 6)
    torch.nn.init.zeros_(layer.gate.weight)
    torch.nn.init.constant_(layer.gate.bias, -40)
    torch.testing.assert_close(layer(x), x)
    torch.nn.init.constant_(layer.gate.bias, 40)
    torch.testing.assert_close(layer(x), F.relu(layer.conv(x)))


@pytest.mark.parametrize(("name", "gated"), [("cifar_highway19", 14), ("cifar_highway32", 27)])
def test_gates_begin_almost_closed(name: str, gated: int) -> None:
    for bias in (-2.0, -5.0):
        model = build_model(name) if bias == -2 else build_model(name, gate_bias=bias)
        layers = [module for module in model.modules() if isinstance(module, HighwayLayer)]
        assert len(layers) == gated
        assert all(layer.gate.bias.eq(bias).all() and not layer.conv.bias.any() for layer in layers)


def test_kernels_alternate_in_the_one_of_32_layers() -> None:
    model = build_model("cifar_highway32")
    layers = [m for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and "gate" not in name]
    # Each stage begins with a plain 3x3 layer; the 1x1 layer before pooling comes last.
    assert [layer.kernel_size[0] for layer in layers] == [*(3 * 5 * [3, 1]), 1]


@pytest.mark.long
def test_it_trains_and_its_gates_are_measured(tmp_path: Path, shown: Shown) -> None:
    run = tmp_path / "run"
    short = ["schedule.iterations=90", "schedule.drops=[]", "batch.size=24", "batch.bn_group=24"]
    shown("train", "digits-highway19", *set_options([*short, "evaluate_every=30"]), "--out", run)
    losses = [line["train"]["loss"] for line in metrics_of(run)]
    assert losses[-1] < 0.9 * losses[0]
    printed = shown("analyze", "responses", run, "--images", "100").out
    assert "gate open" in printed
    assert printed.count(" %") == 14
