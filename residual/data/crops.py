"""Random parts of large images: the paper's scale augmentation, and the crops that came later.

Each is given uniform random numbers, drawn beforehand as a pure function of the iteration, and the image's
size, which is known only when its file is open.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .images import CropFunction, decode_part


class Crop(Protocol):
    """A way to choose a part of an image.

    Attributes:
        size: side of the square that the part is resized to.
        numbers: how many uniform random numbers an image needs.
    """

    @property
    def size(self) -> int: ...

    @property
    def numbers(self) -> int: ...

    def at(self, numbers: Tensor) -> CropFunction:
        """Return the part that ``numbers``, float (self.numbers,) in [0, 1), choose."""
        ...


def read_parts(
    paths: Sequence[str | Path], crop: Crop, numbers: np.ndarray, flipped: Sequence[bool]
) -> np.ndarray:
    """Return the parts of n images, uint8 (n, S, S, 3).

    Args:
        numbers: uniform random ones, float32 (n, crop.numbers).

    Raises:
        DamagedImage: for the first image that cannot be read.
    """
    pixels = np.empty((len(paths), crop.size, crop.size, 3), np.uint8)
    for path, mine, flip, out in zip(paths, torch.from_numpy(numbers), flipped, pixels, strict=True):
        decode_part(Path(path), crop.at(mine), out, flip)
    return pixels


@dataclass(frozen=True)
class ScaleCrop:
    """Section 3.4: the shorter side is sampled in [low, high], then a square of ``size`` is cropped anywhere.

    An image smaller than the crop at its scale cannot be, since low >= size.
    """

    size: int = 224
    low: int = 256
    high: int = 480
    numbers: int = 3

    def at(self, numbers: Tensor) -> CropFunction:
        scale, across, down = numbers.tolist()
        # Whole sides, low and high among them.
        side = self.low + int(scale * (self.high - self.low + 1))

        def part(width: int, height: int) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
            # The size of the whole image at this scale, in whole pixels, as a resized image has it.
            wide, high = scaled(width, height, side)
            left, top = int(across * (wide - self.size + 1)), int(down * (high - self.size + 1))
            x, y = width / wide, height / high
            box = (left * x, top * y, (left + self.size) * x, (top + self.size) * y)
            return box, (self.size, self.size)

        return part


@dataclass(frozen=True)
class ResizedCrop:
    """A rectangle of 8 to 100 % of the area and a ratio of sides of 3/4 to 4/3, resized to a square.

    Not in the paper: the usual augmentation of later years (Szegedy et al., 2015), for fine-tuning.
    """

    size: int = 224
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    tries: int = 10

    @property
    def numbers(self) -> int:
        return 2 * self.tries + 2

    def at(self, numbers: Tensor) -> CropFunction:
        values = numbers.tolist()
        across, down = values[-2:]

        def part(width: int, height: int) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
            size = (self.size, self.size)
            for a, r in zip(values[: self.tries], values[self.tries : -2], strict=True):
                area = width * height * (self.area[0] + a * (self.area[1] - self.area[0]))
                low, high = map(math.log, self.ratio)
                ratio = math.exp(low + r * (high - low))
                wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
                if 0 < wide <= width and 0 < tall <= height:
                    left, top = int(across * (width - wide + 1)), int(down * (height - tall + 1))
                    return (left, top, left + wide, top + tall), size
            # No rectangle fitted: the largest one in the middle whose ratio is allowed.
            wide = min(width, round(height * self.ratio[1]))
            tall = min(height, round(wide / self.ratio[0]))
            left, top = (width - wide) // 2, (height - tall) // 2
            return (left, top, left + wide, top + tall), size

        return part


def scaled(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the size of an image whose shorter side becomes ``side``, the longer one rounded down."""
    if width <= height:
        return side, max(side, int(side * height / width))
    return max(side, int(side * width / height)), side
