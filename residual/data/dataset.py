"""What every data set is here, whatever it was read from."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """Pictures that fit in memory.

    Attributes:
        name: of the data set and its part, as "cifar10 train".
        classes: names of the K classes, in the order of the targets.
        images: uint8 (N, C, H, W).
        targets: int64 (N,), each in [0, K).
        ids: int64 (N,), a picture's number in the data set's own order; a subset keeps them.
    """

    name: str
    classes: tuple[str, ...]
    images: Tensor
    targets: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def __iter__(self) -> Iterator[tuple[Tensor, int, int]]:
        for image, target, picture in zip(self.images, self.targets, self.ids, strict=True):
            yield image, int(target), int(picture)

    def to(self, device: torch.device) -> "Dataset":
        """Return the data set with pictures and targets on a device."""
        return Dataset(self.name, self.classes, self.images.to(device), self.targets.to(device), self.ids)

    def subset(self, indices: Tensor, name: str) -> "Dataset":
        """Return the pictures at ``indices``, int64 (M,)."""
        return Dataset(name, self.classes, self.images[indices], self.targets[indices], self.ids[indices])
