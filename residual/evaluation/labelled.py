"""Images whose classes are known, as batches of views: from memory, or decoded from files by threads."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..data.folder import FolderIndex
from ..data.helpers import aside, few
from ..data.identity import identity_of
from ..data.images import DamagedImage, decode, read_together
from ..data.threads import in_threads
from ..distributed import World, cores
from .batching import by_shape
from .inputs import with_channels
from .views import Views, crop_views

T = TypeVar("T")

#: Images of one shape and about this size that go through the network together, each with all its views; of
#: smaller ones as many more, up to a number.
BATCH, SIZE, MOST = 32, 224, 250
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
        mine = range(world.rank, len(self.index), world.size)
        size = views.crop or max(views.sides)

        def read(places: range) -> list[list[np.ndarray]]:
            return aside(_views, self.index.paths(mine[places.start : places.stop]), views, channels)

        def seen() -> Iterator[tuple[list[Tensor], int]]:
            calls = few(len(mine), views.pixels, cores())
            for parts in in_threads(partial(read_together, read), calls):
                for places, found in parts:
                    if isinstance(found, str):
                        damaged(self.ids[mine[places.start]], DamagedImage(found))
                    else:
                        for place, crops in zip(places, found, strict=True):
                            yield [torch.from_numpy(part) for part in crops], mine[place]

        return by_shape(seen(), min(MOST, BATCH * max(1, SIZE**2 // size**2)))

    def content(self) -> str:
        return self.index.content()

    def image(self, number: int, side: int) -> Tensor:
        return decode(self.index.path(number), side)


def _views(paths: Sequence[str], views: Views, channels: int) -> list[list[np.ndarray]]:
    """Return the views of some images, each as ``crop_views`` gives them; DamagedImage for one of them."""

    def of(path: str) -> list[np.ndarray]:
        image = with_channels(decode(Path(path), views.decoded_side), channels)
        # As arrays: a tensor takes ten times as long from one process to another.
        return [part.numpy() for part in crop_views(image, views)]

    return [of(path) for path in paths]


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
