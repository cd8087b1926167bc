"""VGG-16 and VGG-19 [40], the paper's references, with torchvision's parameter names."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import CaffeMaxPool2d, Pool
from .classifier import Classifier, initialize

#: Convolutions of each of the five stages; each stage ends with a 2x2 max pooling.
LAYERS: dict[int, tuple[int, ...]] = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}

FILTERS = (64, 128, 256, 512, 512)

#: Units of the first two fully connected layers.
UNITS = 4096

#: Side of the map that the first fully connected layer takes (224 x 224 images give just this).
SIDE = 7


class VGG(Classifier):
    """VGG of 16 or 19 weighted layers.

    Args:
        depth: 16 or 19.
        classes: number of classes.
        in_channels: channels of the images.
        pool: whether max pooling rounds odd sizes down ("torchvision") or up ("caffe", as the published
            models were trained and tested); at 224 x 224 there are none.

    A last map that is not 7x7 is pooled (or repeated) to 7x7 by ``forward``; ``score_map`` moves the fully
    connected layers over a larger map instead, as [40] does.
    """

    whole_side = 32 * SIDE

    def __init__(
        self, depth: int, classes: int = 1000, in_channels: int = 3, pool: Pool = "torchvision"
    ) -> None:
        super().__init__()
        self.depth, self.plain = depth, True
        self.classes = classes
        self.in_channels = in_channels
        layers: list[nn.Module] = []
        channels = in_channels
        for filters, count in zip(FILTERS, LAYERS[depth], strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(inplace=True)]
                channels = filters
            layers.append(CaffeMaxPool2d(2) if pool == "caffe" else nn.MaxPool2d(2))
        self.convolutions = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(channels * SIDE * SIDE, UNITS),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(UNITS, UNITS),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(UNITS, classes),
        )
        initialize(self)
        # ``features`` is the contract's method here, and the convolutions' name in torchvision's weights.
        self.register_state_dict_post_hook(_write_torchvision_names)
        self.register_load_state_dict_pre_hook(_read_torchvision_names)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = {}
        for layer in self.convolutions:
            if isinstance(layer, nn.MaxPool2d):
                outputs[f"conv{len(outputs) + 1}_x"] = x
            x = layer(x)
        return outputs

    def stage_layers(self) -> list[list[nn.Module]]:
        stages: list[list[nn.Module]] = [[]]
        for layer in self.convolutions:
            if isinstance(layer, nn.MaxPool2d):
                stages.append([])
            stages[-1].append(layer)
        return stages if isinstance(self.convolutions[-1], nn.Conv2d | nn.ReLU) else stages[:-1]

    def score_map(self, x: Tensor) -> Tensor:
        x = self.convolutions(x)
        if x.shape[2] < SIDE or x.shape[3] < SIDE:
            return self.classifier(self.flatten(x))[:, :, None, None]
        for layer in self.classifier:
            if isinstance(layer, nn.Linear):
                # The first layer sees 7x7 positions, the other two see one.
                side = SIDE if layer is self.classifier[0] else 1
                weight = layer.weight.view(layer.out_features, -1, side, side)
                x = F.conv2d(x, weight, layer.bias)
            else:
                x = layer(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.flatten(self.convolutions(x)))

    @staticmethod
    def flatten(x: Tensor) -> Tensor:
        # CUDA has no deterministic backward pass of adaptive pooling; a map of the right size needs none.
        return (x if x.shape[2:] == (SIDE, SIDE) else F.adaptive_avg_pool2d(x, SIDE)).flatten(1)


def _write_torchvision_names(
    module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: dict[str, Any]
) -> None:
    _rename(state, prefix + "convolutions.", prefix + "features.")


def _read_torchvision_names(module: nn.Module, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
    _rename(state, prefix + "features.", prefix + "convolutions.")


def _rename(state: dict[str, Tensor], old: str, new: str) -> None:
    for name in [name for name in state if name.startswith(old)]:
        state[new + name.removeprefix(old)] = state.pop(name)
