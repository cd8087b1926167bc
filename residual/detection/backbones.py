"""The paper's networks cut in two: what is computed once for an image, and what runs for each region.

"conv1..conv4_x are shared; RoI pooling comes before conv5_1; conv5_x and up run for each region, in the role
of VGG-16's fc6 and fc7" (appendix A). BN layers are constant affine maps during fine-tuning.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models import build_model
from ..models.blocks import Block, BottleneckBlock, ZeroPadShortcut
from ..models.classifier import Classifier, StagedNetwork
from ..models.frozen import freeze_batch_norm
from ..models.highway import HighwayNetwork
from ..models.vgg import SIDE, VGG


class Backbone(nn.Module):
    """A classifier without its last layer, cut in two.

    Attributes:
        channels: C of the shared map.
        stride: pixels of the image for one step on the shared map.
        roi_size: regions are pooled to roi_size x roi_size cells.
        roi_step: of their rows and columns ``box_head`` looks at every roi_step-th, from the first one on.
        width: D, the numbers that describe a region.
    """

    channels: int
    stride: int
    roi_size: int
    roi_step: int = 1
    width: int
    network: Classifier

    def shared(self, x: Tensor) -> Tensor:
        """From images, float (N, 3, H, W), to their map (N, C, ceil(H/stride), ceil(W/stride))."""
        raise NotImplementedError

    def box_head(self, regions: Tensor) -> Tensor:
        """From the cells of pooled regions that it looks at, (R, C, n, n), to their descriptions (R, D)."""
        raise NotImplementedError

    def shared_layers(self) -> list[nn.Module]:
        """Return the layers that ``shared`` consists of."""
        raise NotImplementedError

    def freeze(self, stages: int) -> None:
        """Keep the layers of the first ``stages`` stages as they are in training."""
        for layer in [layer for stage in self.network.stage_layers()[:stages] for layer in stage]:
            layer.requires_grad_(False)


class ResidualBackbone(Backbone):
    """Shared up to the last stage but one; the last stage and global average pooling run for each region.

    The last stage halves the map, so a region is pooled to twice the side that the stage gives in
    classification: 14 for the networks of Table 1. Those of Section 4.2 are for small images; 8 is enough.
    Where the stage begins with single cells at a stride, as the paper's bottlenecks do, it never sees the
    other cells, and is given none but those that it sees.
    """

    network: StagedNetwork

    def __init__(self, network: StagedNetwork) -> None:
        super().__init__()
        self.width = network.classifier().in_features
        self.stride, self.roi_size = (2, 8) if network.small_images else (16, 14)
        setattr(network, network.head, nn.Identity())
        self.network = network
        block = next(m for m in network.stage_layers()[-1][0].modules() if isinstance(m, Block))
        self.channels = next(m for m in block.modules() if isinstance(m, nn.Conv2d)).in_channels
        self.roi_step = _take_stride(block)

    def shared_layers(self) -> list[nn.Module]:
        return [layer for stage in self.network.stage_layers()[:-1] for layer in stage]

    def shared(self, x: Tensor) -> Tensor:
        x = self.network.stem(x)
        for stage in list(self.network.stages().values())[:-1]:
            x = stage(x)
        return x

    def box_head(self, regions: Tensor) -> Tensor:
        last = list(self.network.stages().values())[-1]
        return last(regions).mean(dim=(2, 3))


def _take_stride(block: Block) -> int:
    """Return the stride at which a block reads single cells, and leave it none; 1 where it reads all.

    A shortcut reads single cells in any case: it is a 1x1 convolution, or option A.
    """
    if not isinstance(block, BottleneckBlock):
        return 1
    stride = block.conv1.stride[0]
    for layer in (block.conv1, *(block.downsample.modules() if block.downsample and stride > 1 else ())):
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
        elif isinstance(layer, ZeroPadShortcut):
            layer.stride = 1
    return stride


class VGGBackbone(Backbone):
    """Shared: the 13 (16) convolutions without the last pooling; fc6 and fc7 run for each region."""

    network: VGG
    channels, stride, roi_size = 512, 16, SIDE

    def __init__(self, network: VGG) -> None:
        super().__init__()
        *rest, last = network.classifier
        assert isinstance(last, nn.Linear)
        self.width = last.in_features
        network.classifier = nn.Sequential(*rest)
        network.convolutions = network.convolutions[:-1]
        for layer in network.convolutions:
            if isinstance(layer, nn.MaxPool2d):
                # As in Caffe: the image's last pixels have a place on the map too. The same at 224 x 224.
                layer.ceil_mode = True
        self.network = network

    def shared_layers(self) -> list[nn.Module]:
        return [self.network.convolutions]

    def shared(self, x: Tensor) -> Tensor:
        return self.network.convolutions(x)

    def box_head(self, regions: Tensor) -> Tensor:
        # The fully connected layers take channels first, whatever the map's layout in memory.
        return self.network.classifier(regions.contiguous().flatten(1))


def make_backbone(network: Classifier) -> Backbone:
    """Return a classifier as a backbone; its BN layers stay as they are."""
    if isinstance(network, VGG):
        return VGGBackbone(network)
    if isinstance(network, StagedNetwork) and not isinstance(network, HighwayNetwork):
        return ResidualBackbone(network)
    raise InputError(f"{type(network).__name__} cannot be a detector's backbone")


def outline_backbone(name: str, options: dict[str, Any]) -> Backbone:
    """Return a network as a backbone with fixed BN, its tensors without content, for weights to be loaded."""
    with torch.device("meta"):
        backbone = make_backbone(build_model(name, **options))
        freeze_batch_norm(backbone)
    return backbone


@torch.no_grad()
def measure_batch_norm(network: Classifier, batches: Iterable[Tensor]) -> None:
    """Set the BN statistics of a network that starts from scratch to exact averages over some images.

    A trained network brings its own. Without any, fixed BN would be no normalisation at all, and the signal
    would grow with every block.

    Args:
        batches: float (N, 3, H, W), preprocessed.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # PyTorch's sign for a plain average over all updates
    network.train()
    for batch in batches:
        network.features(batch)
