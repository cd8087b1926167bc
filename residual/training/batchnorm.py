"""Batch normalisation outside the network: statistics over groups, and their exact average after training.

The paper's 128 pictures lie on two GPUs, so that BN sees 64 at a time. Here a mini-batch goes through the
network one BN group after the other, gradients adding up: the network needs no BN of its own kind, less
memory is in use at a time, and several ranks with a group each compute the same thing.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..distributed import World

#: Weight of a new mini-batch in the moving averages that evaluations during training use.
MOVING = 0.1

#: Mini-batches over which the statistics are averaged after training, at most one epoch.
AVERAGED_BATCHES = 200


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return all BN layers, found by their type (names vary: those of projections are ``downsample.1``)."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def set_momentum(layers: list[_BatchNorm], group: int, groups: int) -> None:
    """Make moving averages advance by the mean over a mini-batch's groups, whatever their number.

    Updating with weight a/(G - (G - g)a) at group g = 1..G gives, after all of them, the old average times
    1 - a plus the mean of the G statistics times a: what G ranks with a group each give.
    """
    for layer in layers:
        layer.momentum = MOVING / (groups - (groups - group) * MOVING)


def synchronize(layers: list[_BatchNorm], world: World) -> None:
    """Average the running statistics over the ranks, each of which has seen its own pictures."""
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
        layer.momentum = None  # PyTorch's sign for a plain average over all updates
    model.train()
    for iteration in iterations:
        inputs, _ = batches(iteration)
        for part in inputs.split(group):
            model(part)
    synchronize(layers, world)
