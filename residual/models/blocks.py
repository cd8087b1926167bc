"""Building blocks: equations (1) and (2), the three shortcut options, and their plain counterparts.

Equation (1) is ``y = F(x) + x``, equation (2) is ``y = F(x) + W_s x``; a second nonlinearity follows the
addition (Fig. 2). A plain block is the same block without the shortcut: ``y = F(x)``.

The principle is generic. ``Residual`` puts a shortcut around any module; here it is around two fully
connected layers, equation (1) for vectors:

>>> import torch
>>> from torch import nn
>>> from residual.models.blocks import Residual
>>> block = Residual(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)))
>>> block(torch.randn(4, 8)).shape
torch.Size([4, 8])
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Shortcut options of Section 3.3 and Table 3, or None for a plain network.
Shortcut = Literal["A", "B", "C"] | None

#: Where a bottleneck block that halves the map has its stride of 2: "v1" on the first 1x1 convolution (the
#: paper and the authors' released models), "v1.5" on the 3x3 (torchvision, timm and most public weights).
Variant = Literal["v1", "v1.5"]

#: Where max pooling has its windows. "torchvision": a pixel of padding on each side of a ResNet's map, sizes
#: rounded down. "caffe" (the authors' files): no padding, sizes rounded up. A map of even size gets the same
#: size by both, but a ResNet's windows lie a pixel apart; odd ones differ in size as well.
Pool = Literal["torchvision", "caffe"]


class CaffeMaxPool2d(nn.MaxPool2d):
    """Max pooling with stride 2 as in the authors' files: no padding, sizes rounded up.

    A row and a column at the end, of what no value is less than, do what ``ceil_mode`` does, and can be
    exported to ONNX for any size.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-math.inf), self.kernel_size, 2)


class Residual(nn.Module):
    """A shortcut around any module: ``y = activation(function(x) + shortcut(x))``.

    Args:
        function: the residual mapping F, of two layers or more (with a single one, equation (1) is close
            to a linear layer, "for which we have not observed advantages", Section 3.2).
        shortcut: identity by default, equation (1); any module that gives F's shape, equation (2).
        activation: applied after the addition; ``nn.Identity()`` for none.

    Shapes: x is anything that ``function`` takes; ``function(x)`` and ``shortcut(x)`` have one shape.

    Raises:
        ValueError: in ``forward``, when the two shapes differ (broadcasting would hide the mistake), or
            ``function`` changes x in place: it would change what the identity passes on.
    """

    def __init__(
        self, function: nn.Module, shortcut: nn.Module | None = None, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.function = function
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.activation = nn.ReLU() if activation is None else activation

    def forward(self, x: Tensor) -> Tensor:
        # In inference mode and compiled, changes of a tensor are not counted: there the function gets a copy.
        counts = not torch.compiler.is_compiling() and not x.is_inference()
        version = x._version if counts else 0
        residual = self.function(x if counts else x.clone())
        if counts and x._version != version:
            raise ValueError(
                "the function changes its input in place, and with it what the shortcut passes on; begin it "
                "with a layer that does not, as nn.ReLU() without inplace"
            )
        shortcut = self.shortcut(x)
        if residual.shape != shortcut.shape:
            raise ValueError(
                f"the function gives shape {tuple(residual.shape)} and the shortcut {tuple(shortcut.shape)}; "
                "give a shortcut that projects to the function's shape (equation 2)"
            )
        return self.activation(residual + shortcut)


class ZeroPadShortcut(nn.Module):
    """Option A where dimensions increase: identity, subsampled, with zero-padded channels; no parameters.

    The zeros stand on both sides of the channels, as in the public CIFAR-10 networks, so that their
    weights give the same outputs here. Padding at the end would be the same network with its channels in
    another order.

    Shapes: (N, C_in, H, W) to (N, C_out, ceil(H/stride), ceil(W/stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (out_channels - in_channels) // 2
        self.padding = (before, out_channels - in_channels - before)

    def forward(self, x: Tensor) -> Tensor:
        # Pooling over single pixels subsamples as ``x[:, :, ::2, ::2]`` does, but its gradient stays in
        # channels-last format; a slice's does not, and all that follows it would be several times slower.
        x = F.avg_pool2d(x, 1, self.stride)
        return F.pad(x, (0, 0, 0, 0, *self.padding))

    def extra_repr(self) -> str:
        return f"stride={self.stride}, padding={self.padding}"


def make_shortcut(option: Shortcut, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """Return the module of a block's shortcut: None for a plain block, else the identity or a projection.

    Args:
        option: "A" zero-padding where dimensions increase; "B" projection where they increase, identity
            elsewhere; "C" projection everywhere; None no shortcut (plain).
    """
    if option is None:
        return None
    same = stride == 1 and in_channels == out_channels
    if option == "C" or (option == "B" and not same):
        # BN right after each convolution (Section 3.4), the projection of equation (2) included.
        return nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
        )
    return nn.Identity() if same else ZeroPadShortcut(in_channels, out_channels, stride)


class Block(nn.Module):
    """What the two kinds of block share: ``y = relu(F(x) + shortcut(x))``, or ``relu(F(x))`` if plain.

    The shortcut's attribute is called ``downsample`` because torchvision's weights call it so, and F is this
    class's own method, not a ``Residual`` around another module, because they have its layers here.
    """

    expansion = 1

    def __init__(
        self, in_channels: int, width: int, stride: int, shortcut: Shortcut, variant: Variant = "v1"
    ) -> None:
        super().__init__()
        self.downsample = make_shortcut(shortcut, in_channels, width * self.expansion, stride)

    def function(self, x: Tensor) -> Tensor:
        """The residual mapping F before the addition and the second nonlinearity."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.function(x), None if self.downsample is None else self.downsample(x))

    @staticmethod
    def join(y: Tensor, shortcut: Tensor | None) -> Tensor:
        """The addition, unless the block is plain, and the second nonlinearity; in place."""
        if shortcut is not None:
            # The output of a BN is not needed by its backward pass, and a map less is written.
            y += shortcut
        return F.relu_(y)


class BasicBlock(Block):
    """Two 3x3 layers (Fig. 2; Fig. 5, left). Shapes: (N, in, H, W) to (N, width, H/stride, W/stride)."""

    def __init__(
        self, in_channels: int, width: int, stride: int, shortcut: Shortcut, variant: Variant = "v1"
    ) -> None:
        super().__init__(in_channels, width, stride, shortcut, variant)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def function(self, x: Tensor) -> Tensor:
        x = F.relu_(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class BottleneckBlock(Block):
    """1x1, 3x3 and 1x1 layers (Fig. 5, right). Shapes: (N, in, H, W) to (N, 4*width, H/stride, W/stride)."""

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int, shortcut: Shortcut, variant: Variant = "v1"
    ) -> None:
        super().__init__(in_channels, width, stride, shortcut, variant)
        out_channels = width * self.expansion
        first, second = (stride, 1) if variant == "v1" else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def function(self, x: Tensor) -> Tensor:
        return self.after_first(self.first(x))

    def first(self, x: Tensor) -> Tensor:
        """The first layer before its ReLU: of each position by itself."""
        return self.bn1(self.conv1(x))

    def after_first(self, x: Tensor) -> Tensor:
        """The rest of F, from that ReLU on; it is done in place."""
        x = F.relu_(self.bn2(self.conv2(F.relu_(x))))
        return self.bn3(self.conv3(x))


def stack(
    block: type[Block],
    in_channels: int,
    width: int,
    blocks: int,
    stride: int,
    shortcut: Shortcut,
    variant: Variant = "v1",
) -> nn.Sequential:
    """Return one stage: ``blocks`` blocks of one width, the first of which has the stage's stride."""
    layers = [block(in_channels, width, stride, shortcut, variant)]
    layers += [block(width * block.expansion, width, 1, shortcut, variant) for _ in range(blocks - 1)]
    return nn.Sequential(*layers)
