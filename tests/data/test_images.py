"""Images from files against Pillow's and torchvision's slow way, and files that are no images."""

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_pixels, smooth_image
from memory import memory_taken
from PIL import Image
from torch import Tensor

from residual.data import images
from residual.data.crops import ScaleCrop, scaled
from residual.data.images import (
    SUFFIXES,
    CropFunction,
    DamagedImage,
    as_pixels,
    decode,
    decode_numbers,
    decode_part,
    resize_shorter,
    stored_size,
)
from residual.data.threads import Budget

#: The pixels of the image that most tests are about.
SMOOTH = np.asarray(smooth_image(120, 90), dtype=int)


def centre_crop(size: int, side: int) -> CropFunction:
    """The square of ``size`` in the middle of the image with shorter side ``side``."""

    def part(width: int, height: int) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
        wide, high = scaled(width, height, side)
        left, top = round((wide - size) / 2), round((high - size) / 2)
        x, y = width / wide, height / high
        return (left * x, top * y, (left + size) * x, (top + size) * y), (size, size)

    return part


def pixels(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    smooth_image(120, 90).save(path, **({"lossless": True} if suffix == "webp" else {}))
    image = decode(path)
    assert image.shape == (3, 90, 120)
    assert image.dtype == torch.uint8
    assert abs(pixels(image) - np.asarray(smooth_image(120, 90), dtype=int)).max() <= (
        0 if suffix != "jpg" else 24
    )


def test_grey_cmyk_palette_and_progressive(tmp_path: Path) -> None:
    grey = smooth_image(120, 90).convert("L")
    grey.save(tmp_path / "grey.jpg", quality=95)
    found = pixels(decode(tmp_path / "grey.jpg"))
    assert (found[..., 0] == found[..., 2]).all()
    assert abs(found[..., 0] - np.asarray(grey, dtype=int)).mean() < 3
    smooth_image(120, 90).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert (
        abs(pixels(decode(tmp_path / "cmyk.jpg")) - np.asarray(smooth_image(120, 90), dtype=int)).mean() < 6
    )
    smooth_image(120, 90).save(tmp_path / "progressive.jpg", quality=95, progressive=True)
    smooth_image(120, 90).save(tmp_path / "baseline.jpg", quality=95)
    assert torch.equal(decode(tmp_path / "progressive.jpg"), decode(tmp_path / "baseline.jpg"))
    palette = smooth_image(120, 90).quantize(200)
    palette.save(tmp_path / "palette.png")
    assert (pixels(decode(tmp_path / "palette.png")) == np.asarray(palette.convert("RGB"))).all()


def test_transparency_lies_on_white_and_16_bits_become_8(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    image.putpixel((1, 1), (10, 20, 30, 255))
    image.save(tmp_path / "alpha.png")
    found = decode(tmp_path / "alpha.png")
    assert found[:, 0, 0].tolist() == [255, 255, 255]
    assert found[:, 1, 1].tolist() == [10, 20, 30]
    Image.fromarray(np.full((3, 3), 32_896, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert decode(tmp_path / "deep.png").unique().tolist() == [128]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth_image(120, 90).save(tmp_path / name, exif=exif)
    expected = Image.open(tmp_path / name)
    from PIL import ImageOps

    upright = np.asarray(ImageOps.exif_transpose(expected), dtype=int)
    assert (pixels(decode(tmp_path / name)) == upright).all()
    assert stored_size(tmp_path / name) == ((120, 90), orientation)
    # A part of it is a part of the upright image.
    part = decode_part(tmp_path / name, centre_crop(30, 40))
    expected_part = Image.fromarray(upright.astype(np.uint8)).resize(
        scaled(*upright.shape[1::-1], 40), Image.Resampling.BILINEAR
    )
    left, top = (round((side - 30) / 2) for side in expected_part.size)
    reference = np.asarray(expected_part.crop((left, top, left + 30, top + 30)), dtype=int)
    assert abs(part.astype(int) - reference).max() <= 1


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_exif_data_that_are_none_cost_no_image(tmp_path: Path, name: str) -> None:
    smooth_image(40, 30).save(tmp_path / name, exif=b"Exif\0\0garbage1234", lossless=True)
    assert decode(tmp_path / name).shape == (3, 30, 40)
    assert stored_size(tmp_path / name) == ((40, 30), 1)
    assert decode_part(tmp_path / name, centre_crop(8, 12)).shape == (8, 8, 3)
    assert as_pixels(Image.open(tmp_path / name)).shape == (3, 30, 40)


@pytest.mark.parametrize("size", [(61, 61), (97, 60), (200, 333)])
def test_parts_of_the_sharpest_images_are_in_their_place(tmp_path: Path, size: tuple[int, int]) -> None:
    # In noise, a part that is a fraction of a pixel off is another image.
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    for numbers in torch.rand(100, 3, generator=torch.Generator().manual_seed(0)):
        cut = ScaleCrop(size=28, low=32, high=110).at(numbers)
        box, shape = cut(*size)
        expected = np.asarray(Image.fromarray(noise).resize(shape, Image.Resampling.BILINEAR, box=box))
        difference = abs(decode_part(tmp_path / "a.png", cut).astype(int) - expected)
        # A sixty-fourth of the contrast, and rounding.
        assert difference.max() <= 8
        assert difference.mean() < 2


def test_the_flip_of_a_part(tmp_path: Path) -> None:
    smooth_image(120, 90).save(tmp_path / "a.png")
    cut = ScaleCrop(size=28, low=32, high=60).at(torch.tensor([0.4, 0.8, 0.3]))
    plain, out = decode_part(tmp_path / "a.png", cut), np.empty((28, 28, 3), np.uint8)
    decode_part(tmp_path / "a.png", cut, out, flipped=True)
    assert (out == plain[:, ::-1]).all()
    assert (out != plain).any()


def test_reading_in_threads_leaves_warnings_alone(tmp_path: Path) -> None:
    smooth_image(400, 300).save(tmp_path / "a.png")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [tmp_path / "a.png"] * 100))
    assert warnings.filters == before


def test_a_jpeg_is_decoded_at_a_reduced_scale(tmp_path: Path) -> None:
    smooth_image(1600, 1200).save(tmp_path / "large.jpg", quality=95)
    assert decode(tmp_path / "large.jpg", 200).shape == (3, 300, 400)  # a quarter; an eighth is too small
    assert decode(tmp_path / "large.jpg", 150).shape == (3, 150, 200)
    assert decode(tmp_path / "large.jpg").shape == (3, 1200, 1600)
    reduced = decode_part(tmp_path / "large.jpg", centre_crop(128, 140))
    full = resize_shorter(decode(tmp_path / "large.jpg"), 140)
    top, left = round((full.shape[1] - 128) / 2), round((full.shape[2] - 128) / 2)
    reference = full[:, top : top + 128, left : left + 128]
    assert abs(reduced.astype(int) - pixels(reference)).mean() < 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_not_misplaced(tmp_path: Path, orientation: int) -> None:
    """Sides that 8 does not divide: the decoder pads its last pixel, which is no part of the image."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    x, y = np.meshgrid(np.arange(841), np.arange(353))
    waves = [np.sin(x / 60), np.sin(y / 50), np.cos((x + y) / 80)]
    smooth = 127 + 120 * np.stack(waves, axis=2)
    Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "a.jpg", quality=98, exif=exif, subsampling=0)
    Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "a.png", exif=exif)
    for numbers in ((0.0, 0.0, 0.0), (0.0, 0.999, 0.999)):
        crop = ScaleCrop(size=32, low=36, high=40)
        reduced = decode_part(tmp_path / "a.jpg", crop.at(torch.tensor(numbers))).astype(int)
        full = decode_part(tmp_path / "a.png", crop.at(torch.tensor(numbers))).astype(int)
        assert abs(reduced - full).mean() < 3.5


def damaged(path: Path) -> str:
    with pytest.raises(DamagedImage) as caught:
        decode(path)
    with pytest.raises(DamagedImage) as same:
        decode_part(path, centre_crop(8, 8))
    assert str(caught.value) == str(same.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_damaged_files(tmp_path: Path) -> None:
    whole = io.BytesIO()
    smooth_image(120, 90).save(whole, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[:-500])
    assert "cut.jpg is damaged or unreadable" in damaged(tmp_path / "cut.jpg")
    (tmp_path / "text.jpg").write_text("no image")
    assert "is no image that can be read" in damaged(tmp_path / "text.jpg")
    (tmp_path / "empty.png").touch()
    assert "is no image that can be read" in damaged(tmp_path / "empty.png")
    (tmp_path / "start.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert "start.jpg is damaged or unreadable" in damaged(tmp_path / "start.jpg")
    assert "there is no such file" in damaged(tmp_path / "absent.jpg")
    (tmp_path / "folder.jpg").mkdir()
    assert "folder.jpg is a folder, not a file" in damaged(tmp_path / "folder.jpg")


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (9, 8, 7)).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png").flatten().tolist() == [9, 8, 7]
    part = decode_part(tmp_path / "a.png", ScaleCrop(size=28, low=32, high=60).at(torch.rand(3)))
    assert part.reshape(-1, 3).tolist() == [[9, 8, 7]] * 28 * 28


def test_huge_images_take_bounded_memory(tmp_path: Path) -> None:
    # A blank JPEG of 20,000 x 20,000 is small as a file; 1.2 GB decoded, 19 MB at an eighth.
    Image.new("L", (20_000, 20_000), 77).save(tmp_path / "huge.jpg")
    with memory_taken() as taken:
        part = decode_part(tmp_path / "huge.jpg", ScaleCrop().at(torch.rand(3)))
    assert part.mean() == pytest.approx(77, abs=1)
    assert taken.bytes < 200e6
    with pytest.raises(
        DamagedImage, match=r"20,000 x 20,000 pixels, which take 1.6 GB to decode; 1.1 GB is what is used"
    ):
        decode(tmp_path / "huge.jpg")


def huge_png(path: Path, side: int, colour: int) -> None:
    """Write the beginning of a PNG of ``side`` x ``side`` pixels, of 8 bits and a colour type."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, colour, 0, 0, 0])
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    huge_png(tmp_path / "bomb.png", 30_000, colour=2)
    assert "has 900,000,000 pixels" in damaged(tmp_path / "bomb.png")


def test_a_large_transparent_image_is_refused_with_its_size(tmp_path: Path) -> None:
    """Before it is decoded: 0.7 MB as a file, whose copies once took 5.2 GB."""
    huge_png(tmp_path / "large.png", 13_300, colour=6)
    said = damaged(tmp_path / "large.png")
    assert "has 13,300 x 13,300 pixels, which take 1.2 GB to decode; 1.1 GB is what is used" in said
    with pytest.raises(DamagedImage, match="13,300 x 13,300 pixels"):
        stored_size(tmp_path / "large.png")


# --- what people bring ---


def png_of(depth: int, colour: int, row: bytes, key: bytes) -> bytes:
    """Return a PNG of 2 x 1 pixels, with a transparent colour."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, 0)
    data = chunk(b"tRNS", key) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data


def test_numbers_of_few_bits_are_as_they_are_stored(tmp_path: Path) -> None:
    for depth, row, expected in ((4, bytes([0x2F]), [2, 15]), (2, bytes([0b01_11_0000]), [1, 3])):
        (tmp_path / "a.png").write_bytes(png_of(depth, 0, row, b"\0\0"))
        assert decode_numbers(tmp_path / "a.png").tolist() == [expected]


def shades(low: float, high: float, kind: str) -> np.ndarray:
    """A ramp of 16 x 16 values from ``low`` to ``high``."""
    return np.linspace(low, high, 256).reshape(16, 16).round(12).astype(kind)


GREY = np.arange(256).reshape(16, 16)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("float 0 to 1", shades(0, 1, "float32")),
        ("float 0 to 255", shades(0, 255, "float32")),
        ("16 bits", (GREY * 257).astype("uint16")),
    ],
)
def test_deep_tiffs_are_scaled_by_their_range(tmp_path: Path, name: str, values: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(values).save(path)
    assert (pixels(decode(path)) == GREY[..., None]).all()
    # Of a part, too: the range is that of the whole image, not of the part.
    part = decode_part(path, lambda width, height: ((0, 0, 16, 1), (16, 1)))
    assert (part[0, :, 0] == GREY[0]).all()
    assert (pixels(as_pixels(Image.open(path))) == GREY[..., None]).all()


@pytest.mark.parametrize("values", [GREY * 257, GREY], ids=["16 bits", "8 bits"])
def test_a_tiff_whose_0_is_white_is_no_negative(tmp_path: Path, values: np.ndarray) -> None:
    deep = values.max() > 255
    image = Image.fromarray(values.astype("uint16" if deep else "uint8"))
    # Saved with the tag that Pillow writes (1, 0 is black), which is changed in the file.
    image.save(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    tag = struct.pack("<HHIH", 262, 3, 1, 1)
    assert content.count(tag) == 1
    (tmp_path / "a.tif").write_bytes(content.replace(tag, struct.pack("<HHIH", 262, 3, 1, 0)))
    assert (pixels(decode(tmp_path / "a.tif")) == 255 - GREY[..., None]).all()


def test_the_12_bits_of_a_camera_are_not_nearly_black(tmp_path: Path) -> None:
    # Pillow does not write such TIFFs: one of 16 bits whose tag says 12, two values in three bytes.
    values = np.array([0, 4095, 2048, 1024], dtype=int)
    packed = bytes(
        byte
        for a, b in zip(values[::2], values[1::2], strict=True)
        for byte in (a >> 4, (a & 15) << 4 | b >> 8, b & 255)
    )
    header = b"II" + struct.pack("<HI", 42, 8)
    tags = [(256, 3, 4), (257, 3, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 0), (277, 3, 1)]
    tags += [(278, 3, 1), (279, 4, len(packed))]
    start = 8 + 2 + 12 * len(tags) + 4
    body = struct.pack("<H", len(tags))
    for tag, kind, value in tags:
        value = start if tag == 273 else value
        body += struct.pack("<HHI", tag, kind, 1) + (
            struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value)
        )
    (tmp_path / "a.tif").write_bytes(header + body + bytes(4) + packed)
    assert decode(tmp_path / "a.tif")[0].tolist() == [[0, 255, 128, 64]]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (GREY.astype("int32"), "has whole numbers of 32 bits or with a sign"),
        ((GREY * 16_000_000).astype("int32"), "do not say what is white; save it with 8 or 16 bits"),
        (shades(-1, 1, "float32"), "has fractional values, from -1 to 1; save them from 0 to 1"),
        (shades(0, 3000, "float32"), "has fractional values, from 0 to 3000"),
        (np.full((4, 4), np.nan, "float32"), "has fractional values, from nan to nan"),
    ],
)
def test_values_that_do_not_say_what_is_white_are_refused(
    tmp_path: Path, values: np.ndarray, sentence: str
) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert f"{tmp_path / 'a.tif'} " in damaged(tmp_path / "a.tif")
    assert sentence in damaged(tmp_path / "a.tif")
    with pytest.raises(DamagedImage, match=r"^the image has"):
        as_pixels(Image.fromarray(values))


def test_deep_images_of_other_formats(tmp_path: Path) -> None:
    deep = Image.fromarray((GREY * 257).astype("uint16"))
    for name in ("a.png", "a.pgm", "a.jp2"):
        deep.save(tmp_path / name)
        assert (pixels(decode(tmp_path / name)) == GREY[..., None]).all(), name
    # The transparent value of a PNG of few bits is one of its own, and so is that of 16-bit colours.
    for depth, row, key in ((2, b"\x40", 1), (4, b"\x70", 7), (8, b"\x70\x00", 112)):
        (tmp_path / "t.png").write_bytes(png_of(depth, 0, row, struct.pack(">H", key)))
        assert pixels(decode(tmp_path / "t.png"))[0].tolist() == [[255] * 3, [0] * 3], depth
    colours = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0, 0, 0)
    (tmp_path / "t.png").write_bytes(png_of(16, 2, colours, colours[:6]))
    assert pixels(decode(tmp_path / "t.png"))[0].tolist() == [[255] * 3, [0] * 3]
    # The transparent value of a 16-bit PNG is one of its 65,536.
    deep.save(tmp_path / "t.png", transparency=2 * 257)
    expected = np.where(GREY == 2, 255, GREY)
    assert (pixels(decode(tmp_path / "t.png")) == expected[..., None]).all()


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.avif", "a.jp2", "a.pnm"])
def test_other_names_and_formats(tmp_path: Path, name: str) -> None:
    assert Path(name).suffix in SUFFIXES
    smooth_image(120, 90).save(tmp_path / name, **({"quality": 95} if name[2:] in ("jpe", "avif") else {}))
    assert abs(pixels(decode(tmp_path / name)) - SMOOTH).mean() < 4


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "a.webp", "a.apng", "a.tif"):
        options = {"lossless": True} if name == "a.webp" else {}
        kind = {"format": "PNG"} if name == "a.apng" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options, **kind)
        assert (pixels(decode(tmp_path / name)) == [255, 0, 0]).all(), name


def test_heic_where_there_is_what_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    smooth_image(120, 90).save(tmp_path / "a.heic", quality=95)
    assert abs(pixels(decode(tmp_path / "a.heic")) - SMOOTH).mean() < 4


def test_postscript_is_not_run_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smooth_image(20, 20).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "cat.jpg")

    def started(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", started)
    assert "is no image that can be read" in damaged(tmp_path / "cat.jpg")
    # As it would be without a list of formats.
    with pytest.raises(AssertionError):
        Image.open(tmp_path / "cat.jpg").load()


def test_a_pipe_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    assert damaged(tmp_path / "x.jpg") == f"{tmp_path / 'x.jpg'} is a device or a pipe, not a file"


def test_what_the_system_says_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to("gone.jpg")
    assert damaged(tmp_path / "link.jpg") == (
        f"{tmp_path / 'link.jpg'} is a link to gone.jpg, which is not there; mount the disk that it is on, "
        "or remove the link"
    )
    assert damaged(tmp_path / f"{'a' * 300}.jpg").endswith("cannot be read: File name too long")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert "cannot be read: Too many levels of symbolic links" in damaged(tmp_path / "loop.jpg")


def test_threads_share_the_memory_for_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for one image at a time: four threads decode one after the other, and nobody waits for ever."""
    monkeypatch.setattr("residual.data.images.MEMORY", 5000)
    budget = Budget(5000)
    monkeypatch.setattr("residual.data.images._budget", budget)
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")  # 2,800 bytes: two do not fit
    least = []
    original = Image.Image.load

    def watched(image: Image.Image) -> object:
        least.append(budget.free)
        return original(image)

    monkeypatch.setattr(Image.Image, "load", watched)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(decode, [tmp_path / "a.png"] * 20))
    assert all((image[0] == 255).all() for image in found)
    assert min(least) == 2200
    assert budget.free == 5000
    Image.new("RGB", (30, 30)).save(tmp_path / "b.png")
    assert "30 x 30 pixels" in damaged(tmp_path / "b.png")
    assert budget.free == 5000


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1"])
def test_an_image_is_the_same_in_strips(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image = smooth_image(61, 47)
    image.putalpha(smooth_image(61, 47, seed=1).convert("L"))
    image.convert(mode).save(path)
    cut = ScaleCrop(size=28, low=32, high=60).at(torch.tensor([0.4, 0.8, 0.3]))
    whole, part = decode(path), decode_part(path, cut)
    monkeypatch.setattr("residual.data.images.STRIP", 100)
    assert torch.equal(decode(path), whole)
    assert (decode_part(path, cut) == part).all()


@pytest.mark.parametrize(
    "how", [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"quality": 30}]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("side", [None, 60, 30, 9])
def test_a_jpeg_is_what_pillow_reads_at_every_scale_and_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, how: dict[str, Any], side: int | None
) -> None:
    """Bit by bit, so that a machine without the faster decoder has the same images."""
    noise = Image.fromarray(random_pixels(93, 131, 3).numpy()).convert(mode)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        noise.save(tmp_path / f"{orientation}.jpg", exif=exif, **how)
    files = sorted(tmp_path.iterdir())

    def read() -> list[np.ndarray]:
        crop = centre_crop(9, side or 93)
        return [decode(file, side).numpy() for file in files] + [decode_part(file, crop) for file in files]

    found = read()
    monkeypatch.setattr("residual.data.images.simplejpeg", None)
    for ours, pillows in zip(found, read(), strict=True):
        assert np.array_equal(ours, pillows)


def test_what_the_faster_decoder_refuses_is_left_to_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes between two segments are no harm; the end of a file missing is, and Pillow says so."""
    smooth_image(120, 90).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    table = whole.index(b"\xff\xdb")
    (tmp_path / "strange.jpg").write_bytes(whole[:table] + bytes(5) + whole[table:])
    (tmp_path / "cut.jpg").write_bytes(whole[:-200])
    faster = pytest.importorskip("simplejpeg")
    with pytest.raises(ValueError, match=r"\S"):
        faster.decode_jpeg((tmp_path / "strange.jpg").read_bytes())
    assert torch.equal(decode(tmp_path / "strange.jpg"), decode(tmp_path / "a.jpg"))
    with pytest.raises(DamagedImage, match=r"cut\.jpg is damaged or unreadable \(image file is truncated"):
        decode(tmp_path / "cut.jpg")
    monkeypatch.setattr("residual.data.images.WHOLE", 0)
    assert torch.equal(decode(tmp_path / "strange.jpg"), decode(tmp_path / "a.jpg"))


def test_a_jpeg_that_was_opened_and_drawn_on_is_not_read_from_its_file_again(tmp_path: Path) -> None:
    smooth_image(120, 90).save(tmp_path / "a.jpg")
    image = Image.open(tmp_path / "a.jpg")
    image.paste("red", (0, 0, 120, 90))
    assert as_pixels(image).float().mean(dim=(1, 2)).tolist() == [255, 0, 0]


LAID_OUT: dict[str, Callable[[Tensor], Tensor]] = {
    "planes": lambda image: image,
    "pixels": lambda image: image.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    "a part": lambda image: image[:, 3:-4, 2:-5],
    "several": lambda image: torch.stack([image, image.flip(2)]),
    "several, channels last": lambda image: torch.stack([image, image.flip(2)]).to(
        memory_format=torch.channels_last
    ),
    "turned": lambda image: image.transpose(1, 2).flip(2),
}


@pytest.mark.parametrize("bytes_at_once", [True, False])
@pytest.mark.parametrize("laid_out", LAID_OUT)
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_torchvisions(
    channels: int, laid_out: str, bytes_at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.transforms.v2.functional import _geometry
    from torchvision.transforms.v2.functional import resize as theirs

    monkeypatch.setattr(images, "_resizes_bytes", lambda: bytes_at_once)
    monkeypatch.setattr(_geometry, "_do_native_uint8_resize_on_cpu", lambda _: bytes_at_once)
    image = LAID_OUT[laid_out](random_pixels(channels, 61, 47))
    for height, width in ((30, 31), (100, 90), (64, 20), tuple(image.shape[-2:])):
        mine, expected = images.resize(image, height, width), theirs(image, [height, width], antialias=True)
        assert torch.equal(mine, expected)
        assert mine.stride() == expected.stride()
    for side in (16, 33, 80):
        assert torch.equal(resize_shorter(image, side), theirs(image, [side], antialias=True))


def test_this_processor_resizes_as_torchvision_has_it_do() -> None:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional._geometry import _do_native_uint8_resize_on_cpu

    assert images._resizes_bytes() == _do_native_uint8_resize_on_cpu(InterpolationMode.BILINEAR)
