"""The augmentation of Section 4.2, on whole batches, on the device that holds them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Crops:
    """One random crop an image.

    Attributes:
        top, left: int64 (N,), the crop's corner in the padded image, 0 to 2*pad.
        flipped: bool (N,), whether the crop is of the image's flip.
    """

    top: Tensor
    left: Tensor
    flipped: Tensor


def draw_crops(count: int, pad: int, flip: bool, generator: torch.Generator) -> Crops:
    """Draw ``count`` crops on the generator's device, each corner and each side equally likely."""
    top, left = torch.randint(2 * pad + 1, (2, count), generator=generator)
    flipped = torch.rand(count, generator=generator) < 0.5
    return Crops(top, left, flipped if flip else torch.zeros_like(flipped))


def pad_crop_flip(x: Tensor, pad: int, crops: Crops) -> Tensor:
    """Pad with zeros on each side, then crop the image, or its flip, to its own size.

    "4 pixels are padded on each side, and a 32 x 32 crop is randomly sampled from the padded image or its
    horizontal flip" (Section 4.2).

    Shapes: x is (N, C, H, W); the result too, in channels-last memory format.
    """
    count, _, height, width = x.shape
    padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    device = x.device
    rows = crops.top.to(device)[:, None] + torch.arange(height, device=device)
    columns = crops.left.to(device)[:, None] + torch.arange(width, device=device)
    # Column c of the flip is column W + 2*pad - 1 - c of the image.
    columns = torch.where(crops.flipped.to(device)[:, None], width + 2 * pad - 1 - columns, columns)
    images = torch.arange(count, device=device)
    # One gather does all three; the channels stay together, so it copies whole pixels.
    return padded[images[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
