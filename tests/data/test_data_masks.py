"""Masks: from polygons, run lengths and images of instances to run lengths; what is none says why."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from residual.data.images import DamagedImage, turned_pixels
from residual.data.masks import (
    Mask,
    Outline,
    area,
    as_instances,
    as_mask,
    box_around,
    box_mask,
    crop_of,
    encode,
    fits,
    instance_palette,
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
            masks = [encode(each.numpy()) for each in pixels]
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
        (
            Outline(((0.1, 0.2, 0.6, 0.2, 0.6, 0.9),)),
            "look like fractions of the image's sides; write pixels",
        ),
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
        # Far points of a polygon that stays near: its edges together are longer than an image.
        (Outline((tuple(float(x) for n in range(60_000) for x in (80 * (n % 2), n % 30)),)), "far longer"),
    ],
)
def test_what_is_no_mask_says_why(shape: Outline | Mask, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        as_mask(shape, WIDTH, HEIGHT)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_is_turned_as_its_image_is(orientation: int) -> None:
    pixels = torch.rand(1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)) < 0.3
    turned = turned_mask(encode(pixels[0].numpy()), orientation)
    expected = turned_pixels(pixels[0].numpy().astype(np.uint8), orientation)
    assert turned.size == expected.shape
    assert np.array_equal(masks_as_pixels([turned], turned.size)[0].numpy(), expected)


@pytest.mark.parametrize("count", [0, 3, 254, 300])
def test_an_image_of_instances_written_and_read(count: int, tmp_path: Path) -> None:
    pixels = torch.zeros(count, 20, 20, dtype=torch.bool)
    for number in range(count):
        pixels[number].view(-1)[number] = True
    pixels[2:, 0, 1] = True  # the second one's, which comes first
    encoded = [encode(each.numpy()) for each in pixels]
    Image.fromarray(as_instances(encoded, (20, 20))).save(tmp_path / "a.png")
    masks, others = read_instances(tmp_path / "a.png", range(1, count + 5))
    assert (list(masks), others) == (list(range(1, count + 1)), [])
    found = masks_as_pixels(list(masks.values()), (20, 20)).bool()
    pixels[2:, 0, 1] = False
    assert torch.equal(found, pixels)
    masks, others = read_instances(tmp_path / "a.png", range(2, count + 1))
    assert (list(masks), others) == (list(range(2, count + 1)), [1][:count])


def test_the_line_between_objects_is_no_objects(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 255, 3]], np.uint8)).save(tmp_path / "a.png")
    masks, others = read_instances(tmp_path / "a.png", [1, 255])
    assert (list(masks), others) == ([1], [3])
    # An object and the background, as many programs write them: it is said that the number is no object's.
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "b.png")
    assert read_instances(tmp_path / "b.png", [1]) == ({}, [255])


def test_numbers_have_vocs_colours() -> None:
    palette = instance_palette()
    assert len(palette) == 768
    # Of aeroplane, bicycle, bird, person and tv monitor, as VOC's classes are numbered.
    shown = [palette[3 * number : 3 * number + 3] for number in (0, 1, 2, 3, 15, 20)]
    assert shown == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [192, 128, 128], [0, 64, 128]]


def test_a_part_of_an_image_is_encoded_where_it_lies() -> None:
    generator = torch.Generator().manual_seed(0)
    for top, left, high, wide in ((0, 0, 20, 30), (3, 4, 10, 9), (0, 7, 20, 3), (19, 29, 1, 1), (5, 5, 0, 4)):
        for share in (0.0, 0.5, 1.0):
            part = torch.rand(high, wide, generator=generator) < share
            whole = torch.zeros(20, 30, dtype=torch.bool)
            whole[top : top + high, left : left + wide] = part
            mask = encode(part.numpy(), top, left, (20, 30))
            assert mask == encode(whole.numpy())
            assert torch.equal(masks_as_pixels([mask], (20, 30))[0].bool(), whole)


def test_what_is_around_a_mask_is_cut_out_at_any_scale() -> None:
    pixels = torch.zeros(50, 61, dtype=torch.uint8)
    pixels[11:33, 20:61] = torch.rand(22, 41, generator=torch.Generator().manual_seed(0)) < 0.7
    mask = encode(pixels.numpy())
    for step in (1, 2, 3):
        shares, top, left = crop_of(mask, step)
        padded = torch.nn.functional.pad(pixels, (0, -61 % step, 0, -50 % step))[None, None].float()
        expected = torch.zeros(60, 70)
        pooled = (255 * torch.nn.functional.avg_pool2d(padded, step)[0, 0]).round()
        expected[: pooled.shape[0], : pooled.shape[1]] = pooled
        rows, columns = shares.shape
        whole = torch.zeros(60, 70)
        whole[top : top + rows, left : left + columns] = torch.from_numpy(shares).float()
        assert torch.equal(whole, expected)
        assert not shares[[0, -1]].any()
        assert not shares[:, [0, -1]].any()


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
            read_instances(tmp_path / name, [1])


def test_images_that_say_to_be_larger_than_any_have_no_masks() -> None:
    side = 10**6
    for shape in (
        Outline(((1.0, 1, 5e5, 5, 9, 9e5),)),
        Outline(size=(side, side), runs=(4 * 10**9, 4 * 10**9, *[0] * 500, side**2 - 8 * 10**9)),
    ):
        with pytest.raises(ValueError, match="1000000 x 1000000 pixels is too large for masks"):
            as_mask(shape, side, side)


def test_a_mask_belongs_to_the_box_that_it_lies_in() -> None:
    mask = box_mask((10, 10, 20, 30), (50, 60))
    assert fits(mask, (5, 5, 40, 40))
    assert fits(mask, (10, 10, 20, 20))
    assert not fits(mask, (10, 10, 20, 19))
    assert not fits(mask, (30, 10, 40, 30))
