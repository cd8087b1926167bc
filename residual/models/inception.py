"""GoogLeNet [43] and BN-Inception [16]: layers of several filter sizes side by side.

GoogLeNet is its description's Table 1, with the local response normalisation of its Figure 3 and without BN.
Two auxiliary classifiers, on the outputs of the modules 4a and 4d, count 0.3 each in training. It has
6,998,552 parameters; the 6.8M of its table are in units of 1024, without biases.

``googlenet_bn`` is torchvision's: BN in place of biases and of response normalisation, 3x3 filters where the
original has 5x5, and a pooling window of 2x2 before 5a. torchvision's weights are for this one.

BN-Inception is the table in the appendix of [16] (Figure 5): two 3x3 layers for a 5x5, modules 3c and 4e with
stride 2, BN after every convolution, no dropout, and no auxiliary classifier is spoken of. Its first layer is
an ordinary convolution here, as in the public files. It has 11.3M parameters, as those files (11,295,240 with
biases before BN, which are not here); [16] states 13.6M.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import CaffeMaxPool2d
from .classifier import StagedNetwork, initialize, mean_of_positions
from .objective import DeeplySupervised, DeepSupervision, Objective, Progress

#: Modules by name: filters of the 1x1 layer; of the 1x1 and 3x3; of the 1x1 and 5x5; after the pooling.
GOOGLENET: dict[str, tuple[int, tuple[int, int], tuple[int, int], int]] = {
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}


@dataclass(frozen=True)
class Widths:
    """Filters of a BN-Inception module, 0 for a layer that it has not.

    Attributes:
        one: of the 1x1 layer.
        three: of the 1x1 and the 3x3 layer.
        double: of the 1x1 and both 3x3 layers.
        pooled: of the 1x1 layer after the pooling.
        largest: whether the pooling takes the largest, not the mean.
        stride: of the module.
    """

    one: int
    three: tuple[int, int]
    double: tuple[int, int]
    pooled: int
    largest: bool = False
    stride: int = 1


BN_INCEPTION = {
    "3a": Widths(64, (64, 64), (64, 96), 32),
    "3b": Widths(64, (64, 96), (64, 96), 64),
    "3c": Widths(0, (128, 160), (64, 96), 0, True, 2),
    "4a": Widths(224, (64, 96), (96, 128), 128),
    "4b": Widths(192, (96, 128), (96, 128), 128),
    "4c": Widths(160, (128, 160), (128, 160), 128),
    "4d": Widths(96, (128, 192), (160, 192), 128),
    "4e": Widths(0, (128, 192), (192, 256), 0, True, 2),
    "5a": Widths(352, (192, 320), (160, 224), 128),
    "5b": Widths(352, (192, 320), (192, 224), 128, True),
}

#: Of BN: torchvision's of GoogLeNet, and PyTorch's.
EPS_GOOGLENET, EPS = 1e-3, 1e-5

#: What dropout leaves out before the classifier, and in an auxiliary one before its last layer.
DROPPED, DROPPED_AUXILIARY = 0.4, 0.7

#: What the loss of an auxiliary classifier counts.
AUXILIARY = 0.3

#: The modules that have one.
WITH_AUXILIARY = ("inception4a", "inception4d")


class Convolution(nn.Module):
    """A convolution, BN where the network has it, and a ReLU.

    Args:
        eps: of BN; None for a bias in its place.

    Shapes: (N, in, H, W) to (N, channels, ceil(H/stride), ceil(W/stride)).
    """

    def __init__(
        self, in_channels: int, channels: int, kernel: int, stride: int = 1, eps: float | None = None
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=eps is None)
        self.bn = nn.Identity() if eps is None else nn.BatchNorm2d(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.bn(self.conv(x)))


class Inception(nn.Module):
    """Branches side by side, their maps one after the other: (N, in, H, W) to (N, sum of theirs, H', W').

    Args:
        branches: by their names.
    """

    def __init__(self, branches: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class HalvingMaxPool2d(nn.MaxPool2d):
    """Max pooling of 3x3 with stride 2 beside a convolution with that stride: (N, C, ceil(H/2), ceil(W/2)).

    Its windows are ``CaffeMaxPool2d``'s, and one more where a side is odd.
    """

    def __init__(self) -> None:
        super().__init__(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, (0, 2, 0, 2), value=-math.inf), 3, 2)


class LocalResponseNorm(nn.Module):
    """``x / (1 + 1e-4 * m)^0.75``, m the mean square over a channel and two on each side [21].

    As PyTorch's, whose backward pass on CUDA is not deterministic. Shapes: (N, C, H, W) to the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
        channels = x.shape[1]
        total = sum(squares[:, start : start + channels] for start in range(5))
        return x * (1 + 1e-4 / 5 * total) ** -0.75


class InceptionNetwork(StagedNetwork):
    """What the two have in common: a stem, modules, global average pooling and a classifier."""

    head = "fc"
    plain = True
    #: The layers of each stage after conv1, by their attributes.
    layers_of_stages: ClassVar[Mapping[str, Sequence[str]]]

    def stem(self, x: Tensor) -> Tensor:
        return self.get_submodule("conv1")(x)

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {
            name: functools.partial(self._through, layers) for name, layers in self.layers_of_stages.items()
        }

    def stage_layers(self) -> list[list[nn.Module]]:
        stages = [["conv1"], *self.layers_of_stages.values()]
        modules = [[self.get_submodule(name) for name in names] for names in stages]
        return [[m for m in stage if isinstance(m, Convolution | Inception)] for stage in modules]

    def _through(self, layers: Sequence[str], x: Tensor) -> Tensor:
        for name in layers:
            x = self.get_submodule(name)(x)
        return x


class GoogLeNet(InceptionNetwork, DeeplySupervised):
    """GoogLeNet, for images of any size.

    Args:
        batch_norm: whether it is torchvision's variant.
        classes: number of classes.
        in_channels: channels of the images.

    Parameter names are torchvision's.
    """

    depth = 22
    layers_of_stages: ClassVar = {
        "conv2": ("maxpool1", "norm1", "conv2", "conv3", "norm2"),
        "inception3": ("maxpool2", "inception3a", "inception3b"),
        "inception4": ("maxpool3", *(f"inception4{letter}" for letter in "abcde")),
        "inception5": ("maxpool4", "inception5a", "inception5b"),
    }

    def __init__(self, batch_norm: bool = False, classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        self.classes = classes
        self.in_channels = in_channels
        eps = EPS_GOOGLENET if batch_norm else None
        self.conv1 = Convolution(in_channels, 64, 7, 2, eps)
        self.conv2 = Convolution(64, 64, 1, eps=eps)
        self.conv3 = Convolution(64, 192, 3, eps=eps)
        self.maxpool1, self.maxpool2, self.maxpool3 = (CaffeMaxPool2d(3) for _ in range(3))
        self.maxpool4 = CaffeMaxPool2d(2 if batch_norm else 3)
        self.norm1, self.norm2 = (nn.Identity() if batch_norm else LocalResponseNorm() for _ in range(2))
        channels = 192
        for name, (one, three, five, pooled) in GOOGLENET.items():
            branches = {
                "branch1": Convolution(channels, one, 1, eps=eps),
                "branch2": _row(channels, three, (1, 3), eps=eps),
                "branch3": _row(channels, five, (1, 3 if batch_norm else 5), eps=eps),
                "branch4": nn.Sequential(
                    nn.MaxPool2d(3, 1, padding=1), Convolution(channels, pooled, 1, eps=eps)
                ),
            }
            self.add_module(f"inception{name}", Inception(branches))
            channels = one + three[-1] + five[-1] + pooled
        self.dropout = nn.Dropout(DROPPED)
        self.fc = nn.Linear(channels, classes)
        initialize(self)

    def scores_of(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(mean_of_positions(x)))

    def scores_and_maps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.stem(x)
        maps = []
        for layers in self.layers_of_stages.values():
            for name in layers:
                x = self.get_submodule(name)(x)
                if name in WITH_AUXILIARY:
                    maps.append(x)
        return self.scores_of(x), maps

    def objective(self) -> Objective:
        modules = [self.get_submodule(name) for name in WITH_AUXILIARY]
        return DeepSupervision(self, [Auxiliary(_width(module), self.classes) for module in modules], steady)


class Auxiliary(nn.Module):
    """GoogLeNet's auxiliary classifier. Shapes: (N, C, h, w), h = w = 14 in full size, to (N, K)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 128, 1)
        self.fc = nn.Linear(128 * 4 * 4, 1024)
        self.dropout = nn.Dropout(DROPPED_AUXILIARY)
        self.linear = nn.Linear(1024, classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        # CUDA has no deterministic backward pass of adaptive pooling; a map of the right size needs none.
        x = F.avg_pool2d(x, 5, 3) if x.shape[2:] == (14, 14) else F.adaptive_avg_pool2d(x, 4)
        x = F.relu_(self.conv(x)).flatten(1)
        return self.linear(self.dropout(F.relu_(self.fc(x))))


def steady(progress: Progress) -> Progress:
    """Return the weight of the auxiliary classifiers' losses: the same all the time."""
    return AUXILIARY


class BNInception(InceptionNetwork):
    """BN-Inception, for images of any size.

    Args:
        classes: number of classes.
        in_channels: channels of the images.

    Parameter names are those of ``GoogLeNet``.
    """

    depth = 34
    layers_of_stages: ClassVar = {
        "conv2": ("maxpool1", "conv2", "conv3"),
        "inception3": ("maxpool2", *(f"inception3{letter}" for letter in "abc")),
        "inception4": tuple(f"inception4{letter}" for letter in "abcde"),
        "inception5": ("inception5a", "inception5b"),
    }

    def __init__(self, classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        self.classes = classes
        self.in_channels = in_channels
        self.conv1 = Convolution(in_channels, 64, 7, 2, EPS)
        self.conv2 = Convolution(64, 64, 1, eps=EPS)
        self.conv3 = Convolution(64, 192, 3, eps=EPS)
        self.maxpool1, self.maxpool2 = CaffeMaxPool2d(3), CaffeMaxPool2d(3)
        channels = 192
        for name, widths in BN_INCEPTION.items():
            module = _bn_module(channels, widths)
            self.add_module(f"inception{name}", module)
            channels = widths.one + widths.three[-1] + widths.double[-1] + (widths.pooled or channels)
        self.fc = nn.Linear(channels, classes)
        initialize(self)


def _width(module: nn.Module) -> int:
    """Return the channels that an Inception module's branches put out, each with a convolution at its end."""
    branches = [[m for m in branch.modules() if isinstance(m, nn.Conv2d)] for branch in module.children()]
    return sum(layers[-1].out_channels for layers in branches)


def _bn_module(channels: int, widths: Widths) -> Inception:
    stride = widths.stride
    pool: nn.Module = HalvingMaxPool2d() if stride == 2 else nn.MaxPool2d(3, 1, padding=1)
    if not widths.largest:
        pool = nn.AvgPool2d(3, 1, padding=1)
    branches: dict[str, nn.Module] = {}
    if widths.one:
        branches["branch1"] = Convolution(channels, widths.one, 1, eps=EPS)
    branches["branch2"] = _row(channels, widths.three, (1, 3), stride, EPS)
    branches["branch3"] = _row(channels, (*widths.double, widths.double[-1]), (1, 3, 3), stride, EPS)
    last = [Convolution(channels, widths.pooled, 1, eps=EPS)] if widths.pooled else []
    branches["branch4"] = nn.Sequential(pool, *last)
    return Inception(branches)


def _row(
    channels: int, widths: Sequence[int], kernels: Sequence[int], stride: int = 1, eps: float | None = None
) -> nn.Sequential:
    """Return convolutions one after the other, of which the last one has the stride."""
    before = [channels, *widths]
    last = len(widths) - 1
    return nn.Sequential(
        *(
            Convolution(before[i], width, kernel, stride if i == last else 1, eps)
            for i, (width, kernel) in enumerate(zip(widths, kernels, strict=True))
        )
    )
