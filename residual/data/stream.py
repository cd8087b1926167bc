"""A dataset that does not fit in memory, as training batches: decoded ahead by threads.

The threads read a file, decode it at a reduced scale and resize the part that was chosen, or its flip. Mean
and colour noise are for the whole batch, on the device.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..device import send
from ..distributed import cores
from ..randomness import Stream, generator
from .colour import ColourNoise
from .crops import Crop, read_parts
from .folder import FolderIndex
from .helpers import aside, few
from .images import DamagedImage, fatal, read_together
from .order import OrderedBatches
from .threads import Prefetch

#: Iterations under way at least, the one that is asked for among them, and calls under way for each thread.
AHEAD = 3
CALLS = 2


class StreamBatches(OrderedBatches):
    """The training batches of images in files.

    Args, beside those of ``OrderedBatches``:
        index: the training split.
        crop: the random part of each image.
        prepare: from uint8 (N, 3, S, S) to the network's input.
        noise: the colour augmentation, None for none.
        device: where batches are finished.
        workers: threads that decode; None for as many as there are cores for this process.
        damaged: "skip": another image of the batch takes the place of one that cannot be read, or the next
            ones of the order where none can; "fatal": the run ends.
        balanced: whether all classes are equally frequent.
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
        balanced: bool = False,
    ) -> None:
        super().__init__(len(index), batch, flip, seed, rank, ranks, index.targets if balanced else None)
        self.index = index
        self.crop = crop
        self.prepare = prepare
        self.noise = noise
        self.device = device
        self.damaged = damaged
        calls = len(few(self.mine.stop - self.mine.start, crop.size**2))
        ahead = max(AHEAD, -(-CALLS * (workers or cores()) // max(1, calls)))
        self.prefetch: Prefetch[np.ndarray, list[str | None]] = Prefetch(self._begin, ahead, workers)

    def __call__(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return this rank's inputs, float (n, 3, S, S) channels-last, and targets, int64 (n,).

        Raises:
            DamagedImage: for an image that cannot be read, if those are fatal.
            InputError: when no image at all can be read.
        """
        return self.finish(*(send(part, self.device) for part in self.read(iteration)))

    @property
    def size(self) -> int:
        """The side of the images."""
        return self.crop.size

    def read(self, iteration: int) -> tuple[Tensor, ...]:
        """Return what ``finish`` takes, on the CPU: always the same shapes.

        Returns:
            Pixels, uint8 (n, 3, S, S) channels-last; targets, int64 (n,); and, where there is colour noise,
            what it adds, float (n, 3, 1, 1).

        Raises:
            DamagedImage, InputError: as ``__call__``.
        """
        pixels, found = self.prefetch(iteration)
        reasons = [reason for few in found for reason in few]
        chosen = self.indices(iteration)[self.mine]
        self._note(chosen.tolist(), reasons)
        if None not in reasons:
            chosen, reasons = self._from_later(iteration, pixels)
        places = _places(reasons)
        targets = self.index.targets[chosen[places]]
        images = torch.from_numpy(pixels if places == list(range(len(places))) else pixels[places])
        parts = images.permute(0, 3, 1, 2), targets
        if self.noise is None:
            return parts
        return *parts, self.noise.shifts(self.batch, self._random(iteration, 1))[self.mine]

    def _begin(self, iteration: int) -> tuple[np.ndarray, list[Callable[[], list[str | None]]]]:
        numbers, flipped = self._draws(iteration)
        chosen = self.indices(iteration)[self.mine].tolist()
        pixels = np.empty((len(chosen), self.crop.size, self.crop.size, 3), np.uint8)
        return pixels, [
            partial(self._read, chosen, numbers, flipped, pixels, places)
            for places in few(len(chosen), self.crop.size**2)
        ]

    def _draws(self, iteration: int) -> tuple[Tensor, list[bool]]:
        """Return the numbers that choose each image's part, and whether it is flipped."""
        random = self._random(iteration, 0)
        numbers = torch.rand(self.batch, self.crop.numbers, generator=random)[self.mine]
        flipped = (torch.rand(self.batch, generator=random)[self.mine] < 0.5).tolist()
        return numbers, [self.flip and one for one in flipped]

    def _read(
        self, positions: list[int], numbers: Tensor, flipped: list[bool], out: np.ndarray, places: range
    ) -> list[str | None]:
        """Fill places of ``out`` with parts of images; return what is wrong with each, if something is."""

        def read(places: range) -> None:
            some = slice(places.start, places.stop)
            paths, drawn = self.index.paths(positions[some]), numbers[some].numpy()
            out[some] = aside(read_parts, paths, self.crop, drawn, flipped[some])

        return [reason for some, reason in read_together(read, places) for _ in some]

    def _note(self, chosen: list[int], reasons: Sequence[str | None]) -> None:
        """Remember what is wrong with the images that could not be read, or end the run."""
        for position, reason in zip(chosen, reasons, strict=True):
            if reason is not None:
                if self.damaged == "fatal":
                    raise DamagedImage(fatal(reason, "data.folder.damaged"))
                self.unreadable[self.index.ids[position]] = reason

    def _from_later(self, iteration: int, pixels: np.ndarray) -> tuple[Tensor, list[str | None]]:
        """Fill a batch of which no image can be read with the next images of the order that can.

        Returns:
            Their positions, and for each place of the batch None where it was filled.
        """
        numbers, flipped = self._draws(iteration)
        found: list[int] = []
        # Two epochs hold every image, wherever one begins.
        for later in range(iteration + 1, iteration + 1 + 2 * len(self)):
            for position in self.indices(later).tolist():
                place = len(found)
                if place == len(pixels):
                    break
                if self.index.ids[position] in self.unreadable:
                    continue
                here = slice(place, place + 1)
                (reason,) = self._read([position], numbers[here], flipped[here], pixels[here], range(1))
                self._note([position], [reason])
                if reason is None:
                    found.append(position)
        if not found:
            first = next(iter(self.unreadable.values()))
            raise DamagedImage(
                f"none of the {len(self.index):,} images of {self.index.name} can be read; {first}"
            )
        missing = len(pixels) - len(found)
        return torch.tensor(found + found[:1] * missing), [None] * len(found) + ["no other image"] * missing

    def finish(self, *parts: Tensor) -> tuple[Tensor, Tensor]:
        """Subtract the mean and add colour noise, on the device that the parts have been sent to."""
        pixels, targets, *shifts = parts
        inputs = self.prepare(pixels)
        for shift in shifts:
            std = getattr(self.prepare, "std", None)
            # A row each, in the inputs' layout: the innermost dimension, channels, is too short to loop over.
            rows = (shift if std is None else shift / std).expand(-1, -1, -1, self.crop.size)
            inputs += rows.contiguous(memory_format=torch.channels_last)
        return inputs, targets

    def _random(self, iteration: int, use: int) -> torch.Generator:
        return generator(self.seed, Stream.CROPS, iteration, use)


def _places(reasons: Sequence[str | None]) -> list[int]:
    """Return for each place of a batch that of an image that could be read: itself, if it could."""
    good = [place for place, reason in enumerate(reasons) if reason is None]
    # The nearest good one after it, round the end of the batch.
    return [
        place if reasons[place] is None else next((g for g in good if g > place), good[0])
        for place in range(len(reasons))
    ]
