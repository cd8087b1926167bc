"""A data set that does not fit in memory, as training batches: decoded ahead by threads.

The threads read a file, decode it at a reduced scale and resize the part that was chosen, or its mirror
image; Python's lock is free meanwhile, so nothing has to be copied between processes. Mean and colour noise
are for the whole batch, on the device.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..distributed import cores
from ..errors import InputError
from ..randomness import Stream, generator
from .colour import ColourNoise
from .crops import CentreCrop, Crop
from .folder import FolderIndex
from .images import DamagedImage, decode_part
from .order import Order

#: Iterations that are decoded ahead of the one that is asked for.
AHEAD = 3


class StreamBatches:
    """The training batches of pictures in files, each a pure function of the seed and the iteration.

    A resumed run and any number of ranks see what one uninterrupted process sees (see ``Order``).

    Args:
        index: the training part.
        crop: the random part of each picture.
        prepare: from uint8 (N, 3, S, S) to the network's input.
        batch: pictures of one iteration over all ranks.
        flip: whether half of the pictures are mirrored.
        noise: the colour augmentation, None for none.
        seed: of order and augmentation.
        device: where batches are finished.
        rank, ranks: this process takes the rank-th of ``ranks`` equal stretches of each batch.
        workers: threads that decode; None for as many as there are cores for this process.
        damaged: "skip": another picture of the batch takes the place of one that cannot be read; "fatal": the
            run ends.

    Attributes:
        unreadable: what is wrong with each picture that was skipped, by its id.
        waited: seconds spent waiting for pictures.
    """

    def __init__(
        self,
        index: FolderIndex,
        crop: Crop,
        prepare: Callable[[Tensor], Tensor],
        batch: int,
        flip: bool,
        noise: ColourNoise | None,
        seed: int,
        device: torch.device,
        rank: int = 0,
        ranks: int = 1,
        workers: int | None = None,
        damaged: Literal["skip", "fatal"] = "skip",
    ) -> None:
        self.index = index
        self.crop = crop
        self.prepare = prepare
        self.batch = batch
        self.flip = flip
        self.noise = noise
        self.seed = seed
        self.device = device
        self.mine = slice(rank * batch // ranks, (rank + 1) * batch // ranks)
        self.damaged = damaged
        #: Positions in the data set of the whole batch of an iteration, int64 (batch,).
        self.indices = Order(len(index), batch, seed)
        self.unreadable: dict[str, str] = {}
        self.waited = 0.0
        self._pool = ThreadPoolExecutor(workers or cores(), "decode")
        #: The iterations under way, in order: number, pixels, one future a picture.
        self._under_way: deque[tuple[int, np.ndarray, list[Future[str | None]]]] = deque()

    def __len__(self) -> int:
        """Batches of an epoch, rounded up."""
        return len(self.indices)

    def __call__(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return this rank's inputs, float (n, 3, S, S) channels-last, and targets, int64 (n,).

        Raises:
            DamagedImage: for a picture that cannot be read, if those are fatal.
            InputError: when no picture of the batch can be read.
        """
        if not self._under_way or self._under_way[0][0] != iteration:
            self.close()
        first = self._under_way[-1][0] + 1 if self._under_way else iteration
        for number in range(first, iteration + AHEAD):
            self._under_way.append(self._begin(number))
        _, pixels, futures = self._under_way.popleft()
        start = time.perf_counter()
        reasons = [future.result() for future in futures]
        self.waited += time.perf_counter() - start
        chosen = self.indices(iteration)[self.mine]
        places = self._replace(chosen, reasons)
        targets = self.index.targets[chosen[places]]
        images = torch.from_numpy(pixels if places == list(range(len(places))) else pixels[places])
        return self._finish(iteration, images.permute(0, 3, 1, 2)), targets.to(self.device)

    def close(self) -> None:
        """Drop what is under way; the next call starts anew."""
        for _, _, futures in self._under_way:
            for future in futures:
                future.cancel()
        self._under_way.clear()

    def _begin(self, iteration: int) -> tuple[int, np.ndarray, list[Future[str | None]]]:
        random = self._random(iteration, 0)
        numbers = torch.rand(self.batch, self.crop.numbers, generator=random)[self.mine]
        mirrored = (torch.rand(self.batch, generator=random)[self.mine] < 0.5).tolist()
        chosen = self.indices(iteration)[self.mine].tolist()
        pixels = np.empty((len(chosen), self.crop.size, self.crop.size, 3), np.uint8)
        futures = [
            self._pool.submit(
                self._read, position, numbers[place], self.flip and mirrored[place], pixels[place]
            )
            for place, position in enumerate(chosen)
        ]
        return iteration, pixels, futures

    def _read(self, position: int, numbers: Tensor, mirrored: bool, out: np.ndarray) -> str | None:
        """Fill ``out`` with the part of a picture; return what is wrong with its file, if something is."""
        try:
            decode_part(self.index.path(position), self.crop.cut(numbers), out, mirrored)
        except DamagedImage as error:
            return str(error)
        return None

    def _replace(self, chosen: Tensor, reasons: list[str | None]) -> list[int]:
        """Return for each place of the batch that of a picture that could be read: itself, if it could."""
        for position, reason in zip(chosen.tolist(), reasons, strict=True):
            if reason is not None:
                if self.damaged == "fatal":
                    raise DamagedImage(f"{reason}; mend or remove it, or set data.folder.damaged=skip")
                self.unreadable[self.index.ids[position]] = reason
        good = [place for place, reason in enumerate(reasons) if reason is None]
        if not good:
            raise InputError(f"none of the {len(reasons)} pictures of a batch can be read; {reasons[0]}")
        # The nearest good one after it, round the end of the batch.
        return [
            place if reasons[place] is None else next((g for g in good if g > place), good[0])
            for place in range(len(reasons))
        ]

    def _finish(self, iteration: int, images: Tensor) -> Tensor:
        """Subtract the mean and add colour noise, on the device."""
        if self.device.type == "cuda":
            images = images.pin_memory()
        inputs = self.prepare(images.to(self.device, non_blocking=True))
        if self.noise:
            shifts = self.noise.shifts(self.batch, self._random(iteration, 1))[self.mine].to(self.device)
            std = getattr(self.prepare, "std", None)
            # A row each, in the inputs' layout: the innermost dimension, channels, is too short to loop over.
            rows = (shifts if std is None else shifts / std).expand(-1, -1, -1, self.crop.size)
            inputs += rows.contiguous(memory_format=torch.channels_last)
        return inputs

    def _random(self, iteration: int, use: int) -> torch.Generator:
        return generator(self.seed, Stream.CROPS, iteration, use)


def in_order(
    index: FolderIndex, crop: CentreCrop, batch: int, rank: int = 0, ranks: int = 1
) -> Iterator[tuple[Tensor, Tensor, dict[str, str]]]:
    """Yield a part's pictures once, in order: for testing.

    Args:
        crop: the view of each picture.
        batch: pictures at a time, fewer where some cannot be read and at the end.
        rank, ranks: every ranks-th picture from the rank-th on; none is counted twice.

    Yields:
        uint8 (n, 3, S, S), the targets, int64 (n,), and what is wrong with unreadable pictures, by id.
    """
    mine = range(rank, len(index), ranks)
    stretches = [mine[start : start + batch] for start in range(0, len(mine), batch)]

    def read(position: int) -> np.ndarray | str:
        try:
            return decode_part(index.path(position), crop.cut())
        except DamagedImage as error:
            return str(error)

    with ThreadPoolExecutor(cores(), "decode") as pool:
        ahead: deque[list[Future[np.ndarray | str]]] = deque()
        for number, stretch in enumerate(stretches):
            for positions in stretches[number + len(ahead) : number + 2]:
                ahead.append([pool.submit(read, position) for position in positions])
            found = [future.result() for future in ahead.popleft()]
            good = [position for position, x in zip(stretch, found, strict=True) if not isinstance(x, str)]
            pixels = [torch.from_numpy(np.array(x)) for x in found if not isinstance(x, str)]
            wrong = {index.ids[p]: x for p, x in zip(stretch, found, strict=True) if isinstance(x, str)}
            images = (
                torch.stack(pixels) if pixels else torch.empty(0, crop.size, crop.size, 3, dtype=torch.uint8)
            )
            yield images.permute(0, 3, 1, 2), index.targets[good], wrong
