"""Images from files: whatever the format, RGB and upright; and only as much of them as is needed."""

import functools
import importlib
import math
import os
import platform
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO, TypeGuard, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import InputError
from ..files import no_target
from .threads import Budget

T = TypeVar("T")

try:
    import simplejpeg
except ImportError:  # there is no package of it for this machine: Pillow, in a quarter more time
    simplejpeg = None

with suppress(ImportError):
    # HEIC is what telephones write; Pillow reads it with the help of this package, which is an extra.
    import pillow_heif

    pillow_heif.register_heif_opener()

#: What is ever opened, by Pillow's name of the format, and how the names of such files end. Pillow knows more
#: formats, some of which start other programs: PostScript would run Ghostscript.
FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx"),
    "HEIF": (".heic", ".heif", ".hif"),
}
#: What Pillow reads only where it was built with a library.
FEATURES = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}
for _module in ("Avif", "Bmp", "Gif", "Jpeg2K", "Png", "Ppm", "Tiff", "WebP"):
    # What is imported can be opened.
    importlib.import_module(f"PIL.{_module}ImagePlugin")
#: The formats that this Pillow reads, and how the names of their files end, in lower case.
READABLE = tuple(name for name in FORMATS if name in Image.OPEN and features.check(FEATURES.get(name, "pil")))
SUFFIXES = tuple(suffix for name in READABLE for suffix in FORMATS[name])

#: Bytes that all threads together may decode into. An image that takes more is refused; one for which there
#: is no room now waits for the others.
MEMORY = 1 << 30
_budget = Budget(MEMORY)
#: Bytes of a pixel in Pillow's memory, by mode; all others take four.
BYTES = {"1": 1, "L": 1, "P": 1} | dict.fromkeys(("I;16", "I;16L", "I;16B", "I;16N"), 2)
#: What Pillow multiplies a PNG's grey values of 2 and 4 bits by, by its name of them.
GREYS = {"L;2": 85, "L;4": 17}
#: Bytes of a pixel that a format's decoder takes beside the image, for each band.
DECODER_BYTES = {"WEBP": 3, "AVIF": 4, "HEIF": 4, "JPEG2000": 4}
#: Pixels that are converted together: what lies between a mode and RGB stays small.
STRIP = 1 << 22

#: The EXIF tag of the orientation, and its values for which width and height change places.
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
#: TIFF's tags of its sides, of the bits of a sample, and of whether 0 is white (0) or black.
WIDTH, HEIGHT, BITS, INTERPRETATION = 256, 257, 258, 262
#: How a JPEG begins, and the bytes up to which a file of one is read whole.
JPEG, WHOLE = b"\xff\xd8\xff", 1 << 26

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

#: An image as it is to be seen, with 8 bits a value: uint8 RGB (H, W, 3), or any mode that ``_rgb`` takes.
Upright = NDArray[np.uint8] | Image.Image

#: A file's path or an open file, a PIL image, uint8 (H, W), (H, W, 1) or (H, W, 3) of NumPy, or uint8
#: (1 or 3, H, W) of PyTorch.
ImageLike = str | os.PathLike[str] | BinaryIO | Image.Image | NDArray[np.uint8] | Tensor


class DamagedImage(InputError):
    """A file that is no whole image."""


def share_memory(processes: int) -> None:
    """Take a part of the memory for decoding in this process, one of several that read for another.

    What takes more than the part is NotHere.
    """
    global _budget
    _budget = Budget(MEMORY // processes)


def fatal(reason: object, key: str) -> str:
    """Return what ends a run in which an image that cannot be read is fatal.

    Args:
        reason: what is wrong with the image.
        key: of the recipe, which decides that.
    """
    return f"{reason}; mend it and go on with --resume, or begin another run without it or with {key}=skip"


def read_together(read: Callable[[range], T], places: range) -> list[tuple[range, T | str]]:
    """Read some images at once; where one of them is damaged, each alone.

    Args:
        read: gives what is read of the images at some places, or raises DamagedImage.

    Returns:
        Places and what was read of them, or what is wrong with the one there.
    """
    try:
        return [(places, read(places))]
    except DamagedImage as error:
        if len(places) == 1:
            return [(places, str(error))]
        return [found for place in places for found in read_together(read, range(place, place + 1))]


def decode(path: Path, shorter_side: int | None = None) -> Tensor:
    """Return an image as uint8 RGB (3, H, W), upright.

    Grey, CMYK, palette and 16-bit images become 8-bit RGB; transparent ones are laid on white. Of several
    frames the first is taken.

    Args:
        path: a file of one of FORMATS, whatever its name.
        shorter_side: let a JPEG's decoder halve the image as long as its shorter side stays that long: much
            faster for large images. None: full size.

    Raises:
        DamagedImage: when the file is missing, unreadable, truncated, no image, or too large, or its values
            do not say what is white.
    """

    def whole(image: Image.Image) -> Tensor:
        full = image.size
        if shorter_side is not None:
            width, height = full
            part = shorter_side / min(width, height)
            image.draft(None, (round(width * part), round(height * part)))
        with _memory_for(image, full, path) if image.format == "JPEG" else nullcontext():
            return _pixels(_seen(image))

    return _open(path, whole)


def as_pixels(image: ImageLike, shorter_side: int | None = None) -> Tensor:
    """Return an image as uint8 (3, H, W), of memory of its own: what is given may change afterwards.

    A PIL image is what its file is: upright, laid on white, with 8 bits a value. A file that is open is read
    from its beginning.

    Args:
        shorter_side: as in ``decode``, for a path.

    Raises:
        DamagedImage: for a file or a PIL image that cannot be read.
        InputError: for what is no image.
    """
    if isinstance(image, str | os.PathLike):
        return decode(Path(os.fsdecode(image)), shorter_side)
    if isinstance(image, Image.Image):
        with _said_of("the image"):
            # Not read from its file again: it may have been drawn on.
            return _pixels(_upright(image))
    if is_open_file(image):
        with _said_of("the open file"):
            if not getattr(image, "seekable", lambda: True)():
                # What is read from an address or a pipe, say.
                raise InputError("the open file is a stream; give what it holds, as io.BytesIO(file.read())")
            image.seek(0)
            if not isinstance(image.read(0), bytes):
                raise InputError("the open file is open for text; open it as open(path, 'rb')")
            with _reader(image) as opened, _memory_for(opened, opened.size, "the open file"):
                return _pixels(_seen(opened))
    if not isinstance(image, np.ndarray | Tensor):
        raise InputError(
            f"{type(image).__name__} is no image; give a path, an open file, a PIL image, an array or a "
            "tensor"
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
        tensor = image.detach().cpu().clone()
    if not fits or 0 in image.shape:
        kind = "an array" if isinstance(image, np.ndarray) else "a tensor"
        raise InputError(
            f"an image of {image.dtype} {tuple(image.shape)} cannot be used; give {kind} of uint8 "
            f"(0 to 255), {form}"
        )
    return tensor.expand(3, -1, -1)


def is_open_file(value: object) -> TypeGuard[BinaryIO]:
    """Whether a value is read as a file is."""
    return hasattr(value, "read") and hasattr(value, "seek")


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
        full, orientation = _stored(image)
        width, height = upright_size(full, orientation)
        box, size = crop(width, height)
        scale = max(size[0] / (box[2] - box[0]), size[1] / (box[3] - box[1]))
        reduced = 1.0
        if scale < 1:
            wide = image.size[0]
            least = math.ceil(image.size[0] * scale), math.ceil(image.size[1] * scale)
            drafted = image.draft(None, least)
            reduced = drafted[1][2] / wide if drafted else 1.0
        with _memory_for(image, full, path) if image.format == "JPEG" else nullcontext():
            upright = _seen(image)
            wide, high = _size(upright)
            # A reduced JPEG is exactly a half, a quarter or an eighth; its last row and column are padded to
            # whole pixels, and come first where the image was turned about.
            x = wide - width * reduced if orientation in (2, 3, 6, 7) else 0.0
            y = high - height * reduced if orientation in (3, 4, 7, 8) else 0.0
            left, top, right, bottom = (edge * reduced for edge in box)
            return _resized(upright, (left + x, top + y, right + x, bottom + y), size, flipped)

    pixels = _open(path, part)
    if out is None:
        return pixels
    out[...] = pixels
    return out


def decode_numbers(path: Path) -> NDArray[np.generic]:
    """Return the numbers of an image whose pixels are no colours, (H, W), as they are stored.

    An indexed PNG's, whatever its palette shows, or a grey one's.

    Raises:
        DamagedImage: as ``decode``, and for an image of colours or of a format that changes numbers.
    """

    def numbers(image: Image.Image) -> NDArray[np.generic]:
        if image.format == "JPEG" or image.mode not in ("P", "L", "1", "I", "I;16"):
            raise DamagedImage(
                f"{path} is a {image.format} of mode {image.mode}, and its pixels are to be numbers; save it "
                "as an indexed or a grey PNG"
            )
        # Pillow spreads grey of few bits over 0 to 255, and forgets how many there were.
        spread = GREYS.get(_raw_mode(image), 1)
        return np.asarray(image) // spread if spread > 1 else np.asarray(image)

    return _open(path, numbers)


def stored_size(path: Path) -> tuple[tuple[int, int], int]:
    """Return an image's width and height as they are stored, and its EXIF orientation, 1 (upright) to 8.

    Raises:
        DamagedImage: as ``decode``.
    """
    found = (0, 0), 1

    def look(image: Image.Image) -> Image.Image:
        nonlocal found
        found = _stored(image)
        return image

    _open(path, look)
    return found


def _stored(image: Image.Image) -> tuple[tuple[int, int], int]:
    """Return an opened image's width and height as they are stored, and its orientation, 1 to 8."""
    tags = getattr(image, "tag_v2", {})
    # Of a TIFF Pillow tells the size of the upright image, before it has turned it as well.
    size = (tags[WIDTH], tags[HEIGHT]) if image.format == "TIFF" else image.size
    return size, _orientation(image)


def _orientation(image: Image.Image) -> int:
    """Return an image's EXIF orientation, 1 (upright) to 8; where the EXIF data are none, 1."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:
        if "exif" not in image.info:
            raise  # of the pixels: a PNG's orientation may stand behind them
        return 1
    return found if found in range(1, 9) else 1


def upright_size(stored: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return the width and height of a stored image when it is upright."""
    return (stored[1], stored[0]) if orientation in TURNED else stored


def upright_box(
    box: tuple[float, float, float, float], stored: tuple[int, int], orientation: int
) -> tuple[float, float, float, float]:
    """Return a box (x1, y1, x2, y2) of an image as it is stored, where it is when the image is upright.

    Args:
        stored: the image's width and height as they are stored.
        orientation: its EXIF orientation.
    """
    x1, y1, x2, y2 = box
    width, height = stored
    if orientation in (2, 3, 7, 8):
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 6, 7):
        y1, y2 = height - y2, height - y1
    return (y1, x1, y2, x2) if orientation in TURNED else (x1, y1, x2, y2)


def turned_pixels(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return uint8 (H, W) or (H, W, 3) as EXIF's orientation says, without a copy."""
    if orientation in TURNED:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if orientation in (3, 4, 7, 8) else 1, :: -1 if orientation in (2, 3, 6, 7) else 1]


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
    height, width = image.shape[-2:]
    if height <= width:
        return resize(image, side, int(side * width / height))
    return resize(image, int(side * height / width), side)


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Return images uint8 (..., C, H, W) resized bilinearly with antialiasing, as (..., C, height, width).

    Bit for bit what torchvision's transforms (v2) give, without importing them: that takes a second and a
    half, more than looking at an image does.
    """
    if images.shape[-2:] == (height, width):
        return images
    batch = images.reshape(-1, *images.shape[-3:])
    if batch.shape[0] == 1 and batch.is_contiguous(memory_format=torch.channels_last):
        # Of one image PyTorch sees no format in the strides but in the first one.
        batch = batch.as_strided(batch.shape, (batch.numel(), *batch.stride()[1:]))
    if images.device.type == "cpu" and _resizes_bytes():
        resized = interpolate(batch, (height, width), mode="bilinear", antialias=True)
    else:
        resized = interpolate(batch.float(), (height, width), mode="bilinear", antialias=True).round_().byte()
    return resized.reshape(*images.shape[:-2], height, width)


@functools.cache
def _resizes_bytes() -> bool:
    """Whether this processor is faster with bytes than with the numbers that are made of them."""
    vectors = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return vectors or platform.machine() in ("aarch64", "arm64")


def pil_image(pixels: Tensor) -> Image.Image:
    """Return an image uint8 (1 or 3, H, W) as Pillow's, grey or RGB."""
    array = pixels.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


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


class _Unclear(Exception):
    """An image's values do not say what is black and what is white; says why."""


def _open(path: Path, use: Callable[[Image.Image], T]) -> T:
    with _said_of(path):
        if not stat.S_ISREG(path.stat().st_mode):
            # Reading a pipe would wait for whoever writes into it.
            kind = "folder" if path.is_dir() else "device or a pipe"
            raise DamagedImage(f"{path} is a {kind}, not a file")
        # What a JPEG takes is known once its decoder has been asked for a smaller image. Others may be
        # decoded as soon as their orientation is asked for: a PNG's may stand at its end.
        with (
            path.open("rb") as file,
            _reader(file) as image,
            nullcontext() if image.format == "JPEG" else _memory_for(image, image.size, path),
        ):
            return use(image)


@contextmanager
def _said_of(what: Path | str) -> Iterator[None]:
    """Turn what is wrong with an image into a DamagedImage that begins with the image's name."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        if isinstance(what, Path) and what.is_symlink():
            raise DamagedImage(str(no_target(what, "is not there"))) from None
        raise DamagedImage(f"{what}: there is no such file") from None
    except Image.DecompressionBombError as error:
        # Pillow's own limit: "Image size (900000000 pixels) exceeds limit of 178956970 pixels, ...".
        found = re.search(r"\d+", str(error))
        raise _too_large(what, f"{int(found[0]):,} pixels" if found else "too many pixels") from None
    except UnidentifiedImageError:
        raise DamagedImage(f"{what} is no image that can be read, or its beginning is damaged") from None
    except _Unclear as error:
        raise DamagedImage(f"{what} {error}") from None
    # Decoders stumble over damaged files in many ways.
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DamagedImage(f"{what} cannot be read: {error.strerror}") from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedImage(f"{what} is damaged or unreadable ({reason})") from None


def _reader(file: BinaryIO) -> Image.Image:
    """Return the opened image. Pillow's own limit holds for what is decoded, not for a JPEG's full size."""
    start = file.read(len(JPEG))
    file.seek(0)
    return JpegImageFile(file) if start == JPEG else Image.open(file, formats=READABLE)


def _memory_for(image: Image.Image, full: tuple[int, int], what: Path | str) -> AbstractContextManager[None]:
    """Hold the memory that decoding an opened image takes; wait where other threads hold it.

    Args:
        full: the size before the decoder was asked for a smaller one.

    Raises:
        DamagedImage: where it takes more than there is.
    """
    pixels, bands = math.prod(image.size), len(image.getbands())
    # A PNG without EXIF data at its beginning is asked once it is decoded.
    known = image.format != "PNG" or "exif" in image.info
    copies = 2 if known and _orientation(image) != 1 else 1
    need = pixels * (copies * BYTES.get(image.mode, 4) + 3)
    need += pixels * bands * DECODER_BYTES.get(image.format or "", 0)
    if image.info.get("progressive"):
        # The decoder keeps 16 bits for each value of all of it, at whatever scale.
        need += 2 * bands * math.prod(full)
    if need > MEMORY:
        raise _too_large(what, f"{full[0]:,} x {full[1]:,} pixels", need)
    return _budget.hold(need)


def _too_large(what: Path | str, size: str, need: int | None = None) -> DamagedImage:
    takes = (
        f", which take {need / 1e9:.1f} GB to decode; {MEMORY / 1e9:.1f} GB is what is used" if need else ""
    )
    return DamagedImage(
        f"{what} is too large: it has {size}{takes}; make it smaller, or save it as a baseline JPEG, which "
        "is decoded at a reduced scale"
    )


def _pixels(image: Upright) -> Tensor:
    """Return an image as ``decode`` returns a file, uint8 (3, H, W)."""
    width, height = _size(image)
    pixels = np.empty((3, height, width), np.uint8)
    _fill(pixels.transpose(1, 2, 0), image, (0, 0, width, height))
    return torch.from_numpy(pixels)


def _size(image: Upright) -> tuple[int, int]:
    """Return width and height."""
    return image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])


def _seen(image: Image.Image) -> Upright:
    """Return an image that was just opened, as it is to be seen, with 8 bits a value."""
    pixels = _jpeg(image) if isinstance(image, JpegImageFile) else None
    return _upright(image) if pixels is None else turned_pixels(pixels, _orientation(image))


def _jpeg(image: JpegImageFile) -> NDArray[np.uint8] | None:
    """Return a JPEG's pixels, not turned, uint8 (H, W, 3), or None for one that is better left to Pillow.

    The same library as Pillow's and the same numbers, but straight into the array: Pillow takes it in pieces
    and with a fourth byte for each pixel.
    """
    file = image.fp
    if simplejpeg is None or image.mode not in ("L", "RGB") or file is None or file.seek(0, 2) > WHOLE:
        return None
    file.seek(0)
    width, height = image.size
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            file.read(), "RGB", min_width=width, min_height=height
        )
    except Exception:
        return None  # Pillow reads what can be read of it, or says what is wrong
    # The scale is the one that Pillow's decoder was asked for, unless the two count in other ways.
    return pixels if pixels.shape[:2] == (height, width) else None


def _upright(image: Image.Image) -> Image.Image:
    """Return an image as it is to be seen, with 8 bits a value, in any of the modes that ``_rgb`` takes."""
    if image.format == "PNG" and "transparency" in image.info:
        _key_in_8_bits(image)
    white = _white(image) if image.mode.startswith(("I", "F")) else None
    # Pillow turns the 8 bits of such a TIFF about, and leaves deeper ones to us.
    negative = white is not None and getattr(image, "tag_v2", {}).get(INTERPRETATION) == 0
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    image.load()
    return image if white is None else _eight_bits(image, white, negative)


def _key_in_8_bits(image: Image.Image) -> None:
    """Give a PNG's transparent colour as its pixels are once they are loaded; Pillow leaves it as it was.

    Of colours with 16 bits a value the higher eight are left, of the transparent one as well.
    """
    key, mode = image.info["transparency"], _raw_mode(image)
    if mode in GREYS:
        image.info["transparency"] = key * GREYS[mode]
    elif mode == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _raw_mode(image: Image.Image) -> str:
    """Return what Pillow calls a PNG's pixels as they are in the file, "" of one that is loaded already."""
    tiles = getattr(image, "tile", None)
    return str(tiles[0].args) if tiles else ""


def _white(image: Image.Image) -> float:
    """Return which value is white, of an image with whole or fractional numbers of more than 8 bits.

    Raises:
        _Unclear: when nothing says it.
    """
    if image.mode == "F":
        low, high = 0.0, 0.0
        for _, strip in _strips(image, (0, 0, *image.size)):
            values = np.asarray(strip)
            # Unlike Python's, NumPy's lowest and highest of what holds a NaN are one.
            low, high = float(np.minimum(low, values.min())), float(np.maximum(high, values.max()))
        if not (low >= 0 and high <= 255):
            raise _Unclear(
                f"has fractional values, from {low:g} to {high:g}; save them from 0 to 1, or with 8 or 16 "
                "bits"
            )
        return 1.0 if high <= 1 else 255.0
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise _Unclear(
            "has whole numbers of 32 bits or with a sign, which do not say what is white; save it with 8 or "
            "16 bits"
        )
    tags = getattr(image, "tag_v2", {})
    return float(2 ** tags.get(BITS, (16,))[0] - 1)


def _eight_bits(image: Image.Image, white: float, negative: bool) -> Image.Image:
    """Return an image of one band as mode L; Pillow's own conversion would cut values off at 255."""
    result = Image.new("L", image.size)
    for top, strip in _strips(image, (0, 0, *image.size)):
        values = np.asarray(strip, dtype=np.float32)
        grey = (
            ((white - values if negative else values) / (white / 255)).round().clip(0, 255).astype(np.uint8)
        )
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 255
        result.paste(Image.fromarray(grey), (0, top))
    return result


def _strips(image: Image.Image, box: tuple[int, int, int, int]) -> Iterator[tuple[int, Image.Image]]:
    """Yield the parts of a box from top to bottom, and where each begins in it."""
    left, top, right, bottom = box
    rows = max(1, STRIP // (right - left))
    for start in range(top, bottom, rows):
        part = (left, start, right, min(start + rows, bottom))
        yield start - top, image if part == (0, 0, *image.size) else image.crop(part)


def _fill(pixels: np.ndarray, image: Upright, box: tuple[int, int, int, int]) -> None:
    """Write a box of an image of 8 bits as RGB into uint8 (height, width, 3)."""
    if isinstance(image, np.ndarray):
        pixels[...] = image[box[1] : box[3], box[0] : box[2]]
        return
    for top, strip in _strips(image, box):
        pixels[top : top + strip.height] = np.asarray(_rgb(strip))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode == "LAB":
        raise _Unclear("has its colours in LAB, which is not read; save it as RGB")
    return image.convert("RGB")


def _resized(
    image: Upright, box: tuple[float, float, float, float], size: tuple[int, int], flipped: bool
) -> np.ndarray:
    """Return a box, in pixels, of an upright image, resized to (width, height): uint8 (height, width, 3).

    PyTorch's kernel gives what Pillow's does in half the time, but begins at a whole pixel. So it begins some
    pixels of the result before the box, where one of them falls on a whole pixel of the image; the box's
    neighbours, which antialiasing reaches into, are then in it as well.
    """
    across, down = (box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]
    left, before = _start(box[0], across)
    top, above = _start(box[1], down)
    reach = (max(1.0, step) + 1 for step in (across, down))
    right, bottom = (math.ceil(edge + more) for edge, more in zip(box[2:], reach, strict=True))
    width, height = _size(image)
    right, bottom = min(right, width), min(bottom, height)
    cropped = np.empty((bottom - top, right - left, 3), np.uint8)
    _fill(cropped, image, (left, top, right, bottom))
    # To the kernel equal sizes mean that nothing is to be done, whatever the scale: it is asked for one more
    # pixel then, which still lies in the image, as steps are shorter than pixels where sizes can be equal.
    wide, high = before + size[0], above + size[1]
    wide += wide == cropped.shape[1] and across < 1 - 1e-6
    high += high == cropped.shape[0] and down < 1 - 1e-6
    result = torch.ops.aten._upsample_bilinear2d_aa(
        # This order of the two makes it channels-last in PyTorch's eyes too, which is twice as fast.
        torch.from_numpy(cropped)[None].permute(0, 3, 1, 2),
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
