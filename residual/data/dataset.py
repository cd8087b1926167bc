"""What every dataset is here, whatever it was read from."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """Images that fit in memory.

    Attributes:
        name: of the dataset and its part, as "cifar10 train".
        classes: names of the K classes, in the order of the targets.
        images: uint8 (N, C, H, W).
        targets: int64 (N,), each in [0, K).
        ids: int64 (N,), an image's number in the dataset's own order; a subset keeps them.
    """

    name: str
    classes: tuple[str, ...]
    images: Tensor
    targets: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: (C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def __iter__(self) -> Iterator[tuple[Tensor, int, int]]:
        for image, target, number in zip(self.images, self.targets, self.ids, strict=True):
            yield image, int(target), int(number)

    def to(self, device: torch.device) -> "Dataset":
        """Return the dataset with images and targets on a device."""
        return Dataset(self.name, self.classes, self.images.to(device), self.targets.to(device), self.ids)

    def subset(self, indices: Tensor, name: str) -> "Dataset":
        """Return the images at ``indices``, int64 (M,)."""
        return Dataset(name, self.classes, self.images[indices], self.targets[indices], self.ids[indices])

    def with_classes(self, classes: tuple[str, ...]) -> "Dataset":
        """Return the dataset with other names for its K classes."""
        return replace(self, classes=classes)
