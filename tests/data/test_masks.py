"""Masks: from polygons, run lengths and images of instances to run lengths; what is none says why."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from residual.data.images import DamagedImage, turned_pixels
from residual.data.masks import (
    VOID,
    Mask,
    Outline,
    area,
    as_instances,
    as_mask,
    box_around,
    box_mask,
    encode,
    masks_as_pixels,
    read_instances,
    turned_mask,
)

WIDTH, HEIGHT = 40, 30


def slow_runs(pixels: torch.Tensor) -> list[int]:
    """Run lengths as COCO describes them: column after column, zeros first."""
    runs, value = [0], 0
    for pixel in pixels.T.flatten().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def test_polygons_cover_the_pixels_whose_middles_are_inside() -> None:
    parts = ((2.0, 3, 6, 3, 6, 8, 2, 8), (20.0, 10, 30, 10, 30, 20, 20, 20))
    mask = as_mask(Outline(parts), WIDTH, HEIGHT)
    expected = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.uint8)
    expected[0, 3:8, 2:6] = 1
    expected[0, 10:20, 20:30] = 1
    assert torch.equal(masks_as_pixels([mask], (HEIGHT, WIDTH)), expected)
    assert area(mask) == 5 * 4 + 10 * 10
    assert box_around(mask) == (2, 3, 30, 20)
    assert torch.equal(
        masks_as_pixels([box_mask((2, 3, 6, 8), (HEIGHT, WIDTH))], (HEIGHT, WIDTH))[0, :9], expected[0, :9]
    )


def test_run_lengths_are_read_as_numbers_and_compressed() -> None:
    generator = torch.Generator().manual_seed(0)
    for side in (1, 2, 7, 40, 90):
        for share in (0.02, 0.5, 0.99):
            pixels = (torch.rand(3, side + 3, side, generator=generator) < share).to(torch.uint8)
            pixels[:, 1, 0] = 1
            size = side + 3, side
            masks = encode(pixels)
            assert torch.equal(masks_as_pixels(masks, size), pixels)
            for mask, each in zip(masks, pixels, strict=True):
                for runs in (mask.as_json()["counts"], tuple(slow_runs(each))):
                    assert as_mask(Outline(size=size, runs=runs), side, side + 3) == mask


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (Outline(), "it has no polygon"),
        (Outline(((),)), "three points at least"),
        (Outline(((1.0, 1, 5, 5),)), "three points at least"),
        (Outline(((1.0, 1, 5, 5, 3, 9, 4),)), "three points at least"),
        (Outline(((1.0, 1, 5, 5, 5, 1), (0.0, 0, float("nan"), 5, 5, 5))), "far outside"),
        (Outline(((1.0, 1, 1e12, 5, 5, 1),)), "far outside the image of 40 x 30"),
        (Outline(((1.2, 1.2, 1.2, 1.2, 1.2, 1.2),)), "it covers no pixel"),
        (Outline(size=(30, 41), runs=(0, 1230)), "of 41 x 30 pixels, not 40 x 30"),
        (Outline(size=(30, 40), runs=(0, 1199)), "do not add up"),
        (Outline(size=(30, 40), runs=(5, -10, 1205)), "do not add up"),
        (Outline(size=(30, 40), runs=(1200,)), "it covers no pixel"),
        (Outline(size=(30, 40), runs=()), "do not add up"),
        (Outline(size=(30, 40), runs="1"), "do not add up"),
        (Outline(size=(30, 40), runs="\x00é"), "are damaged"),
        (Outline(size=(30, 40), runs="P" * 50), "are damaged"),
        (Outline(size=(30, 40), runs="5P"), "are cut off"),
        (Mask((40, 30), b"X"), "of an image of 30 x 40, not 40 x 30"),
    ],
)
def test_what_is_no_mask_says_why(shape: Outline | Mask, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        as_mask(shape, WIDTH, HEIGHT)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_is_turned_as_its_image_is(orientation: int) -> None:
    pixels = torch.rand(1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)) < 0.3
    turned = turned_mask(encode(pixels)[0], orientation)
    expected = turned_pixels(pixels[0].numpy().astype(np.uint8), orientation)
    assert turned.size == expected.shape
    assert np.array_equal(masks_as_pixels([turned], turned.size)[0].numpy(), expected)


@pytest.mark.parametrize("count", [0, 3, 254, 300])
def test_an_image_of_instances_written_and_read(count: int, tmp_path: Path) -> None:
    pixels = torch.zeros(count, 20, 20, dtype=torch.bool)
    for number in range(count):
        pixels[number].view(-1)[number] = True
    pixels[2:, 0, 1] = True  # the second one's, which comes first
    Image.fromarray(as_instances(encode(pixels), (20, 20))).save(tmp_path / "a.png")
    masks = read_instances(tmp_path / "a.png")
    assert list(masks) == [number for number in range(1, count + 2) if number != VOID][:count]
    found = masks_as_pixels(list(masks.values()), (20, 20)).bool()
    pixels[2:, 0, 1] = False
    assert torch.equal(found, pixels)


def test_what_is_no_image_of_instances_says_why(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "colours.png")
    Image.new("L", (4, 4)).save(tmp_path / "grey.jpg")
    (tmp_path / "no.png").write_bytes(b"\x89PNG")
    for name, words in (
        ("colours.png", "PNG of mode RGB, and its pixels are to be numbers"),
        ("grey.jpg", "JPEG of mode L"),
        ("no.png", "no image that can be read"),
        ("gone.png", "there is no such file"),
    ):
        with pytest.raises(DamagedImage, match=words):
            read_instances(tmp_path / name)
