"""The paper's networks cut in two: what is computed once for an image, and what runs for each region.

"conv1..conv4_x are shared; RoI pooling comes before conv5_1; conv5_x and up run for each region, in the role
of VGG-16's fc6 and fc7" (appendix A). BN layers are constant affine maps during fine-tuning.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..models import build_model
from ..models.blocks import Block, BottleneckBlock, ZeroPadShortcut
from ..models.cifar import CifarNetwork
from ..models.classifier import Classifier, StagedNetwork
from ..models.frozen import freeze_batch_norm
from ..models.imagenet import ImageNetNetwork
from ..models.vgg import SIDE, VGG


class Backbone(nn.Module):
    """A classifier without its last layer, cut in two.

    Attributes:
        channels: C of the shared map.
        stride: pixels of the image for one step on the shared map.
        roi_size: regions are pooled to roi_size x roi_size cells.
        steps: of each part that ``entry`` gives, ``head_maps`` looks at every so manieth row and column of
            cells, from the first one on.
        width: D, the channels of what the head makes of a region, whose means describe it.
    """

    channels: int
    stride: int
    roi_size: int
    steps: tuple[int, ...] = (1,)
    width: int
    network: Classifier

    def shared(self, x: Tensor) -> Tensor:
        """From images, float (N, 3, H, W), to their map (N, C, ceil(H/stride), ceil(W/stride))."""
        raise NotImplementedError

    def entry(self, x: Tensor, strides: Sequence[int]) -> list[Tensor]:
        """Return what the layers that the head begins with make of each position by itself.

        They are affine, convolutions of 1x1 and fixed BN, so the mean of some positions goes through them as
        it is: it is the same whether regions are pooled before or after them by RoI align.

        Args:
            x: a map or pooled regions, (N, C, h, w).
            strides: for each part, of whose positions it is computed.
        """
        return [x]

    def head_maps(self, parts: Sequence[Tensor]) -> Tensor:
        """From the parts of the regions' cells, (R, C', n, n) each, to the regions' maps (R, D, m, m)."""
        raise NotImplementedError

    def shared_layers(self) -> list[nn.Module]:
        """Return the layers that ``shared`` consists of."""
        raise NotImplementedError

    def take_off_head(self) -> None:
        """Drop the layers that run for each region, where the shared map is all that is needed."""
        raise NotImplementedError

    def freeze(self, stages: int) -> None:
        """Keep the layers of the first ``stages`` stages as they are in training; those of others learn."""
        for number, stage in enumerate(self.network.stage_layers()):
            for layer in stage:
                layer.requires_grad_(number >= stages)


class ResidualBackbone(Backbone):
    """Shared up to the last stage but one; the last stage and global average pooling run for each region.

    The last stage halves the map, so a region is pooled to twice the side that the stage gives in
    classification: 14 for the networks of Table 1. Those of Section 4.2 are for small images; 8 is enough.
    Where the stage begins with a bottleneck, it reads single cells at first: both of its 1x1 convolutions (in
    the paper's variant; else one of them) at a stride, so that it never sees the other cells.
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
        self.steps = _take_strides(block)

    def shared_layers(self) -> list[nn.Module]:
        return [layer for stage in self.network.stage_layers()[:-1] for layer in stage]

    def shared(self, x: Tensor) -> Tensor:
        x = self.network.stem(x)
        for stage in list(self.network.stages().values())[:-1]:
            x = stage(x)
        return x

    def entry(self, x: Tensor, strides: Sequence[int]) -> list[Tensor]:
        block = self._last_stage()[0]
        if not isinstance(block, BottleneckBlock):
            return [x]
        layers: list[Callable[[Tensor], Tensor]] = [block.first]
        if block.downsample is not None:
            layers.append(block.downsample)
        # Pooling over single positions: see ZeroPadShortcut.
        return [
            layer(x if stride == 1 else F.avg_pool2d(x, 1, stride))
            for layer, stride in zip(layers, strides, strict=True)
        ]

    def head_maps(self, parts: Sequence[Tensor]) -> Tensor:
        first, *others = self._last_stage()
        if isinstance(first, BottleneckBlock):
            x = first.join(first.after_first(parts[0]), parts[1] if len(parts) > 1 else None)
        else:
            x = first(parts[0])
        for block in others:
            x = block(x)
        return x

    def take_off_head(self) -> None:
        last = self._last_stage()
        name = next(name for name, child in self.network.named_children() if child is last)
        setattr(self.network, name, nn.Identity())

    def _last_stage(self) -> nn.Sequential:
        (stage,) = self.network.stage_layers()[-1]
        assert isinstance(stage, nn.Sequential)
        return stage


def _take_strides(block: Block) -> tuple[int, ...]:
    """Return the strides at which a block's parts (``Backbone.entry``) read positions; leave them none."""
    if not isinstance(block, BottleneckBlock):
        return (1,)
    layers: list[nn.Conv2d | ZeroPadShortcut] = [block.conv1]
    if block.downsample is not None:
        found = (m for m in block.downsample.modules() if isinstance(m, nn.Conv2d | ZeroPadShortcut))
        layers.append(next(found))
    strides = []
    for layer in layers:
        if isinstance(layer, ZeroPadShortcut):
            strides.append(layer.stride)
            layer.stride = 1
        else:
            strides.append(layer.stride[0])
            layer.stride = (1, 1)
    return tuple(strides)


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

    def take_off_head(self) -> None:
        self.network.classifier = nn.Sequential()

    def head_maps(self, parts: Sequence[Tensor]) -> Tensor:
        # The fully connected layers take channels first, whatever the map's layout in memory.
        return self.network.classifier(parts[0].contiguous().flatten(1))[:, :, None, None]


def make_backbone(network: Classifier) -> Backbone:
    """Return a classifier as a backbone; its BN layers stay as they are."""
    if isinstance(network, VGG):
        return VGGBackbone(network)
    if isinstance(network, CifarNetwork | ImageNetNetwork):
        return ResidualBackbone(network)
    raise InputError(
        f"{type(network).__name__} cannot be the backbone of a detector or a localizer; take a residual or a "
        "plain network, or VGG"
    )


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

    Raises:
        InputError: for an image so small that its last map is a single position, which has no variance.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # PyTorch's sign for a plain average over all updates
    network.train()
    for batch in batches:
        try:
            network.features(batch)
        except ValueError:  # PyTorch's "Expected more than 1 value per channel when training"
            size = f"{batch.shape[3]} x {batch.shape[2]}"
            raise InputError(
                f"an image of {size} is too small for a network from scratch: its last map is a single "
                "position, of which BN measures no variance; set data.shorter_side to more, or start from "
                "--weights"
            ) from None
