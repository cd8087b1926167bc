"""Highway networks [41, 42], whose shortcuts have gates: the paper's nearest rival (Section 2, Table 6).

A layer gives ``y = T(x) H(x) + (1 - T(x)) x``: H is a convolution and a ReLU, the transform gate T a
convolution and a sigmoid. Where the gate is open (1) the layer is one of a plain network, where it is closed
(0) its input passes. Gates begin almost closed, by a negative bias.

The network of 19 layers is the one in its authors' public files (2.26M parameters; Table 6: 2.3M). Of the one
of 32 layers [42] says that 3x3 and 1x1 layers alternate and that there are about 1.25M parameters: its
filters and where its maps are halved are our choice.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from .classifier import StagedNetwork, initialize


@dataclass(frozen=True)
class Layers:
    """Filters of the three stages, how many highway layers each has, and their kernels, in turn."""

    filters: tuple[int, int, int]
    counts: tuple[int, int, int]
    kernels: tuple[int, ...]


#: By depth: the first layer of each stage is a plain 3x3, and a 1x1 layer and the classifier come last.
LAYERS = {
    19: Layers((32, 80, 128), (4, 5, 5), (3,)),
    32: Layers((30, 64, 96), (9, 9, 9), (1, 3)),
}

#: Filters of the 1x1 layer before global average pooling.
LAST = 100

#: What the gates' biases begin at; [42] says -1 to -10 by depth, its files for CIFAR have this.
GATE_BIAS = -2.0


class HighwayLayer(nn.Module):
    """``y = T(x) H(x) + (1 - T(x)) x``. Shapes: (N, C, H, W) to the same."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        self.gate = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        transformed, opened = F.relu_(self.conv(x)), self.gate(x).sigmoid()
        return x + opened * (transformed - x)


class HighwayNetwork(StagedNetwork):
    """A highway network for images of any size of at least 4 pixels.

    No BN and, as in all experiments of the paper on CIFAR-10, no dropout (its authors' files have some).

    Args:
        depth: a key of ``LAYERS``; a gate belongs to its layer and does not count.
        gate_bias: what the gates' biases begin at: the lower, the nearer to the identity.
        classes: number of classes.
        in_channels: channels of the images.
    """

    head = "linear"
    small_images = True

    def __init__(
        self, depth: int, gate_bias: float = GATE_BIAS, classes: int = 10, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.depth, self.plain = depth, False
        self.classes = classes
        self.in_channels = in_channels
        chosen = LAYERS[depth]
        first, second, third = chosen.filters
        self.conv1 = nn.Conv2d(in_channels, first, 3, padding=1)
        self.layer1 = nn.Sequential(*_highways(first, chosen.counts[0], chosen.kernels))
        self.layer2 = _stage(first, second, chosen.counts[1], chosen.kernels)
        self.layer3 = _stage(second, third, chosen.counts[2], chosen.kernels)
        self.layer4 = nn.Sequential(nn.Conv2d(third, LAST, 1), nn.ReLU(inplace=True))
        self.linear = nn.Linear(LAST, classes)
        initialize(self)
        for module in self.modules():
            if isinstance(module, HighwayLayer):
                nn.init.constant_(module.gate.bias, gate_bias)  # type: ignore[arg-type]

    def stem(self, x: Tensor) -> Tensor:
        return F.relu_(self.conv1(x))

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {"conv2_x": self.layer1, "conv3_x": self.layer2, "conv4_x": self.layer3, "conv5": self.layer4}

    def stage_layers(self) -> list[list[nn.Module]]:
        return [[layer] for name, layer in self.named_children() if name != self.head]


def _stage(in_channels: int, channels: int, count: int, kernels: tuple[int, ...]) -> nn.Sequential:
    """Return a stage on maps of half the size: a gated shortcut joins maps of one size only."""
    return nn.Sequential(
        nn.MaxPool2d(2),
        nn.Conv2d(in_channels, channels, 3, padding=1),
        nn.ReLU(inplace=True),
        *_highways(channels, count, kernels),
    )


def _highways(channels: int, count: int, kernels: tuple[int, ...]) -> list[nn.Module]:
    return [HighwayLayer(channels, kernels[number % len(kernels)]) for number in range(count)]
