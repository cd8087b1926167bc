"""Masks of regions: the head that gives them, and from its squares to the image's pixels.

Of its entry for COCO's segmentation the paper tells the place alone. What is here is Mask R-CNN's head for a
network cut at conv4 (He, Gkioxari, Dollár, Girshick, 2017, Figure 4, left): it stands on the map of a region
that classes and boxes stand on.

Shapes: R regions, D channels of their maps of m x m positions, K classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.masks import Mask, encode

#: Filters of the deconvolution.
CHANNELS = 256
#: A pixel is the object's from this probability on.
INSIDE = 0.5


class MaskHead(nn.Module):
    """A deconvolution that doubles the side, then a mask for each class; layers as torchvision names them.

    Shapes: (R, D, m, m) to logits (R, K, 2m, 2m).
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv5_mask = nn.ConvTranspose2d(channels, CHANNELS, 2, stride=2)
        self.mask_fcn_logits = nn.Conv2d(CHANNELS, classes, 1)
        nn.init.kaiming_normal_(self.conv5_mask.weight, mode="fan_out", nonlinearity="relu")
        # Every pixel begins at one half. By He's initialisation over K outputs a few classes begin with so
        # large a loss that nothing else is learned: on drawn shapes AP50 of boxes 51 % in place of 91 (three
        # seeds).
        nn.init.normal_(self.mask_fcn_logits.weight, std=0.001)
        for layer in (self.conv5_mask, self.mask_fcn_logits):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.mask_fcn_logits(F.relu_(self.conv5_mask(x))).float()


def mask_loss(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return each region's mean binary cross-entropy over the mask of its own class, (R,).

    Args:
        logits: (R, K, n, n).
        labels: of the regions, int64 (R,), in [0, K).
        targets: bool (R, n, n).
    """
    own = logits[torch.arange(len(labels), device=labels.device), labels]
    return F.binary_cross_entropy_with_logits(own, targets.to(own.dtype), reduction="none").mean(dim=(1, 2))


def paste(probabilities: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[Mask]:
    """Return masks on an image of (height, width).

    A pixel has the probability at its middle, between the middles of the square's cells; outside them it
    falls to 0, as in Mask R-CNN's code.

    Args:
        probabilities: float32 (D, n, n), on the CPU.
        boxes: (D, 4) in the image's pixels.
    """
    return [_pasted(*each, size) for each in zip(probabilities, boxes.tolist(), strict=True)]


def _pasted(square: Tensor, box: Sequence[float], size: tuple[int, int]) -> Mask:
    places, spans = [], []
    for first, last, length in ((box[1], box[3], size[0]), (box[0], box[2], size[1])):
        span = slice(max(0, int(first)), min(length, int(last) + 1))
        middles = torch.arange(span.start, span.stop) + 0.5
        # In the square, -1 to 1.
        places.append(2 * (middles - first) / (last - first) - 1)
        spans.append(span)
    y, x = torch.meshgrid(*places, indexing="ij")
    grid = torch.stack([x, y], dim=-1)[None]
    inside = F.grid_sample(square[None, None], grid, align_corners=False)[0, 0] > INSIDE
    return encode(inside.numpy(), spans[0].start, spans[1].start, size)
