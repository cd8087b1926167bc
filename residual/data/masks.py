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

#: In an image of instances of 8 bits: the pixels between objects, which are none's.
VOID = 255
#: Pixels of an image, and steps along a polygon's edges, beyond which pycocotools' numbers or the memory end.
MOST_PIXELS, MOST_STEPS = 1 << 29, 1 << 22
#: So much of the box around a mask lies in its object's box at least; else it is another one's.
FITS = 0.5


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


def has_pycocotools() -> bool:
    """Whether COCO's average precision and masks can be computed."""
    return importlib.util.find_spec("pycocotools") is not None


def check_pycocotools(what: str) -> None:
    """Raise an InputError where pycocotools is not installed: better before hours of work than after.

    Args:
        what: needs it, as "COCO AP".
    """
    if not has_pycocotools():
        raise needs(what, "pycocotools", "detection")


def as_mask(shape: Outline | Mask, width: int, height: int) -> Mask:
    """Return an annotation's mask on its image of width x height pixels.

    Raises:
        ValueError: saying what is wrong with it.
    """
    from pycocotools import mask

    if width * height >= MOST_PIXELS:
        raise ValueError(f"an image of {width} x {height} pixels is too large for masks")
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
    return encode(turned_pixels(masks_as_pixels([shape], shape.size)[0].numpy(), orientation))


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


def encode(
    pixels: NDArray[np.generic], top: int = 0, left: int = 0, size: tuple[int, int] | None = None
) -> Mask:
    """Return the mask of some pixels, (h, w), what is not 0 is the object's.

    Args:
        top, left: where on the image they are; nothing else is the object's.
        size: height and width of the image, None for their own.
    """
    from pycocotools import mask

    height, width = size or pixels.shape
    inside = np.pad((pixels != 0).astype(np.int8).T, ((0, 0), (1, 1)))
    steps = np.diff(inside, axis=1)
    # Columns and rows, in the order of the run lengths.
    begins, ends = (
        (left + columns) * height + top + rows
        for columns, rows in (np.nonzero(steps == 1), np.nonzero(steps == -1))
    )
    # What ends at the bottom of a column may go on at the top of the next.
    apart = begins[1:] != ends[:-1]
    edges = np.stack(
        [begins[np.r_[True, apart][: len(begins)]], ends[np.r_[apart, True][: len(ends)]]], axis=1
    )
    runs = np.diff(edges.ravel(), prepend=0, append=height * width).tolist()
    if not runs[-1]:
        runs.pop()
    return _mask(mask.frPyObjects({"size": [height, width], "counts": runs}, height, width))


def crop_of(shape: Mask, step: int = 1) -> tuple[NDArray[np.uint8], int, int]:
    """Return how much of each place is a mask's, from 0 to 255, around it, (h, w), and its top and left.

    Around it is a margin of zeros.

    Args:
        step: pixels of a place in each direction; the first place begins at the image's corner.
    """
    from pycocotools import mask

    x1, y1, x2, y2 = (int(edge) for edge in box_around(shape))
    top, left, bottom, right = y1 // step, x1 // step, -(-y2 // step), -(-x2 // step)
    pixels = mask.decode(shape.rle)[top * step : bottom * step, left * step : right * step]
    over = [
        (0, length * step - there)
        for length, there in zip((bottom - top, right - left), pixels.shape, strict=True)
    ]
    parts = np.pad(pixels, over).reshape(bottom - top, step, right - left, step)
    shares = (255 * parts.mean(axis=(1, 3))).round().astype(np.uint8) if step > 1 else 255 * parts[:, 0, :, 0]
    return np.pad(shares, 1), top - 1, left - 1


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


def read_instances(file: Path, places: Sequence[int]) -> tuple[dict[int, Mask], list[int]]:
    """Return masks out of an image of instances, whose pixels are objects' numbers, by these numbers.

    0 is the background, and what is 255 beside other numbers of 8 bits is no object's.

    Args:
        places: numbers of the objects that there are.

    Returns:
        The masks, and other numbers that pixels have.

    Raises:
        DamagedImage: when it cannot be read, or its pixels are colours.
    """
    from scipy.ndimage import find_objects

    numbers = decode_numbers(file)
    there = set(np.unique(numbers).tolist()) - {0}
    if len(there) > 1 and numbers.dtype == np.uint8:
        # Alone it is what programs write that know an object and the background.
        there.discard(VOID)
    known = np.where(np.isin(numbers, list(places)), numbers, 0).astype(np.int32)
    found = {}
    for number, part in enumerate(find_objects(known), start=1):
        if number in there and part is not None:
            rows, columns = part
            inside = known[part] == number
            found[number] = encode(inside, rows.start, columns.start, numbers.shape)
    return found, sorted(there - found.keys())


def as_instances(masks: Sequence[Mask], size: tuple[int, int]) -> NDArray[np.generic]:
    """Return an image of instances, (H, W): where several masks are, the first counts.

    The first mask's number is 1. Numbers have 8 bits, or 16 where there are more than 254 masks.
    """
    numbers = np.zeros(size, np.uint8 if len(masks) < VOID else np.uint16)
    for number, one in reversed(list(enumerate(masks, start=1))):
        numbers[masks_as_pixels([one], size)[0].numpy() > 0] = number
    return numbers


def fits(shape: Mask, corners: Sequence[float]) -> bool:
    """Whether a mask lies in a box x1, y1, x2, y2 for the most part."""
    x1, y1, x2, y2 = box_around(shape)
    wide, high = min(x2, corners[2]) - max(x1, corners[0]), min(y2, corners[3]) - max(y1, corners[1])
    return max(0.0, wide) * max(0.0, high) >= FITS * (x2 - x1) * (y2 - y1)


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
    if all(0 <= value <= 1 for part in polygons for value in part):
        raise ValueError("its coordinates look like fractions of the image's sides; write pixels")
    edges = (np.abs(np.diff(np.reshape(part, (-1, 2)), axis=0, append=[part[:2]])) for part in polygons)
    if sum(float(edge.max(axis=1).sum()) for edge in edges) > MOST_STEPS:
        raise ValueError("its polygons are far longer than an outline")


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


def instance_palette() -> list[int]:
    """Return VOC's colours for the numbers of an image of instances: 256 times red, green and blue."""
    colours = []
    for number in range(256):
        # Three bits of the number at a time, the lowest of them the highest of red, green and blue.
        bits = [number >> (3 * place) for place in range(3)]
        colours += [
            sum(((bit >> channel) & 1) << (7 - place) for place, bit in enumerate(bits))
            for channel in range(3)
        ]
    return colours
