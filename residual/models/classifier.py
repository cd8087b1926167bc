"""The contract of every classifier, and the part that plain and residual networks share."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError


class Classifier(nn.Module):
    """What dense testing, layer responses and detection rely on.

    Attributes:
        classes: number of classes K.
        in_channels: channels of the input images.
        depth: weighted layers, projections aside.
        plain: whether it has no shortcuts.
        small_images: whether it is made for images of 32 x 32, as those of Section 4.2.
        whole_side: side of the images from which on fully connected layers see a map as they were trained to;
            None where there are none that see a whole map.
        memory_format: in which it is used: its tensors, and the images that it is given.

    Shapes: x is a float tensor (N, in_channels, H, W), already preprocessed.
    """

    classes: int
    in_channels: int
    depth: int
    plain: bool
    small_images = False
    whole_side: int | None = None
    memory_format = torch.channels_last

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the output of each stage by its name in Table 1, each (N, C, h, w), first stage first."""
        raise NotImplementedError

    def stage_layers(self) -> list[list[nn.Module]]:
        """Return the layers of each stage, first stage first, without those of the classifier."""
        raise NotImplementedError

    def score_map(self, x: Tensor) -> Tensor:
        """Return the classifier's scores (logits) at every position of the last map: (N, K, h, w).

        This is the fully convolutional form of Section 3.4.
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores (logits) of each image: (N, K)."""
        raise NotImplementedError

    def objective(self) -> nn.Module:
        """Return what is trained: the network by its scores' cross-entropy, or an ``Objective`` with it."""
        return self

    def taught_by(self, teacher: "Classifier") -> nn.Module:
        """Return what is trained where a teacher gives hints.

        Args:
            teacher: a trained network, which becomes a part of what is returned and stays as it is.

        Raises:
            InputError: when this network learns from no teacher, or not from this one.
        """
        raise InputError("model.teacher: of the networks here only cifar_fitnet19 learns from a teacher")


class StagedNetwork(Classifier):
    """Stages, global average pooling and one fully connected layer: the form of Fig. 3, middle and right.

    A subclass gives the stem, a dictionary of stages and the name of its fully connected layer, which is
    all in which the ImageNet and the CIFAR networks differ.
    """

    #: Attribute of the fully connected layer, as public weights call it.
    head: str

    def stem(self, x: Tensor) -> Tensor:
        """The layers before the first stage, up to their ReLU."""
        raise NotImplementedError

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The stages after the stem by their name in Table 1, in order."""
        raise NotImplementedError

    def classifier(self) -> nn.Linear:
        return getattr(self, self.head)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        outputs = {"conv1": x}
        for name, stage in self.stages().items():
            x = stage(x)
            outputs[name] = x
        return outputs

    def stage_layers(self) -> list[list[nn.Module]]:
        layers = [
            layer
            for name, layer in self.named_children()
            if name != self.head and not isinstance(layer, nn.MaxPool2d)
        ]
        # conv1 and its BN; a stage each.
        return [layers[:2], *([layer] for layer in layers[2:])]

    def last_map(self, x: Tensor) -> Tensor:
        """The last stage's output alone, so that the earlier maps can be freed on the way."""
        x = self.stem(x)
        for stage in self.stages().values():
            x = stage(x)
        return x

    def score_map(self, x: Tensor) -> Tensor:
        fc = self.classifier()
        return F.conv2d(self.last_map(x), fc.weight[:, :, None, None], fc.bias)

    def scores_of(self, x: Tensor) -> Tensor:
        """From the last map, (N, C, h, w), to the scores (N, K)."""
        return self.classifier()(mean_of_positions(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.scores_of(self.last_map(x))


def mean_of_positions(x: Tensor) -> Tensor:
    """Global average pooling: (N, C, h, w) to (N, C)."""
    # The mean over (2, 3), taken so that its gradient is a map in channels-last format.
    return x.flatten(2).transpose(1, 2).mean(dim=1)


def initialize(network: nn.Module) -> None:
    """He initialisation [12] in place: weights from N(0, 2/fan_in), biases 0, BN scale 1 and shift 0."""
    if next(network.parameters()).is_meta:
        return  # shapes alone have no numbers, and drawing none takes PyTorch longer than drawing some
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
