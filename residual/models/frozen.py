"""BN that is fixed in fine-tuning: "BN layers act as linear activations with constant offsets and scales"."""

import torch
from torch import Tensor, nn


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


def freeze_batch_norm(model: nn.Module) -> None:
    """Replace every BN layer by the affine map that it is in evaluation, in place."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, FrozenBatchNorm2d(child))
