"""Mean and deviation."""

import torch
import torch.nn.functional as F
from conftest import random_pixels

from residual.models.preprocessing import Preprocessing


def test_a_mean_image_at_its_own_size_and_at_others() -> None:
    mean = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    prepare = Preprocessing(mean)
    assert torch.equal(prepare(random_pixels(2, 3, 8, 8)), random_pixels(2, 3, 8, 8).float().div(255) - mean)
    larger = prepare(random_pixels(2, 3, 16, 24))
    stretched = F.interpolate(mean[None], size=(16, 24), mode="bilinear")[0]
    torch.testing.assert_close(larger, random_pixels(2, 3, 16, 24) / 255 - stretched)
    flat = Preprocessing(torch.full((3, 8, 8), 0.25))
    assert torch.equal(flat(random_pixels(1, 3, 5, 9)), random_pixels(1, 3, 5, 9) / 255 - 0.25)


def test_what_is_prepared_stays_as_it_is() -> None:
    prepare = Preprocessing(torch.full((3,), 0.5))
    pixels = random_pixels(2, 3, 8, 8)
    # float32 in the very layout that a network is given.
    given = pixels.float().to(memory_format=torch.channels_last)
    assert torch.equal(prepare(given), prepare(pixels))
    assert torch.equal(given, pixels.float())
