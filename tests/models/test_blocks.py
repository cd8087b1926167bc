"""Every equation of Section 3 holds in numbers."""

import doctest
import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residual.models import blocks, build_model
from residual.models.blocks import BasicBlock, Block, BottleneckBlock, Residual, ZeroPadShortcut


def slow_shortcut_a(x: Tensor, channels: int, stride: int) -> Tensor:
    """Option A position by position: every ``stride``-th one, zero channels before and after."""
    n, before = x.shape[0], (channels - x.shape[1]) // 2
    height, width = math.ceil(x.shape[2] / stride), math.ceil(x.shape[3] / stride)
    y = torch.zeros(n, channels, height, width)
    for c in range(x.shape[1]):
        for row in range(height):
            for column in range(width):
                y[:, before + c, row, column] = x[:, c, row * stride, column * stride]
    return y


@pytest.mark.parametrize(("channels", "stride"), [(8, 2), (7, 2), (8, 1), (4, 2), (12, 3)])
def test_zero_pad_shortcut(channels: int, stride: int) -> None:
    shortcut = ZeroPadShortcut(4, channels, stride)
    x = torch.randn(2, 4, 7, 10)
    assert torch.equal(shortcut(x), slow_shortcut_a(x, channels, stride))
    assert not list(shortcut.parameters())


def randomised(block: Block) -> Block:
    """Give BN scales and shifts other than 1 and 0, and statistics other than a new network's."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                assert values is not None
                nn.init.uniform_(values, 0.5, 1.5)
    return block.eval()


@pytest.mark.parametrize("kind", [BasicBlock, BottleneckBlock])
@pytest.mark.parametrize(("in_channels", "stride"), [(8, 1), (8, 2), (4, 2), (4, 1)])
@torch.no_grad()
def test_plain_is_residual_without_the_shortcut(kind: type[Block], in_channels: int, stride: int) -> None:
    """Equation (1) with option A, against the plain block with the same weights."""
    torch.manual_seed(0)
    width = 8 // kind.expansion
    residual = randomised(kind(in_channels, width, stride, "A"))
    plain = kind(in_channels, width, stride, None).eval()
    plain.load_state_dict(residual.state_dict())
    x = torch.randn(2, in_channels, 7, 6)
    given = x.clone()
    shortcut = slow_shortcut_a(x, 8, stride)
    torch.testing.assert_close(residual(x), F.relu(plain.function(x) + shortcut))
    torch.testing.assert_close(plain(x), F.relu(plain.function(x)))
    assert torch.equal(x, given)


@pytest.mark.parametrize(
    ("option", "in_channels", "stride"), [("B", 4, 2), ("B", 8, 2), ("B", 4, 1), ("C", 8, 1), ("C", 4, 2)]
)
@pytest.mark.parametrize("kind", [BasicBlock, BottleneckBlock])
@torch.no_grad()
def test_projection(kind: type[Block], option: Any, in_channels: int, stride: int) -> None:
    """Equation (2): a matrix over channels at every ``stride``-th position, then BN."""
    torch.manual_seed(0)
    block = randomised(kind(in_channels, 8 // kind.expansion, stride, option))
    x = torch.randn(2, in_channels, 7, 6)
    projection, bn = block.downsample
    projected = torch.einsum("oc,nchw->nohw", projection.weight[:, :, 0, 0], x[:, :, ::stride, ::stride])
    mean, var, scale, shift = (
        v[:, None, None] for v in (bn.running_mean, bn.running_var, bn.weight, bn.bias)
    )
    shortcut = (projected - mean) / torch.sqrt(var + bn.eps) * scale + shift
    torch.testing.assert_close(block(x), F.relu(block.function(x) + shortcut))


def projections(name: str, **options: Any) -> list[str]:
    """The blocks of a network whose shortcut has parameters."""
    with torch.device("meta"):
        names = build_model(name, **options).state_dict()
    return [key.removesuffix(".downsample.0.weight") for key in names if key.endswith(".downsample.0.weight")]


def test_where_projections_are() -> None:
    every = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert projections("resnet18", shortcut="A") == projections("plain18") == []
    assert projections("resnet18") == projections("resnet18", shortcut="B") == every[2::2]
    assert projections("resnet18", shortcut="C") == every
    # conv2_1 of a bottleneck network increases dimensions too: 64 to 256.
    assert projections("resnet50") == every[::2]
    assert projections("cifar_resnet14") == projections("cifar_plain14") == []
    assert projections("cifar_resnet14", shortcut="B") == every[2:6:2]
    assert projections("cifar_resnet14", shortcut="C") == every[:6]


@pytest.mark.parametrize(
    ("plain", "residual"),
    [("cifar_plain20", "cifar_resnet20"), ("plain18", "resnet18"), ("plain34", "resnet34")],
)
def test_plain_networks_have_the_weights_of_option_a(plain: str, residual: str) -> None:
    with torch.device("meta"):
        a, b = build_model(plain), build_model(residual, shortcut="A")
    shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (a, b)]
    assert shapes[0] == shapes[1]


@torch.no_grad()
def test_residual_around_fully_connected_layers() -> None:
    """Equations (1) and (2) as Section 3.2 writes them, F = W2 relu(W1 x)."""
    torch.manual_seed(0)
    x = torch.randn(5, 6)

    def mapping(out: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(6, 9, bias=False), nn.ReLU(), nn.Linear(9, out, bias=False))

    same, wider, projection = mapping(6), mapping(8), nn.Linear(6, 8, bias=False)
    f_same, f_wider = ((x @ f[0].weight.T).clamp(min=0) @ f[2].weight.T for f in (same, wider))
    torch.testing.assert_close(Residual(same)(x), (f_same + x).clamp(min=0))
    torch.testing.assert_close(Residual(same, activation=nn.Identity())(x), f_same + x)
    projected = (f_wider + x @ projection.weight.T).clamp(min=0)
    torch.testing.assert_close(Residual(wider, projection)(x), projected)


# The second pair could be broadcast.
@pytest.mark.parametrize(("function", "shape"), [(nn.Linear(6, 8), "(5, 8)"), (nn.Linear(6, 1), "(5, 1)")])
def test_residual_refuses_other_shapes(function: nn.Module, shape: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"gives shape {shape} and the shortcut (5, 6)")):
        Residual(function)(torch.randn(5, 6))


def test_a_function_that_changes_its_input_does_not_change_what_the_shortcut_passes_on() -> None:
    function = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        function[1].weight.copy_(torch.eye(2))
    block = Residual(function, activation=nn.Identity())
    with pytest.raises(ValueError, match=re.escape("changes its input in place")):
        block(torch.tensor([[-3.0, 2.0]]))
    with torch.inference_mode():
        # relu(x) + x; what inference mode makes does not tell that it was changed.
        assert block(torch.tensor([[-3.0, 2.0]])).tolist() == [[-3.0, 4.0]]


def test_the_example_in_the_docstring() -> None:
    outcome = doctest.testmod(blocks)
    assert outcome.attempted > 0
    assert outcome.failed == 0
