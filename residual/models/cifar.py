"""The 6n+2 networks of Section 4.2: a 3x3 layer, 2n layers on each of three map sizes, and a classifier.

output map   32x32   16x16   8x8      (for 32 x 32 images)
layers       1+2n    2n      2n
filters      16      32      64
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import BasicBlock, Shortcut, stack
from .classifier import StagedNetwork, initialize

FILTERS = (16, 32, 64)


class CifarNetwork(StagedNetwork):
    """A plain or residual network of 6n+2 weighted layers, for images of any size.

    Args:
        n: blocks in each of the three stages; depth is 6n+2.
        shortcut: "A" (the paper's choice in all CIFAR experiments), "B", "C", or None for a plain network.
        classes: number of classes.
        in_channels: channels of the images.

    Parameter names: ``conv1, bn1, layer{1,2,3}.{i}.{conv1,bn1,conv2,bn2}, linear``.
    """

    head = "linear"
    small_images = True

    def __init__(self, n: int, shortcut: Shortcut = "A", classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.depth, self.plain = 6 * n + 2, shortcut is None
        self.classes = classes
        self.in_channels = in_channels
        self.conv1 = nn.Conv2d(in_channels, FILTERS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(FILTERS[0])
        self.layer1 = stack(BasicBlock, FILTERS[0], FILTERS[0], n, 1, shortcut)
        self.layer2 = stack(BasicBlock, FILTERS[0], FILTERS[1], n, 2, shortcut)
        self.layer3 = stack(BasicBlock, FILTERS[1], FILTERS[2], n, 2, shortcut)
        self.linear = nn.Linear(FILTERS[2], classes)
        initialize(self)

    def stem(self, x: Tensor) -> Tensor:
        return F.relu_(self.bn1(self.conv1(x)))

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {"conv2_x": self.layer1, "conv3_x": self.layer2, "conv4_x": self.layer3}
