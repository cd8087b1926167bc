"""Which part of an image is drawn, and that it is what the paper describes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import smooth_image
from PIL import Image
from torchvision.transforms.v2 import functional as F

from residual.data.crops import ResizedCrop, ScaleCrop, scaled
from residual.data.images import decode_part


@pytest.mark.parametrize("numbers", [(0.0, 0.0, 0.0), (0.3, 0.7, 0.2), (0.999, 0.999, 0.999), (0.5, 0, 0.5)])
@pytest.mark.parametrize("size", [(120, 90), (75, 160), (61, 61)])
def test_scale_crop_is_resizing_the_whole_image_and_cropping(
    tmp_path: Path, numbers: tuple[float, ...], size: tuple[int, int]
) -> None:
    smooth_image(*size).save(tmp_path / "a.png")
    crop = ScaleCrop(size=28, low=32, high=60)
    part = decode_part(tmp_path / "a.png", crop.at(torch.tensor(numbers)))
    # The slow reference, as the paper says it.
    side = 32 + int(numbers[0] * 29)
    whole = F.to_image(smooth_image(*size).resize(scaled(*size, side), Image.Resampling.BILINEAR))
    assert min(whole.shape[1:]) == side
    left = int(numbers[1] * (whole.shape[2] - 28 + 1))
    top = int(numbers[2] * (whole.shape[1] - 28 + 1))
    reference = whole[:, top : top + 28, left : left + 28].permute(1, 2, 0).numpy()
    assert part.shape == (28, 28, 3)
    assert abs(part.astype(int) - reference.astype(int)).max() <= 1


def test_scales_and_places_are_uniform() -> None:
    crop = ScaleCrop()
    draws = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0))
    sides, corners = [], []
    for row in draws:
        box, size = crop.at(row)(640, 480)
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
        (left, top, right, bottom), size = crop.at(row)(500, 400)
        wide, high = right - left, bottom - top
        assert size == (224, 224)
        assert 0 <= left <= right <= 500
        assert 0 <= top <= bottom <= 400
        assert 0.078 <= wide * high / 200_000 <= 1
        assert 3 / 4 - 0.02 <= wide / high <= 4 / 3 + 0.02
    # By hand: the first try's area and ratio, both uniform (the ratio in its logarithm), then the place.
    numbers = torch.full((crop.numbers,), 0.5)
    numbers[0], numbers[-2:] = (0.25 - 0.08) / 0.92, torch.tensor([0.25, 0.999])
    # A quarter of 400 x 400 is 200 x 200, at one of 201 places each way.
    assert crop.at(numbers)(400, 400)[0] == (50, 200, 250, 400)
    numbers[crop.tries] = 0
    # 3 to 4: sqrt(30,000) by sqrt(53,333); the ratio is width to height.
    assert crop.at(numbers)(400, 400)[0] == (57, 169, 57 + 173, 169 + 231)
    # An image in which no such rectangle fits gives the largest that does.
    (left, top, right, bottom), _ = crop.at(torch.full((crop.numbers,), 0.999))(1000, 10)
    assert (bottom - top, right - left) == (10, 13)


def test_scaled_sizes() -> None:
    assert scaled(500, 375, 256) == (341, 256)
    assert scaled(375, 500, 256) == (256, 341)
    assert scaled(1, 1, 256) == (256, 256)
    assert scaled(4000, 10, 224) == (math.floor(4000 * 22.4), 224)
