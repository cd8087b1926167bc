"""The size and the channels of the images that a network was trained on."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from ..data import SIDES
from ..errors import InputError, whole_number
from ..files import first_line
from ..models.classifier import Classifier
from ..models.own import OwnNetwork
from ..models.weights import Weights
from .views import SCALES, Views, ViewsName, make_views, side_for


def usual_size(weights: Weights) -> tuple[int, int]:
    """Return the side of a network's input, and the shorter side of the images that it is cut from.

    Published weights say both. Else the side is that of the recipe: its crops' for images in folders, the
    images' own for a dataset in memory, which is looked at whole. Where there is no recipe it is that of the
    mean image, if there is one, or 224, or 32 for the networks of Section 4.2. Those are trained on whole
    images, so theirs is the shorter side too; crops of 224 are cut from 256.
    """
    if view := weights.config.get("view"):
        return view["crop"], view["side"]
    data = (weights.config.get("recipe") or {}).get("data") or {}
    if folder := data.get("folder"):
        return folder["size"], side_for(folder["size"])
    if side := SIDES.get(str(data.get("dataset"))):
        return side, side
    small = weights.model.small_images
    crop = 32 if small else 224
    if weights.preprocessing.per_pixel:
        crop = min(weights.preprocessing.mean.shape[1:])
    return view_of(crop, small)


def view_of(size: int, small: bool) -> tuple[int, int]:
    """Return the side of a network's input, and the shorter side of the images that it is cut from."""
    return size, size if small else side_for(size)


def check_view(name: str | None, size: int | None, crop: int | None, scales: Sequence[int] | None) -> None:
    """Raise an InputError where what ``views_for`` is asked for says one thing twice, or is no number."""
    for what, side in (("size", size), ("crop", crop)):
        if side is not None:
            whole_number(what, side)
    if size and scales and (crop or name == "multi-scale"):
        raise InputError(
            "size says which crop and scales are looked at, and these are named as well; leave it out"
        )


def views_for(
    weights: Weights,
    name: ViewsName | None = None,
    size: int | None = None,
    crop: int | None = None,
    scales: Sequence[int] | None = None,
) -> Views:
    """Return what of images in files is looked at, by default at the size that the network was trained on.

    Args:
        name: of the protocol, "center" by default.
        size: side of the network's input, for which crop and scales are chosen.
        crop: side of the squares, if it is another.
        scales: shorter sides, if they are not the protocol's.

    Raises:
        InputError: for a protocol that there is not, and sides that do not fit it.
    """
    check_view(name, size, crop, scales)
    usual, side = usual_size(weights)
    if size:
        # As large a part of the image as it was trained on.
        usual, side = size, round(side * size / usual)
    if name == "multi-scale":
        if crop:
            raise InputError("multi-scale testing looks at whole images; leave the crop out")
        return make_views(name, sides=scales or tuple(round(scale * usual / 224) for scale in SCALES))
    return make_views(name or "center", crop or usual, side, scales)


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
def check_input(model: Classifier, name: str, shape: tuple[int, ...], *, whole: bool = False) -> None:
    """Raise an InputError when a network cannot take images: VGG halves them five times.

    Args:
        model: on the CPU, or of shapes alone (the meta device); it is left in its mode.
        name: of it, for the message.
        shape: of the smallest images, (C, H, W).
        whole: whether it is to give scores at every position.
    """
    if isinstance(model, OwnNetwork):
        # What it makes in its first pass and keeps is to be of its own device, and to take part in learning.
        model = copy.deepcopy(model)
    training = model.training
    device = next((p.device for p in model.parameters()), None)
    look = model.score_map if whole else model
    model.eval()
    try:
        look(torch.zeros(1, *shape, device=device))
    except InputError:
        raise
    # What a user's own network may raise is anything.
    except Exception as error:
        own = isinstance(model, OwnNetwork)
        if not own and not isinstance(error, RuntimeError):
            raise
        size = " x ".join(map(str, shape[1:]))
        reason = f" ({type(error).__name__}: {first_line(error)})" if own else "; they are too small for it"
        raise InputError(f"{name} cannot take images of {size} pixels{reason}") from (error if own else None)
    finally:
        model.train(training)
