"""Network in Network [25] and Deeply-Supervised Nets [24], which train its body under more than one loss.

An mlpconv layer is a convolution and two 1x1 convolutions, a small network that slides over the map. Three
of them, and no fully connected layer: the last one gives a map for each class, whose mean is the class's
score.

The filters are those of the authors' file for CIFAR-10 (966,986 parameters; published: 0.97M). Max pooling
follows the first two blocks, as the text says (the file takes the mean after the second), in windows of 3x3
that reach over the edge as in that file, and half of its output is dropped in training. The file has a ReLU
over the class maps and a tenth of the learning rate below them: here, as in DSN's file, neither.
"""

from torch import Tensor, nn

from .blocks import CaffeMaxPool2d
from .classifier import initialize, mean_of_positions
from .objective import DeeplySupervised, DeepSupervision, Objective, Progress

#: Filters of the three layers of each mlpconv layer; the last one of all has one a class.
FILTERS = ((192, 160, 96), (192, 192, 192), (192, 192))

#: Side of the first layer's filters in each block.
KERNELS = (5, 5, 3)

DROPPED = 0.5

#: What DSN weights its companion losses with at the beginning; it falls to 0 in proportion to the iterations.
COMPANIONS = 0.1


class NetworkInNetwork(DeeplySupervised):
    """NIN, for images of any size of at least 4 pixels.

    Args:
        classes: number of classes.
        in_channels: channels of the images.

    Parameter names: ``mlpconv{1,2,3}.{0,2,4}``, ``scores``.
    """

    depth, plain = 9, True
    small_images = True

    def __init__(self, classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.classes = classes
        self.in_channels = in_channels
        channels = in_channels
        blocks = []
        for filters, kernel in zip(FILTERS, KERNELS, strict=True):
            blocks.append(_mlpconv(channels, filters, kernel))
            channels = filters[-1]
        self.mlpconv1, self.mlpconv2, self.mlpconv3 = blocks
        self.pool = nn.Sequential(CaffeMaxPool2d(3), nn.Dropout(DROPPED))
        #: The last layer of the third block.
        self.scores = nn.Conv2d(channels, classes, 1)
        initialize(self)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        first = self.mlpconv1(x)
        second = self.mlpconv2(self.pool(first))
        return {"mlpconv1": first, "mlpconv2": second, "mlpconv3": self.mlpconv3(self.pool(second))}

    def stage_layers(self) -> list[list[nn.Module]]:
        return [[self.mlpconv1], [self.mlpconv2], [self.mlpconv3]]

    def score_map(self, x: Tensor) -> Tensor:
        return self.scores(self.mlpconv3(self.pool(self.mlpconv2(self.pool(self.mlpconv1(x))))))

    def forward(self, x: Tensor) -> Tensor:
        return mean_of_positions(self.score_map(x))

    def scores_and_maps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        first, second, third = self.features(x).values()
        return mean_of_positions(self.scores(third)), [first, second]


class DeeplySupervisedNet(NetworkInNetwork):
    """DSN: NIN, whose first two blocks are trained to tell the classes apart by themselves as well.

    A companion is a linear classifier of the block's mean over all positions, so that images of any size do
    (the authors' sees every position of the block's first layer), and its loss the cross-entropy, one of the
    two that [24] gives, without its threshold. The weights are ours within what [24] says: a tenth,
    times the part of the run that is left.
    """

    def objective(self) -> Objective:
        blocks = (self.mlpconv1, self.mlpconv2)
        return DeepSupervision(self, [Companion(_width(block), self.classes) for block in blocks], falling)


class Companion(nn.Module):
    """A linear classifier of a map's mean over its positions. Shapes: (N, C, h, w) to (N, K)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(mean_of_positions(x))


def falling(progress: Progress) -> Progress:
    """Return the weight of DSN's companion losses when a part of the run is over."""
    return COMPANIONS * (1 - progress)


def _mlpconv(in_channels: int, filters: tuple[int, ...], kernel: int) -> nn.Sequential:
    first, *others = filters
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, first, kernel, padding=kernel // 2),
        nn.ReLU(inplace=True),
    ]
    for before, after in zip(filters, others, strict=False):
        layers += [nn.Conv2d(before, after, 1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _width(block: nn.Sequential) -> int:
    return [layer for layer in block if isinstance(layer, nn.Conv2d)][-1].out_channels
