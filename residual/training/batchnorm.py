"""Batch normalisation outside the network: statistics over groups, and their exact average after training.

The paper's 128 images lie on two GPUs, so that BN sees 64 at a time. On a CPU a mini-batch goes through the
network one BN group after the other, gradients adding up: less memory is in use at a time, and several ranks
with a group each compute the same thing. On a GPU, where small networks are bound by the number of kernels,
the whole mini-batch goes at once through BN layers that tell the groups apart.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..distributed import World
from ..models.frozen import FixedBatchNorm2d

#: Weight of a new mini-batch in the moving averages that evaluations during training use.
MOVING = 0.1

#: Mini-batches over which the statistics are averaged after training, at most one epoch.
AVERAGED_BATCHES = 200


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the BN layers that learn, found by their type (projections' names are ``downsample.1``)."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and not isinstance(module, FixedBatchNorm2d)
    ]


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """BN that normalises each ``group`` images of a mini-batch by their own statistics.

    It shares the parameters and buffers of the layer it is made from. The moving averages advance by the mean
    over the groups. In evaluation, and for a mini-batch that is not several whole groups, it is plain BN.
    Written as formulas, not as calls of the BN kernels, so that a compiler can join it with the ReLU and the
    addition that follow.

    Shapes: (N, C, H, W) to the same.
    """

    def __init__(self, layer: nn.BatchNorm2d, group: int) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, device="meta")
        self._parameters, self._buffers = layer._parameters, layer._buffers
        self.group = group
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        groups, rest = divmod(len(x), self.group)
        if not self.training or groups < 2 or rest:
            return super().forward(x)
        # At least float32: statistics in half precision lose digits.
        parts = x.unflatten(0, (groups, self.group)).to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(parts, dim=(1, 3, 4), correction=0)
        if self.running_mean is not None and self.running_var is not None and self.momentum is not None:
            with torch.no_grad():
                count = parts[0].numel() // parts.shape[2]
                unbiased = variance.mean(dim=0) * (count / (count - 1))
                self.running_mean.lerp_(mean.mean(dim=0), self.momentum)
                self.running_var.lerp_(unbiased, self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        y = parts * scale[:, None, :, None, None] + shift[:, None, :, None, None]
        return y.flatten(0, 1).to(x.dtype)


def tell_groups_apart(model: nn.Module, group: int) -> None:
    """Replace every BN layer of a network by one with groups, in place; the state dict stays the same."""
    for module in model.modules():
        for name, child in list(module.named_children()):
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, GroupedBatchNorm2d(child, group))


def set_momentum(layers: list[_BatchNorm], group: int, groups: int) -> None:
    """Make moving averages advance by the mean over a mini-batch's groups, whatever their number.

    Updating with weight a/(G - (G - g)a) at group g = 1..G gives, after all of them, the old average times
    1 - a plus the mean of the G statistics times a: what G ranks with a group each give.
    """
    for layer in layers:
        layer.momentum = MOVING / (groups - (groups - group) * MOVING)


def synchronize(layers: Sequence[_BatchNorm], world: World) -> None:
    """Average the running statistics over the ranks, each of which has seen its own images."""
    if world.size == 1 or not layers:
        return
    buffers = [b for layer in layers for b in (layer.running_mean, layer.running_var) if b is not None]
    flat = world.sum_(torch.cat([b.flatten() for b in buffers])) / world.size
    for buffer, value in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(value.view_as(buffer))


@torch.no_grad()
def average_statistics(
    model: nn.Module,
    batches: Callable[[int], tuple[Tensor, Tensor]],
    iterations: range,
    group: int,
    world: World,
) -> None:
    """Replace the moving averages by exact averages over many mini-batches, the weights held fixed.

    As in the authors' released models: means and (unbiased) variances of every group, each counted once.
    The network normalises by each group's own statistics meanwhile, so all layers are right in one pass.
    """
    layers = batch_norms(model)
    if not layers:
        return
    for layer in layers:
        layer.reset_running_stats()
    model.train()
    seen = 0
    for iteration in iterations:
        inputs, _ = batches(iteration)
        for part in inputs.split(group):
            seen += 1
            for layer in layers:
                # A plain average over all groups. PyTorch's None would read a count from the device, in each
                # layer.
                layer.momentum = 1 / seen
            model(part)
    synchronize(layers, world)
