"""Batch normalisation outside the network: statistics over groups, and their exact average after training.

The paper's 128 images lie on two GPUs, so that BN sees 64 at a time. On a CPU a mini-batch goes through the
network one BN group after the other, or several side by side (groups.py), gradients adding up: less
memory is in use at a time, and several ranks with a group each compute the same thing. On a GPU, where small
networks are bound by the number of kernels, the whole mini-batch goes at once through BN layers that tell the
groups apart.
"""

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..distributed import World
from ..models.frozen import FixedBatchNorm2d
from ..models.own import OwnNetwork

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


class _NormaliseGroups(torch.autograd.Function):
    """BN of each group of a mini-batch by its own statistics, forwards and backwards.

    Written as formulas, not as calls of the BN kernels, so that a compiler can join them with the ReLU and
    the addition that follow. What autograd would derive from the forward pass sums three times backwards,
    once to find the mean again.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output, the means and the variances, (groups, C)."""
        # At least float32: statistics in half precision lose digits.
        wide = _cast(x, torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(wide.unflatten(0, (groups, -1)), dim=(1, 3, 4), correction=0)
        inverse = torch.rsqrt(variance + eps)
        scale = weight * inverse
        y = wide * _for_images(scale, len(x)) + _for_images(bias - mean * scale, len(x))
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.groups = groups
        ctx.mark_non_differentiable(mean, variance)
        return _cast(y, x.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        images, groups = len(x), ctx.groups
        dy, wide = gradients[0].to(mean.dtype), x.to(mean.dtype)
        normal = (wide - _for_images(mean, images)) * _for_images(inverse, images)
        dbias = dy.unflatten(0, (groups, -1)).sum(dim=(1, 3, 4))
        dweight = (dy * normal).unflatten(0, (groups, -1)).sum(dim=(1, 3, 4))
        count = x.numel() // (groups * x.shape[1])
        inner = dy - _for_images(dbias / count, images) - normal * _for_images(dweight / count, images)
        dx = inner * _for_images(weight * inverse, images)
        return dx.to(x.dtype), dweight.sum(dim=0), dbias.sum(dim=0), None, None


def _cast(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return numbers in another precision, and those that have it untouched.

    Of a cast that does nothing PyTorch 2.11's compiler makes a second output, and leads the gradient there:
    all would be nought.
    """
    return values if values.dtype == dtype else values.to(dtype)


def _for_images(values: Tensor, images: int) -> Tensor:
    """Return the groups' numbers, (groups, C), for each of their images: (images, C, 1, 1)."""
    groups, channels = values.shape
    return values[:, None].expand(-1, images // groups, -1).reshape(images, channels, 1, 1)


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """BN that normalises each ``group`` images of a mini-batch by their own statistics.

    It shares the parameters and buffers of the layer it is made from. In evaluation, and for a mini-batch
    that is not ``groups`` whole groups, it is plain BN.

    Attributes:
        seen: means and unbiased variances of the newest mini-batch's groups, (2, groups, C); the moving
            averages have not advanced by them yet (``advance``).

    Shapes: (N, C, H, W) to the same.
    """

    def __init__(self, layer: nn.BatchNorm2d, group: int, groups: int) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, device="meta")
        self._parameters, self._buffers = layer._parameters, layer._buffers
        self.group = group
        self.groups = groups
        self.seen = layer.weight.new_zeros(2, groups, layer.num_features).detach()
        self.train(layer.training)

    def tells_apart(self, images: int) -> bool:
        """Whether a mini-batch of so many images is several groups."""
        return self.training and self.groups > 1 and images == self.group * self.groups

    def forward(self, x: Tensor) -> Tensor:
        if not self.tells_apart(len(x)):
            return super().forward(x)
        y, mean, variance = _NormaliseGroups.apply(x, self.weight, self.bias, self.groups, self.eps)
        count = x.numel() // (self.groups * x.shape[1])
        with torch.no_grad():
            self.seen[0].copy_(mean)
            self.seen[1].copy_(variance * (count / (count - 1)))
        return y


def tell_groups_apart(model: nn.Module, group: int, groups: int) -> None:
    """Replace every BN layer of a network by one with groups, in place; the state dict stays the same."""
    for module in model.modules():
        for name, child in list(module.named_children()):
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, GroupedBatchNorm2d(child, group, groups))


def averages_of(layers: Sequence[_BatchNorm]) -> list[Tensor]:
    """Return the moving averages of the layers' means, and then those of their variances, each (C,)."""
    averages = [cast(Tensor, layer.running_mean) for layer in layers]
    return averages + [cast(Tensor, layer.running_var) for layer in layers]


@torch.no_grad()
def advance(layers: Sequence[_BatchNorm], images: int) -> None:
    """Let moving averages advance by the mean over the groups of a mini-batch, those of all layers at once.

    Layers that did not tell the groups of so many images apart have done so themselves.
    """
    apart = [layer for layer in layers if isinstance(layer, GroupedBatchNorm2d) and layer.tells_apart(images)]
    if not apart:
        return
    means, variances = torch.cat([layer.seen for layer in apart], dim=2).mean(dim=1)
    channels = [layer.num_features for layer in apart]
    momentum = apart[0].momentum
    assert momentum is not None
    torch._foreach_lerp_(averages_of(apart), [*means.split(channels), *variances.split(channels)], momentum)


@torch.no_grad()
def advance_by(layers: Sequence[_BatchNorm], groups: Sequence[Tensor]) -> None:
    """Let moving averages advance by the mean over the groups of a mini-batch, seen outside these layers.

    Args:
        groups: of each one the means of all layers and then their unbiased variances, (numbers,).
    """
    if not layers:
        return
    averages = averages_of(layers)
    seen = torch.stack(list(groups)).mean(dim=0).split([len(average) for average in averages])
    torch._foreach_lerp_(averages, list(seen), MOVING)
    for layer in layers:
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked += len(groups)


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
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Replace the moving averages by exact averages over many mini-batches, the weights held fixed.

    As in the authors' released models: means and (unbiased) variances of every group, each counted once.
    The network normalises by each group's own statistics meanwhile, so all layers are right in one pass. In a
    user's own network each layer counts what it has seen, and one that sees nothing, or is kept in evaluation
    mode, stays as it is.

    Args:
        progress: called with the number of mini-batches, and of those that are done.
    """
    model.train()
    layers = [layer for layer in batch_norms(model) if layer.training]
    if not layers:
        return
    watched: dict[nn.Module, list[_BatchNorm]] = {model: layers}
    if isinstance(model, OwnNetwork):
        watched = {layer: [layer] for layer in layers}
    with ExitStack() as stack:
        for module, theirs in watched.items():
            stack.callback(module.register_forward_pre_hook(_plain_average(theirs)).remove)
        for iteration in iterations:
            inputs, _ = batches(iteration)
            for part in inputs.split(group):
                model(part)
            if progress:
                progress(len(iterations), iteration - iterations.start + 1)
    synchronize(layers, world)


def _plain_average(layers: Sequence[_BatchNorm]) -> Callable[..., None]:
    """Return what, called before each group that layers see, has them keep the plain average over all groups.

    PyTorch's own, a momentum of None, would read a count from the device in each layer.
    """
    seen = itertools.count(1)

    def before(*_: object) -> None:
        number = next(seen)
        for layer in layers:
            if number == 1:
                layer.reset_running_stats()
            layer.momentum = 1 / number

    return before
