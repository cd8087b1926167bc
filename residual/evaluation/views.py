"""Which views of a picture a network is shown in testing, and how their scores become one (Section 3.4).

===========  ===================================================================================
center       the centre square of 224 pixels of the picture whose shorter side is 256
ten-crop     the four corners, the centre and their mirror images: softmax scores are averaged
multi-scale  the whole picture and its mirror image at five shorter sides, fully convolutionally
===========  ===================================================================================

Fully convolutionally, as in [40]: the scores (before softmax) of all positions of the last map are averaged,
and then the softmax of each scale and mirror image. Where the map is 1 x 1 this is the one-crop result. In a
residual network it is so at every size, since a mean and a linear layer can change places: its ``forward`` is
the average of its score map. For VGG the two differ on maps larger than 7 x 7, where its layers of 7 x 7
positions move over the map.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..data.images import resize_shorter
from ..errors import InputError
from ..models import Classifier

Protocol = Literal["center", "ten-crop", "multi-scale"]

#: Shorter sides of multi-scale testing.
SCALES = (224, 256, 384, 480, 640)

#: A picture longer than this many shorter sides is seen in its middle: memory stays bounded.
LONGEST = 8

#: Pixels in one forward pass; the result does not depend on it.
PIXELS = 64 * 224 * 224


@dataclass(frozen=True)
class Views:
    """What is looked at.

    Attributes:
        name: of the protocol.
        sides: the shorter sides that pictures are resized to.
        crop: the side of the squares that are cut out; None for the whole picture.
        corners: cut the four corners as well as the centre.
        mirrors: look at the mirror image of each view too.
    """

    name: Protocol
    sides: tuple[int, ...]
    crop: int | None = None
    corners: bool = False
    mirrors: bool = False

    def __post_init__(self) -> None:
        if not self.sides or min(self.sides) < 1 or (self.crop is not None and self.crop < 1):
            raise InputError("scales and crops are whole numbers of pixels, of at least 1")
        if self.crop is not None and self.crop > min(self.sides):
            raise InputError(
                f"a crop of {self.crop} does not fit into pictures whose shorter side is {min(self.sides)}; "
                "give a smaller crop or a larger scale"
            )

    @property
    def decoded_side(self) -> int:
        """The shorter side below which a picture's decoder does not halve it.

        Twice the largest side that is looked at: resizing from there gives what resizing from the full size
        gives, but for noise, and a photo of 100 million pixels takes little memory.
        """
        return 2 * max(self.sides)

    def __str__(self) -> str:
        sides = ",".join(map(str, self.sides))
        return f"{self.name} ({f'{self.crop} of ' if self.crop else ''}shorter side {sides})"


def make_views(name: Protocol, crop: int = 224, side: int = 256, sides: Sequence[int] | None = None) -> Views:
    """Return the views of a protocol.

    Args:
        crop: side of the squares, which multi-scale testing does not use.
        side: the shorter side that they are cut from.
        sides: other shorter sides than ``side``, or than ``SCALES`` for multi-scale testing.

    Raises:
        InputError: for a crop that does not fit.
    """
    if name == "multi-scale":
        return Views(name, tuple(sides or SCALES), mirrors=True)
    ten = name == "ten-crop"
    return Views(name, tuple(sides or (side,)), crop, corners=ten, mirrors=ten)


def cut(images: Tensor, views: Views) -> list[Tensor]:
    """Return the views of pictures, without the mirror images.

    Args:
        images: uint8 (..., C, H, W).

    Returns:
        For each of ``views.sides`` a uint8 (..., v, C, h, w): v is 1, or 5 with the corners. Cut from
        pictures of different shapes they have one shape, unless whole pictures are looked at.
    """
    images = _middle(images)
    resized = [resize_shorter(images, side) for side in views.sides]
    if views.crop is None:
        return [image.unsqueeze(-4) for image in resized]
    return [_squares(image, views.crop, views.corners) for image in resized]


@torch.inference_mode()
def score(
    model: Classifier, prepare: Callable[[Tensor], Tensor], cuts: Sequence[Tensor], views: Views
) -> Tensor:
    """Return the softmax scores of n pictures, averaged over their views: float32 (n, K).

    Args:
        model: in evaluation mode, on the device of the cuts.
        prepare: from uint8 (n, C, H, W) to the network's input.
        cuts: of ``cut``, for each of ``views.sides`` a uint8 (n, v, C, h, w).
    """
    total, count = torch.zeros(()), 0
    for squares in cuts:
        for mirrored in (False, True) if views.mirrors else (False,):
            x = squares.flip(-1) if mirrored else squares
            probabilities = _softmax(model, prepare, x.flatten(0, 1), whole=views.crop is None)
            total = total + probabilities.unflatten(0, squares.shape[:2]).sum(dim=1).cpu()
            count += squares.shape[1]
    return total / count


def probabilities(
    model: Classifier, prepare: Callable[[Tensor], Tensor], images: Tensor, views: Views
) -> Tensor:
    """Return the softmax scores of pictures of one shape, averaged over their views.

    Shapes: uint8 (n, C, H, W) to float32 (n, K).
    """
    return score(model, prepare, cut(images, views), views)


def _softmax(model: Classifier, prepare: Callable[[Tensor], Tensor], images: Tensor, whole: bool) -> Tensor:
    """Return the softmax scores (n, K) of uint8 (n, C, h, w), some pictures at a time."""
    at_once = max(1, PIXELS // (images.shape[-2] * images.shape[-1]))
    dtype = next(model.parameters()).dtype
    parts = []
    for part in images.split(at_once):
        x = prepare(part).to(dtype)
        scores = model.score_map(x).mean(dim=(2, 3)) if whole else model(x)
        parts.append(scores.float().softmax(dim=1))
    return torch.cat(parts)


def _squares(images: Tensor, side: int, corners: bool) -> Tensor:
    """Cut the centre, (..., 1, C, side, side), or the corners and the centre, (..., 5, C, side, side)."""
    bottom, right = images.shape[-2] - side, images.shape[-1] - side
    # Half pixels go to the even side, as in torchvision's crops.
    places = [(round(bottom / 2), round(right / 2))]
    if corners:
        places = [(0, 0), (0, right), (bottom, 0), (bottom, right), *places]
    return torch.stack([images[..., y : y + side, x : x + side] for y, x in places], dim=-4)


def _middle(images: Tensor) -> Tensor:
    """Return the middle of pictures that are very long or very tall, others as they are."""
    height, width = images.shape[-2:]
    keep = LONGEST * min(height, width)
    y, x = max(0, height - keep) // 2, max(0, width - keep) // 2
    return images[..., y : y + keep, x : x + keep]
