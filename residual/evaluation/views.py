"""Which views of an image a network is shown in testing, and how their scores become one (Section 3.4).

===========  ===================================================================================
center       the centre square of 224 pixels of the image whose shorter side is 256
ten-crop     the four corners, the centre and their flips: softmax scores are averaged
multi-scale  the whole image and its flip at five shorter sides, fully convolutionally
===========  ===================================================================================

Fully convolutionally, as in [40]: the scores (before softmax) of all positions of the last map are averaged,
and then the softmax of each scale and flip. Where the map is 1 x 1 this is the one-crop result. In a
residual network it is so at every size, since a mean and a linear layer can change places: its ``forward`` is
the average of its score map. For VGG the two differ on maps larger than 7 x 7, where its layers of 7 x 7
positions move over the map.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..data.images import centre, decoded_side, middle, resize_shorter, square
from ..device import full_float32
from ..errors import InputError, nearest
from ..models import Classifier

ViewsName = Literal["center", "ten-crop", "multi-scale"]

#: Shorter sides of multi-scale testing.
SCALES = (224, 256, 384, 480, 640)

#: Pixels in one forward pass; the result does not depend on it.
PIXELS = 64 * 224 * 224


@dataclass(frozen=True)
class Views:
    """What is looked at.

    Attributes:
        name: of the protocol.
        sides: the shorter sides that images are resized to.
        crop: the side of the squares that are cut out; None for the whole image.
        corners: cut the four corners as well as the centre.
        flips: look at the flip of each view too.
    """

    name: ViewsName
    sides: tuple[int, ...]
    crop: int | None = None
    corners: bool = False
    flips: bool = False

    def __post_init__(self) -> None:
        if self.name not in (known := get_args(ViewsName)):
            raise InputError(f"there are no views {self.name!r}{nearest(self.name, known)}")
        if not self.sides or min(self.sides) < 1 or (self.crop is not None and self.crop < 1):
            raise InputError("scales and crops are whole numbers of pixels, of at least 1")
        if self.crop is not None and self.crop > min(self.sides):
            raise InputError(
                f"a crop of {self.crop} does not fit into images whose shorter side is {min(self.sides)}; "
                "give a smaller crop or a larger scale"
            )

    @property
    def decoded_side(self) -> int:
        """The shorter side below which an image's decoder does not halve it."""
        return decoded_side(max(self.sides))

    @property
    def pixels(self) -> int:
        """The number of pixels of all views of an image that is square, without the flips."""
        squares = 5 if self.corners else 1
        return squares * sum((self.crop or side) ** 2 for side in self.sides)

    def __str__(self) -> str:
        sides = ",".join(map(str, self.sides))
        return f"{self.name} ({f'{self.crop} of ' if self.crop else ''}shorter side {sides})"


def side_for(crop: int) -> int:
    """Return the shorter side that centre crops are cut from, to ``crop`` as 256 is to 224 (Section 3.4)."""
    return round(crop * 256 / 224)


def make_views(
    name: ViewsName, crop: int = 224, side: int = 256, sides: Sequence[int] | None = None
) -> Views:
    """Return the views of a protocol.

    Args:
        crop: side of the squares, which multi-scale testing does not use.
        side: the shorter side that they are cut from.
        sides: other shorter sides than ``side``, or than ``SCALES`` for multi-scale testing.

    Raises:
        InputError: for a protocol that there is not, and a crop that does not fit.
    """
    if name == "multi-scale":
        return Views(name, tuple(sides or SCALES), flips=True)
    ten = name == "ten-crop"
    return Views(name, tuple(sides or (side,)), crop, corners=ten, flips=ten)


def whole_images(shape: tuple[int, int, int]) -> Views:
    """Return the one view of small images of (C, H, W): all of them, at their own size (Section 4.2)."""
    side = min(shape[1:])
    return make_views("center", side, side)


def crop_views(images: Tensor, views: Views) -> list[Tensor]:
    """Return the views of images, without the flips.

    Args:
        images: uint8 (..., C, H, W).

    Returns:
        For each of ``views.sides`` a uint8 (..., v, C, h, w): v is 1, or 5 with the corners. Cut from
        images of different shapes they have one shape, unless whole images are looked at.
    """
    images = middle(images)
    resized = [resize_shorter(images, side) for side in views.sides]
    if views.crop is None:
        return [image.unsqueeze(-4) for image in resized]
    return [_squares(image, views.crop, views.corners) for image in resized]


@torch.inference_mode()
def score(
    model: Classifier, prepare: Callable[[Tensor], Tensor], crops: Sequence[Tensor], views: Views
) -> Tensor:
    """Return the softmax scores of n images, averaged over their views: float32 (n, K).

    Args:
        model: in evaluation mode, on the device of the crops.
        prepare: from uint8 (n, C, H, W) to the network's input.
        crops: of ``crop_views``, for each of ``views.sides`` a uint8 (n, v, C, h, w).
    """
    total, count = torch.zeros((), device=crops[0].device), 0
    with full_float32(total.device):
        for squares in crops:
            for flipped in (False, True) if views.flips else (False,):
                x = squares.flip(-1) if flipped else squares
                probabilities = _softmax(model, prepare, x.flatten(0, 1), whole=views.crop is None)
                total = total + probabilities.unflatten(0, squares.shape[:2]).sum(dim=1)
                count += squares.shape[1]
    return total / count


def _softmax(model: Classifier, prepare: Callable[[Tensor], Tensor], images: Tensor, whole: bool) -> Tensor:
    """Return the softmax scores (n, K) of uint8 (n, C, h, w), some images at a time."""
    at_once = max(1, PIXELS // (images.shape[-2] * images.shape[-1]))
    dtype = next(model.parameters()).dtype
    parts = []
    for part in images.split(at_once):
        x = prepare(part).to(dtype)
        scores = model.score_map(x).mean(dim=(2, 3)) if whole else model(x)
        parts.append(scores.float().softmax(dim=1))
    return torch.cat(parts)


def _squares(images: Tensor, size: int, corners: bool) -> Tensor:
    """Cut the centre, (..., 1, C, size, size), or the corners and the centre, (..., 5, C, size, size)."""
    places = [centre(images, size)]
    if corners:
        bottom, right = images.shape[-2] - size, images.shape[-1] - size
        places = [(0, 0), (0, right), (bottom, 0), (bottom, right), *places]
    return torch.stack([square(images, size, *place) for place in places], dim=-4)
