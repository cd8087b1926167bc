"""Images from files against Pillow's and torchvision's slow way, and files that are no images."""

import io
import resource
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import smooth_image
from PIL import Image

from residual.data.crops import ScaleCrop, scaled
from residual.data.images import CropFunction, DamagedImage, decode, decode_part, resize_shorter

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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth_image(120, 90).save(tmp_path / "a.png", exif=exif)
    expected = Image.open(tmp_path / "a.png")
    from PIL import ImageOps

    upright = np.asarray(ImageOps.exif_transpose(expected), dtype=int)
    assert (pixels(decode(tmp_path / "a.png")) == upright).all()
    # A part of it is a part of the upright image.
    part = decode_part(tmp_path / "a.png", centre_crop(30, 40))
    expected_part = Image.fromarray(upright.astype(np.uint8)).resize(
        scaled(*upright.shape[1::-1], 40), Image.Resampling.BILINEAR
    )
    left, top = (round((side - 30) / 2) for side in expected_part.size)
    reference = np.asarray(expected_part.crop((left, top, left + 30, top + 30)), dtype=int)
    assert abs(part.astype(int) - reference).max() <= 1


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
    assert "folder.jpg is damaged or unreadable" in damaged(tmp_path / "folder.jpg")


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (9, 8, 7)).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png").flatten().tolist() == [9, 8, 7]
    part = decode_part(tmp_path / "a.png", ScaleCrop(size=28, low=32, high=60).at(torch.rand(3)))
    assert part.reshape(-1, 3).tolist() == [[9, 8, 7]] * 28 * 28


def test_huge_images_take_bounded_memory(tmp_path: Path) -> None:
    # A blank JPEG of 20,000 x 20,000 is small as a file; 1.2 GB decoded, 19 MB at an eighth.
    Image.new("L", (20_000, 20_000), 77).save(tmp_path / "huge.jpg")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    part = decode_part(tmp_path / "huge.jpg", ScaleCrop().at(torch.rand(3)))
    assert part.mean() == pytest.approx(77, abs=1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes
    with pytest.raises(DamagedImage, match="more than 179 million pixels"):
        decode(tmp_path / "huge.jpg")


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        import zlib

        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (30_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    assert "more than 179 million pixels" in damaged(tmp_path / "bomb.png")
