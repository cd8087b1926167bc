"""Errors and loss as sums and counts over exactly the data set."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import World
from ..errors import InputError

#: Pictures in one forward pass, by kind of device; the result does not depend on it.
BATCH = {"cpu": 250, "cuda": 1000}


@dataclass(frozen=True)
class Metrics:
    """What a network does on a set of pictures.

    Attributes:
        loss: mean cross-entropy.
        top1_error, top5_error: in percent; top-5 counts a picture right when its class is among the five
            highest scores (all classes where there are fewer).
        images: number of pictures, each counted once.
        images_per_second: over all ranks, preprocessing included.
    """

    loss: float
    top1_error: float
    top5_error: float
    images: int
    images_per_second: float


def evaluate(
    model: nn.Module,
    prepare: Callable[[Tensor], Tensor],
    images: Tensor,
    targets: Tensor,
    world: World | None = None,
) -> Metrics:
    """Test one view of each picture, the original (Section 4.2), and leave the network in its mode.

    Args:
        model: gives scores (n, K); its device is where the work is done.
        prepare: from uint8 (n, C, H, W) to the network's input.
        images: uint8 (N, C, H, W).
        targets: int64 (N,).
        world: each rank takes every size-th picture; none is padded, so none is counted twice.
    """
    world = world or World()
    batch = BATCH[next(model.parameters()).device.type]
    images, targets = images[world.rank :: world.size], targets[world.rank :: world.size]
    parts = zip(images.split(batch), targets.split(batch), strict=True)
    return evaluate_batches(model, prepare, parts, world)


@torch.inference_mode()
def evaluate_batches(
    model: nn.Module,
    prepare: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    world: World,
) -> Metrics:
    """Test pictures that come in batches; as ``evaluate``.

    Args:
        batches: this rank's pictures, uint8 (n, C, H, W), and targets, int64 (n,).
    """
    start = time.perf_counter()
    device = next(model.parameters()).device
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    training = model.training
    model.eval()
    for x, y in batches:
        y = y.to(device)
        scores = model(prepare(x.to(device))).float()
        place = places(scores, y)
        loss = F.cross_entropy(scores, y, reduction="sum").double()
        sums += torch.stack([loss, (place > 0).sum(), (place > 4).sum(), loss.new_tensor(len(y))])
    model.train(training)
    loss, top1, top5, count = world.sum_(sums).tolist()
    if not count:
        raise InputError("none of the pictures to test on can be read; are they still there?")
    return Metrics(
        loss=loss / count,
        top1_error=100 * top1 / count,
        top5_error=100 * top5 / count,
        images=int(count),
        images_per_second=count / (time.perf_counter() - start),
    )


def places(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the place of each picture's right class among its scores, 0 for the first: int64 (n,).

    Of equal scores the class with the lower number comes first, as in ``argmax``; a score that is not a
    number is behind all others, so a broken network is never right.
    """
    right = scores.gather(1, targets[:, None])
    classes = torch.arange(scores.shape[1], device=scores.device)
    tied = (scores == right) & (classes < targets[:, None])
    place = ((scores > right) | tied).sum(dim=1)
    return torch.where(right[:, 0].isnan(), scores.shape[1], place)
