"""The augmentation against a slow reference."""

import torch
from torch import Tensor

from residual.data.augment import Crops, draw_crops, pad_crop_flip

PAD = 4


def slow_pad_crop_flip(image: Tensor, pad: int, top: int, left: int, flipped: bool) -> Tensor:
    """One image (C, H, W), pixel by pixel, in the paper's words: pad, flip, crop."""
    channels, height, width = image.shape
    padded = torch.zeros(channels, height + 2 * pad, width + 2 * pad)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                padded[c, y + pad, x + pad] = image[c, y, x]
    if flipped:
        flipped = torch.empty_like(padded)
        for x in range(padded.shape[2]):
            flipped[:, :, x] = padded[:, :, padded.shape[2] - 1 - x]
        padded = flipped
    result = torch.empty_like(image)
    for y in range(height):
        for x in range(width):
            result[:, y, x] = padded[:, top + y, left + x]
    return result


def test_equals_the_slow_reference() -> None:
    x = torch.randn(24, 3, 10, 7)
    crops = draw_crops(24, PAD, True, torch.Generator().manual_seed(1))
    # The extremes as well, whatever was drawn.
    crops.top[:4] = torch.tensor([0, 0, 2 * PAD, 2 * PAD])
    crops.left[:4] = torch.tensor([0, 2 * PAD, 0, 2 * PAD])
    crops.flipped[:4] = torch.tensor([False, True, True, False])
    fast = pad_crop_flip(x.contiguous(memory_format=torch.channels_last), PAD, crops)
    for i in range(24):
        slow = slow_pad_crop_flip(x[i], PAD, int(crops.top[i]), int(crops.left[i]), bool(crops.flipped[i]))
        assert torch.equal(fast[i], slow)
    assert fast.is_contiguous(memory_format=torch.channels_last)


def test_the_middle_crop_is_the_image() -> None:
    x = torch.randn(2, 1, 5, 5)
    middle = torch.full((2,), PAD)
    same = pad_crop_flip(x, PAD, Crops(middle, middle, torch.tensor([False, True])))
    assert torch.equal(same[0], x[0])
    assert torch.equal(same[1], x[1].flip(-1))


def test_draws_are_uniform() -> None:
    crops = draw_crops(90_000, PAD, True, torch.Generator().manual_seed(0))
    for corner in (crops.top, crops.left):
        counts = torch.bincount(corner, minlength=9)
        assert len(counts) == 9
        assert counts.min() > 9_600
        assert counts.max() < 10_400
    assert abs(crops.flipped.float().mean() - 0.5) < 0.01
    # Rows and columns are drawn independently.
    assert abs(torch.corrcoef(torch.stack([crops.top, crops.left]).float())[0, 1]) < 0.02
    assert not draw_crops(1000, PAD, False, torch.Generator()).flipped.any()
