"""PReLU-net [12], model A: 19 layers, parametric rectifiers, spatial pyramid pooling.

A 7x7 layer with stride 2, then five 3x3 layers on each of three map sizes, each after a 2x2 max pooling; the
last map is pooled to 7 x 7, 3 x 3, 2 x 2 and 1 x 1 cells, which fully connected layers take. [12] gives 1.90
x 10^10 multiply-adds. What the paper quotes in Tables 3 to 5 are its larger model C's errors and ensembles.

Each channel (and each fully connected unit: [12] does not say) has its own slope, 0.25 at first. [12] leaves
the slopes out of weight decay; recipes here decay all that is learned. Cells of the pyramid are those of
adaptive pooling, which differ from [12]'s where a side is no multiple of their number.
"""

import math

import torch
from torch import Tensor, nn

from .classifier import Classifier

#: Filters on each map size, and how many layers have them.
FILTERS = ((96, 1), (256, 5), (512, 5), (512, 5))

#: Cells on a side at each level of the pyramid.
PYRAMID = (7, 3, 2, 1)

#: Units of the first two fully connected layers.
UNITS = 4096

#: What slopes begin at.
SLOPE = 0.25


class PReLUNet(Classifier):
    """PReLU-net A, for images of any size of at least 16 pixels.

    The pyramid gives the same numbers for any map, so there is one position of scores.

    Args:
        classes: number of classes.
        in_channels: channels of the images.

    Parameter names: ``conv{1,2,3,4}.{0,2,...}`` with their slopes after them, ``classifier.{0,...}``.
    """

    depth, plain = 19, True

    def __init__(self, classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        self.classes = classes
        self.in_channels = in_channels
        channels = in_channels
        stages: list[nn.Module] = []
        for filters, count in FILTERS:
            layers: list[nn.Module] = [] if not stages else [nn.MaxPool2d(2)]
            for _ in range(count):
                kernel, stride = (3, 1) if stages else (7, 2)
                conv = nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2)
                layers += [conv, nn.PReLU(filters, SLOPE)]
                channels = filters
            stages.append(nn.Sequential(*layers))
        self.conv1, self.conv2, self.conv3, self.conv4 = stages
        self.classifier = nn.Sequential(
            nn.Linear(channels * sum(side**2 for side in PYRAMID), UNITS),
            nn.PReLU(UNITS, SLOPE),
            nn.Dropout(),
            nn.Linear(UNITS, UNITS),
            nn.PReLU(UNITS, SLOPE),
            nn.Dropout(),
            nn.Linear(UNITS, classes),
        )
        initialize_prelu(self)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = {}
        for name in ("conv1", "conv2", "conv3", "conv4"):
            x = self.get_submodule(name)(x)
            outputs[name] = x
        return outputs

    def stage_layers(self) -> list[list[nn.Module]]:
        return [[self.conv1], [self.conv2], [self.conv3], [self.conv4]]

    def score_map(self, x: Tensor) -> Tensor:
        return self(x)[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(pyramid(self.conv4(self.conv3(self.conv2(self.conv1(x))))))


def pyramid(x: Tensor) -> Tensor:
    """Spatial pyramid pooling [11]: (N, C, h, w) to (N, C * 63), the largest number in each cell.

    Cell i of n on a side of a positions reaches from floor(i a / n) to ceil((i + 1) a / n). Written as masks,
    rows first: in this form it can be exported for any size, and is deterministic on CUDA.
    """
    levels = []
    for cells in PYRAMID:
        rows = torch.where(_mask(x.shape[2], cells, x)[:, :, None], x.unsqueeze(2), -math.inf).amax(dim=3)
        both = torch.where(_mask(x.shape[3], cells, x), rows.unsqueeze(3), -math.inf).amax(dim=4)
        levels.append(both.flatten(1))
    return torch.cat(levels, dim=1)


def _mask(side: int, cells: int, x: Tensor) -> Tensor:
    """Return which positions of a side lie in which cell: bool (cells, side), on the device of ``x``."""
    position = torch.arange(side, device=x.device)
    cell = torch.arange(cells, device=x.device)[:, None]
    # Rounded up without a negative number, of which ONNX takes another quotient.
    return (position >= cell * side // cells) & (position < ((cell + 1) * side + cells - 1) // cells)


def initialize_prelu(network: nn.Module) -> None:
    """He initialisation for parametric rectifiers in place: N(0, 2 / ((1 + a^2) fan_in)), a the first slope.

    The last layer has none behind it, but [12] initialises it in the same way. Biases are 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=math.sqrt(2 / ((1 + SLOPE**2) * fan_in)))
            assert module.bias is not None
            nn.init.zeros_(module.bias)
