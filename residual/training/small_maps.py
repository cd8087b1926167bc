"""Convolutions of maps of a few pixels as matrix products, for training on a CPU.

In the last stages of a network on small images the library that PyTorch convolves with there (oneDNN) is at
its slowest, at the weights' gradient before all; and of 2 x 2 pixels a 3x3 convolution multiplies more
padding than pixels (docs/performance.md). The sums are the same, in another order.
"""

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: Pixels of the output up to which the weights' gradient is faster as a matrix product for each tap, and
#: numbers of a tap's weights from which on it is.
FEW, WIDE = 16, 1 << 15

#: A convolution's stride and padding, the same for rows and columns.
Geometry = tuple[int, int]

M = TypeVar("M", bound=nn.Module)


def with_small_maps(model: M, shared: Iterable[Tensor]) -> M:
    """Return a copy of a network that has convolutions for small maps where it may gain by them.

    Args:
        shared: the parameters and buffers that both have; others are the copy's own.
    """
    own = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    use_small_maps(own)
    return own


def use_small_maps(model: nn.Module) -> None:
    """Put convolutions for small maps in the place of a network's that may gain, with the same parameters."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Conv2d and may_gain(child):
                setattr(module, name, SmallMapConv2d(child))


def may_gain(conv: nn.Conv2d) -> bool:
    """Whether a convolution is wide, and of the kind that is done here: square, of all channels, no bias."""
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros" or conv.bias is not None:
        return False
    square = all(len(set(numbers)) == 1 for numbers in (conv.kernel_size, conv.stride, conv.padding))
    wide = conv.in_channels * conv.out_channels >= WIDE
    return square and wide and conv.groups == 1 and conv.dilation == (1, 1)


class SmallMapConv2d(nn.Module):
    """A convolution with the parameter of another, on a CPU, faster where its output is small.

    Gradients of its gradients it has none.

    Args:
        conv: one that ``may_gain``.

    Shapes: as of ``conv``; best in channels-last format, in which pixels lie as matrices have them.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = conv.weight
        self.stride, self.padding = conv.stride[0], int(conv.padding[0])

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.shape[-1]
        height, width = ((side + 2 * self.padding - kernel) // self.stride + 1 for side in x.shape[-2:])
        if height * width > FEW:
            return F.conv2d(x, self.weight, None, self.stride, self.padding)
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight = x.to(dtype), weight.to(dtype)
        return _Convolution.apply(x, weight, (self.stride, self.padding))


class _Convolution(torch.autograd.Function):
    """A convolution and the gradients of its input and its weights, in their precision."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        if not _is_dense(x, weight):
            return F.conv2d(x, weight, None, *geometry)
        matrix = _matrix(weight, x.shape, geometry)
        return _maps(_rows(x) @ matrix.flatten(3).flatten(0, 2).T, matrix.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x = None
        if ctx.needs_input_grad[0] and _is_dense(x, weight):
            matrix = _matrix(weight, x.shape, ctx.geometry)
            of_x = _maps(_rows(gradient) @ matrix.flatten(3).flatten(0, 2), x.shape[-2:])
        elif ctx.needs_input_grad[0]:
            stride, padding = ([number] * 2 for number in ctx.geometry)
            of_x = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, [True, False, False]
            )[0]
        of_weight = _weight_gradient(gradient, x, weight, ctx.geometry) if ctx.needs_input_grad[1] else None
        return of_x, of_weight, None


def _is_dense(x: Tensor, weight: Tensor) -> bool:
    """Whether a matrix from all pixels to all has at most half of the products of the taps."""
    return 2 * x.shape[-2] * x.shape[-1] <= weight.shape[-2] * weight.shape[-1]


def _rows(maps: Tensor) -> Tensor:
    """Return maps (N, C, H, W) as (N, H*W*C), which is how they lie in memory."""
    return maps.permute(0, 2, 3, 1).flatten(1)


def _maps(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return (N, H*W*C) as maps (N, C, H, W), given H and W."""
    return rows.view(len(rows), *shape, -1).permute(0, 3, 1, 2)


def _matrix(weight: Tensor, shape: tuple[int, ...], geometry: Geometry) -> Tensor:
    """Return a convolution as a linear map of all pixels to all: (H, W, K) by (H, W, C).

    Args:
        weight: (K, C, k, k).
        shape: of the input, (N, C, H, W).
    """
    stride, padding = geometry
    kernel = weight.shape[-1]
    windows = [
        [_window(begin, kernel, side) for begin in range(-padding, side + padding - kernel + 1, stride)]
        for side in shape[-2:]
    ]
    channels = weight.shape[:2]
    matrix = weight.new_zeros(*map(len, windows), channels[0], *shape[-2:], channels[1])
    for row, (taps_y, seen_y) in enumerate(windows[0]):
        for column, (taps_x, seen_x) in enumerate(windows[1]):
            matrix[row, column, :, seen_y, seen_x] = weight[..., taps_y, taps_x].permute(0, 2, 3, 1)
    return matrix


def _window(begin: int, kernel: int, side: int) -> tuple[slice, slice]:
    """Return the taps of a window that lie on the map, and the pixels under them, along one side."""
    first = max(0, begin)
    last = max(first, min(side, begin + kernel))
    return slice(first - begin, last - begin), slice(first, last)


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Return the gradient of the weights: for each tap, a product of all pixels that it joins."""
    outputs, inputs = gradient.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1)
    height, width = (
        [_joined(tap, outputs.shape[axis], inputs.shape[axis], geometry) for tap in range(weight.shape[-1])]
        for axis in (1, 2)
    )
    found = torch.empty_like(weight)
    for row, (to_y, from_y) in enumerate(height):
        for column, (to_x, from_x) in enumerate(width):
            above, below = outputs[:, to_y, to_x].flatten(0, 2), inputs[:, from_y, from_x].flatten(0, 2)
            torch.mm(above.T, below, out=found[..., row, column])
    return found


def _joined(tap: int, outputs: int, inputs: int, geometry: Geometry) -> tuple[slice, slice]:
    """Return the pixels of the output and those of the input that a tap joins, along one side."""
    stride, padding = geometry
    first = max(0, -((tap - padding) // stride))
    count = max(0, min(outputs - 1, (inputs - 1 + padding - tap) // stride) + 1 - first)
    begin = max(0, first * stride + tap - padding)
    return slice(first, first + count), slice(begin, begin + count * stride, stride)
