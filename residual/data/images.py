"""Images from files: whatever the format, RGB and upright; and only as much of them as is needed."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from ..errors import InputError

T = TypeVar("T")

#: Decoded images have at most so many pixels (512 MB as RGB); a JPEG may be larger in its file.
MAX_PIXELS = 178_956_970
#: The EXIF tag of the orientation, and its values for which width and height change places.
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
#: How a JPEG begins.
JPEG = b"\xff\xd8\xff"

#: An image longer than this many shorter sides is seen in its middle: memory stays bounded.
LONGEST = 8
#: Pixels by which a part may lie off its place: less than rounding to whole brightnesses shows.
OFF = 1 / 64

# Pillow warns of large images, and of EXIF data and palettes that it repairs by itself. Said once for all:
# threads that each set and restore the filters end up with everybody's warnings ignored.
warnings.filterwarnings("ignore", module=r"PIL\.")

#: From an image's upright (width, height) to the part to be kept, (left, top, right, bottom) in its pixels,
#: and the (width, height) that it is resized to.
CropFunction = Callable[[int, int], tuple[tuple[float, float, float, float], tuple[int, int]]]

#: A file, a PIL image, uint8 (H, W), (H, W, 1) or (H, W, 3) of NumPy, or uint8 (1 or 3, H, W) of PyTorch.
ImageLike = str | Path | Image.Image | NDArray[np.uint8] | Tensor


class DamagedImage(InputError):
    """A file that is no whole image."""


def decode(path: Path, shorter_side: int | None = None) -> Tensor:
    """Return an image as uint8 RGB (3, H, W), upright.

    Grey, CMYK, palette and 16-bit images become 8-bit RGB; transparent ones are laid on white.

    Args:
        path: a JPEG, PNG, WebP or whatever else Pillow reads.
        shorter_side: let a JPEG's decoder halve the image as long as its shorter side stays that long: much
            faster for large images. None: full size.

    Raises:
        DamagedImage: when the file is missing, unreadable, truncated, no image, or too large.
    """

    def whole(image: Image.Image) -> Image.Image:
        if shorter_side is not None:
            width, height = image.size
            part = shorter_side / min(width, height)
            image.draft(None, (round(width * part), round(height * part)))
        _check_size(image, path)
        return _upright_rgb(image)

    return _to_tensor(_open(path, whole))


def as_pixels(image: ImageLike, shorter_side: int | None = None) -> Tensor:
    """Return an image as uint8 (3, H, W).

    Args:
        shorter_side: as in ``decode``, for a file.

    Raises:
        DamagedImage: for a file that cannot be read.
        InputError: for what is no image.
    """
    if isinstance(image, str | Path):
        return decode(Path(image), shorter_side)
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if not isinstance(image, np.ndarray | Tensor):
        raise InputError(
            f"{type(image).__name__} is no image; give a path, a PIL image, an array or a tensor"
        )
    if isinstance(image, np.ndarray):
        form = "(H, W), (H, W, 1) or (H, W, 3)"
        fits = image.dtype == np.uint8 and (image.ndim == 2 or image.shape[2:] in ((1,), (3,)))
        # A copy: arrays may be read-only or run backwards, which tensors cannot.
        tensor = torch.from_numpy(image.copy()) if fits else torch.empty(0)
        tensor = tensor[None] if image.ndim == 2 else tensor.movedim(-1, 0)
    else:
        form = "(1, H, W) or (3, H, W)"
        fits = image.dtype == torch.uint8 and image.ndim == 3 and len(image) in (1, 3)
        tensor = image.cpu()
    if not fits or 0 in image.shape:
        kind = "an array" if isinstance(image, np.ndarray) else "a tensor"
        raise InputError(
            f"an image of {image.dtype} {tuple(image.shape)} cannot be used; give {kind} of uint8 "
            f"(0 to 255), {form}"
        )
    return tensor.expand(3, -1, -1)


def decode_part(
    path: Path, crop: CropFunction, out: np.ndarray | None = None, flipped: bool = False
) -> np.ndarray:
    """Return a part of an image, resized with antialiasing: uint8 (h, w, 3).

    The same as decoding, resizing all of it and cropping, to rounding, without the work on what is cropped
    away; a JPEG is decoded at the smallest power-of-two scale that is no smaller than the result.

    Args:
        crop: from the image's upright size to the part and the size that it gets.
        out: where to write the result.
        flipped: give the part's flip.

    Raises:
        DamagedImage: as ``decode``.
    """

    def part(image: Image.Image) -> np.ndarray:
        orientation = image.getexif().get(ORIENTATION, 1)
        width, height = image.size[::-1] if orientation in TURNED else image.size
        box, size = crop(width, height)
        scale = max(size[0] / (box[2] - box[0]), size[1] / (box[3] - box[1]))
        reduced = 1.0
        if scale < 1:
            wide = image.size[0]
            least = math.ceil(image.size[0] * scale), math.ceil(image.size[1] * scale)
            drafted = image.draft(None, least)
            reduced = drafted[1][2] / wide if drafted else 1.0
        _check_size(image, path)
        upright = _upright_rgb(image)
        # A reduced JPEG is exactly a half, a quarter or an eighth; its last row and column are padded to
        # whole pixels, and come first where the image was turned about.
        x = upright.width - width * reduced if orientation in (2, 3, 6, 7) else 0.0
        y = upright.height - height * reduced if orientation in (3, 4, 7, 8) else 0.0
        left, top, right, bottom = (edge * reduced for edge in box)
        return _resized(upright, (left + x, top + y, right + x, bottom + y), size, flipped)

    pixels = _open(path, part)
    if out is None:
        return pixels
    out[...] = pixels
    return out


def image_size(path: Path) -> tuple[int, int]:
    """Return an image's upright width and height in pixels, from the beginning of its file.

    Raises:
        DamagedImage: as ``decode``.
    """
    size = (0, 0)

    def look(image: Image.Image) -> Image.Image:
        nonlocal size
        size = image.size[::-1] if image.getexif().get(ORIENTATION) in TURNED else image.size
        return image

    _open(path, look)
    return size


def decode_centre(path: Path, size: int, side: int) -> Tensor:
    """Return the view of one-crop testing: the centre square of the image with shorter side ``side``.

    Shapes: uint8 (3, size, size). What testing sees of an image is what a training set's mean is taken of.

    Raises:
        DamagedImage: as ``decode``.
    """
    image = resize_shorter(middle(decode(path, decoded_side(side))), side)
    return square(image, size, *centre(image, size))


def decoded_side(side: int) -> int:
    """Return the shorter side below which a decoder does not halve an image that testing looks at.

    Twice the side that is looked at: resizing from there gives what resizing from the full size gives, but
    for noise, and an image of 100 million pixels takes little memory.
    """
    return 2 * side


def resize_shorter(image: Tensor, side: int) -> Tensor:
    """Return uint8 (..., 3, H, W) resized with antialiasing, so that its shorter side is ``side``."""
    return resize(image, [side], antialias=True)


def middle(images: Tensor) -> Tensor:
    """Return the middle of images (..., C, H, W) that are very long or very tall, others as they are."""
    height, width = images.shape[-2:]
    keep = LONGEST * min(height, width)
    y, x = max(0, height - keep) // 2, max(0, width - keep) // 2
    return images[..., y : y + keep, x : x + keep]


def centre(images: Tensor, size: int) -> tuple[int, int]:
    """Return the top and left of the centre square; half pixels go to the even side, as in torchvision."""
    return round((images.shape[-2] - size) / 2), round((images.shape[-1] - size) / 2)


def square(images: Tensor, size: int, top: int, left: int) -> Tensor:
    """Return the square (..., C, size, size) of images (..., C, H, W)."""
    return images[..., top : top + size, left : left + size]


def _open(path: Path, use: Callable[[Image.Image], T]) -> T:
    try:
        with path.open("rb") as file, _reader(file, path) as image:
            return use(image)
    except DamagedImage:
        raise
    except FileNotFoundError:
        raise DamagedImage(f"{path}: there is no such file") from None
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except Image.UnidentifiedImageError:
        raise DamagedImage(f"{path} is no image that can be read, or its beginning is damaged") from None
    # Decoders stumble over damaged files in many ways.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedImage(f"{path} is damaged or unreadable ({reason})") from None


def _reader(file: BinaryIO, path: Path) -> Image.Image:
    """Return the opened image. Pillow's own limit holds for what is decoded, not for a JPEG's full size."""
    start = file.read(3)
    file.seek(0)
    if start != JPEG:
        return Image.open(file)
    image = JpegImageFile(file)
    if image.info.get("progressive") and image.size[0] * image.size[1] > MAX_PIXELS:
        # Its decoder keeps the coefficients of all of it, at whatever scale.
        raise _too_large(path)
    return image


def _check_size(image: Image.Image, path: Path) -> None:
    if image.size[0] * image.size[1] > MAX_PIXELS:
        raise _too_large(path)


def _too_large(path: Path) -> DamagedImage:
    return DamagedImage(
        f"{path} has more than {MAX_PIXELS / 1e6:.0f} million pixels; make it smaller, or save it as a "
        "baseline JPEG, which is decoded at a reduced scale"
    )


def _upright_rgb(image: Image.Image) -> Image.Image:
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode.startswith(("I", "F")):
        # 16 bits a pixel; Pillow's own conversion would cut values off at 255.
        values = np.asarray(image, dtype=np.float32)
        image = Image.fromarray((values / 257).round().clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def _resized(
    image: Image.Image, box: tuple[float, float, float, float], size: tuple[int, int], flipped: bool
) -> np.ndarray:
    """Return a box, in pixels, of an RGB image, resized to (width, height): uint8 (height, width, 3).

    PyTorch's kernel gives what Pillow's does in half the time, but begins at a whole pixel. So it begins some
    pixels of the result before the box, where one of them falls on a whole pixel of the image; the box's
    neighbours, which antialiasing reaches into, are then in it as well.
    """
    across, down = (box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]
    left, before = _start(box[0], across)
    top, above = _start(box[1], down)
    reach = (max(1.0, step) + 1 for step in (across, down))
    right, bottom = (math.ceil(edge + more) for edge, more in zip(box[2:], reach, strict=True))
    cropped = image.crop((left, top, min(right, image.width), min(bottom, image.height)))
    # To the kernel equal sizes mean that nothing is to be done, whatever the scale: it is asked for one more
    # pixel then, which still lies in the image, as steps are shorter than pixels where sizes can be equal.
    wide, high = before + size[0], above + size[1]
    wide += wide == cropped.width and across < 1 - 1e-6
    high += high == cropped.height and down < 1 - 1e-6
    result = torch.ops.aten._upsample_bilinear2d_aa(
        # This order of the two makes it channels-last in PyTorch's eyes too, which is twice as fast.
        torch.from_numpy(np.array(cropped))[None].permute(0, 3, 1, 2),
        [high, wide],
        False,
        1 / down,
        1 / across,
    )
    pixels = result[0].permute(1, 2, 0)[above : above + size[1], before : before + size[0]]
    return (pixels.flip(1) if flipped else pixels).numpy()


def _start(edge: float, step: float) -> tuple[int, int]:
    """Return a whole pixel of the image before ``edge``, and how many steps lead from it to the edge.

    Part of a resized image whose edge is at a whole pixel of that: the image's own edge is such a pixel.
    """
    # Antialiasing reaches so far beyond the edge; all of it should be in the part that is read.
    reach = max(1.0, 1 / step)
    best, least = 0, math.inf
    for steps in range(int(edge / step + OFF) + 1):
        start = edge - steps * step
        off = abs(start - round(start))
        if off < OFF and steps >= reach:
            return max(0, round(start)), steps
        if off < least:
            best, least = steps, off
    return max(0, round(edge - best * step)), best


def _to_tensor(image: Image.Image) -> Tensor:
    # A copy: the image's own memory may not be written to.
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
