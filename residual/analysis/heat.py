"""Where a network looks, drawn over the image."""

import matplotlib as mpl
import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ..data.images import pil_image

#: Colours from the least score of a class in an image to the highest, and how much of them is seen there.
COLOURS, LEAST, MOST = "inferno", 0.3, 0.6
#: Pixels: a smaller image is drawn this large, its pixels visible.
SIDE = 256


def draw_heat(image: Tensor, scores: Tensor) -> Image.Image:
    """Return an image with a class's scores over it, dark where they are lowest, bright where highest.

    Args:
        image: uint8 (1 or 3, H, W).
        scores: float32 (h, w), at positions that cover the image evenly.
    """
    below = pil_image(image).convert("RGB")
    times = -(-SIDE // min(below.size))
    below = below.resize((below.width * times, below.height * times), Image.Resampling.NEAREST)
    size = (below.height, below.width)
    fine = interpolate(scores[None, None], size, mode="bicubic", align_corners=False)[0, 0]
    low, high = float(scores.min()), float(scores.max())
    # Of scores that are all alike the interpolated ones differ in their rounding alone.
    part = ((fine - low) / (high - low) if high > low else 0 * fine).clamp(0, 1).numpy()
    colours = mpl.colormaps[COLOURS](part)[..., :3]
    opacity = (LEAST + (MOST - LEAST) * part)[..., None]
    mixed = (1 - opacity) * np.asarray(below) / 255 + opacity * colours
    return Image.fromarray((255 * mixed).round().astype(np.uint8))


def beside(images: list[Image.Image], space: int = 8) -> Image.Image:
    """Return images of one height side by side on white."""
    width = sum(image.width for image in images) + space * (len(images) - 1)
    sheet = Image.new("RGB", (width, images[0].height), "white")
    x = 0
    for image in images:
        sheet.paste(image, (x, 0))
        x += image.width + space
    return sheet
