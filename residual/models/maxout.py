"""Maxout networks: units that give the largest of several linear functions, and no other nonlinearity.

The network is the one of its authors' file for CIFAR-10 with augmentation: three convolutional maxout layers
of two pieces with max pooling, a fully connected one of five, a linear classifier. The paper's Table 6 gives
no parameters, and neither does the description; these are 16.25M, most of them between the last map and the
fully connected layer. Pooling windows reach over the edge as in the library that the file is for, which
makes the last map 5 x 5; rounded down it were 4 x 4, and the parameters 11.9M.

Dropout is the file's too: a fifth of the images' numbers, half of what every later layer sees. Two things of
it are ours: weights begin from a normal distribution whose variance keeps the activations' size, since the
file's (uniform up to 0.005, the same for all layers) goes with its own learning rates, and no norm is
limited.
"""

import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import CaffeMaxPool2d
from .classifier import Classifier

#: Channels, side of the filters, padding and side of the pooling windows of the convolutional layers.
LAYERS = ((96, 8, 4, 4), (192, 8, 3, 4), (192, 5, 3, 2))

#: Pieces of a convolutional and of a fully connected unit, and how many of the latter there are.
PIECES, FC_PIECES, UNITS = 2, 5, 500

#: Side of the last map of 32 x 32 images.
SIDE = 5

#: What dropout leaves out of the images, and of every later layer's input.
DROPPED_INPUT, DROPPED = 0.2, 0.5

#: The mean square of the largest of so many standard normal numbers.
SECOND_MOMENTS = {2: 1.0, 5: 1.8000}


def largest(x: Tensor, pieces: int) -> Tensor:
    """Return the largest piece of each unit: (N, pieces * C, ...) to (N, C, ...)."""
    return functools.reduce(torch.maximum, x.chunk(pieces, dim=1))


class MaxoutConv(nn.Module):
    """A convolution of maxout units. Shapes: (N, C_in, H, W) to (N, channels, H', W')."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int, padding: int, pieces: int = PIECES
    ) -> None:
        super().__init__()
        self.channels, self.pieces = channels, pieces
        self.conv = nn.Conv2d(in_channels, pieces * channels, kernel, padding=padding)
        keep_size(self.conv, pieces)

    def forward(self, x: Tensor) -> Tensor:
        return largest(self.conv(x), self.pieces)


class MaxoutLinear(nn.Module):
    """Fully connected maxout units. Shapes: (N, D) to (N, units)."""

    def __init__(self, in_features: int, units: int, pieces: int = FC_PIECES) -> None:
        super().__init__()
        self.pieces = pieces
        self.fc = nn.Linear(in_features, pieces * units)
        keep_size(self.fc, pieces)

    def forward(self, x: Tensor) -> Tensor:
        return largest(self.fc(x), self.pieces)


def keep_size(layer: nn.Conv2d | nn.Linear, pieces: int) -> None:
    """Draw weights with which a maxout layer's output has the mean square of its input; biases are 0.

    He initialisation [12] for other units: the variance is 1/fan_in over ``SECOND_MOMENTS``, where a
    rectifier's is 1/fan_in over a half.
    """
    deviation = 1 / math.sqrt(layer.weight[0].numel() * SECOND_MOMENTS[pieces])
    nn.init.normal_(layer.weight, std=deviation)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


class MaxoutNetwork(Classifier):
    """The maxout network, for images of any size of at least 8 pixels.

    Args:
        classes: number of classes.
        in_channels: channels of the images.

    A last map that is not 5 x 5 is pooled (or repeated) to that by ``forward``; ``score_map`` moves the fully
    connected layers over a larger map instead.

    Parameter names: ``layer{1,2,3}.conv``, ``hidden.fc``, ``linear``.
    """

    depth, plain = 5, True
    small_images = True
    whole_side = 32

    def __init__(self, classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.classes = classes
        self.in_channels = in_channels
        before = [in_channels, *(channels for channels, *_ in LAYERS)]
        self.layer1, self.layer2, self.layer3 = (
            MaxoutConv(last, channels, kernel, padding)
            for last, (channels, kernel, padding, _) in zip(before, LAYERS, strict=False)
        )
        self.pools = nn.ModuleList(CaffeMaxPool2d(window) for *_, window in LAYERS)
        self.drop_input, self.drop = nn.Dropout(DROPPED_INPUT), nn.Dropout(DROPPED)
        self.hidden = MaxoutLinear(before[-1] * SIDE**2, UNITS)
        self.linear = nn.Linear(UNITS, classes)
        initialize_scores(self.linear)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = {}
        x = self.drop_input(x)
        for number, (layer, pool) in enumerate(zip(self._layers(), self.pools, strict=True), start=1):
            x = pool(layer(x if number == 1 else self.drop(x)))
            outputs[f"layer{number}"] = x
        return outputs

    def stage_layers(self) -> list[list[nn.Module]]:
        return [[layer] for layer in self._layers()]

    def score_map(self, x: Tensor) -> Tensor:
        x = self.features(x)["layer3"]
        if x.shape[2] < SIDE or x.shape[3] < SIDE:
            return self.scores_of(x)[:, :, None, None]
        fc, last = self.hidden.fc, self.linear
        x = F.conv2d(self.drop(x), fc.weight.unflatten(1, (-1, SIDE, SIDE)), fc.bias)
        x = largest(x, self.hidden.pieces)
        return F.conv2d(self.drop(x), last.weight[:, :, None, None], last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores_of(self.features(x)["layer3"])

    def _layers(self) -> Sequence[MaxoutConv]:
        return self.layer1, self.layer2, self.layer3

    def scores_of(self, x: Tensor) -> Tensor:
        """From the last map, (N, C, h, w), to the scores (N, K)."""
        # CUDA has no deterministic backward pass of adaptive pooling; a map of the right size needs none.
        x = x if x.shape[2:] == (SIDE, SIDE) else F.adaptive_avg_pool2d(x, SIDE)
        return self.linear(self.drop(self.hidden(self.drop(x.flatten(1)))))


def initialize_scores(linear: nn.Linear) -> None:
    """Draw the weights of a classifier of maxout units' outputs in place: variance 1/fan_in, biases 0."""
    nn.init.normal_(linear.weight, std=1 / math.sqrt(linear.in_features))
    nn.init.zeros_(linear.bias)
