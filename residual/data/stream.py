"""A dataset that does not fit in memory, as training batches: decoded ahead by threads.

The threads read a file, decode it at a reduced scale and resize the part that was chosen, or its flip. Mean
and colour noise are for the whole batch, on the device.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..randomness import Stream, generator
from .colour import ColourNoise
from .crops import Crop
from .folder import FolderIndex
from .images import DamagedImage, decode_part
from .order import OrderedBatches
from .threads import Prefetch

#: Iterations under way, the one that is asked for among them.
AHEAD = 3


class StreamBatches(OrderedBatches):
    """The training batches of images in files.

    Args, beside those of ``OrderedBatches``:
        index: the training split.
        crop: the random part of each image.
        prepare: from uint8 (N, 3, S, S) to the network's input.
        noise: the colour augmentation, None for none.
        device: where batches are finished.
        workers: threads that decode; None for as many as there are cores for this process.
        damaged: "skip": another image of the batch takes the place of one that cannot be read; "fatal": the
            run ends.
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
        super().__init__(len(index), batch, flip, seed, rank, ranks)
        self.index = index
        self.crop = crop
        self.prepare = prepare
        self.noise = noise
        self.device = device
        self.damaged = damaged
        self.prefetch: Prefetch[np.ndarray, str | None] = Prefetch(self._begin, AHEAD, workers)

    def __call__(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return this rank's inputs, float (n, 3, S, S) channels-last, and targets, int64 (n,).

        Raises:
            DamagedImage: for an image that cannot be read, if those are fatal.
            InputError: when no image of the batch can be read.
        """
        pixels, reasons = self.prefetch(iteration)
        chosen = self.indices(iteration)[self.mine]
        places = self._replace(chosen, reasons)
        targets = self.index.targets[chosen[places]]
        images = torch.from_numpy(pixels if places == list(range(len(places))) else pixels[places])
        return self._finish(iteration, images.permute(0, 3, 1, 2)), targets.to(self.device)

    def _begin(self, iteration: int) -> tuple[np.ndarray, list[Callable[[], str | None]]]:
        random = self._random(iteration, 0)
        numbers = torch.rand(self.batch, self.crop.numbers, generator=random)[self.mine]
        flipped = (torch.rand(self.batch, generator=random)[self.mine] < 0.5).tolist()
        chosen = self.indices(iteration)[self.mine].tolist()
        pixels = np.empty((len(chosen), self.crop.size, self.crop.size, 3), np.uint8)
        return pixels, [
            partial(self._read, position, numbers[place], self.flip and flipped[place], pixels[place])
            for place, position in enumerate(chosen)
        ]

    def _read(self, position: int, numbers: Tensor, flipped: bool, out: np.ndarray) -> str | None:
        """Fill ``out`` with the part of an image; return what is wrong with its file, if something is."""
        try:
            decode_part(self.index.path(position), self.crop.at(numbers), out, flipped)
        except DamagedImage as error:
            return str(error)
        return None

    def _replace(self, chosen: Tensor, reasons: list[str | None]) -> list[int]:
        """Return for each place of the batch that of an image that could be read: itself, if it could."""
        for position, reason in zip(chosen.tolist(), reasons, strict=True):
            if reason is not None:
                if self.damaged == "fatal":
                    raise DamagedImage(f"{reason}; mend or remove it, or set data.folder.damaged=skip")
                self.unreadable[self.index.ids[position]] = reason
        good = [place for place, reason in enumerate(reasons) if reason is None]
        if not good:
            raise InputError(f"none of the {len(reasons)} images of a batch can be read; {reasons[0]}")
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
