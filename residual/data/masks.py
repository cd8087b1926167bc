"""Masks of objects: which pixels of an image are an object's.

What annotations have, polygons, run lengths or an image of instances, becomes one thing: run lengths as COCO
compresses them, as large as the image. They take some hundred bytes an object, and pycocotools' arithmetic
takes them as they are.
"""

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import needs
from .images import decode_numbers, turned_pixels

#: In an image of instances: the pixels between objects, which are neither object nor background.
VOID = 255


@dataclass(frozen=True)
class Mask:
    """An object's pixels.

    Attributes:
        size: the image's height and width.
        counts: run lengths, column after column, as COCO compresses them.
    """

    size: tuple[int, int]
    counts: bytes

    @property
    def rle(self) -> dict[str, Any]:
        """As pycocotools takes it."""
        return {"size": list(self.size), "counts": self.counts}

    def as_json(self) -> dict[str, Any]:
        """Return it as COCO's result files have it."""
        return {"size": list(self.size), "counts": self.counts.decode("ascii")}


@dataclass(frozen=True)
class Outline:
    """An object's mask as its annotation has it, before it is checked: polygons, or run lengths.

    Attributes:
        polygons: x1, y1, x2, y2, ... of each part.
        size: height and width of the run lengths.
        runs: their lengths, zeros first; or as COCO compresses them.
    """

    polygons: tuple[tuple[float, ...], ...] = ()
    size: tuple[int, int] | None = None
    runs: tuple[int, ...] | str = ()


def check_masks() -> None:
    """Raise an InputError where pycocotools is not installed."""
    if importlib.util.find_spec("pycocotools") is None:
        raise needs("masks", "pycocotools", "detection")


def as_mask(shape: Outline | Mask, width: int, height: int) -> Mask:
    """Return an annotation's mask on its image of width x height pixels.

    Raises:
        ValueError: saying what is wrong with it.
    """
    from pycocotools import mask

    if isinstance(shape, Mask):
        found = shape
        if shape.size != (height, width):
            raise ValueError(
                f"it is of an image of {shape.size[1]} x {shape.size[0]}, not {width} x {height}"
            )
    elif shape.size is not None:
        if shape.size != (height, width):
            raise ValueError(
                f"its run lengths are of {shape.size[1]} x {shape.size[0]} pixels, not {width} x {height}"
            )
        runs = _uncompressed(shape.runs) if isinstance(shape.runs, str) else list(shape.runs)
        if min(runs, default=-1) < 0 or sum(runs) != width * height:
            raise ValueError("its run lengths do not add up to the image")
        found = _mask(mask.frPyObjects({"size": [height, width], "counts": runs}, height, width))
    else:
        _check_polygons(shape.polygons, width, height)
        found = _mask(mask.merge(mask.frPyObjects([list(part) for part in shape.polygons], height, width)))
    if not mask.area(found.rle):
        raise ValueError("it covers no pixel")
    return found


def turned_mask(shape: Mask, orientation: int) -> Mask:
    """Return a mask of an image as it is stored, as it is when the image is upright.

    Args:
        orientation: the image's EXIF orientation.
    """
    pixels = turned_pixels(masks_as_pixels([shape], shape.size)[0].numpy(), orientation)
    return encode(torch.from_numpy(pixels.copy())[None])[0]


def masks_as_pixels(masks: Sequence[Mask], size: tuple[int, int]) -> Tensor:
    """Return masks as uint8 (M, H, W), 1 where the object is.

    Args:
        size: height and width, for no masks at all.
    """
    from pycocotools import mask

    if not masks:
        return torch.zeros(0, *size, dtype=torch.uint8)
    # (H, W, M), column after column in memory: as (M, W, H) it is in order.
    return torch.from_numpy(mask.decode([one.rle for one in masks]).T).transpose(1, 2)


def encode(pixels: Tensor) -> list[Mask]:
    """Return masks of pixels, bool or uint8 (M, H, W)."""
    from pycocotools import mask

    # (H, W, M), column after column in memory.
    columns = pixels.to(torch.uint8).transpose(1, 2).contiguous().numpy().T
    return [_mask(one) for one in mask.encode(columns)] if len(pixels) else []


def box_mask(corners: Sequence[float], size: tuple[int, int]) -> Mask:
    """Return the mask of a box x1, y1, x2, y2 on an image of (height, width)."""
    from pycocotools import mask

    x1, y1, x2, y2 = corners
    return _mask(mask.frPyObjects(np.array([[x1, y1, x2 - x1, y2 - y1]], np.float64), *size)[0])


def box_around(shape: Mask) -> tuple[float, float, float, float]:
    """Return the box x1, y1, x2, y2 around a mask."""
    from pycocotools import mask

    x, y, width, height = mask.toBbox(shape.rle).tolist()
    return x, y, x + width, y + height


def area(shape: Mask) -> int:
    """Return the number of a mask's pixels."""
    from pycocotools import mask

    return int(mask.area(shape.rle))


def read_instances(file: Path) -> dict[int, Mask]:
    """Return the masks of an image of instances, whose pixels are objects' numbers, by these numbers.

    0 is the background, and what is 255 is neither.

    Raises:
        DamagedImage: when it cannot be read, or its pixels are colours.
    """
    numbers = decode_numbers(file)
    found = [int(number) for number in np.unique(numbers) if number not in (0, VOID)]
    # One after the other: of a large image with many objects all together would fill the memory.
    return {number: encode(torch.from_numpy(numbers == number)[None])[0] for number in found}


def as_instances(masks: Sequence[Mask], size: tuple[int, int]) -> NDArray[np.generic]:
    """Return an image of instances, (H, W): where several masks are, the first counts.

    The first mask's number is 1. They have 8 bits, 16 where there are more than 254 masks; none is 255.
    """
    kind = np.uint8 if len(masks) < VOID else np.uint16
    numbers = np.zeros(size, kind)
    for number, one in reversed(list(enumerate(masks, start=1))):
        numbers[masks_as_pixels([one], size)[0].numpy() > 0] = number + (number >= VOID)
    return numbers


def _mask(rle: dict[str, Any]) -> Mask:
    height, width = rle["size"]
    return Mask((int(height), int(width)), rle["counts"])


def _check_polygons(polygons: Sequence[Sequence[float]], width: int, height: int) -> None:
    if not polygons:
        raise ValueError("it has no polygon")
    for part in polygons:
        if len(part) < 6 or len(part) % 2:
            raise ValueError("one of its polygons is not three points at least")
        # What draws them counts along their edges: of far corners for ever.
        for values, side in ((part[::2], width), (part[1::2], height)):
            if not all(math.isfinite(value) and -side <= value <= 2 * side for value in values):
                raise ValueError(f"one of its polygons is far outside the image of {width} x {height}")


def _uncompressed(text: str) -> list[int]:
    """Return the lengths in a compressed text (pycocotools' ``rleFrString``, which trusts what it reads).

    Five bits a letter, the sixth says that more follow; from the fourth length on they are differences to the
    last but one.

    Raises:
        ValueError: where it is none.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError("its run lengths are damaged")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its run lengths are cut off")
    return runs
