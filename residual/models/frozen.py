"""BN that is fixed in fine-tuning: "BN layers act as linear activations with constant offsets and scales"."""

import torch
from torch import Tensor, nn

from ..errors import InputError
from .classifier import Classifier


class FrozenBatchNorm2d(nn.Module):
    """A BN layer with fixed statistics, and fixed itself: scale * x + shift for each channel.

    Shapes: (N, C, H, W) to the same; ``scale`` and ``shift`` are buffers (C, 1, 1).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        super().__init__()
        assert layer.running_mean is not None
        assert layer.running_var is not None
        scale = layer.weight.detach() * torch.rsqrt(layer.running_var + layer.eps)
        shift = layer.bias.detach() - layer.running_mean * scale
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        # One pass over the map, and nothing of it is kept for the backward pass.
        return torch.addcmul(self.shift.to(x.dtype), x, self.scale.to(x.dtype))


class FixedBatchNorm2d(nn.BatchNorm2d):
    """A BN layer that stays in evaluation mode, for a stage that stays; its tensors keep their names.

    Shapes: (N, C, H, W) to the same.
    """

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, device="meta")
        self._parameters, self._buffers = layer._parameters, layer._buffers
        self.train()

    def train(self, mode: bool = True) -> "FixedBatchNorm2d":
        return super().train(False)


def freeze_stages(model: Classifier, stages: int) -> None:
    """Keep the first stages of a network as they are in training, BN statistics included, in place.

    Raises:
        InputError: when it has fewer.
    """
    layers = model.stage_layers() if stages else []
    if stages > len(layers):
        raise InputError(f"model.freeze={stages}: the network has {len(layers)} stages, and no more can stay")
    for stage in layers[:stages]:
        for layer in stage:
            layer.requires_grad_(False)
    # A BN layer that is a stage's own is a child of the network itself.
    kept = {module for stage in layers[:stages] for layer in stage for module in layer.modules()}
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if child in kept and isinstance(child, nn.BatchNorm2d):
                setattr(module, name, FixedBatchNorm2d(child))


def freeze_batch_norm(model: nn.Module) -> None:
    """Replace every BN layer by the affine map that it is in evaluation, in place."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, FrozenBatchNorm2d(child))
