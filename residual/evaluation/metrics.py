"""Errors and loss as sums and counts over exactly the dataset."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.images import DamagedImage
from ..device import sums_dtype
from ..distributed import World

#: The smallest score that the loss knows: an averaged softmax in float32 may be 0, its logarithm is not.
SMALLEST = torch.finfo(torch.float32).tiny
#: A class among so many of the highest scores counts as right by the top-5 error.
TOP = 5


@dataclass(frozen=True)
class Metrics:
    """What a network does on a set of images.

    Attributes:
        loss: mean cross-entropy.
        top1_error, top5_error: in percent; top-5 counts an image right when its class is among the five
            highest scores (all classes where there are fewer).
        images: number of images, each counted once.
        images_per_second: over all ranks, preprocessing included.
    """

    loss: float
    top1_error: float
    top5_error: float
    images: int
    images_per_second: float

    def plain(self) -> dict[str, Any]:
        """Return the numbers as plain data."""
        return asdict(self)


def places(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the place of each image's right class among its scores, 0 for the first: int64 (n,).

    Of equal scores the class with the lower number comes first, as in ``argmax``; a score that is not a
    number is behind all others, and the first five, so a broken network is never right.
    """
    right = scores.gather(1, targets[:, None])
    classes = torch.arange(scores.shape[1], device=scores.device)
    tied = (scores == right) & (classes < targets[:, None])
    place = ((scores > right) | tied).sum(dim=1)
    return torch.where(right[:, 0].isnan(), max(scores.shape[1], TOP), place)


class Tally:
    """Counts and sums of batches of softmax scores, exact over any number of ranks, kept on their device.

    The loss is -log(p) of the right class; top-5 counts an image right when its class is among the five
    highest scores.
    """

    def __init__(self) -> None:
        self.sums: Tensor | None = None
        self.start = time.perf_counter()

    def add(self, probabilities: Tensor, targets: Tensor) -> None:
        """Count n images: float32 (n, K) and int64 (n,), on one device."""
        place = places(probabilities, targets)
        right = probabilities.gather(1, targets[:, None])
        dtype = sums_dtype(right.device)
        loss = -right.to(dtype).clamp(min=SMALLEST).log().sum()
        count = torch.full_like(loss, len(targets))
        sums = torch.stack([loss, *((place > top).sum().to(dtype) for top in (0, TOP - 1)), count])
        self.sums = sums if self.sums is None else self.sums + sums

    def metrics(self, world: World | None = None, device: torch.device | None = None) -> Metrics:
        """Return the errors over the images of all ranks.

        Args:
            device: of this rank, which may have seen no image.

        Raises:
            InputError: when there is no image.
        """
        if self.sums is None:
            where = device or torch.device("cpu")
            sums = torch.zeros(4, dtype=sums_dtype(where), device=where)
        else:
            sums = self.sums.clone()
        loss, top1, top5, count = (world or World()).sum_(sums).tolist()
        if not count:
            raise DamagedImage(
                "there is no image to count the errors of; none was there, or none can be read"
            )
        seconds = time.perf_counter() - self.start
        return Metrics(loss / count, 100 * top1 / count, 100 * top5 / count, int(count), count / seconds)
