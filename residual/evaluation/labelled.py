"""Images whose classes are known, as batches of views: from memory, or decoded from files by threads."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..data.folder import FolderIndex
from ..data.helpers import aside
from ..data.identity import identity_of
from ..data.images import DamagedImage, decode
from ..data.threads import in_threads
from ..distributed import World
from .batching import by_shape
from .inputs import with_channels
from .views import Views, crop_views

T = TypeVar("T")

#: Images of one shape that go through the network together, each with all its views.
BATCH = 32
#: The same of images in memory, by kind of device: they are small, and there is nothing to wait for.
BATCH_IN_MEMORY = {"cpu": 250, "cuda": 1000, "mps": 1000}


class LabelledImages(ABC):
    """N images of M classes, wherever they lie.

    Attributes:
        name: of the dataset and its split.
        classes: names of the M classes.
        ids: names of the images, the same whichever network looks at them.
        targets: int64 (N,), each in [0, M).
        notes: a sentence on whatever of the data may not be as it was meant.
    """

    notes: Sequence[str] = ()

    def __init__(self, data: Dataset | FolderIndex, ids: Sequence[str]) -> None:
        self.name = data.name
        self.classes = data.classes
        self.ids = ids
        self.targets = data.targets

    @abstractmethod
    def batches(
        self, views: Views, channels: int, world: World, damaged: Callable[[str, DamagedImage], None]
    ) -> Iterator[tuple[list[Tensor], list[int]]]:
        """Yield this rank's images, every size-th of them; none is padded, so none is counted twice.

        Args:
            channels: of the network.
            damaged: told the id of each image that cannot be read, and why; it is left out.

        Yields:
            As ``crop_views``, for each of ``views.sides`` a uint8 (n, v, C, h, w); and the n images' numbers.
        """

    @abstractmethod
    def content(self) -> str:
        """Return the identity of the images and their classes."""

    @abstractmethod
    def image(self, number: int, side: int) -> Tensor:
        """Return an image to be looked at: uint8 (C, H, W), its shorter side not much longer than ``side``.

        Raises:
            DamagedImage: when it cannot be read.
        """


class ImagesInMemory(LabelledImages):
    """A dataset in memory, on any device. Its views are to be of the images' own size."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset, [f"{dataset.name} {number}" for number in dataset.ids.tolist()])
        self.images = dataset.images

    def batches(
        self, views: Views, channels: int, world: World, damaged: Callable[[str, DamagedImage], None]
    ) -> Iterator[tuple[list[Tensor], list[int]]]:
        numbers = torch.arange(world.rank, len(self.images), world.size)
        for part in numbers.split(BATCH_IN_MEMORY[self.images.device.type]):
            yield crop_views(self.images[part.to(self.images.device)], views), part.tolist()

    def content(self) -> str:
        return identity_of(self.classes, [self.images.cpu(), self.targets.cpu()])

    def image(self, number: int, side: int) -> Tensor:
        return self.images[number].cpu()


class ImagesInFiles(LabelledImages):
    """Images in folders, of any sizes."""

    def __init__(self, index: FolderIndex) -> None:
        super().__init__(index, index.ids)
        self.index = index
        self.notes = index.notes

    def batches(
        self, views: Views, channels: int, world: World, damaged: Callable[[str, DamagedImage], None]
    ) -> Iterator[tuple[list[Tensor], list[int]]]:
        def read(number: int) -> Tensor:
            return torch.from_numpy(aside(_decoded, self.index.path(number), views.decoded_side))

        def skip(number: int, error: DamagedImage) -> None:
            damaged(self.ids[number], error)

        mine = range(world.rank, len(self.index), world.size)
        return by_shape(views_of(read, mine, views, channels, skip), BATCH)

    def content(self) -> str:
        return self.index.content()

    def image(self, number: int, side: int) -> Tensor:
        return decode(self.index.path(number), side)


def _decoded(path: Path, shorter_side: int | None) -> np.ndarray:
    # As an array: a tensor takes ten times as long from one process to another.
    return decode(path, shorter_side).numpy()


def views_of(
    read: Callable[[T], Tensor],
    items: Iterable[T],
    views: Views,
    channels: int,
    damaged: Callable[[T, DamagedImage], None],
) -> Iterator[tuple[list[Tensor], T]]:
    """Yield the views of images, read ahead by threads, and the items that they are read from, in order.

    Args:
        read: gives an item's image, uint8 (C, H, W), or raises DamagedImage.
        damaged: told of each item that cannot be read, and why; it is left out.
    """

    def crops(item: T) -> tuple[T, list[Tensor] | DamagedImage]:
        try:
            return item, crop_views(with_channels(read(item), channels), views)
        except DamagedImage as error:
            return item, error

    for item, found in in_threads(crops, items):
        if isinstance(found, DamagedImage):
            damaged(item, found)
        else:
            yield found, item
