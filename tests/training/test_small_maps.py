"""Convolutions of small maps: the sums that PyTorch's convolutions are, and their gradients."""

from itertools import product

import pytest
import torch
from conftest import CPU
from torch import Tensor, nn

from residual import build_model
from residual.distributed import World
from residual.training.classification import ErrorMeter
from residual.training.sgd import SGD
from residual.training.small_maps import FEW, SmallMapConv2d, _is_dense, use_small_maps
from residual.training.step import Step


def both_passes(layer: nn.Module, weight: nn.Parameter, x: Tensor) -> list[Tensor]:
    """Return a layer's output, and the gradients of its input and weights for one of the output."""
    x = x.detach().clone().requires_grad_()
    y = layer(x)
    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y, *torch.autograd.grad(y, [x, weight], gradient)]


def test_every_geometry_is_the_convolution() -> None:
    ways = set()
    sizes = product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (1, 2, 3, 5), (1, 2, 4))
    for kernel, stride, padding, height, width in sizes:
        if min(height, width) + 2 * padding < kernel:
            continue
        conv = nn.Conv2d(3, 4, kernel, stride, padding, bias=False).double()
        x = torch.randn(2, 3, height, width, dtype=torch.float64)
        expected = both_passes(conv, conv.weight, x)
        found = both_passes(SmallMapConv2d(conv), conv.weight, x)
        few = expected[0].shape[-2] * expected[0].shape[-1] <= FEW
        ways.add((few, few and _is_dense(x, conv.weight)))
        for a, b in zip(expected, found, strict=True):
            torch.testing.assert_close(b, a, rtol=0, atol=1e-12)
    # As ever, tap by tap, and as a matrix.
    assert ways == {(False, False), (True, False), (True, True)}


@pytest.mark.parametrize("side", [2, 4])
def test_in_bfloat16_it_rounds_no_more_than_the_convolution(side: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(128, 128, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(conv.weight.bfloat16())
    x = torch.randn(8, 128, side, side).bfloat16().float()
    with torch.autocast("cpu", torch.bfloat16):
        usual = both_passes(conv, conv.weight, x)
        ours = both_passes(SmallMapConv2d(conv), conv.weight, x)
    assert [each.dtype for each in ours] == [torch.bfloat16, torch.float32, torch.float32]
    # The gradient of the output is the one that bfloat16 has.
    gradient = torch.randn(usual[0].shape, generator=torch.Generator().manual_seed(1)).bfloat16().double()
    double = nn.Conv2d(128, 128, 3, padding=1, bias=False).double()
    double.load_state_dict(conv.state_dict())
    inputs = x.double().requires_grad_()
    outputs = double(inputs)
    exact = [outputs, *torch.autograd.grad(outputs, [inputs, double.weight], gradient)]
    for ideal, a, b in zip(exact, usual, ours, strict=True):
        assert (b - ideal).norm() < 1.05 * (a - ideal).norm() < 0.01 * ideal.norm()


def test_wide_convolutions_alone_are_replaced_and_keep_their_parameters() -> None:
    model = nn.Sequential(
        nn.Conv2d(256, 128, 3, bias=False),
        nn.Conv2d(128, 128, 3, bias=False),
        nn.Conv2d(256, 256, 3),
        nn.Conv2d(256, 256, 3, groups=2, bias=False),
        nn.Conv2d(256, 256, 3, dilation=2, bias=False),
        nn.Conv2d(256, 256, (1, 3), bias=False),
        nn.Conv2d(256, 256, 3, padding="same", bias=False),
        nn.Sequential(nn.Conv2d(256, 256, 1, 2, bias=False)),
    )
    before = dict(model.named_parameters())
    use_small_maps(model)
    assert [name for name, part in model.named_modules() if isinstance(part, SmallMapConv2d)] == ["0", "7.0"]
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)


def test_groups_side_by_side_train_as_the_convolutions_do() -> None:
    """ResNet-18's last two stages on images of 32 x 32: maps of 2 x 2 pixels and of one."""
    # In float64: float32's rounding grows in BN over the four pixels of a group.
    x, y = torch.randn(8, 3, 32, 32, dtype=torch.float64), torch.randint(0, 5, (8,))
    trained = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        model = build_model("resnet18", classes=5).double().to(memory_format=torch.channels_last)
        step = Step(model, SGD(model, 0.9, 1e-4, "paper"), 4, World(), ErrorMeter(CPU))
        step(x, y, 0.1, 0)
        trained.append(model)
    torch.set_num_threads(before)
    assert step._beside is not None
    copied = step._beside._free.get()
    # Two blocks of two and a projection, in each.
    assert sum(isinstance(part, SmallMapConv2d) for part in copied.modules()) == 10
    one, two = (model.state_dict() for model in trained)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-9)
