"""Pictures with boxes as training batches, decoded ahead by threads; and in order, for testing."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..distributed import cores
from ..errors import InputError
from ..randomness import Stream, generator, mix
from .boxes import BoxDataset, Photo
from .images import DamagedImage, decode, decode_part
from .order import Order

#: Iterations, and in testing pictures, that are decoded ahead of the one that is asked for.
AHEAD = 4
#: Pictures tried in turn for one place in a batch before the run gives up.
TRIES = 100


@dataclass(frozen=True)
class Loaded:
    """A picture as the network sees it, and what is on it.

    Attributes:
        image: uint8 (3, h, w).
        boxes: of the objects to learn, float32 (M, 4), in its pixels.
        labels: int64 (M,).
        crowds: regions that are neither object nor background, float32 (C, 4).
        seed: of random choices among its regions: a function of the iteration and the place in the batch.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    crowds: Tensor
    seed: int


class PhotoBatches:
    """The training batches, each a pure function of the seed and the iteration.

    Args:
        dataset: the training part.
        size: from a picture's upright width and height to those of the network's input.
        batch: pictures of one iteration over all ranks.
        flip: whether half of the pictures are mirrored.
        seed: of order and mirroring.
        rank, ranks: this process takes the rank-th of ``ranks`` equal stretches of each batch.
        damaged: "skip": the next picture of the data set takes the place of one that cannot be read; "fatal":
            the run ends.

    Attributes:
        unreadable: what is wrong with each picture that was skipped, by its id.
        waited: seconds spent waiting for pictures.
    """

    def __init__(
        self,
        dataset: BoxDataset,
        size: Callable[[int, int], tuple[int, int]],
        batch: int,
        flip: bool,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        damaged: Literal["skip", "fatal"] = "skip",
    ) -> None:
        self.dataset = dataset
        self.size = size
        self.batch = batch
        self.flip = flip
        self.seed = seed
        self.mine = range(rank * batch // ranks, (rank + 1) * batch // ranks)
        self.damaged = damaged
        self.indices = Order(len(dataset), batch, seed)
        self.unreadable: dict[str, str] = {}
        self.waited = 0.0
        self._pool = ThreadPoolExecutor(cores(), "decode")
        self._under_way: deque[tuple[int, list[Future[Loaded]]]] = deque()

    def __len__(self) -> int:
        """Batches of an epoch, rounded up."""
        return len(self.indices)

    def __call__(self, iteration: int) -> list[Loaded]:
        """Return this rank's pictures.

        Raises:
            DamagedImage: for a picture that cannot be read, if those are fatal.
            InputError: when hardly any picture can be read.
        """
        if not self._under_way or self._under_way[0][0] != iteration:
            self.close()
        first = self._under_way[-1][0] + 1 if self._under_way else iteration
        for number in range(first, iteration + AHEAD):
            self._under_way.append((number, self._begin(number)))
        _, futures = self._under_way.popleft()
        start = time.perf_counter()
        loaded = [future.result() for future in futures]
        self.waited += time.perf_counter() - start
        return loaded

    def close(self) -> None:
        """Drop what is under way; the next call starts anew."""
        for _, futures in self._under_way:
            for future in futures:
                future.cancel()
        self._under_way.clear()

    def _begin(self, iteration: int) -> list[Future[Loaded]]:
        mirrored = torch.rand(self.batch, generator=generator(self.seed, Stream.CROPS, iteration)) < 0.5
        positions = self.indices(iteration)
        return [
            self._pool.submit(
                self._load,
                int(positions[place]),
                self.flip and bool(mirrored[place]),
                # 62 bits: what draws from it may need several sequences.
                mix(self.seed, Stream.REGIONS, iteration, place) >> 1,
            )
            for place in self.mine
        ]

    def _load(self, position: int, mirrored: bool, seed: int) -> Loaded:
        last = ""
        for attempt in range(min(TRIES, len(self.dataset))):
            photo = self.dataset.photos[(position + attempt) % len(self.dataset)]
            try:
                return load(photo, self.size, mirrored, seed)
            except InputError as error:
                if self.damaged == "fatal":
                    raise InputError(f"{error}; mend or remove it, or set data.damaged=skip") from None
                self.unreadable[photo.id] = last = str(error)
        raise InputError(
            f"{self.dataset.name}: none of {TRIES} pictures in a row can be read; the last: {last}"
        )


def load(photo: Photo, size: Callable[[int, int], tuple[int, int]], mirrored: bool, seed: int) -> Loaded:
    """Read a picture at the size that the network sees, its boxes with it.

    Raises:
        DamagedImage: when the file cannot be read, or has not the size that its annotation says.
        InputError: as ``size`` does.
    """

    def whole(width: int, height: int) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
        check_size(photo, width, height)
        return (0, 0, width, height), size(width, height)

    pixels = torch.from_numpy(decode_part(photo.path, whole).copy()).permute(2, 0, 1)
    height, width = pixels.shape[1:]
    x, y = width / photo.size[0], height / photo.size[1]
    boxes = photo.boxes * torch.tensor([x, y, x, y])
    if mirrored:
        pixels = pixels.flip(2)
        boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
    wanted = photo.wanted
    return Loaded(pixels.contiguous(), boxes[wanted], photo.labels[wanted], boxes[photo.crowd], seed)


def check_size(photo: Photo, width: int, height: int) -> None:
    """Raise a DamagedImage where a picture has not the size that its annotation says."""
    if (width, height) != photo.size:
        raise DamagedImage(
            f"{photo.path} has {width} x {height} pixels and its annotation says {photo.size[0]} x "
            f"{photo.size[1]}, so its boxes do not fit it"
        )


def in_order(
    dataset: BoxDataset, rank: int = 0, ranks: int = 1
) -> Iterator[tuple[int, Photo, Tensor | DamagedImage]]:
    """Yield every ``ranks``-th picture at full size, uint8 (3, H, W), or what is wrong with it."""
    numbers = range(rank, len(dataset), ranks)

    def read(photo: Photo) -> Tensor | DamagedImage:
        try:
            image = decode(photo.path)
            check_size(photo, image.shape[2], image.shape[1])
        except DamagedImage as error:
            return error
        return image

    with ThreadPoolExecutor(cores(), "decode") as pool:
        under_way: deque[tuple[int, Future[Tensor | DamagedImage]]] = deque()
        ahead = iter(numbers)
        for number in numbers:
            while len(under_way) < AHEAD and (new := next(ahead, None)) is not None:
                under_way.append((new, pool.submit(read, dataset.photos[new])))
            due, future = under_way.popleft()
            assert due == number
            yield number, dataset.photos[number], future.result()
