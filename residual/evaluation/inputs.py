"""The size and the channels of the images that a network was trained on."""

import torch
from torch import Tensor

from ..errors import InputError
from ..models.classifier import Classifier
from ..models.weights import Weights
from .views import side_for


def usual_size(weights: Weights) -> tuple[int, int]:
    """Return the side of a network's input, and the shorter side of the images that it is cut from.

    Published weights say both. Else the side is that of the recipe for images in folders, or of the mean
    image where there is one, or 224, or 32 for the networks of Section 4.2. Those are trained on whole
    images, so theirs is the shorter side too; crops of 224 are cut from 256.
    """
    if view := weights.config.get("view"):
        return view["crop"], view["side"]
    folder = ((weights.config.get("recipe") or {}).get("data") or {}).get("folder")
    if folder:
        return folder["size"], side_for(folder["size"])
    small = weights.model.small_images
    crop = 32 if small else 224
    if weights.preprocessing.per_pixel:
        crop = min(weights.preprocessing.mean.shape[1:])
    return view_of(crop, small)


def view_of(size: int, small: bool) -> tuple[int, int]:
    """Return the side of a network's input, and the shorter side of the images that it is cut from."""
    return size, size if small else side_for(size)


def with_channels(image: Tensor, channels: int) -> Tensor:
    """Return uint8 (..., 3, H, W) as a network of 1 (luma) or 3 channels takes it.

    Raises:
        InputError: for other numbers of channels, which images in files have not.
    """
    if channels == 3:
        return image
    if channels == 1:
        # As Pillow does it, exactly: grey stays grey.
        red, green, blue = image.to(torch.int32).unbind(-3)
        luma = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
        return luma.to(torch.uint8).unsqueeze(-3)
    raise InputError(f"the network takes {channels} channels; images have 3, or 1 when they are made grey")


@torch.inference_mode()
def check_input(model: Classifier, name: str, shape: tuple[int, ...]) -> None:
    """Raise an InputError when a network's last map would be empty: VGG halves images five times.

    Args:
        model: on the CPU; it is left in its mode.
        name: of it, for the message.
        shape: of the images, (C, H, W).
    """
    training = model.training
    try:
        model.eval()(torch.zeros(1, *shape))
    except RuntimeError:
        size = " x ".join(map(str, shape[1:]))
        raise InputError(f"{name} cannot take images of {size} pixels; they are too small for it") from None
    model.train(training)
