"""From stored images to a network's input: the part of the preprocessing that belongs to the weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Preprocessing(nn.Module):
    """Scale to [0, 1], subtract the mean, divide by the standard deviation.

    Args:
        mean: per-pixel mean, (C, H, W) (Sections 3.4 and 4.2), or channel means, (C,) or (C, 1, 1);
            in units of [0, 1].
        std: channel deviations in units of [0, 1]; ones (no division) in the paper.

    Shapes: uint8 (N, C, H, W) to float32 (N, C, H, W) in channels-last memory format.

    Images of another size than the mean image's (multi-scale testing, say) have it stretched to theirs,
    bilinearly: at its own size it is exact, and near it nearly so. A mean over many images is smooth, so
    nothing of it is lost by that.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor | None = None) -> None:
        super().__init__()
        mean = mean.float()
        channels = mean.shape[0]
        std = torch.ones(channels) if std is None else std.float()
        self.register_buffer("mean", mean.view(channels, 1, 1) if mean.ndim == 1 else mean)
        self.register_buffer("std", std.view(channels, 1, 1))

    @property
    def per_pixel(self) -> bool:
        """Whether the mean is an image."""
        return self.mean.shape[1:] != (1, 1)

    def forward(self, images: Tensor) -> Tensor:
        fits = not self.per_pixel or self.mean.shape[1:] == images.shape[2:]
        return self._normalise(images, self.mean if fits else self._stretched(images))

    def at_any_size(self, images: Tensor) -> Tensor:
        """As ``forward``, without asking for the size: for a graph in which it is free (ONNX)."""
        return self._normalise(images, self._stretched(images) if self.per_pixel else self.mean)

    def _normalise(self, images: Tensor, mean: Tensor) -> Tensor:
        # A copy also of what is float32 already: it is written to.
        x = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
        return x.div_(255).sub_(_rows(mean, x)).div_(_rows(self.std, x))

    def _stretched(self, images: Tensor) -> Tensor:
        size = images.shape[2:]
        return F.interpolate(self.mean[None], size=size, mode="bilinear", align_corners=False)[0]


def _rows(values: Tensor, x: Tensor) -> Tensor:
    """Return (C, H, W) or (C, 1, 1) as whole rows in the layout of ``x``, (1, C, H or 1, W).

    The innermost dimension of images in channels-last format is the channels: looping over three values at
    a time costs a CPU seven times the arithmetic.
    """
    return values.expand(-1, -1, x.shape[3])[None].contiguous(memory_format=torch.channels_last)
