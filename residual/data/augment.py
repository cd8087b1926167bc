"""The augmentation of Section 4.2, on whole batches, on the device that holds them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Crops:
    """One random crop a picture.

    Attributes:
        top, left: int64 (N,), the crop's corner in the padded picture, 0 to 2*pad.
        mirrored: bool (N,), whether the crop is of the picture's mirror image.
    """

    top: Tensor
    left: Tensor
    mirrored: Tensor


def draw_crops(count: int, pad: int, flip: bool, generator: torch.Generator) -> Crops:
    """Draw ``count`` crops on the generator's device, each corner and each side equally likely."""
    top, left = torch.randint(2 * pad + 1, (2, count), generator=generator)
    mirrored = torch.rand(count, generator=generator) < 0.5
    return Crops(top, left, mirrored if flip else torch.zeros_like(mirrored))


def pad_crop_flip(x: Tensor, pad: int, crops: Crops) -> Tensor:
    """Pad with zeros on each side, then crop the picture, or its mirror image, to its own size.

    "4 pixels are padded on each side, and a 32 x 32 crop is randomly sampled from the padded image or its
    horizontal flip" (Section 4.2).

    Shapes: x is (N, C, H, W); the result too, in channels-last memory format.
    """
    count, _, height, width = x.shape
    padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    device = x.device
    rows = crops.top.to(device)[:, None] + torch.arange(height, device=device)
    columns = crops.left.to(device)[:, None] + torch.arange(width, device=device)
    # Column c of the mirror image is column W + 2*pad - 1 - c of the picture.
    columns = torch.where(crops.mirrored.to(device)[:, None], width + 2 * pad - 1 - columns, columns)
    pictures = torch.arange(count, device=device)
    # One gather does all three; the channels stay together, so it copies whole pixels.
    return padded[pictures[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
