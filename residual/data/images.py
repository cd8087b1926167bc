"""Pictures from files: whatever the format, RGB and upright; and only as much of them as is needed."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from ..errors import InputError

#: Decoded pictures have at most so many pixels (512 MB as RGB); a JPEG may be larger in its file.
MAX_PIXELS = 178_956_970
#: The EXIF tag of the orientation, and its values for which width and height change places.
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
#: How a JPEG begins.
JPEG = b"\xff\xd8\xff"

#: From a picture's upright (width, height) to the part to be kept, (left, top, right, bottom) in its pixels,
#: and the (width, height) that it is resized to.
Cut = Callable[[int, int], tuple[tuple[float, float, float, float], tuple[int, int]]]


class DamagedImage(InputError):
    """A file that is no whole picture."""


def decode(path: Path, shorter_side: int | None = None) -> Tensor:
    """Return a picture as uint8 RGB (3, H, W), upright.

    Grey, CMYK, palette and 16-bit pictures become 8-bit RGB; transparent ones are laid on white.

    Args:
        path: a JPEG, PNG, WebP or whatever else Pillow reads.
        shorter_side: let a JPEG's decoder halve the picture as long as its shorter side stays that long: much
            faster for large photos. None: full size.

    Raises:
        DamagedImage: when the file is missing, unreadable, truncated, no picture, or too large.
    """

    def whole(image: Image.Image) -> Image.Image:
        if shorter_side is not None:
            width, height = image.size
            part = shorter_side / min(width, height)
            image.draft(None, (round(width * part), round(height * part)))
        _check_size(image, path)
        return _upright_rgb(image)

    return _to_tensor(_open(path, whole))


def decode_part(path: Path, cut: Cut, out: np.ndarray | None = None) -> np.ndarray:
    """Return a part of a picture, resized with antialiasing: uint8 (h, w, 3).

    The same as decoding, resizing all of it and cropping, to rounding, without the work on what is cropped
    away; a JPEG is decoded at the smallest power-of-two scale that is no smaller than the result.

    Args:
        cut: from the picture's upright size to the part and the size that it gets.
        out: where to write the result.

    Raises:
        DamagedImage: as ``decode``.
    """

    def part(image: Image.Image) -> Image.Image:
        turned = image.getexif().get(ORIENTATION) in TURNED
        width, height = image.size[::-1] if turned else image.size
        box, size = cut(width, height)
        scale = max(size[0] / (box[2] - box[0]), size[1] / (box[3] - box[1]))
        if scale < 1:
            stored = image.size
            image.draft(None, (int(np.ceil(stored[0] * scale)), int(np.ceil(stored[1] * scale))))
        _check_size(image, path)
        upright = _upright_rgb(image)
        x, y = upright.width / width, upright.height / height
        here = (box[0] * x, box[1] * y, min(box[2] * x, upright.width), min(box[3] * y, upright.height))
        return upright.resize(size, Image.Resampling.BILINEAR, box=here)

    pixels = np.asarray(_open(path, part))
    if out is None:
        return pixels
    out[...] = pixels
    return out


def resize_shorter(image: Tensor, side: int) -> Tensor:
    """Return uint8 (..., 3, H, W) resized with antialiasing, so that its shorter side is ``side``."""
    return resize(image, [side], antialias=True)


def _open(path: Path, use: Callable[[Image.Image], Image.Image]) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures, and of EXIF data and palettes that it repairs by itself.
            warnings.simplefilter("ignore")
            with _reader(path) as image:
                return use(image)
    except DamagedImage:
        raise
    except FileNotFoundError:
        raise DamagedImage(f"{path}: there is no such file") from None
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except Image.UnidentifiedImageError:
        raise DamagedImage(f"{path} is no picture that can be read, or its beginning is damaged") from None
    # Decoders stumble over damaged files in many ways.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedImage(f"{path} is damaged or unreadable ({reason})") from None


def _reader(path: Path) -> Image.Image:
    """Return the opened file. Pillow's own limit holds for what is decoded, not for a JPEG's full size."""
    with path.open("rb") as file:
        start = file.read(3)
    if start != JPEG:
        return Image.open(path)
    image = JpegImageFile(path)
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


def _to_tensor(image: Image.Image) -> Tensor:
    # A copy: the picture's own memory may not be written to.
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
