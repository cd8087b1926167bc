"""Pictures from files against Pillow's and torchvision's slow way, and files that are no pictures."""

import io
import math
import resource
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from residual.data.colour import ColourNoise
from residual.data.crops import CentreCrop, ResizedCrop, ScaleCrop, scaled
from residual.data.images import DamagedImage, decode, decode_part, resize_shorter


def photo(width: int = 120, height: int = 90, seed: int = 0) -> Image.Image:
    """A smooth picture, as photos are: JPEG and resizing change it little."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def pixels(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    photo().save(path, **({"lossless": True} if suffix == "webp" else {}))
    image = decode(path)
    assert image.shape == (3, 90, 120)
    assert image.dtype == torch.uint8
    assert abs(pixels(image) - np.asarray(photo(), dtype=int)).max() <= (0 if suffix != "jpg" else 24)


def test_grey_cmyk_palette_and_progressive(tmp_path: Path) -> None:
    grey = photo().convert("L")
    grey.save(tmp_path / "grey.jpg", quality=95)
    found = pixels(decode(tmp_path / "grey.jpg"))
    assert (found[..., 0] == found[..., 2]).all()
    assert abs(found[..., 0] - np.asarray(grey, dtype=int)).mean() < 3
    photo().convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert abs(pixels(decode(tmp_path / "cmyk.jpg")) - np.asarray(photo(), dtype=int)).mean() < 6
    photo().save(tmp_path / "progressive.jpg", quality=95, progressive=True)
    photo().save(tmp_path / "baseline.jpg", quality=95)
    assert torch.equal(decode(tmp_path / "progressive.jpg"), decode(tmp_path / "baseline.jpg"))
    palette = photo().quantize(200)
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
    photo().save(tmp_path / "a.png", exif=exif)
    expected = Image.open(tmp_path / "a.png")
    from PIL import ImageOps

    upright = np.asarray(ImageOps.exif_transpose(expected), dtype=int)
    assert (pixels(decode(tmp_path / "a.png")) == upright).all()
    # A part of it is a part of the upright picture.
    part = decode_part(tmp_path / "a.png", CentreCrop(30, 40).cut())
    expected_part = Image.fromarray(upright.astype(np.uint8)).resize(
        scaled(*upright.shape[1::-1], 40), Image.Resampling.BILINEAR
    )
    left, top = (round((side - 30) / 2) for side in expected_part.size)
    reference = np.asarray(expected_part.crop((left, top, left + 30, top + 30)), dtype=int)
    assert abs(part.astype(int) - reference).max() <= 1


@pytest.mark.parametrize("numbers", [(0.0, 0.0, 0.0), (0.3, 0.7, 0.2), (0.999, 0.999, 0.999), (0.5, 0, 0.5)])
@pytest.mark.parametrize("size", [(120, 90), (75, 160), (61, 61)])
def test_scale_crop_is_resizing_the_whole_picture_and_cropping(
    tmp_path: Path, numbers: tuple[float, ...], size: tuple[int, int]
) -> None:
    photo(*size).save(tmp_path / "a.png")
    crop = ScaleCrop(size=28, low=32, high=60)
    part = decode_part(tmp_path / "a.png", crop.cut(torch.tensor(numbers)))
    # The slow reference, as the paper says it.
    side = 32 + int(numbers[0] * 29)
    whole = F.to_image(photo(*size).resize(scaled(*size, side), Image.Resampling.BILINEAR))
    assert min(whole.shape[1:]) == side
    left = int(numbers[1] * (whole.shape[2] - 28 + 1))
    top = int(numbers[2] * (whole.shape[1] - 28 + 1))
    reference = whole[:, top : top + 28, left : left + 28].permute(1, 2, 0).numpy()
    assert part.shape == (28, 28, 3)
    assert abs(part.astype(int) - reference.astype(int)).max() <= 1


@pytest.mark.parametrize("size", [(61, 61), (97, 60), (200, 333)])
def test_parts_of_the_sharpest_pictures_are_in_their_place(tmp_path: Path, size: tuple[int, int]) -> None:
    # In noise, a part that is a fraction of a pixel off is another picture.
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    for numbers in torch.rand(100, 3, generator=torch.Generator().manual_seed(0)):
        cut = ScaleCrop(size=28, low=32, high=110).cut(numbers)
        box, shape = cut(*size)
        expected = np.asarray(Image.fromarray(noise).resize(shape, Image.Resampling.BILINEAR, box=box))
        difference = abs(decode_part(tmp_path / "a.png", cut).astype(int) - expected)
        # A sixty-fourth of the contrast, and rounding.
        assert difference.max() <= 8
        assert difference.mean() < 2


def test_the_mirror_image_of_a_part(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    cut = ScaleCrop(size=28, low=32, high=60).cut(torch.tensor([0.4, 0.8, 0.3]))
    plain, out = decode_part(tmp_path / "a.png", cut), np.empty((28, 28, 3), np.uint8)
    decode_part(tmp_path / "a.png", cut, out, mirrored=True)
    assert (out == plain[:, ::-1]).all()
    assert (out != plain).any()


def test_reading_in_threads_leaves_warnings_alone(tmp_path: Path) -> None:
    photo(400, 300).save(tmp_path / "a.png")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [tmp_path / "a.png"] * 100))
    assert warnings.filters == before


def test_a_jpeg_is_decoded_at_a_reduced_scale(tmp_path: Path) -> None:
    photo(1600, 1200).save(tmp_path / "large.jpg", quality=95)
    assert decode(tmp_path / "large.jpg", 200).shape == (3, 300, 400)  # a quarter; an eighth is too small
    assert decode(tmp_path / "large.jpg", 150).shape == (3, 150, 200)
    assert decode(tmp_path / "large.jpg").shape == (3, 1200, 1600)
    reduced = decode_part(tmp_path / "large.jpg", CentreCrop(128, 140).cut())
    full = resize_shorter(decode(tmp_path / "large.jpg"), 140)
    top, left = round((full.shape[1] - 128) / 2), round((full.shape[2] - 128) / 2)
    reference = full[:, top : top + 128, left : left + 128]
    assert abs(reduced.astype(int) - pixels(reference)).mean() < 1.5


def test_scales_and_places_are_uniform() -> None:
    crop = ScaleCrop()
    draws = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0))
    sides, corners = [], []
    for row in draws:
        box, size = crop.cut(row)(640, 480)
        assert size == (224, 224)
        sides.append(round(224 * 480 / (box[3] - box[1])))
        corners.append(box)
        assert box[0] >= 0
        assert box[1] >= 0
        assert box[2] <= 640 + 1e-6
        assert box[3] <= 480 + 1e-6
    assert (min(sides), max(sides)) == (256, 480)
    assert abs(np.mean(sides) - 368) < 4
    # In the middle on average: no side is favoured.
    assert abs(np.mean([(b[0] + b[2]) / 2 for b in corners]) - 320) < 5


def test_resized_crops_keep_to_their_area_and_ratio() -> None:
    crop = ResizedCrop()
    for row in torch.rand(500, crop.numbers, generator=torch.Generator().manual_seed(0)):
        (left, top, right, bottom), size = crop.cut(row)(500, 400)
        wide, high = right - left, bottom - top
        assert size == (224, 224)
        assert 0 <= left <= right <= 500
        assert 0 <= top <= bottom <= 400
        assert 0.078 <= wide * high / 200_000 <= 1
        assert 3 / 4 - 0.02 <= wide / high <= 4 / 3 + 0.02
    # A picture in which no such rectangle fits gives the largest that does.
    (left, top, right, bottom), _ = crop.cut(torch.full((crop.numbers,), 0.999))(1000, 10)
    assert (bottom - top, right - left) == (10, 13)


def test_colour_noise_moves_along_the_components() -> None:
    vectors = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    values = torch.tensor([0.002, 0.02, 0.2])
    shifts = ColourNoise(values, vectors).shifts(20_000, torch.Generator().manual_seed(2))[:, :, 0, 0]
    along = shifts @ vectors
    assert along.mean(dim=0).abs().max() < 1e-3
    # N(0, 0.1) times the eigenvalue, the same for all pixels of a picture.
    torch.testing.assert_close(along.std(dim=0), 0.1 * values, rtol=0.03, atol=0)
    again = ColourNoise(values, vectors).shifts(20_000, torch.Generator().manual_seed(2))[:, :, 0, 0]
    assert torch.equal(shifts, again)


# --- files that are no pictures ---


def damaged(path: Path) -> str:
    with pytest.raises(DamagedImage) as caught:
        decode(path)
    with pytest.raises(DamagedImage) as same:
        decode_part(path, CentreCrop(8, 8).cut())
    assert str(caught.value) == str(same.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_damaged_files(tmp_path: Path) -> None:
    whole = io.BytesIO()
    photo().save(whole, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[:-500])
    assert "cut.jpg is damaged or unreadable" in damaged(tmp_path / "cut.jpg")
    (tmp_path / "text.jpg").write_text("no picture")
    assert "is no picture that can be read" in damaged(tmp_path / "text.jpg")
    (tmp_path / "empty.png").touch()
    assert "is no picture that can be read" in damaged(tmp_path / "empty.png")
    (tmp_path / "start.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert "start.jpg is damaged or unreadable" in damaged(tmp_path / "start.jpg")
    assert "there is no such file" in damaged(tmp_path / "absent.jpg")
    (tmp_path / "folder.jpg").mkdir()
    assert "folder.jpg is damaged or unreadable" in damaged(tmp_path / "folder.jpg")


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (9, 8, 7)).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png").flatten().tolist() == [9, 8, 7]
    part = decode_part(tmp_path / "a.png", ScaleCrop(size=28, low=32, high=60).cut(torch.rand(3)))
    assert part.reshape(-1, 3).tolist() == [[9, 8, 7]] * 28 * 28


def test_huge_pictures_take_bounded_memory(tmp_path: Path) -> None:
    # A blank JPEG of 20,000 x 20,000 is small as a file; 1.2 GB decoded, 19 MB at an eighth.
    Image.new("L", (20_000, 20_000), 77).save(tmp_path / "huge.jpg")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    part = decode_part(tmp_path / "huge.jpg", ScaleCrop().cut(torch.rand(3)))
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


def test_scaled_sizes() -> None:
    assert scaled(500, 375, 256) == (341, 256)
    assert scaled(375, 500, 256) == (256, 341)
    assert scaled(1, 1, 256) == (256, 256)
    assert scaled(4000, 10, 224) == (math.floor(4000 * 22.4), 224)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_not_misplaced(tmp_path: Path, orientation: int) -> None:
    """Sides that 8 does not divide: the decoder pads its last pixel, which is no part of the picture."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    x, y = np.meshgrid(np.arange(841), np.arange(353))
    waves = [np.sin(x / 60), np.sin(y / 50), np.cos((x + y) / 80)]
    smooth = 127 + 120 * np.stack(waves, axis=2)
    Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "a.jpg", quality=98, exif=exif, subsampling=0)
    Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "a.png", exif=exif)
    for numbers in ((0.0, 0.0, 0.0), (0.0, 0.999, 0.999)):
        crop = ScaleCrop(size=32, low=36, high=40)
        reduced = decode_part(tmp_path / "a.jpg", crop.cut(torch.tensor(numbers))).astype(int)
        full = decode_part(tmp_path / "a.png", crop.cut(torch.tensor(numbers))).astype(int)
        assert abs(reduced - full).mean() < 3.5
