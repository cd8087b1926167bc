"""The size and the channels of the pictures that a network was trained on."""

from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

from ..errors import InputError
from ..models.cifar import CifarNetwork
from ..models.weights import Weights


def usual_size(weights: Weights) -> tuple[int, int]:
    """Return the side of a network's input, and the shorter side of the pictures that it is cut from.

    The side is that of the recipe for pictures in folders, else of the mean picture where there is one, else
    224, or 32 for the networks of Section 4.2. Those are trained on whole pictures, so theirs is the shorter
    side too; crops of 224 are cut from 256.
    """
    folder = ((weights.config.get("recipe") or {}).get("data") or {}).get("folder")
    if folder:
        return folder["size"], round(folder["size"] * 256 / 224)
    small = isinstance(weights.model, CifarNetwork)
    crop = 32 if small else 224
    if weights.preprocessing.per_pixel:
        crop = min(weights.preprocessing.mean.shape[1:])
    return crop, crop if small else round(crop * 256 / 224)


def with_channels(image: Tensor, channels: int) -> Tensor:
    """Return uint8 (..., 3, H, W) as a network of 1 (luma) or 3 channels takes it.

    Raises:
        InputError: for other numbers of channels, which pictures in files have not.
    """
    if channels == 3:
        return image
    if channels == 1:
        return rgb_to_grayscale(image)
    raise InputError(f"the network takes {channels} channels; pictures have 3, or 1 when they are made grey")
