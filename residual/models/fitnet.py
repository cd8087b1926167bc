"""FitNet [34]: a thin and deep maxout network, and how a wide and shallow one teaches it.

17 convolutional maxout layers of 3x3 filters and two pieces, halved twice by max pooling, 500 fully
connected maxout units of five pieces and a linear classifier: 19 layers, as the authors' file for CIFAR-10
has them. They state about 2.5M parameters (so does Table 6); counted from that file they are 2,742,102, of
which the convolutions are 2.41M.

Taught, the network is trained in two stages. In the first its first eleven layers learn to give what the
teacher's second layer gives, through a convolutional regressor that is left behind (half of the mean squared
distance). In the second, all of it learns from the classes and from the teacher's scores, both networks'
softened by a temperature of 3, with a weight that falls from 4 to 1. The stages' lengths are ours: a quarter
of the run and the rest, where the authors wait for a validation error that does not fall any more, and
momentum SGD in both, where theirs is RMSprop. All weights decay all the time: by the recipe the later layers'
lose a seventh in the first stage.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .classifier import Classifier
from .maxout import MaxoutConv, MaxoutLinear, MaxoutNetwork, initialize_scores
from .objective import Objective, Progress

#: Channels of the layers on each of the three map sizes.
CHANNELS = ((32, 32, 32, 48, 48), (80,) * 6, (128,) * 6)

UNITS = 500

#: The part of the run that the first stage takes.
FIRST_STAGE = 0.25

TEMPERATURE = 3.0

#: The weight of the teacher's scores, at the beginning and at the end of the second stage.
TEACHER_WEIGHTS = (4.0, 1.0)


class FitNet(Classifier):
    """FitNet of 19 layers, for images of any size of at least 4 pixels.

    The last max pooling takes the whole map (8 x 8 of 32 x 32 images), so there is one position of scores.

    Args:
        classes: number of classes.
        in_channels: channels of the images.

    Parameter names: ``layer{1,2,3}.{i}.conv``, ``hidden.fc``, ``linear``.
    """

    depth, plain = 19, True
    small_images = True

    def __init__(self, classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.classes = classes
        self.in_channels = in_channels
        before = [in_channels, *(channels[-1] for channels in CHANNELS)]
        self.layer1, self.layer2, self.layer3 = (
            _stage(last, channels) for last, channels in zip(before, CHANNELS, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.hidden = MaxoutLinear(before[-1], UNITS)
        self.linear = nn.Linear(UNITS, classes)
        initialize_scores(self.linear)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        first = self.layer1(x)
        second = self.layer2(self.pool(first))
        return {"layer1": first, "layer2": second, "layer3": self.layer3(self.pool(second))}

    def stage_layers(self) -> list[list[nn.Module]]:
        return [[self.layer1], [self.layer2], [self.layer3]]

    def score_map(self, x: Tensor) -> Tensor:
        return self(x)[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.scores_and_guided(x)[0]

    def scores_and_guided(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores, (N, K), and the map that hints are for: the eleventh layer's after pooling."""
        guided = self.pool(self.layer2(self.pool(self.layer1(x))))
        last = self.layer3(guided).amax(dim=(2, 3))
        return self.linear(self.hidden(last)), guided

    def taught_by(self, teacher: Classifier) -> Objective:
        if not isinstance(teacher, MaxoutNetwork):
            raise InputError(
                "model.teacher: the hints for cifar_fitnet19 are a cifar_maxout's; name the weights of one"
            )
        if (teacher.classes, teacher.in_channels) != (self.classes, self.in_channels):
            raise InputError(
                f"model.teacher: it tells {teacher.classes} classes apart in images of {teacher.in_channels} "
                f"channels, and the data have {self.classes} and {self.in_channels}; train it on them"
            )
        return Hints(self, teacher)


class Hints(Objective):
    """A FitNet, its teacher and the regressor between them.

    Args:
        teacher: stays as it is, without dropout, and is a part of the checkpoints.
    """

    network: FitNet

    def __init__(self, network: FitNet, teacher: MaxoutNetwork) -> None:
        super().__init__(network)
        self.teacher = teacher.requires_grad_(False).eval()
        guided, hint = network.layer2[-1], teacher.layer2
        assert isinstance(guided, MaxoutConv)
        # Filters of 2x2 make the teacher's 7 x 7 of the guided 8 x 8: of images of any size its map is a
        # position smaller.
        self.regressor = MaxoutConv(guided.channels, hint.channels, kernel=2, padding=0)

    def train(self, mode: bool = True) -> "Hints":
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        scores, guided = self.network.scores_and_guided(x)
        with torch.no_grad():
            _, hint, last = self.teacher.features(x).values()
            taught = self.teacher.scores_of(last)
        return scores, self.regressor(guided), hint, taught

    def loss(self, outputs: Sequence[Tensor], targets: Tensor, progress: Progress) -> Tensor:
        scores, guess, hint, taught = outputs
        over = (progress - FIRST_STAGE) / (1 - FIRST_STAGE)
        first, last = TEACHER_WEIGHTS
        distance = (guess - hint).square().mean() / 2
        softened = F.cross_entropy(scores / TEMPERATURE, (taught / TEMPERATURE).softmax(dim=1))
        knowledge = F.cross_entropy(scores, targets) + (first + (last - first) * over) * softened
        # Each stage has no gradient for what only the other one trains, but it is there, as 0.
        return torch.where(torch.as_tensor(over < 0, device=scores.device), distance, knowledge)


def _stage(in_channels: int, channels: Sequence[int]) -> nn.Sequential:
    before = [in_channels, *channels]
    return nn.Sequential(
        *(MaxoutConv(last, width, 3, padding=1) for last, width in zip(before, channels, strict=False))
    )
