"""The networks of Table 1 and their plain counterparts (Fig. 3), with torchvision's parameter names."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import BasicBlock, Block, BottleneckBlock, CaffeMaxPool2d, Pool, Shortcut, Variant, stack
from .classifier import StagedNetwork, initialize

#: Table 1: the building block, and how many of them make up conv2_x, conv3_x, conv4_x and conv5_x.
TABLE_1: dict[int, tuple[type[Block], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (BottleneckBlock, (3, 4, 6, 3)),
    101: (BottleneckBlock, (3, 4, 23, 3)),
    152: (BottleneckBlock, (3, 8, 36, 3)),
}

#: Filters of the 3x3 layers in conv2_x to conv5_x.
WIDTHS = (64, 128, 256, 512)


class ImageNetNetwork(StagedNetwork):
    """A network of Table 1, for images of any size.

    Args:
        depth: a key of ``TABLE_1``.
        shortcut: "A", "B", "C" (Table 3), or None for a plain network. The default is B: the paper's
            choice for 50 layers and more, and what public weights of all depths use. Table 2 and the
            18- and 34-layer networks of Figure 4 are option A.
        variant: the stride of a bottleneck on its first 1x1 ("v1", the paper) or its 3x3 ("v1.5").
            Blocks of two 3x3 layers have no such choice.
        classes: number of classes.
        in_channels: channels of the images.
        pool: the windows of the stem's max pooling: "torchvision", or "caffe" for those of the authors' files
            (and the paper's recipes).
    """

    head = "fc"

    def __init__(
        self,
        depth: int,
        shortcut: Shortcut = "B",
        variant: Variant = "v1",
        classes: int = 1000,
        in_channels: int = 3,
        pool: Pool = "torchvision",
    ) -> None:
        super().__init__()
        block, blocks = TABLE_1[depth]
        self.depth, self.plain = depth, shortcut is None
        self.classes = classes
        self.in_channels = in_channels
        self.conv1 = nn.Conv2d(in_channels, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = CaffeMaxPool2d(3) if pool == "caffe" else nn.MaxPool2d(3, 2, padding=1)
        out = [width * block.expansion for width in WIDTHS]
        # conv2_x has no stride of its own: the max pooling before it halves the map (Table 1).
        self.layer1 = stack(block, 64, WIDTHS[0], blocks[0], 1, shortcut, variant)
        self.layer2 = stack(block, out[0], WIDTHS[1], blocks[1], 2, shortcut, variant)
        self.layer3 = stack(block, out[1], WIDTHS[2], blocks[2], 2, shortcut, variant)
        self.layer4 = stack(block, out[2], WIDTHS[3], blocks[3], 2, shortcut, variant)
        self.fc = nn.Linear(out[3], classes)
        initialize(self)

    def stem(self, x: Tensor) -> Tensor:
        return F.relu_(self.bn1(self.conv1(x)))

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {
            "conv2_x": self.conv2_x,
            "conv3_x": self.layer2,
            "conv4_x": self.layer3,
            "conv5_x": self.layer4,
        }

    def conv2_x(self, x: Tensor) -> Tensor:
        """The max pooling belongs to conv2_x in Table 1: conv1's map is twice as large."""
        return self.layer1(self.maxpool(x))
