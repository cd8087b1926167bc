"""Where a network looks, drawn over the image."""

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import interpolate

from ..data.images import pil_image
from .fonts import image_font
from .sheet import short_lines

#: Colours from the least score of a class in an image to the highest, and how much of them is seen there.
COLOURS, LEAST, MOST = "inferno", 0.3, 0.6
#: Pixels: a smaller image is drawn this large, its pixels visible.
SIDE = 256
#: Pixels: the space between things, the height of the strip below, of its letters, and its bar's size.
SPACE, STRIP, LETTERS, BAR = 8, 30, 14, (72, 12)


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
    return _coloured(np.asarray(below) / 255, part)


def draw_beside(image: Tensor, scores: Tensor, text: str) -> Image.Image:
    """Return an image, beside it ``draw_heat``, and below them a text and which score each colour stands for.

    Args:
        image, scores: as of ``draw_heat``.
        text: what the scores are of; cut where it is longer than the image is wide.
    """
    drawn = draw_heat(image, scores)
    seen = pil_image(image).convert("RGB").resize(drawn.size, Image.Resampling.NEAREST)
    sheet = Image.new("RGB", (2 * drawn.width + SPACE, drawn.height + STRIP), "white")
    sheet.paste(seen, (0, 0))
    sheet.paste(drawn, (drawn.width + SPACE, 0))

    draw = ImageDraw.Draw(sheet)
    middle, right = drawn.height + STRIP // 2, sheet.width - SPACE
    font = image_font(text, LETTERS)
    letters = len(text)
    while draw.textlength(line := short_lines(text, 1, letters)[0], font) > drawn.width - 2 * SPACE:
        letters -= 1
    draw.text((SPACE, middle), line, fill="black", font=font, anchor="lm")
    font = image_font("", LETTERS)
    least, most = (f"{float(score):.3g}" for score in (scores.min(), scores.max()))
    draw.text((right, middle), most, fill="black", font=font, anchor="rm")
    bar = _bar()
    x = round(right - draw.textlength(most, font) - SPACE - bar.width)
    sheet.paste(bar, (x, middle - bar.height // 2))
    draw.text((x - SPACE, middle), f"score {least}", fill="black", font=font, anchor="rm")
    return sheet


def _bar() -> Image.Image:
    """Return the colours from the least score to the highest, as they look over grey."""
    part = np.linspace(0, 1, BAR[0])[None].repeat(BAR[1], 0)
    return _coloured(np.full((*part.shape, 3), 0.5), part)


def _coloured(below: np.ndarray, part: np.ndarray) -> Image.Image:
    """Return what scores look like over an image, both 0 to 1."""
    colours = mpl.colormaps[COLOURS](part)[..., :3]
    opacity = (LEAST + (MOST - LEAST) * part)[..., None]
    mixed = (1 - opacity) * below + opacity * colours
    return Image.fromarray((255 * mixed).round().astype(np.uint8))
